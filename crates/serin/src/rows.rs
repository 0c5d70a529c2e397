//! Rows of values, as people write them, as requests of the Open Inference Protocol.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// One input of a model.
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    /// Values that one row has in it.
    width: usize,
}

/// An inference request for `rows` (each a line of comma-separated values), after the model's metadata.
///
/// # Errors
/// When a row has more or fewer values than the model takes, a value that its datatype cannot hold, or an input is no table.
pub fn request(metadata: &Value, rows: &[String], model: &str) -> Result<Value> {
    let inputs = inputs(metadata, model)?;
    let width: usize = inputs.iter().map(|input| input.width).sum();
    let mut data: Vec<Vec<Value>> = vec![Vec::new(); inputs.len()];
    for (index, row) in rows.iter().enumerate() {
        let fields = fields(row);
        if fields.len() != width {
            let (got, model) = (fields.len(), model.to_owned());
            return Err(Error::RowWidth { row: index + 1, got, want: width, model });
        }
        let mut fields = fields.into_iter().enumerate();
        for (input, data) in inputs.iter().zip(&mut data) {
            for (column, text) in fields.by_ref().take(input.width) {
                data.push(value(&text, input.datatype).ok_or_else(|| Error::RowValue {
                    row: index + 1,
                    column: column + 1,
                    got: text.clone(),
                    input: input.name.to_owned(),
                    datatype: input.datatype.to_owned(),
                })?);
            }
        }
    }
    let tensor = |(input, data): (&Input, Vec<Value>)| json!({"name": input.name, "datatype": input.datatype, "shape": [rows.len(), input.width], "data": data});
    let inputs: Vec<Value> = inputs.iter().zip(data).map(tensor).collect();
    Ok(json!({ "inputs": inputs }))
}

fn inputs<'a>(metadata: &'a Value, model: &str) -> Result<Vec<Input<'a>>> {
    let listed = metadata["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let input = |input: &'a Value| {
        let shape = input["shape"].as_array().map(Vec::as_slice).unwrap_or_default();
        let width = match shape {
            [_rows, width] => width.as_u64().and_then(|width| usize::try_from(width).ok()).filter(|width| *width > 0),
            _ => None,
        };
        let wrong = || Error::RowShape { model: model.to_owned(), shape: input["shape"].to_string() };
        Ok(Input {
            name: input["name"].as_str().unwrap_or_default(),
            datatype: input["datatype"].as_str().unwrap_or_default(),
            width: width.ok_or_else(wrong)?,
        })
    };
    let inputs: Vec<Input> = listed.iter().map(input).collect::<Result<_>>()?;
    if inputs.is_empty() {
        return Err(Error::RowShape {
            model: model.to_owned(),
            shape: "unknown (its metadata names no inputs)".to_owned(),
        });
    }
    Ok(inputs)
}

fn value(text: &str, datatype: &str) -> Option<Value> {
    match datatype {
        "BYTES" => Some(text.into()),
        "BOOL" => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true.into()),
            "false" | "0" => Some(false.into()),
            _ => None,
        },
        kind if kind.starts_with("INT") => text.parse::<i64>().ok().map(Value::from),
        kind if kind.starts_with("UINT") => text.parse::<u64>().ok().map(Value::from),
        // JSON has no NaN and no infinity.
        _ => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
    }
}

/// Values of a line: separated by commas, in double quotes where a value has a comma or a quote (written twice) in it.
fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() && !was_quoted => {
                field.clear();
                quoted = true;
                was_quoted = true;
            }
            ',' if !quoted => {
                fields.push(finish(&mut field, &mut was_quoted));
            }
            c => field.push(c),
        }
    }
    fields.push(finish(&mut field, &mut was_quoted));
    fields
}

fn finish(field: &mut String, was_quoted: &mut bool) -> String {
    let text = std::mem::take(field);
    if std::mem::take(was_quoted) { text } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(inputs: Value) -> Value {
        json!({"name": "income", "inputs": inputs})
    }

    #[test]
    fn a_row_fills_one_matrix_or_each_named_input() {
        let matrix = metadata(json!([{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]));
        let rows = ["1, 2.5,-3".to_owned(), "4,5,6e2".to_owned()];
        assert_eq!(
            request(&matrix, &rows, "income").unwrap(),
            json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [1.0, 2.5, -3.0, 4.0, 5.0, 600.0]}]})
        );
        let named = metadata(json!([
            {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "job", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "ok", "datatype": "BOOL", "shape": [-1, 1]}]));
        assert_eq!(
            request(&named, &["39,\"Sales, \"\"B2B\"\"\",true".to_owned()], "income").unwrap(),
            json!({"inputs": [
                {"name": "age", "datatype": "INT64", "shape": [1, 1], "data": [39]},
                {"name": "job", "datatype": "BYTES", "shape": [1, 1], "data": ["Sales, \"B2B\""]},
                {"name": "ok", "datatype": "BOOL", "shape": [1, 1], "data": [true]}]})
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_row_and_value() {
        let matrix = metadata(json!([{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]));
        let whole = metadata(json!([{"name": "input", "datatype": "INT64", "shape": [-1, 2]}]));
        let image = metadata(json!([{"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]));
        let rows = [
            (&matrix, "1,2,3", "row 1 has 3 values, and income takes 2"),
            (&matrix, "1", "row 1 has 1 values"),
            (&matrix, "1,x", "row 1, value 2 is \"x\""),
            (&matrix, "1,nan", "value 2 is \"nan\""),
            (&matrix, "1,", "value 2 is \"\""),
            (&whole, "1,2.5", "input takes INT64"),
            (&image, "1,2", "shape [-1,3,8,8]"),
            (&metadata(json!([])), "1", "names no inputs"),
        ];
        for (metadata, row, want) in rows {
            let error = request(metadata, &[row.to_owned()], "income").unwrap_err().to_string();
            assert!(error.contains(want), "{row}: {error}");
        }
    }

    #[test]
    fn fields_follow_the_rules_of_csv() {
        let rows = [
            ("a,b", vec!["a", "b"]),
            (" a , b ", vec!["a", "b"]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("", vec![""]),
            ("\"\",x", vec!["", "x"]),
            ("\" a \"", vec![" a "]),
        ];
        for (line, want) in rows {
            assert_eq!(fields(line), want, "{line}");
        }
    }
}
