//! Any object as indented fields, as kubectl describes kinds that it does not know.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::console::clean;
use crate::discovery::Resource;
use crate::output::text;

/// Metadata that nobody reads.
const BOOKKEEPING: [&str; 3] = ["managedFields", "resourceVersion", "uid"];
/// Annotations that hold a whole manifest.
const LONG_ANNOTATIONS: [&str; 2] = crate::apply::LAST_APPLIED_KEYS;
/// Deepest nesting that is printed.
const DEPTH_MAX: usize = 40;

/// Prints an object.
pub fn print(resource: &Resource, object: &Value, out: &mut dyn Write) -> io::Result<()> {
    let metadata = &object["metadata"];
    writeln!(out, "{:<14} {}", "Name:", clean(text(object, "/metadata/name")))?;
    if resource.namespaced {
        writeln!(out, "{:<14} {}", "Namespace:", clean(text(object, "/metadata/namespace")))?;
    }
    writeln!(out, "{:<14} {}, {}", "Kind:", resource.kind, resource.api_version())?;
    pairs("Labels:", &metadata["labels"], out)?;
    pairs("Annotations:", &metadata["annotations"], out)?;
    let empty = Map::new();
    for (key, value) in object.as_object().unwrap_or(&empty) {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let rest = metadata.as_object().unwrap_or(&empty).iter().filter(|(key, _)| {
                    let shown = ["name", "namespace", "labels", "annotations"];
                    !shown.contains(&key.as_str()) && !BOOKKEEPING.contains(&key.as_str())
                });
                let rest: Map<String, Value> = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
                field("metadata", &Value::Object(rest), 0, out)?;
            }
            key => field(key, value, 0, out)?,
        }
    }
    Ok(())
}

/// Prints `label: key=value` pairs, one a line.
pub fn pairs(label: &str, map: &Value, out: &mut dyn Write) -> io::Result<()> {
    let empty = Map::new();
    let mut label = label;
    for (key, value) in map.as_object().unwrap_or(&empty) {
        if !LONG_ANNOTATIONS.contains(&key.as_str()) {
            writeln!(out, "{label:<14} {}={}", clean(key), clean(value.as_str().unwrap_or_default()))?;
            label = "";
        }
    }
    if !label.is_empty() {
        writeln!(out, "{label:<14} -")?;
    }
    Ok(())
}

fn field(key: &str, value: &Value, depth: usize, out: &mut dyn Write) -> io::Result<()> {
    let pad = "  ".repeat(depth);
    let label = format!("{}:", title(key));
    match value {
        Value::Null => Ok(()),
        Value::Object(map) if map.is_empty() => Ok(()),
        Value::Array(items) if items.is_empty() => Ok(()),
        Value::Object(_) | Value::Array(_) if depth >= DEPTH_MAX => writeln!(out, "{pad}{label} ..."),
        Value::Object(map) => {
            writeln!(out, "{pad}{label}")?;
            map.iter().try_for_each(|(key, value)| field(key, value, depth + 1, out))
        }
        Value::Array(items) => {
            writeln!(out, "{pad}{label}")?;
            for item in items {
                match item {
                    Value::Object(map) => {
                        writeln!(out, "{pad}  -")?;
                        map.iter().try_for_each(|(key, value)| field(key, value, depth + 2, out))?;
                    }
                    other => writeln!(out, "{pad}  - {}", scalar(other))?,
                }
            }
            Ok(())
        }
        other => writeln!(out, "{pad}{label:<14} {}", scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

/// `storageUri` as `Storage Uri`.
fn title(key: &str) -> String {
    let mut text = String::new();
    for (index, c) in clean(key).chars().enumerate() {
        if index == 0 {
            text.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && !text.ends_with(char::is_uppercase) {
                text.push(' ');
            }
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_is_there_once_and_bookkeeping_is_not() {
        let object = json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelServer",
            "metadata": {"name": "m", "namespace": "n", "uid": "u", "labels": {"a": "b"}, "generation": 2,
                         "annotations": {"serin.dev/last-applied": "{}"}},
            "spec": {"storageUri": "/x", "list": [1, {"deep": true}], "none": null, "empty": {}}});
        let mut out = Vec::new();
        print(&Resource::server(), &object, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let want = "Name:          m\nNamespace:     n\nKind:          ModelServer, serin.dev/v1alpha1\nLabels:        a=b\n\
                    Annotations:   -\nMetadata:\n  Generation:    2\nSpec:\n  List:\n    - 1\n    -\n      Deep:          true\n  Storage Uri:   /x\n";
        assert_eq!(text, want);
    }
}
