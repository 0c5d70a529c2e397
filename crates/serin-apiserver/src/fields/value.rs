//! The order and the equality of values: numbers by their size, whether they are integers or floats.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A number as Kubernetes holds it: 64-bit integers where they fit, floats else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// An integer.
    Int(i64),
    /// Anything else.
    Float(f64),
}

impl Number {
    #[allow(clippy::cast_precision_loss)]
    fn as_float(self) -> f64 {
        match self {
            // Compared as floats, a big integer loses its last digits, as it does there.
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

/// The number that a value is.
pub(super) fn number(value: &Value) -> Option<Number> {
    let Value::Number(number) = value else { return None };
    number.as_i64().map(Number::Int).or_else(|| number.as_f64().map(Number::Float))
}

/// Whether two values are the same.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The order of two values: numbers, strings, booleans, lists, maps, null; within each kind as one expects.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| compare(a, b))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (Value::Object(a), Value::Object(b)) => compare_maps(a, b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    match (number(a), number(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => a.cmp(&b),
        (Some(a), Some(b)) => a.as_float().partial_cmp(&b.as_float()).unwrap_or(Ordering::Equal),
        _ => Ordering::Equal,
    }
}

/// By the sorted union of their names: the first place where they differ decides, and who lacks the name there is greater,
/// unless all of its names have been seen.
fn compare_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
    let mut names: Vec<&String> = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))).collect();
    names.sort();
    for (seen, name) in names.into_iter().enumerate() {
        let order = match (a.get(name), b.get(name)) {
            _ if seen == a.len() => Ordering::Less,
            _ if seen == b.len() => Ordering::Greater,
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
            (Some(a), Some(b)) => compare(a, b),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Makes every integer a float, as JSON numbers are read into untyped values there.
pub(super) fn to_floats(value: &mut Value) {
    match value {
        Value::Number(_) => {
            let float = number(value).map(Number::as_float).and_then(serde_json::Number::from_f64);
            if let Some(float) = float {
                *value = Value::Number(float);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_floats),
        Value::Object(fields) => fields.values_mut().for_each(to_floats),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Makes every float that is a whole number an integer, as it is once written and read again.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn to_integers(value: &mut Value) {
    /// 2^63, the first float that is no `i64`.
    const TOO_BIG: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Number(_) => {
            if let Some(Number::Float(float)) = number(value)
                && float.fract() == 0.0
                && (-TOO_BIG..TOO_BIG).contains(&float)
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_integers),
        Value::Object(fields) => fields.values_mut().for_each(to_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
