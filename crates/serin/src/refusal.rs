//! What an API says when it refuses, as people read it.

use std::fmt;

use serin_api::Span;

/// Longest value that is quoted back. A refused patch quotes the whole object.
const QUOTED_MAX: usize = 120;

/// What an API server says when it refuses (`metav1.Status`).
#[derive(Debug, Default)]
pub struct ApiStatus {
    /// HTTP status code.
    pub code: u16,
    /// Text for people.
    pub message: String,
    /// Fields that are wrong: (path, message).
    pub causes: Vec<(String, String)>,
}

impl ApiStatus {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        if self.message.contains("unknown field") {
            return Some(
                "nothing was changed; a field that does not exist is refused, so that a typing error cannot pass unseen",
            );
        }
        Some(match self.code {
            401 => "the token is not valid here; `serin up` writes a new kubeconfig, and --kubeconfig names another",
            403 => "this user may not do that; ask for the right, or use another --context",
            404 => "is the name right, and is it in this namespace? -n changes the namespace",
            409 => "somebody else changed the object at the same time; look at it again and repeat",
            422 => "nothing was changed; correct the fields above and apply again",
            _ => return None,
        })
    }
}

/// One line per field that is wrong; else the message as it came.
impl fmt::Display for ApiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The API server says so beside any other error, and it is no error.
        let said = self.causes.iter().filter(|(_, message)| !message.contains("validation rules were not checked"));
        let mut lines: Vec<String> = said.flat_map(|(field, message)| readable(field, message)).collect();
        // The message is made of the causes, and of fields that do not exist when these were all that is wrong.
        if lines.is_empty() {
            lines = strict(&self.message);
        }
        match lines.as_slice() {
            [] if self.message.is_empty() => write!(f, "answered {}", self.code),
            [] => f.write_str(&self.message),
            [line] => f.write_str(line),
            lines => {
                write!(f, "{} fields are wrong", lines.len())?;
                lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
        }
    }
}

/// A cause in short. Kubernetes' own form is `Invalid value: "5x": spec.a in body should match '...'`.
fn readable(field: &str, message: &str) -> Vec<String> {
    let found = strict(message);
    if !found.is_empty() {
        return found;
    }
    if let Some(value) = message.strip_prefix("Invalid value: ").and_then(|rest| rest.split_once(": "))
        && message.contains(Span::PATTERN)
    {
        return vec![format!("{field} is {}, want a span of time such as 500ms, 30s, 5m or 1h30m", value.0)];
    }
    let message = shorten(message);
    vec![if field.is_empty() { message } else { format!("{field}: {message}") }]
}

/// What a strict reader found, such as fields that it does not know; none if the message is about something else.
fn strict(message: &str) -> Vec<String> {
    let found = message.split_once("strict decoding error: ").map(|(_, found)| found.split(", "));
    found.into_iter().flatten().map(str::to_owned).collect()
}

/// Cuts a long quoted value out of a message.
fn shorten(message: &str) -> String {
    let quoted = message.find("\": ").filter(|end| *end > QUOTED_MAX);
    match (message.strip_prefix("Invalid value: \""), quoted) {
        (Some(_), Some(end)) => format!("Invalid value: {}", &message[end + 3..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str, causes: &[(&str, &str)]) -> String {
        let causes = causes.iter().map(|(field, message)| ((*field).to_owned(), (*message).to_owned())).collect();
        ApiStatus { code: 422, message: message.to_owned(), causes }.to_string()
    }

    #[test]
    fn each_wrong_field_has_a_line() {
        let pattern = format!("Invalid value: \"5x\": a in body should match '{}'", Span::PATTERN);
        let object = format!(
            "Invalid value: \"{}\": strict decoding error: unknown field \"spec.a\", unknown field \"spec.b\"",
            "x".repeat(3_000)
        );
        let twice = "strict decoding error: unknown field \"spec.a\", duplicate field \"spec.b\"";
        let long = format!("Invalid value: \"{}\": must be short", "é".repeat(200));
        let unchecked =
            "Invalid value: \"null\": some validation rules were not checked because the object was invalid";
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let rows: [Row<'_>; 10] = [
            ("", &[], "answered 422"),
            ("the object is gone", &[], "the object is gone"),
            ("m", &[("a", &pattern)], "a is \"5x\", want a span of time such as 500ms, 30s, 5m or 1h30m"),
            ("m", &[("patch", &object)], "2 fields are wrong\n  unknown field \"spec.a\"\n  unknown field \"spec.b\""),
            (&object, &[], "2 fields are wrong\n  unknown field \"spec.a\"\n  unknown field \"spec.b\""),
            (twice, &[], "2 fields are wrong\n  unknown field \"spec.a\"\n  duplicate field \"spec.b\""),
            ("m", &[("a", "Required value")], "a: Required value"),
            ("m", &[("a", "Required value"), ("<nil>", unchecked)], "a: Required value"),
            ("m", &[("a", &long)], "a: Invalid value: must be short"),
            ("m", &[("", "no field"), ("b", "bad")], "2 fields are wrong\n  no field\n  b: bad"),
        ];
        for (message, causes, want) in rows {
            assert_eq!(status(message, causes), want, "{message} {causes:?}");
        }
    }
}
