//! Whether a label proves a prediction wrong.

use serde_json::Value;

/// Compares a prediction with what turned out to be true.
///
/// * `class`, `score`: the prediction, as the receipt has it.
/// * `label`: text, number or boolean.
/// * `error_above`: for regressions, in the score's unit: the prediction is wrong when it differs by more.
///
/// `None` where the two cannot be compared: there is no class (or, for a regression, no score), or the label is of another kind.
/// Classes compare as text; numbers also by value, so that class `1` equals the labels `1`, `1.0` and `true`.
#[must_use]
pub fn is_wrong(class: Option<&str>, score: Option<f64>, label: &Value, error_above: Option<f64>) -> Option<bool> {
    if let Some(limit) = error_above {
        let truth = label.as_f64()?;
        let error = (score.filter(|s| s.is_finite())? - truth).abs();
        return Some(error > limit);
    }
    let class = class?.trim();
    let number = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite());
    match label {
        Value::String(text) => {
            let text = text.trim();
            Some(!(class == text || (number(class).is_some() && number(class) == number(text))))
        }
        Value::Number(value) => Some(number(class) != value.as_f64()),
        Value::Bool(value) => {
            let (name, digit) = if *value { ("true", 1.0) } else { ("false", 0.0) };
            Some(!(class.eq_ignore_ascii_case(name) || number(class) == Some(digit)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_compare_with_classes_and_scores() {
        //  class          score        label          error_above  wrong
        let rows = [
            (Some(">50K"), None, json!(">50K"), None, Some(false)),
            (Some(">50K"), Some(0.9), json!("<=50K"), None, Some(true)),
            (Some("1"), None, json!(1), None, Some(false)),
            (Some("1"), None, json!(1.0), None, Some(false)),
            (Some("1.0"), None, json!("1"), None, Some(false)),
            (Some("0"), None, json!(true), None, Some(true)),
            (Some("True"), None, json!(true), None, Some(false)),
            (Some("cat"), None, json!(3), None, Some(true)),
            (None, Some(0.9), json!(1), None, None),
            (Some("cat"), None, json!(null), None, None),
            (Some("cat"), None, json!([1]), None, None),
            (None, Some(10.0), json!(10.5), Some(1.0), Some(false)),
            (None, Some(10.0), json!(12), Some(1.0), Some(true)),
            (None, Some(f64::NAN), json!(12), Some(1.0), None),
            (None, Some(10.0), json!("12"), Some(1.0), None),
            (Some("10"), None, json!(10), Some(1.0), None),
        ];
        for (class, score, label, error_above, wrong) in rows {
            assert_eq!(is_wrong(class, score, &label, error_above), wrong, "{class:?} {score:?} {label}");
        }
    }
}
