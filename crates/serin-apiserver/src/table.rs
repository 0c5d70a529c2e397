//! `meta.k8s.io/v1 Table`: what `kubectl get` prints; and `PartialObjectMetadata`, which is less.

use serde_json::{Value, json};

use crate::bad_request::BadRequest;
use crate::builtin::EVENTS;
use crate::event_view;
use crate::jsonpath::JsonPath;
use crate::request::{Form, IncludeObject, Output, Params};
use crate::resource::{Column, Served};
use crate::status::{ApiError, FieldError};
use crate::types;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const EVENT: &str = "io.k8s.api.core.v1.Event";

/// Refuses options of tables that are not right.
///
/// # Errors
/// [`BadRequest::TableOptions`].
pub(crate) fn check_options(params: &Params, output: Output) -> Result<(), BadRequest> {
    match (&params.include_object_refused, output) {
        (Some(value), Output::Table(_)) => {
            let why = "must be 'Metadata', 'Object', 'None', or empty";
            Err(BadRequest::TableOptions(FieldError::invalid("includeObject", value.as_str(), why)))
        }
        _ => Ok(()),
    }
}

/// A table of stored objects. `metadata` is that of the list or of the one object.
pub(crate) fn table<'a>(
    served: &Served,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    form: Form,
    with_columns: bool,
) -> Value {
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects.into_iter().map(|object| row(served, object, include, form, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": form.api_version(),
        "metadata": metadata,
        "columnDefinitions": with_columns.then(|| columns(served)),
        "rows": rows,
    })
}

fn columns(served: &Served) -> Vec<Value> {
    let name = |priority| {
        let description = description(METADATA, "/name");
        json!({"name": "Name", "type": "string", "format": "name", "description": description, "priority": priority})
    };
    if is_event(served) {
        // Events are told apart by what they say; the name comes last, for those who ask for more.
        let others = event_view::COLUMNS.iter().map(|(name, pointer, priority)| {
            let description = description(EVENT, pointer);
            json!({"name": name, "type": "string", "format": "", "description": description, "priority": priority})
        });
        return others.chain([name(1)]).collect();
    }
    if let Some(printer) = served.hooks.printer {
        let others = printer.columns.iter().map(|(name, ty, priority, description)| {
            json!({"name": name, "type": ty, "format": "", "description": description, "priority": priority})
        });
        return [name(0)].into_iter().chain(others).collect();
    }
    let others = served.columns.iter().map(|column| {
        // Those of built-in kinds are text for people, whatever they hold.
        let ty = match column.ty.as_str() {
            "timestamp" => "date",
            ty if served.is_custom() => ty,
            _ => "string",
        };
        json!({
            "name": column.name, "type": ty, "format": column.format, "description": column.description,
            "priority": column.priority,
        })
    });
    [name(0)].into_iter().chain(others).collect()
}

/// What a column of a built-in kind says of itself: mostly what Kubernetes says of the field.
pub(crate) fn describe(ty: &str, column: &str, path: &JsonPath) -> String {
    if column == "Status" && ty == "io.k8s.api.core.v1.Namespace" {
        return "The status of the namespace".to_owned();
    }
    path.to_pointer().map_or_else(String::new, |pointer| description(ty, &pointer).to_owned())
}

/// What Kubernetes says of a field of a type; empty if it says nothing.
fn description(ty: &str, pointer: &str) -> &'static str {
    let mut schema = types::openapi(ty).unwrap_or(&Value::Null);
    for name in pointer.split('/').skip(1) {
        let target = schema.pointer("/allOf/0/$ref").or_else(|| schema.get("$ref")).and_then(Value::as_str);
        if let Some(target) = target.and_then(|target| target.rsplit('/').next()) {
            schema = types::openapi(target).unwrap_or(&Value::Null);
        }
        schema = &schema["properties"][name];
    }
    schema["description"].as_str().unwrap_or_default()
}

fn is_event(served: &Served) -> bool {
    &*served.collection == EVENTS
}

fn row(served: &Served, object: &Value, include: IncludeObject, form: Form, now: jiff::Timestamp) -> Value {
    let name = Value::from(object["metadata"]["name"].as_str().unwrap_or_default());
    let cells: Vec<Value> = if is_event(served) {
        event_view::cells(object, |time| age(time, now).into()).into_iter().chain([name]).collect()
    } else if let Some(printer) = served.hooks.printer {
        [name].into_iter().chain((printer.cells)(object, &|time| age(time, now))).collect()
    } else {
        [name].into_iter().chain(served.columns.iter().map(|column| cell(served, column, object, now))).collect()
    };
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial(object, form),
        IncludeObject::Object => {
            let mut shown = object.clone();
            served.make_shown(&mut shown);
            shown
        }
    };
    json!({"cells": cells, "object": object})
}

/// An object's metadata alone, `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value, form: Form) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": form.api_version(), "metadata": object["metadata"]})
}

/// One object was asked for as a list of metadata.
pub(crate) fn not_a_list(served: &Served) -> ApiError {
    match go_type(served) {
        Some(ty) => ApiError::OtherForm { form: "PartialObjectMetadataList", got: "not a list", ty },
        None => ApiError::NotAList,
    }
}

/// A list was asked for as the metadata of one object.
pub(crate) fn is_a_list(served: &Served) -> ApiError {
    let ty = go_type(served).map_or_else(|| "*unstructured.UnstructuredList".to_owned(), |ty| format!("{ty}List"));
    ApiError::OtherForm { form: "PartialObjectMetadata", got: "a list", ty }
}

/// What Kubernetes' source calls a built-in kind: events are core ones, whichever way they came in.
fn go_type(served: &Served) -> Option<String> {
    let group = served.collection.split_once('/').map_or("core", |(group, _)| group);
    let package = group.split('.').next().unwrap_or(group);
    (!served.is_custom()).then(|| format!("*{package}.{}", served.names.kind))
}

fn cell(served: &Served, column: &Column, object: &Value, now: jiff::Timestamp) -> Value {
    if column.ty == "entries" {
        let entries = [&object["data"], &object["binaryData"]].into_iter().filter_map(Value::as_object);
        return entries.map(|entries| entries.len()).sum::<usize>().into();
    }
    let found = column.path.find(object);
    let Some(value) = found.first() else {
        return match column.ty.as_str() {
            _ if served.is_custom() => Value::Null,
            "date" => age(&Value::Null, now).into(),
            _ => "".into(),
        };
    };
    match column.ty.as_str() {
        "integer" => {
            value.as_i64().or_else(|| value.as_f64().map(|value| value as i64)).map_or(Value::Null, Value::from)
        }
        // Whole numbers are sent without a fraction, as Go writes them.
        "number" => match value.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => (number as i64).into(),
            Some(number) => number.into(),
            None => Value::Null,
        },
        "boolean" => value.as_bool().map_or(Value::Null, Value::from),
        "date" if value.is_string() => age(value, now).into(),
        "date" => Value::Null,
        // A string column prints whatever it finds.
        _ => match value {
            Value::String(text) => text.as_str().into(),
            Value::Null => Value::Null,
            other => other.to_string().into(),
        },
    }
}

/// How long ago a time was, as people read it.
fn age(time: &Value, now: jiff::Timestamp) -> String {
    let Some(time) = time.as_str() else { return "<unknown>".into() };
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => "<invalid>".into(),
    }
}

/// A duration in at most two units, the smaller one only while it still matters.
/// Source: Kubernetes `k8s.io/apimachinery/pkg/util/duration`.
fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(hours / 24, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        let (m, h, d, y) = (60, 3600, 86_400, 86_400 * 365);
        let rows = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (2 * m + 5, "2m5s"),
            (10 * m + 5, "10m"),
            (179 * m, "179m"),
            (3 * h + 4 * m, "3h4m"),
            (8 * h + 4 * m, "8h"),
            (47 * h, "47h"),
            (2 * d + 3 * h, "2d3h"),
            (9 * d, "9d"),
            (2 * y + 3 * d, "2y3d"),
            (9 * y, "9y"),
        ];
        for (seconds, want) in rows {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }
}
