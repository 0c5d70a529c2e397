//! How Go writes values: in FieldsV1 keys, in paths, and in error messages.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::value::{Number, number};

/// Exponents of the floats that `%v` writes without one.
const SHORT_EXPONENTS: std::ops::Range<i32> = -4..6;

/// Who writes JSON: the two libraries of Kubernetes differ in small things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// json-iterator, where it writes names in an object: `\u0008` for a backspace, HTML as it is.
    IterNames,
    /// json-iterator, where it writes values: HTML escaped.
    Iter,
    /// `encoding/json`: HTML escaped, `\b` for a backspace, exponents without leading zeros.
    Std,
}

/// Writes a JSON string.
pub(super) fn write_json_string(out: &mut String, text: &str, writer: Writer) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' if writer == Writer::Std => out.push_str("\\b"),
            '\u{c}' if writer == Writer::Std => out.push_str("\\f"),
            '\0'..='\u{1f}' => escape(out, c),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if writer != Writer::IterNames => escape(out, c),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, c: char) {
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

/// Writes a JSON value, keys sorted.
pub(super) fn write_json(out: &mut String, value: &Value, writer: Writer) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(_) => match number(value) {
            Some(Number::Int(int)) => {
                let _ = write!(out, "{int}");
            }
            Some(Number::Float(float)) => write_json_float(out, float, writer),
            None => out.push('0'),
        },
        Value::String(text) => write_json_string(out, text, writer),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(out, item, writer);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, field)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json_string(out, name, writer);
                out.push(':');
                write_json(out, field, writer);
            }
            out.push('}');
        }
    }
}

fn write_json_float(out: &mut String, float: f64, writer: Writer) {
    let size = float.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        let _ = write!(out, "{float}");
    } else if writer == Writer::Std && size < 1.0 {
        let _ = write!(out, "{float:e}");
    } else {
        write_exponent(out, float);
    }
}

/// `1.5e-07`: at least two digits of exponent, always with its sign.
fn write_exponent(out: &mut String, float: f64) {
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
}

/// Writes a float as `%v` does.
fn write_float(out: &mut String, float: f64) {
    let exponent: i32 =
        format!("{float:e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if float != 0.0 && !SHORT_EXPONENTS.contains(&exponent) {
        write_exponent(out, float);
    } else {
        let _ = write!(out, "{float}");
    }
}

fn write_number(out: &mut String, value: &Value) {
    match number(value) {
        Some(Number::Int(int)) => {
            let _ = write!(out, "{int}");
        }
        Some(Number::Float(float)) => write_float(out, float),
        None => {}
    }
}

/// Writes a string as `%q` does.
pub(super) fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            _ if is_printable(c) => out.push(c),
            '\0'..='\u{ffff}' => escape(out, c),
            _ => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
}

/// Whether a character is shown as it is: what Rust does not escape within a string, whose tables are made as Go's are.
pub(super) fn is_printable(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    matches!(c, '\'' | '"') || pair.escape_debug().eq(pair.chars())
}

/// `%q` of one string.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write_quoted(&mut text, self.0);
        f.write_str(&text)
    }
}

/// Writes a value as it stands in a path: `[name="web"]`, `[=80]`.
pub(super) fn write_in_path(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(_) => write_number(out, value),
        Value::String(text) => write_quoted(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_in_path(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                out.push_str(name);
                out.push('=');
                write_in_path(out, field);
            }
        }
    }
}

/// `%v` of a value.
pub(crate) fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_plain(&mut out, value);
    out
}

fn write_plain(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(_) => write_number(out, value),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_plain(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push_str("map[");
            for (index, (name, field)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                write_plain(out, field);
            }
            out.push(']');
        }
    }
}

/// `%#v` of a value.
pub(super) fn syntax(value: &Value) -> String {
    let mut out = String::new();
    write_syntax(&mut out, value);
    out
}

fn write_syntax(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("interface {}(nil)"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(_) => write_number(out, value),
        Value::String(text) => write_quoted(out, text),
        Value::Array(items) => write_syntax_items(out, items),
        Value::Object(fields) => write_syntax_fields(out, fields),
    }
}

fn write_syntax_items(out: &mut String, items: &[Value]) {
    out.push_str("[]interface {}{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_syntax(out, item);
    }
    out.push('}');
}

fn write_syntax_fields(out: &mut String, fields: &Map<String, Value>) {
    out.push_str("map[string]interface {}{");
    for (index, (name, field)) in fields.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_quoted(out, name);
        out.push(':');
        write_syntax(out, field);
    }
    out.push('}');
}

/// `%T` of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => match number(value) {
            Some(Number::Int(_)) => "int64",
            Some(Number::Float(_)) | None => "float64",
        },
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
