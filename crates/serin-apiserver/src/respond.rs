//! Answers: an object or a list in the format that was asked for.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::read::List;
use crate::request::{IncludeObject, Output};
use crate::resource::Served;
use crate::status::{ApiError, json_response};
use crate::store::Object;
use crate::table;

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Warnings in one answer at most, and bytes of each: headers are limited everywhere.
const WARNINGS_MAX: usize = 20;
const WARNING_BYTES_MAX: usize = 1_024;

/// An object.
pub(crate) fn object(
    served: &Served,
    object: &Object,
    output: Output,
    include: IncludeObject,
    code: StatusCode,
) -> Response {
    match output {
        Output::Json => json_response(code, served.show_json(object)),
        Output::Yaml => yaml(code, &served.show(object)),
        Output::PartialMetadata => json_response(code, table::partial(&object.value).to_string()),
        Output::Table => {
            let metadata = json!({"resourceVersion": object.revision.to_string()});
            json_response(code, table::table(served, [object], metadata, include, true).to_string())
        }
    }
}

/// A value that is not stored: a scale, a dry run's result, a status.
pub(crate) fn value(value: &Value, output: Output, code: StatusCode) -> Response {
    match output {
        Output::Yaml => yaml(code, value),
        Output::PartialMetadata => json_response(code, table::partial(value).to_string()),
        Output::Json | Output::Table => json_response(code, value.to_string()),
    }
}

/// A list.
pub(crate) fn list(served: &Served, list: &List, output: Output, include: IncludeObject) -> Response {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if let Some(next) = &list.next {
        metadata["continue"] = next.as_str().into();
    } else if served.is_custom() && matches!(output, Output::Json | Output::Yaml) {
        metadata["continue"] = "".into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let objects = list.objects.iter().map(|object| &**object);
    match output {
        Output::Json => {
            let items = objects.map(|object| served.show_item(object));
            json_response(StatusCode::OK, join(&served.api_version, &served.names.list_kind, &metadata, items))
        }
        Output::PartialMetadata => {
            let items = objects.map(|object| Bytes::from(table::partial(&object.value).to_string()));
            json_response(StatusCode::OK, join("meta.k8s.io/v1", "PartialObjectMetadataList", &metadata, items))
        }
        Output::Table => {
            json_response(StatusCode::OK, table::table(served, objects, metadata, include, true).to_string())
        }
        Output::Yaml => {
            let mut items: Vec<Value> = objects.map(|object| served.show(object)).collect();
            if !served.is_custom() {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| {
                    item.remove("apiVersion");
                    item.remove("kind");
                });
            }
            let list = json!({
                "apiVersion": served.api_version, "kind": served.names.list_kind, "metadata": metadata, "items": items,
            });
            yaml(StatusCode::OK, &list)
        }
    }
}

/// A list from objects that are JSON already.
fn join(api_version: &str, kind: &str, metadata: &Value, items: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let head = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}).to_string();
    let mut json = head.into_bytes();
    json.pop();
    json.extend_from_slice(b",\"items\":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&item);
    }
    json.extend_from_slice(b"]}");
    json
}

/// A refusal, for a client that asked for YAML.
pub(crate) fn refusal_as_yaml(error: &ApiError) -> Response {
    yaml(error.code(), &error.to_status())
}

fn yaml(code: StatusCode, value: &Value) -> Response {
    match serde_saphyr::to_string(value) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = code;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
            response
        }
        Err(error) => {
            use axum::response::IntoResponse as _;
            ApiError::Unwritable { cause: error.to_string() }.into_response()
        }
    }
}

/// Adds warnings to an answer, as kube-apiserver does: `Warning: 299 - "text"`.
pub(crate) fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let mut text = String::new();
        for letter in warning.chars().take(WARNING_BYTES_MAX) {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                letter if letter.is_ascii_graphic() || letter == ' ' => text.push(letter),
                _ => text.push('?'),
            }
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
