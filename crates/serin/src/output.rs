//! The forms in which objects are printed.

use std::io::Write;

use serde_json::Value;

use crate::error::{Error, Result};

/// `-o` of verbs that print objects as a table otherwise; `wide` has more columns, `name` only KIND/NAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Yaml,
    Wide,
    Name,
}

/// `-o` of verbs that print text otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DataFormat {
    Json,
    Yaml,
}

/// Prints a value as JSON with indentation.
pub fn json(out: &mut dyn Write, value: &Value) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints a value as one YAML document.
pub fn yaml(out: &mut dyn Write, value: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(value).map_err(|error| Error::YamlOut(error.to_string()))?;
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        writeln!(out)?;
    }
    Ok(())
}

/// Prints a value in the given form.
pub fn data(out: &mut dyn Write, value: &Value, format: DataFormat) -> Result<()> {
    match format {
        DataFormat::Json => json(out, value),
        DataFormat::Yaml => yaml(out, value),
    }
}

/// An object as people want to see it: without the bookkeeping of field owners.
pub fn tidy(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Text at `/a/b` of an object; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_that_is_printed_reads_back_as_it_was() {
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "X",
            "spec": {"a": "true", "b": "1", "c": "off", "d": "", "e": null, "f": [], "g": {}, "h": 1.5, "i": -3, "j": "a: b #c",
                     "k": "line 1\nline 2\n", "l": [{"m": [1, 2]}, "~"], "n": "1e3", "o": "2026-01-01T00:00:00Z", "p": "- x", "q": " lead",
                     "y": "yes", "z": "0x1f"}
        });
        let mut out = Vec::new();
        yaml(&mut out, &value).unwrap();
        let text = String::from_utf8(out).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
