//! Go's view of types and values: what its error messages name, and what it asks struct tags for.

use std::fmt;

use serde_json::Value;

use super::{Result, StrategicError};
use crate::types::{TYPES, openapi, reference};

/// A type as Go has it.
#[derive(Clone, Copy)]
pub(super) struct GoType<'a> {
    pub(super) pointer: bool,
    pub(super) form: Form<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// By its name.
    Struct(&'a str),
    /// With the schema of its items.
    List(&'static Value),
    /// By its kind.
    Other(&'static str),
}

/// What a field is, and how it is merged.
pub(super) struct Field {
    pub(super) ty: GoType<'static>,
    pub(super) strategy: Strategy,
    /// Empty if there is none.
    pub(super) merge_key: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Maps are merged, lists replaced.
    Default,
    Merge,
    Replace,
}

impl<'a> GoType<'a> {
    pub(super) fn of(schema: &'static Value, pointer: bool) -> GoType<'static> {
        let form = match (reference(schema), schema["type"].as_str(), schema["format"].as_str()) {
            (Some(name), ..) => Form::Struct(name),
            (None, Some("array"), _) => Form::List(&schema["items"]),
            (None, Some("string"), Some("byte")) => Form::Other("slice"),
            (None, Some("string"), _) => Form::Other("string"),
            (None, Some("integer"), Some("int32")) => Form::Other("int32"),
            (None, Some("integer"), _) => Form::Other("int64"),
            (None, Some("number"), _) => Form::Other("float64"),
            (None, Some("boolean"), _) => Form::Other("bool"),
            (None, ..) => Form::Other("map"),
        };
        GoType { pointer, form }
    }

    /// Go's kind.
    pub(super) fn kind(self) -> &'static str {
        if self.pointer { "ptr" } else { self.form.kind() }
    }

    /// A field by its name, of whichever case.
    pub(super) fn field(self, name: &str) -> Result<Field> {
        let Form::Struct(record) = self.form else {
            return Err(StrategicError::NotAStruct { kind: self.form.kind() });
        };
        let properties = openapi(record).and_then(|schema| schema["properties"].as_object());
        let is_named = |field: &str| field.eq_ignore_ascii_case(&name.replace('\u{17f}', "s").replace('\u{212a}', "k"));
        let exact = properties.and_then(|properties| properties.get_key_value(name));
        let folded = || properties?.iter().find(|(field, _)| is_named(field));
        let (field, schema) = exact.or_else(folded).ok_or_else(|| StrategicError::UnknownField {
            name: record.rsplit('.').next().unwrap_or_default().to_owned(),
            field: name.to_owned(),
        })?;
        let pointer = TYPES.records.get(record).and_then(|record| record.fields.get(field));
        let mut words = schema["x-kubernetes-patch-strategy"].as_str().unwrap_or_default().split(',');
        let strategy = match words.rfind(|word| *word != "retainKeys") {
            Some("merge") => Strategy::Merge,
            Some("replace") => Strategy::Replace,
            _ => Strategy::Default,
        };
        let merge_key = schema["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default();
        Ok(Field { ty: Self::of(schema, pointer.is_some_and(|field| field.pointer)), strategy, merge_key })
    }
}

impl Form<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Struct(_) => "struct",
            Self::List(_) => "slice",
            Self::Other(kind) => kind,
        }
    }
}

impl Field {
    /// What its items are. Go takes anything behind a pointer for an item.
    pub(super) fn item(&self, parent: GoType) -> Result<GoType<'static>> {
        match (self.ty.form, self.ty.pointer) {
            (Form::List(items), pointer) => {
                let item = GoType::of(items, false);
                if item.kind() == "slice" && !pointer { Err(StrategicError::SliceOfSlices) } else { Ok(item) }
            }
            (Form::Other("slice"), _) => Ok(GoType { pointer: false, form: Form::Other("uint8") }),
            (form, true) => Ok(GoType { pointer: false, form }),
            (_, false) => Err(StrategicError::NotAList { kind: parent.kind() }),
        }
    }
}

pub(super) const MAP: &str = "map[string]interface {}";
pub(super) const LIST: &str = "[]interface {}";
/// How Go prints the type of nil.
pub(super) const NIL: &str = "%!s(<nil>)";

/// Go's name of the type that JSON is read into.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => NIL,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => LIST,
        Value::Object(_) => MAP,
    }
}

/// Prints a value as Go's verb does.
pub(super) struct Go<'a>(pub(super) &'a Value, pub(super) Verb);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// `%v`
    V,
    /// `%s`, which is for texts.
    S,
}

impl fmt::Display for Go<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, verb) = *self;
        match value {
            Value::String(text) => f.write_str(text),
            Value::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { " " }, Inner(item, verb))?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => {
                // In the order of keys, which a map of serde_json may not have.
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(key, _)| *key);
                f.write_str("map[")?;
                for (at, (key, value)) in fields.into_iter().enumerate() {
                    write!(f, "{}{key}:{}", if at == 0 { "" } else { " " }, Inner(value, verb))?;
                }
                f.write_str("]")
            }
            Value::Null if verb == Verb::S => f.write_str(NIL),
            scalar if verb == Verb::S => write!(f, "%!s({}={})", go_type(scalar), Go(scalar, Verb::V)),
            Value::Null => f.write_str("<nil>"),
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => write!(f, "{integer}"),
                (None, Some(float)) => write_float(f, float),
                (None, None) => write!(f, "{number}"),
            },
        }
    }
}

/// A value in a list or a map.
struct Inner<'a>(&'a Value, Verb);

impl fmt::Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.0.is_null() { Verb::V } else { self.1 };
        Go(self.0, verb).fmt(f)
    }
}

/// As Go's `%v`: with as few digits as tell it apart, and with an exponent below 10⁻⁴ and from 10⁶ on.
fn write_float(f: &mut fmt::Formatter<'_>, float: f64) -> fmt::Result {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return write!(f, "{float}");
    }
    write!(f, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// As Go's `%q`.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\0'..' ' | '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            // Beside another letter, so that marks which go onto a letter count as printable, as they do in Go.
            _ if format!("x{letter}").escape_debug().count() == 2 => quoted.push(letter),
            '\0'..='\u{ffff}' => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}
