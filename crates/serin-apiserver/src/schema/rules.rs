//! `x-kubernetes-validations`: rules in CEL.
//!
//! Programs are compiled when the definition is read. Only nodes that have a rule are turned into CEL values. The
//! libraries are those of crate `kube-cel`. There is no cost budget while they are evaluated: definitions are installed by
//! the machine's owner, and a rule that may cost far too much is refused with its definition.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map as CelMap, OptionalValue};
use kube_cel::cel::parser::{Expression, ParseErrors, Parser};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;

use super::{Additional, FieldPath, Format, ListType, Schema, Type, internal, keyed, list_key, nesting};
use crate::status::{FieldError, FieldErrorKind};

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    program: Expression,
    /// What is said where the rule does not hold.
    message: String,
    /// What stands for the rule where it cannot be asked.
    name: String,
    message_program: Option<Expression>,
    reason: FieldErrorKind,
    field_path: Option<String>,
    uses_old_self: bool,
    optional_old_self: bool,
}

fn parse(source: &str) -> Result<Expression, ParseErrors> {
    Parser::default().enable_optional_syntax(true).parse(source)
}

impl Rule {
    /// Reads and compiles a rule that stands at `path` in its definition.
    pub(crate) fn parse(rule: &Value, path: &str) -> Result<Self, FieldError> {
        let text = |name: &str| rule[name].as_str();
        let source = text("rule").unwrap_or_default().trim();
        if source.is_empty() {
            return Err(FieldError::required(format!("{path}.rule"), "rule is not specified"));
        }
        let shown = || internal::show(internal::Kind::Rule, rule);
        let compile = |name: &str, what: &str, source: &str| {
            let refused = |why: &str| {
                let why = format!("{}: {what} failed: {why}", shown());
                FieldError { value: None, ..FieldError::invalid(format!("{path}.{name}"), Value::Null, why) }
            };
            if let Some(why) = nesting::refuse(source) {
                return Err(refused(&why));
            }
            // As Go's CEL indents the source.
            parse(source).map_err(|error| refused(&error.to_string().replace("\n|", "\n |")))
        };
        let program = compile("rule", "compilation", source)?;
        let uses_old_self = program.references().has_variable("oldSelf");
        let reason = match text("reason") {
            None | Some("FieldValueInvalid") => FieldErrorKind::Invalid,
            Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
            Some("FieldValueRequired") => FieldErrorKind::Required,
            Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
            Some(other) => {
                let supported =
                    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
                return Err(FieldError::not_supported(format!("{path}.reason"), other, supported));
            }
        };
        let message_program = text("messageExpression")
            .filter(|source| !source.is_empty())
            .map(|source| compile("messageExpression", "messageExpression compilation", source))
            .transpose()?;
        let message = text("message").map(str::trim).filter(|message| !message.is_empty());
        Ok(Self {
            program,
            message: message.map_or_else(|| format!("failed rule: {source}"), str::to_owned),
            name: message.unwrap_or(source).to_owned(),
            message_program,
            reason,
            field_path: text("fieldPath").map(|path| path.trim_start_matches('.').to_owned()),
            uses_old_self,
            optional_old_self: rule["optionalOldSelf"].as_bool().unwrap_or(false),
        })
    }
}

impl Rule {
    /// The rule itself, and what makes its message.
    pub(super) fn programs(&self) -> (&Expression, Option<&Expression>) {
        (&self.program, self.message_program.as_ref())
    }

    pub(super) fn uses_old_self(&self) -> bool {
        self.uses_old_self
    }

    pub(super) fn optional_old_self(&self) -> bool {
        self.optional_old_self
    }
}

/// Evaluates every rule of `schema` on `value`. `old` is the stored object on an update; a rule about a transition
/// is evaluated only where the old value is known, and any other is not evaluated on a part that did not change.
pub(crate) fn evaluate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if !schema.has_rules {
        return Vec::new();
    }
    BASE.with(|base| {
        let mut walk = Walk { base, path: FieldPath::default(), is_part: false, errors: Vec::new() };
        walk.node(schema, value, old, false);
        walk.errors
    })
}

/// Evaluates every rule of `schema` on a value that is a part of an object.
pub(super) fn evaluate_part(schema: &Schema, value: &Value) -> Vec<FieldError> {
    BASE.with(|base| {
        let mut walk = Walk { base, path: FieldPath::default(), is_part: true, errors: Vec::new() };
        walk.node(schema, value, None, false);
        walk.errors
    })
}

thread_local! {
    // Registering the libraries costs more than evaluating a rule.
    static BASE: Context<'static> = base();
}

/// The libraries, and `type()`, which crate `cel` lacks: a type is a text that no value is likely to be.
fn base() -> Context<'static> {
    let mut base = Context::default().with_all();
    for name in ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"] {
        base.add_variable_from_value(name, type_value(name));
    }
    base.add_function("type", |value: Cel| {
        Ok::<Cel, ExecutionError>(type_value(match value {
            Cel::Bool(_) => "bool",
            Cel::Int(_) => "int",
            Cel::UInt(_) => "uint",
            Cel::Float(_) => "double",
            Cel::String(_) => "string",
            Cel::Bytes(_) => "bytes",
            Cel::List(_) => "list",
            Cel::Map(_) => "map",
            Cel::Null => "null_type",
            _ => "other",
        }))
    });
    base
}

fn type_value(name: &str) -> Cel {
    Cel::String(Arc::new(format!("\u{0}type:{name}")))
}

struct Walk<'a> {
    base: &'a Context<'static>,
    path: FieldPath,
    /// Whether what is walked is a part of an object.
    is_part: bool,
    errors: Vec<FieldError>,
}

impl Walk<'_> {
    /// `is_kept` says whether what is around the value did not change; that counts where no old value is known.
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, is_kept: bool) {
        if !schema.has_rules {
            return;
        }
        let is_kept = old.map_or(is_kept, |old| old == value);
        // A null has no rules: whether it may be null is the schema's matter.
        if !schema.rules.is_empty() && !value.is_null() {
            self.rules(schema, value, old.filter(|old| !old.is_null()), is_kept);
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let Some(schema) = schema.child(name).filter(|schema| schema.has_rules) else { continue };
                    let old = old.and_then(|old| old.get(name));
                    let len = self.path.push_field(name);
                    self.node(schema, field, old, is_kept);
                    self.path.cut(len);
                }
            }
            Value::Array(items) => {
                let Some(item_schema) = schema.items.as_deref().filter(|schema| schema.has_rules) else { return };
                let old = match &schema.list_type {
                    ListType::Map(keys) => old.and_then(Value::as_array).map(|old| (keys, keyed(old, keys))),
                    ListType::Atomic | ListType::Set => None,
                };
                for (index, item) in items.iter().enumerate() {
                    let old = old.as_ref().and_then(|(keys, old)| old.get(&list_key(item, keys)?).copied());
                    let len = self.path.push_index(index);
                    self.node(item_schema, item, old, is_kept);
                    self.path.cut(len);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rules(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, is_kept: bool) {
        let mut scope: Option<Context<'_>> = None;
        for rule in &schema.rules {
            let skipped = match (rule.uses_old_self, old) {
                (true, None) => !rule.optional_old_self,
                (true, Some(_)) => false,
                (false, _) => is_kept,
            };
            if skipped {
                continue;
            }
            let is_root = self.path.is_empty() && !self.is_part;
            let scope = scope.get_or_insert_with(|| {
                let mut scope = self.base.new_inner_scope();
                scope.add_variable_from_value("self", to_cel(schema, value, is_root));
                scope
            });
            let mut scope = scope.new_inner_scope();
            if rule.uses_old_self {
                let old = old.map(|old| to_cel(schema, old, is_root));
                let old = match (old, rule.optional_old_self) {
                    (Some(old), true) => Cel::Opaque(Arc::new(OptionalValue::of(old))),
                    (None, _) => Cel::Opaque(Arc::new(OptionalValue::none())),
                    (Some(old), false) => old,
                };
                scope.add_variable_from_value("oldSelf", old);
            }
            self.rule(schema, value, rule, &scope);
        }
    }

    fn rule(&mut self, schema: &Schema, value: &Value, rule: &Rule, scope: &Context<'_>) {
        let ty = schema.ty.map_or("", Type::name);
        let why = match Cel::resolve(&rule.program, scope) {
            Ok(Cel::Bool(true)) => return,
            Ok(Cel::Bool(false)) => {
                let message = match rule.message_program.as_ref().map(|program| Cel::resolve(program, scope)) {
                    Some(Ok(Cel::String(message))) if is_message(message.trim()) => message.trim().to_owned(),
                    _ => rule.message.clone(),
                };
                let field = match &rule.field_path {
                    Some(path) if path.starts_with('[') => format!("{}{path}", self.path.as_str()),
                    Some(path) => self.path.join(path),
                    None => self.path.as_str().to_owned(),
                };
                // What may be large is not shown.
                let is_shown = !matches!(schema.ty, Some(Type::Object | Type::Array))
                    && !matches!(rule.reason, FieldErrorKind::Required | FieldErrorKind::Forbidden);
                let value = is_shown.then(|| value.clone());
                let detail = if rule.reason == FieldErrorKind::Duplicate { String::new() } else { message };
                self.errors.push(FieldError { kind: rule.reason, field, value, detail });
                return;
            }
            Ok(other) => format!("rule gave {}, want a boolean: {}", other.type_of(), rule.name),
            Err(error) => format!("{} evaluating rule: {}", words_of_go(&error), rule.name),
        };
        self.errors.push(FieldError::invalid(self.path.as_str(), ty, why));
    }
}

/// Whether a made message is one that is shown.
/// Source: `evalMessageExpression` of `k8s.io/apiextensions-apiserver`.
fn is_message(text: &str) -> bool {
    const MESSAGE_BYTES_MAX: usize = 5 << 10;
    !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')
}

/// What Go's CEL says where a rule cannot be asked.
fn words_of_go(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
        ExecutionError::IndexOutOfBounds(Cel::Int(index)) => format!("index out of bounds: {index}"),
        other => other.to_string(),
    }
}

/// A JSON value as CEL sees it under a schema.
fn to_cel(schema: &Schema, value: &Value, is_root: bool) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (schema.ty, number.as_i64()) {
            (Some(Type::Number), _) | (_, None) => number.as_f64().map_or(Cel::Null, Cel::Float),
            (_, Some(integer)) => Cel::Int(integer),
        },
        Value::String(text) => string_to_cel(schema, text),
        Value::Array(items) => {
            let anything = Schema::default();
            let schema = schema.items.as_deref().unwrap_or(&anything);
            Cel::List(Arc::new(items.iter().map(|item| to_cel(schema, item, false)).collect()))
        }
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            let is_object = is_root || schema.embedded;
            for (name, field) in fields {
                if let Some(schema) = schema.properties.get(name).filter(|_| !(is_object && name == "metadata")) {
                    map.insert(string_key(&escape(name)), to_cel(schema, field, false));
                } else if let Additional::Each(schema) = &schema.additional {
                    map.insert(string_key(name), to_cel(schema, field, false));
                } else if is_object && name == "metadata" {
                    map.insert(string_key("metadata"), names_only(field));
                } else if (is_object && matches!(name.as_str(), "apiVersion" | "kind")) || schema.ty.is_none() {
                    map.insert(string_key(&escape(name)), to_cel(&Schema::default(), field, false));
                }
            }
            Cel::Map(CelMap { map: Arc::new(map) })
        }
    }
}

/// Rules see no more of an object's metadata than its name.
fn names_only(metadata: &Value) -> Cel {
    let names = ["name", "generateName"]
        .into_iter()
        .filter_map(|name| Some((string_key(name), Cel::String(Arc::new(metadata.get(name)?.as_str()?.to_owned())))))
        .collect();
    Cel::Map(CelMap { map: Arc::new(names) })
}

fn string_to_cel(schema: &Schema, text: &str) -> Cel {
    use base64::Engine as _;
    let parsed = match schema.checks.format {
        Some(Format::DateTime) => chrono::DateTime::parse_from_rfc3339(text).ok().map(Cel::Timestamp),
        Some(Format::Date) => {
            chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z")).ok().map(Cel::Timestamp)
        }
        Some(Format::Duration) => duration(text),
        Some(Format::Byte) => {
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Cel::Bytes(Arc::new(bytes)))
        }
        _ => None,
    };
    parsed.unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())))
}

/// The `duration()` of CEL, so that a field reads the same as a literal in a rule.
fn duration(text: &str) -> Option<Cel> {
    let program = parse("duration(self)").ok()?;
    BASE.with(|base| {
        let mut scope = base.new_inner_scope();
        scope.add_variable_from_value("self", Cel::String(Arc::new(text.to_owned())));
        Cel::resolve(&program, &scope).ok()
    })
}

fn string_key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as a rule must write it.
/// Source: Kubernetes documentation, "CustomResourceDefinitions", table of escapes.
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rules: Value) -> Schema {
        // Unchecked, so that rules can be asked that fail.
        Schema::build(
            &json!({
                "type": "object",
                "properties": {"spec": {
                    "type": "object",
                    "x-kubernetes-validations": rules,
                    "properties": {
                        "n": {"type": "integer"}, "share": {"type": "number"}, "text": {"type": "string"},
                        "at": {"type": "string", "format": "date-time"}, "wait": {"type": "string", "format": "duration"},
                        "either": {"x-kubernetes-int-or-string": true}, "namespace": {"type": "string"},
                        "a-b": {"type": "string"}, "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                        "list": {"type": "array", "items": {"type": "string"}}, "size": {"type": "string"},
                    },
                }},
            }),
            "",
        )
        .expect("structural")
    }

    /// What the rules say of a spec, and of its change from an old one.
    fn said(rules: Value, spec: Value, old: Option<Value>) -> Vec<String> {
        let object = |spec| json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
        let errors = evaluate(&schema(rules), &object(spec), old.map(object).as_ref());
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_see_values_by_their_schema() {
        let spec = json!({
            "n": 3, "share": 1, "text": "abc", "at": "2026-01-01T00:00:00Z", "wait": "90s", "either": 5, "namespace": "x",
            "a-b": "y", "map": {"c-d": 1}, "list": ["p", "q"], "size": "2Gi",
        });
        let holding = [
            "self.n == 3 && self.n % 2 == 1",
            "self.share == 1.0",
            "self.text.matches('^[a-c]+$') && self.text.size() == 3 && self.text.upperAscii() == 'ABC'",
            "self.at < timestamp('2026-06-01T00:00:00Z')",
            "self.wait > duration('1m')",
            "type(self.either) == int ? self.either < 9 : self.either.endsWith('%')",
            "self.__namespace__ == 'x'",
            "self.a__dash__b == 'y'",
            "self.map['c-d'] == 1 && self.map.all(key, self.map[key] > 0)",
            "self.list.exists(x, x == 'q') && 'p' in self.list && self.list.isSorted()",
            "quantity(self.size).isGreaterThan(quantity('1Gi'))",
            "has(self.n) && !has(self.gone)",
        ];
        for rule in holding {
            assert_eq!(said(json!([{"rule": rule}]), spec.clone(), None), Vec::<String>::new(), "{rule}");
        }
        let failing = [
            (json!({"rule": "self.n > 5"}), "spec: Invalid value: failed rule: self.n > 5"),
            (json!({"rule": "self.n > 5", "message": "too few"}), "spec: Invalid value: too few"),
            (
                json!({"rule": "self.n > 5", "reason": "FieldValueRequired", "message": "m", "fieldPath": ".n"}),
                "spec.n: Required value: m",
            ),
            (
                json!({"rule": "self.n > 5", "messageExpression": "'only ' + string(self.n)"}),
                "spec: Invalid value: only 3",
            ),
            (
                json!({"rule": "self.gone == 1", "message": "m"}),
                "spec: Invalid value: \"object\": no such key: gone evaluating rule: m",
            ),
            (
                json!({"rule": "self.n", "message": "m"}),
                "spec: Invalid value: \"object\": rule gave int, want a boolean: m",
            ),
        ];
        for (rule, want) in failing {
            assert_eq!(said(json!([rule]), spec.clone(), None), [want], "{rule}");
        }
    }

    #[test]
    fn rules_about_change_wait_for_an_old_value_unless_they_say_otherwise() {
        let (one, two) = (json!({"n": 1}), json!({"n": 2}));
        let grows = json!([{"rule": "self.n > oldSelf.n", "message": "must grow"}]);
        assert!(said(grows.clone(), one.clone(), None).is_empty());
        assert!(said(grows.clone(), two.clone(), Some(one.clone())).is_empty());
        assert_eq!(said(grows, one.clone(), Some(two.clone())).len(), 1);
        let optional = json!([{
            "rule": "oldSelf.hasValue() ? self.n >= oldSelf.value().n : self.n == 1", "optionalOldSelf": true, "message": "m",
        }]);
        assert!(said(optional.clone(), one.clone(), None).is_empty());
        assert_eq!(said(optional.clone(), two.clone(), None).len(), 1);
        assert_eq!(said(optional, one.clone(), Some(two.clone())).len(), 1);
        // What did not change is not judged again by a rule that looks at it alone.
        let small = json!([{"rule": "self.n < 2"}]);
        assert!(said(small.clone(), two.clone(), Some(two.clone())).is_empty());
        assert_eq!(said(small, two, Some(one)).len(), 1);
    }

    #[test]
    fn the_root_sees_the_name_and_nothing_more_of_the_metadata() {
        let schema = Schema::build(
            &json!({"type": "object", "x-kubernetes-validations": [
                {"rule": "self.metadata.name == 'n' && self.kind == 'K' && !has(self.metadata.labels)"},
            ]}),
            "",
        )
        .expect("structural");
        let object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "labels": {"a": "b"}}});
        assert_eq!(evaluate(&schema, &object, None), []);
    }

    #[test]
    fn a_rule_that_cannot_be_compiled_is_refused_where_it_stands() {
        let rows = [
            (json!({}), "p.rule"),
            (json!({"rule": "  "}), "p.rule"),
            (json!({"rule": "self.("}), "p.rule"),
            (json!({"rule": "true", "messageExpression": "'"}), "p.messageExpression"),
            (json!({"rule": "true", "reason": "Because"}), "p.reason"),
        ];
        for (rule, field) in rows {
            assert_eq!(Rule::parse(&rule, "p").expect_err("refused").field, field, "{rule}");
        }
    }
}
