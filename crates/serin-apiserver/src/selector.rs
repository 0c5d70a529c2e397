//! Label and field selectors: the grammars of Kubernetes' `labels` and `fields`, what they refuse and in which words.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::metadata;
use crate::status::FieldError;

/// Why a selector cannot be used. The wording is Kubernetes'.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SelectorError {
    /// A part of a label selector is wrong.
    #[error("unable to parse requirement: {0}")]
    Requirement(#[source] RequirementError),
    /// The parts of a label selector are not put together right.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What there is, empty for the end.
        found: String,
        /// What may be there.
        expected: &'static str,
    },
    /// A part of a field selector has no operator.
    #[error("invalid selector: '{text}'; can't understand '{part}'")]
    NoOperator {
        /// The selector.
        text: String,
        /// The part.
        part: String,
    },
    /// A value in a field selector escapes something else than `\\`, `,` and `=`.
    #[error("invalid field selector: invalid escape sequence: {sequence}")]
    Escape {
        /// The backslash and what follows it.
        sequence: String,
    },
    /// A value in a field selector has a `,` or `=` of its own without a backslash.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*letter))]
    Unescaped {
        /// The letter.
        letter: char,
    },
    /// Objects of a kind with fields of its own cannot be selected by this one.
    #[error("field label not supported: {field}")]
    Field {
        /// The field asked for.
        field: String,
    },
    /// Objects of this kind can be selected by name and namespace alone.
    #[error("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    UnknownField {
        /// The field asked for.
        field: String,
    },
}

/// Why one part of a label selector is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequirementError {
    /// Something else belongs there.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What there is, empty for the end.
        found: String,
        /// What may be there.
        expected: &'static str,
    },
    /// `in` and `notin` want values in parentheses.
    #[error("found '{found}' expected: '('")]
    NoParenthesis {
        /// What there is, empty for the end.
        found: String,
    },
    /// The key or values are not such as labels have, or do not fit the operator.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
}

fn list(errors: &[FieldError]) -> String {
    match errors {
        [error] => error.to_string(),
        many => {
            let all: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("[{}]", all.join(", "))
        }
    }
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
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`; empty selects everything.
    ///
    /// # Errors
    /// [`SelectorError::Requirement`], [`SelectorError::Unexpected`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        let unexpected =
            |found: Token, expected| Err(SelectorError::Unexpected { found: found.literal().to_owned(), expected });
        match parser.peek() {
            Token::Word(_) | Token::Sign("!") => {}
            Token::End => return Ok(Self(requirements)),
            other => return unexpected(other, "!, identifier, or 'end of string'"),
        }
        loop {
            requirements.push(parser.requirement().map_err(SelectorError::Requirement)?);
            match parser.next() {
                Token::End => return Ok(Self(requirements)),
                Token::Sign(",") => match parser.peek() {
                    Token::Word(_) | Token::Sign("!") => {}
                    other => return unexpected(other, "identifier after ','"),
                },
                other => return unexpected(other, "',' or 'end of string'"),
            }
        }
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
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Greater(bound) => number().is_some_and(|value| value > *bound),
            Self::Less(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

/// A piece of a label selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, `in`, `notin`.
    Word(&'a str),
    /// An operator, a parenthesis, a comma.
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn literal(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::End => "",
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        Self { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
        const SIGNS: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];
        let rest = self.rest.trim_start_matches(SPACE);
        let is_sign = rest.starts_with(SIGNS);
        let len = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if is_sign {
            1
        } else {
            rest.find(|letter| SPACE.contains(&letter) || SIGNS.contains(&letter)).unwrap_or(rest.len())
        };
        let (token, rest) = rest.split_at(len);
        self.rest = rest;
        match token {
            "" => Token::End,
            sign if is_sign => Token::Sign(sign),
            word => Token::Word(word),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, RequirementError> {
        let first = self.next();
        let is_absent = first == Token::Sign("!");
        let key = match if is_absent { self.next() } else { first } {
            Token::Word(key) => key,
            other => return Err(unexpected(other, "identifier")),
        };
        let key_errors = metadata::refuse_qualified_name(key);
        if !key_errors.is_empty() {
            return Err(RequirementError::Invalid(vec![FieldError::invalid("", key, key_errors.join("; "))]));
        }
        let make = |test| Ok(Requirement { key: key.to_owned(), test });
        if is_absent {
            return make(Test::Absent);
        }
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return make(Test::Exists);
        }
        let operator = self.next();
        let values = match operator.literal() {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => BTreeSet::from([self.value()?.to_owned()]),
            _ => return Err(unexpected(operator, "in, notin, =, ==, !=, gt, lt")),
        };
        let mut errors = Vec::new();
        let mut bound = 0;
        if matches!(operator.literal(), ">" | "<") {
            for value in &values {
                match value.parse() {
                    Ok(number) => bound = number,
                    Err(_) => errors.push(FieldError::invalid(
                        "values[0]",
                        value.as_str(),
                        "for 'Gt', 'Lt' operators, the value must be an integer",
                    )),
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            let why = metadata::refuse_label_value(value);
            if !why.is_empty() {
                errors.push(FieldError::invalid(format!("values[{index}][{key}]"), value.as_str(), why.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(RequirementError::Invalid(errors));
        }
        make(match operator.literal() {
            "notin" | "!=" => Test::NotIn(values),
            ">" => Test::Greater(bound),
            "<" => Test::Less(bound),
            _ => Test::In(values),
        })
    }

    /// The one value after an operator, which may be left out.
    fn value(&mut self) -> Result<&'a str, RequirementError> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(""),
            _ => match self.next() {
                Token::Word(value) => Ok(value),
                other => Err(unexpected(other, "identifier")),
            },
        }
    }

    /// Values in parentheses, some of which may be left out.
    fn values(&mut self) -> Result<BTreeSet<String>, RequirementError> {
        match self.next() {
            Token::Sign("(") => {}
            other => return Err(RequirementError::NoParenthesis { found: other.literal().to_owned() }),
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            Token::Word(_) | Token::Sign(",") => {}
            Token::Sign(")") => values.extend([String::new()]),
            other => return Err(unexpected(other, "',', ')' or identifier")),
        }
        // Whether a value may stand here that is left out.
        let mut is_open = true;
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.insert(value.to_owned());
                    is_open = false;
                    match self.peek() {
                        Token::Sign("," | ")") => {}
                        other => return Err(unexpected(other, "',' or ')'")),
                    }
                }
                Token::Sign(",") => {
                    if is_open {
                        values.insert(String::new());
                    }
                    is_open = true;
                    if self.peek() == Token::Sign(")") {
                        values.insert(String::new());
                    }
                }
                Token::Sign(")") => return Ok(values),
                other => return Err(unexpected(other, "',', or identifier")),
            }
        }
    }
}

fn unexpected(found: Token<'_>, expected: &'static str) -> RequirementError {
    RequirementError::Unexpected { found: found.literal().to_owned(), expected }
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

/// A field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<FieldTest>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTest {
    place: Place,
    value: String,
    equal: bool,
}

/// Where a field is in a stored object: JSON pointers, of which the first that leads to something counts.
pub(crate) type Place = Vec<String>;

impl Fields {
    /// Parses `metadata.name=a,type!=b`. `place` says where in the stored objects a field is.
    ///
    /// # Errors
    /// [`SelectorError`]; whatever `place` refuses.
    pub(crate) fn parse(
        text: &str,
        place: impl Fn(&str) -> Result<Place, SelectorError>,
    ) -> Result<Self, SelectorError> {
        // The order decides which part is refused first.
        let mut parts: Vec<&str> = split_terms(text).into_iter().filter(|part| !part.is_empty()).collect();
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts {
            let no_operator = || SelectorError::NoOperator { text: text.to_owned(), part: part.to_owned() };
            let at = part.find("!=").into_iter().chain(part.find('=')).min().ok_or_else(no_operator)?;
            let (field, rest) = part.split_at(at);
            let (value, equal) = if let Some(value) = rest.strip_prefix("!=") {
                (value, false)
            } else {
                (rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or_default(), true)
            };
            terms.push((field, unescape(value)?, equal));
        }
        let tests = terms.into_iter().map(|(field, value, equal)| Ok(FieldTest { place: place(field)?, value, equal }));
        tests.collect::<Result<_, _>>().map(Self)
    }

    /// Selects by name alone.
    pub(crate) fn of_name(name: &str) -> Self {
        Self(vec![FieldTest { place: vec![NAME.to_owned()], value: name.to_owned(), equal: true }])
    }

    /// The name that the objects must have.
    pub(crate) fn name(&self) -> Option<&str> {
        let test = self.0.iter().find(|test| test.equal && test.place == [NAME])?;
        Some(&test.value)
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's fields fulfil it; a missing field is an empty one.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|test| {
            let found = test.place.iter().filter_map(|pointer| object.pointer(pointer)).find_map(|value| match value {
                Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            });
            (found.unwrap_or_default() == test.value) == test.equal
        })
    }
}

/// Where every object has its name.
const NAME: &str = "/metadata/name";

/// The place of a field whose path has no dots within its names.
pub(crate) fn dotted(field: &str) -> Place {
    vec![format!("/{}", field.replace('.', "/"))]
}

/// Splits at commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|letter| {
        let splits = letter == ',' && !escaped;
        escaped = letter == '\\' && !escaped;
        splits
    })
    .collect()
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError::Escape { sequence });
                }
            },
            ',' | '=' => return Err(SelectorError::Unescaped { letter }),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_follow_the_kubernetes_grammar() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "a", "n": "5", "x.io/y": "z", "none": ""}}});
        let rows = [
            ("", true),
            (" ", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = a", true),
            ("app=db", false),
            ("app!=db", true),
            ("gone!=db", true),
            ("tier in (a, b)", true),
            ("tier in(a)", true),
            ("tier in (b)", false),
            ("tier notin (b)", true),
            ("tier notin (a,c)", false),
            ("gone notin (a)", true),
            ("none in ()", true),
            ("none in (,a)", true),
            ("none in (a,)", true),
            ("none in (a,,b)", true),
            ("none in (a,b)", false),
            ("none=", true),
            ("none=,app", true),
            ("app", true),
            ("!app", false),
            ("! gone", true),
            ("n>4", true),
            ("n<5", false),
            ("x.io/y=z", true),
            ("app in (web),tier", true),
            ("app notin (in, notin)", true),
            ("app=in", false),
            ("in", false),
            ("!notin", true),
        ];
        for (text, want) in rows {
            let labels = Labels::parse(text).expect(text);
            assert_eq!(labels.matches(&object), want, "{text}");
        }
    }

    /// What `labels.Parse` of k8s.io/apimachinery v0.36.3 said to each.
    #[test]
    fn label_selectors_are_refused_in_the_words_of_kubernetes() {
        let rows = [
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            ("x,", "found '', expected: identifier after ','"),
            ("x,=", "found '=', expected: identifier after ','"),
            ("x=1=2", "found '=', expected: ',' or 'end of string'"),
            ("!x=1", "found '=', expected: ',' or 'end of string'"),
            ("x=a b", "found 'b', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("!!x", "unable to parse requirement: found '!', expected: identifier"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("x=>1", "unable to parse requirement: found '>', expected: identifier"),
            ("x in", "unable to parse requirement: found '' expected: '('"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
            ("x in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("x in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
            ("x in (a,", "unable to parse requirement: found '', expected: ',', or identifier"),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must \
                 be an integer",
            ),
        ];
        for (text, want) in rows {
            assert_eq!(Labels::parse(text).expect_err(text).to_string(), want, "{text}");
        }
        for (text, want) in [
            ("a/b/c=d", "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a "),
            ("/x", "unable to parse requirement: <nil>: Invalid value: \"/x\": prefix part must be non-empty"),
            ("-a=b", "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of "),
            ("a=-b", "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be "),
            ("a in (b,-)", "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be "),
            ("a in (-,*)", "unable to parse requirement: [values[0][a]: Invalid value: \"*\": a valid label must be "),
        ] {
            let got = Labels::parse(text).expect_err(text).to_string();
            assert!(got.starts_with(want), "{text}: {got}");
        }
    }

    fn place(field: &str) -> Result<Place, SelectorError> {
        match field {
            "metadata.name" | "involvedObject.kind" | "spec.replicas" | "spec.lit" => Ok(dotted(field)),
            "source" => Ok(vec!["/source/component".into(), "/reportingComponent".into()]),
            other => Err(SelectorError::Field { field: other.into() }),
        }
    }

    #[test]
    fn field_selectors_find_fields_of_every_plain_type() {
        let object = json!({
            "metadata": {"name": "n,=\\"}, "involvedObject": {"kind": "Pod"}, "spec": {"replicas": 3, "lit": true},
            "source": {"component": ""}, "reportingComponent": "c",
        });
        let rows = [
            ("", true),
            (",", true),
            (r"metadata.name=n\,\=\\", true),
            (r"metadata.name!=n\,\=\\", false),
            ("metadata.name!=,involvedObject.kind==Pod", true),
            ("involvedObject.kind=Job", false),
            ("spec.replicas=3", true),
            ("spec.replicas!=3", false),
            ("spec.lit=true,", true),
            ("source=c", true),
        ];
        for (text, want) in rows {
            assert_eq!(Fields::parse(text, place).expect(text).matches(&object), want, "{text}");
        }
        assert_eq!(Fields::parse("spec.lit=true,metadata.name=a", place).expect("it parses").name(), Some("a"));
        assert_eq!(Fields::parse("metadata.name!=a", place).expect("it parses").name(), None);
        assert!(Fields::of_name("a").matches(&json!({"metadata": {"name": "a"}})));
    }

    #[test]
    fn field_selectors_are_refused_in_the_words_of_kubernetes() {
        let rows = [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            (
                "x=1,metadata.name in (a)",
                "invalid selector: 'x=1,metadata.name in (a)'; can't understand 'metadata.name in (a)'",
            ),
            ("x=1", "field label not supported: x"),
            (" metadata.name=a", "field label not supported:  metadata.name"),
            ("z=1,x=1", "field label not supported: x"),
            (r"metadata.name=a\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"metadata.name=a\", r"invalid field selector: invalid escape sequence: \"),
            ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ];
        for (text, want) in rows {
            assert_eq!(Fields::parse(text, place).expect_err(text).to_string(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_selector_breaks_the_parsers(text in "[a-z0-9=!(),<>\\\\ é.-]{0,24}") {
            let _ = Labels::parse(&text);
            let _ = Fields::parse(&text, place);
        }
    }
}
