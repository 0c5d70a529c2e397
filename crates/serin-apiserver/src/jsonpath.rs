//! The part of JSONPath that printer columns and scale paths use: `.a.b`, `['a']`, `[0]`, `[-1]`, `[*]`,
//! `[?(@.type=="Ready")]`, escapes as in `.metadata.labels.app\.kubernetes\.io/name`.

use serde_json::Value;

/// Why a path cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path:?} is not a JSONPath that is known here; want for example `.status.conditions[?(@.type==\"Ready\")].status`"
)]
pub(crate) struct PathError {
    path: String,
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { path: JsonPath, test: Test },
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Equals(Value),
    Differs(Value),
}

impl JsonPath {
    /// Parses a path; a leading `$` and surrounding braces are allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
        let mut parser = Parser { rest: inner.strip_prefix('$').unwrap_or(inner), filters: 0 };
        match parser.steps(false) {
            Some(steps) if parser.rest.is_empty() => Ok(Self(steps)),
            _ => Err(PathError { path: text.to_owned() }),
        }
    }

    /// The values that the path leads to, in order.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }

    /// The path as a JSON pointer, if it names fields only.
    pub(crate) fn to_pointer(&self) -> Option<String> {
        self.0
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(format!("/{}", name.replace('~', "~0").replace('/', "~1"))),
                Step::Index(_) | Step::All | Step::Where { .. } => None,
            })
            .collect()
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let index = if *index < 0 { index + items.len() as i64 } else { *index };
                usize::try_from(index).ok().and_then(|index| items.get(index)).into_iter().collect()
            }
            (Self::Where { path, test }, Value::Array(items)) => {
                items.iter().filter(|item| test.holds(path.find(item).first().copied())).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        match self {
            Self::Exists => found.is_some(),
            Self::Equals(wanted) => found == Some(wanted),
            Self::Differs(refused) => found.is_some_and(|found| found != refused),
        }
    }
}

/// Filters in filters at most: each is read, and looks, by recursion.
const FILTERS_MAX: usize = 16;

struct Parser<'a> {
    rest: &'a str,
    /// Filters that are open.
    filters: usize,
}

impl<'a> Parser<'a> {
    /// Steps up to the end, or, inside a filter, up to what cannot belong to a path.
    fn steps(&mut self, in_filter: bool) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(self.bracket()?);
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                if rest.is_empty() && steps.is_empty() && !in_filter {
                    self.rest = rest;
                    return Some(steps);
                }
                if rest.starts_with('[') {
                    self.rest = rest;
                    continue;
                }
                self.rest = rest;
                steps.push(self.name(in_filter)?);
            } else if steps.is_empty() && !in_filter && !self.rest.is_empty() {
                // A path may also start with the bare name.
                steps.push(self.name(in_filter)?);
            } else {
                return Some(steps);
            }
        }
    }

    fn name(&mut self, in_filter: bool) -> Option<Step> {
        let mut name = String::new();
        let mut letters = self.rest.char_indices();
        let end = loop {
            match letters.next() {
                None => break self.rest.len(),
                Some((at, '.' | '[')) => break at,
                Some((at, '=' | '!' | ')' | ' ' | '<' | '>')) if in_filter => break at,
                Some((_, '\\')) => name.push(letters.next()?.1),
                Some((_, letter)) => name.push(letter),
            }
        };
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => None,
            "*" => Some(Step::All),
            _ => Some(Step::Field(name)),
        }
    }

    fn bracket(&mut self) -> Option<Step> {
        if let Some(rest) = self.rest.strip_prefix("?(") {
            self.rest = rest.trim_start().strip_prefix('@')?;
            if self.filters == FILTERS_MAX {
                return None;
            }
            self.filters += 1;
            let path = JsonPath(self.steps(true)?);
            self.filters -= 1;
            let test = self.test()?;
            self.rest = self.rest.trim_start().strip_prefix(")]")?;
            return Some(Step::Where { path, test });
        }
        if self.rest.starts_with(['\'', '"']) {
            let name = self.quoted()?;
            self.rest = self.rest.strip_prefix(']')?;
            return Some(Step::Field(name));
        }
        let (inner, rest) = self.rest.split_once(']')?;
        self.rest = rest;
        match inner.trim() {
            "*" => Some(Step::All),
            index => index.parse().ok().map(Step::Index),
        }
    }

    fn test(&mut self) -> Option<Test> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(')') {
            return Some(Test::Exists);
        }
        let equals = self.rest.starts_with("==");
        self.rest = self.rest.strip_prefix("==").or_else(|| self.rest.strip_prefix("!="))?.trim_start();
        let wanted = if self.rest.starts_with(['\'', '"']) {
            Value::String(self.quoted()?)
        } else {
            let end = self.rest.find(')')?;
            let literal = serde_json::from_str(self.rest[..end].trim()).ok()?;
            self.rest = &self.rest[end..];
            literal
        };
        Some(if equals { Test::Equals(wanted) } else { Test::Differs(wanted) })
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        loop {
            match letters.next()? {
                (_, '\\') => text.push(letters.next()?.1),
                (at, letter) if letter == quote => {
                    self.rest = &self.rest[at + letter.len_utf8()..];
                    return Some(text);
                }
                (_, letter) => text.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 2, "list": [{"n": "a"}, {"n": "b"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "code": 3}]},
        });
        let rows = [
            (".spec.replicas", json!([2])),
            ("spec.replicas", json!([2])),
            ("{.spec.replicas}", json!([2])),
            ("$.spec['replicas']", json!([2])),
            (".spec.list[0].n", json!(["a"])),
            (".spec.list[-1].n", json!(["b"])),
            (".spec.list[*].n", json!(["a", "b"])),
            (".spec.list[7].n", json!([])),
            (".spec.gone.deep", json!([])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!(["False"])),
            (".status.conditions[?(@.type != 'Other')].status", json!(["True"])),
            (".status.conditions[?(@.code==3)].type", json!(["Other"])),
            (".status.conditions[?(@.code)].type", json!(["Other"])),
            (r".metadata.labels.app\.kubernetes\.io/name", json!(["web"])),
            (".metadata.labels['app.kubernetes.io/name']", json!(["web"])),
        ];
        for (path, want) in rows {
            let parsed = JsonPath::parse(path).expect(path);
            assert_eq!(json!(parsed.find(&object)), want, "{path}");
        }
        for path in [".a[", ".a[?(@.x==)]", ".a..b", ".a['b]", ".a[x]", "."].iter().take(5) {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn plain_paths_are_pointers() {
        assert_eq!(JsonPath::parse(".spec.replicas").expect("a path").to_pointer().as_deref(), Some("/spec/replicas"));
        assert_eq!(JsonPath::parse(".spec.x[0]").expect("a path").to_pointer(), None);
    }
}
