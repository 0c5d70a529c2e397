//! Label and field selectors.

use serde_json::Value;

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not the selector grammar.
    #[error("unable to parse requirement: {text:?}; want for example `app=web,tier in (a, b),!old`")]
    Syntax {
        /// The part that is wrong.
        text: String,
    },
    /// Not a field one can select by.
    #[error("field label not supported: {field}; want one of {}", supported.join(", "))]
    Field {
        /// The field asked for.
        field: String,
        /// Those that can be.
        supported: Vec<&'static str>,
    },
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`; empty selects everything.
    ///
    /// # Errors
    /// [`SelectorError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        split_outside_parentheses(text)
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Requirement::parse(part).ok_or_else(|| SelectorError::Syntax { text: part.to_owned() }))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's labels fulfil it.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| requirement.test.holds(labels[&requirement.key].as_str()))
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|refused| refused != value)),
            Self::Greater(bound) => number().is_some_and(|value| value > *bound),
            Self::Less(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

impl Requirement {
    fn parse(part: &str) -> Option<Self> {
        let make = |key: &str, test| {
            let key = key.trim();
            is_label_key(key).then(|| Self { key: key.to_owned(), test })
        };
        let plain = |value: &str| {
            let value = value.trim();
            is_label_value(value).then(|| value.to_owned())
        };
        if let Some(key) = part.strip_prefix('!') {
            return make(key, Test::Absent);
        }
        if let Some((head, values)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
            let (key, word) = head.trim().split_once(char::is_whitespace)?;
            let values = values.split(',').map(plain).collect::<Option<Vec<_>>>()?;
            return match word.trim() {
                "in" => make(key, Test::In(values)),
                "notin" => make(key, Test::NotIn(values)),
                _ => None,
            };
        }
        if let Some((key, value)) = part.split_once("!=") {
            return make(key, Test::NotIn(vec![plain(value)?]));
        }
        if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return make(key, Test::In(vec![plain(value)?]));
        }
        if let Some((key, value)) = part.split_once('>') {
            return make(key, Test::Greater(value.trim().parse().ok()?));
        }
        if let Some((key, value)) = part.split_once('<') {
            return make(key, Test::Less(value.trim().parse().ok()?));
        }
        make(part, Test::Exists)
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
}

/// A label or annotation key: an optional DNS prefix and `/`, then up to 63 letters, digits, `-`, `_`, `.`.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    !name.is_empty()
        && is_label_value(name)
        && prefix.is_none_or(|prefix| !prefix.is_empty() && is_dns_subdomain(prefix))
}

/// A label value: empty, or up to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
pub(crate) fn is_label_value(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|byte| inner(*byte)) && ends(bytes.first()) && ends(bytes.last())
}

/// A lowercase RFC 1123 subdomain of at most 253 bytes.
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_part)
}

/// A lowercase RFC 1123 label of at most 63 bytes.
pub(crate) fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_part(name)
}

fn is_dns_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

/// A field selector. Every resource can be selected by name and namespace; some have more fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<FieldTest>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTest {
    pointer: String,
    value: String,
    equal: bool,
}

impl Fields {
    /// Parses `metadata.name=a,type!=b`. `extra` are the fields of the resource beside `metadata.name` and
    /// `metadata.namespace`, as paths in the stored object.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse(text: &str, extra: &[&'static str]) -> Result<Self, SelectorError> {
        let mut tests = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let syntax = || SelectorError::Syntax { text: part.to_owned() };
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else {
                let (field, value) = part.split_once("==").or_else(|| part.split_once('=')).ok_or_else(syntax)?;
                (field, value, true)
            };
            let field = field.trim();
            let supported: Vec<&'static str> =
                ["metadata.name", "metadata.namespace"].into_iter().chain(extra.iter().copied()).collect();
            if !supported.contains(&field) {
                return Err(SelectorError::Field { field: field.to_owned(), supported });
            }
            let pointer = format!("/{}", field.replace('.', "/"));
            tests.push(FieldTest { pointer, value: value.trim().to_owned(), equal });
        }
        Ok(Self(tests))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's fields fulfil it; a missing field is an empty one.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|test| {
            let value = object.pointer(&test.pointer).and_then(Value::as_str).unwrap_or("");
            (value == test.value) == test.equal
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_follow_the_kubernetes_grammar() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "a", "n": "5", "x.io/y": "z"}}});
        let rows = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = a", true),
            ("app=db", false),
            ("app!=db", true),
            ("gone!=db", true),
            ("tier in (a, b)", true),
            ("tier in (b)", false),
            ("tier notin (b)", true),
            ("tier notin (a,c)", false),
            ("gone notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("n>4", true),
            ("n<5", false),
            ("x.io/y=z", true),
            ("app in (web),tier", true),
        ];
        for (text, want) in rows {
            let labels = Labels::parse(text).expect(text);
            assert_eq!(labels.matches(&object), want, "{text}");
        }
        for text in ["a=b=c d", "in (a)", "a in b", "a in (b", "=x", "a>b", "a/b/c=d", "-a=b", "a=-b"] {
            assert!(Labels::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_know_their_fields() {
        let object = json!({"metadata": {"name": "n"}, "involvedObject": {"kind": "Pod"}});
        let extra = &["involvedObject.kind"];
        let rows = [
            ("metadata.name=n", true),
            ("metadata.name!=n", false),
            ("metadata.namespace=", true),
            ("involvedObject.kind=Pod,metadata.name=n", true),
            ("involvedObject.kind=Job", false),
        ];
        for (text, want) in rows {
            assert_eq!(Fields::parse(text, extra).expect(text).matches(&object), want, "{text}");
        }
        assert_eq!(
            Fields::parse("spec.x=1", &[]),
            Err(SelectorError::Field {
                field: "spec.x".into(),
                supported: vec!["metadata.name", "metadata.namespace"]
            })
        );
        assert!(Fields::parse("metadata.name", &[]).is_err());
    }
}
