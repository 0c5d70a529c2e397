//! Answers: an object or a list in the format that was asked for.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::read::List;
use crate::request::{Form, IncludeObject, Output};
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
        Output::PartialMetadata(form) => meta(code, &table::partial(&object.value, form), form),
        Output::PartialMetadataList(_) => table::not_a_list(served).into_response(),
        Output::Table(form) => {
            let metadata = json!({"resourceVersion": object.revision.to_string()});
            meta(code, &table::table(served, [&object.value], metadata, include, form, true), form)
        }
    }
}

/// A value that is not stored: a scale, a dry run's result, a status.
pub(crate) fn value(value: &Value, output: Output, code: StatusCode) -> Response {
    match output {
        Output::Yaml => yaml(code, value),
        Output::PartialMetadata(form) => meta(code, &table::partial(value, form), form),
        Output::Json | Output::Table(_) | Output::PartialMetadataList(_) => json_response(code, value.to_string()),
    }
}

/// An answer of `meta.k8s.io`.
fn meta(code: StatusCode, value: &Value, form: Form) -> Response {
    if form.is_yaml { yaml(code, value) } else { json_response(code, value.to_string()) }
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
        Output::PartialMetadata(_) => table::is_a_list(served).into_response(),
        Output::PartialMetadataList(form) => {
            let items: Vec<Value> = objects.map(|object| table::partial(&object.value, form)).collect();
            let kind = "PartialObjectMetadataList";
            let list = json!({"kind": kind, "apiVersion": form.api_version(), "metadata": metadata, "items": items});
            meta(StatusCode::OK, &list, form)
        }
        Output::Table(form) => {
            let values = objects.map(|object| &object.value);
            meta(StatusCode::OK, &table::table(served, values, metadata, include, form, true), form)
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
        Err(error) => ApiError::Unwritable { cause: error.to_string() }.into_response(),
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
