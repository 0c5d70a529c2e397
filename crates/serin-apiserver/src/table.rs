//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

use serde_json::{Value, json};

use crate::builtin::EVENTS;
use crate::request::IncludeObject;
use crate::resource::{Column, Served};
use crate::store::Object;

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although \
    some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily \
    intended for creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// A table of objects. `metadata` is that of the list or of the one object.
pub(crate) fn table<'a>(
    served: &Served,
    objects: impl IntoIterator<Item = &'a Object>,
    metadata: Value,
    include: IncludeObject,
    with_columns: bool,
) -> Value {
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects.into_iter().map(|object| row(served, object, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": if with_columns { columns(served) } else { Vec::new() },
        "rows": rows,
    })
}

fn columns(served: &Served) -> Vec<Value> {
    // Events are told apart by what they say; the name comes last, for those who ask for more.
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "description": NAME_DESCRIPTION,
        "priority": i32::from(is_event(served)),
    });
    let others = served.columns.iter().map(|column| {
        // Dates are sent as durations, for people.
        let ty = if column.ty == "date" && !served.is_custom() { "string" } else { &column.ty };
        json!({
            "name": column.name, "type": ty, "format": column.format, "description": column.description,
            "priority": column.priority,
        })
    });
    if is_event(served) {
        others.chain([name.clone()]).collect()
    } else {
        [name.clone()].into_iter().chain(others).collect()
    }
}

fn is_event(served: &Served) -> bool {
    &*served.collection == EVENTS
}

fn row(served: &Served, object: &Object, include: IncludeObject, now: jiff::Timestamp) -> Value {
    let name = Value::from(object.key.name());
    let others = served.columns.iter().map(|column| cell(served, column, &object.value, now));
    let cells: Vec<Value> =
        if is_event(served) { others.chain([name]).collect() } else { [name].into_iter().chain(others).collect() };
    let mut row = json!({"cells": cells});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial(&object.value),
        IncludeObject::Object => row["object"] = served.show(object),
    }
    row
}

/// An object's metadata alone, `meta.k8s.io/v1 PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn cell(served: &Served, column: &Column, object: &Value, now: jiff::Timestamp) -> Value {
    if is_event(served) && column.name == "Object" {
        let about = &object["involvedObject"];
        let kind = about["kind"].as_str().unwrap_or("").to_lowercase();
        return format!("{kind}/{}", about["name"].as_str().unwrap_or("")).into();
    }
    if is_event(served) && column.name == "Last Seen" {
        let seen = [&object["series"]["lastObservedTime"], &object["lastTimestamp"], &object["eventTime"]];
        let seen = seen.into_iter().find_map(Value::as_str);
        return seen.map_or_else(|| "<unknown>".into(), |seen| age(seen, now).into());
    }
    let found = column.path.find(object);
    let Some(value) = found.first() else { return Value::Null };
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
        "date" => value.as_str().map_or(Value::Null, |text| age(text, now).into()),
        // A string column prints whatever it finds.
        _ => match value {
            Value::String(text) => text.as_str().into(),
            Value::Null => Value::Null,
            other => other.to_string().into(),
        },
    }
}

/// How long ago a time was, as people read it.
fn age(time: &str, now: jiff::Timestamp) -> String {
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
