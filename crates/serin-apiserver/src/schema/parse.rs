//! Reading a schema from a CustomResourceDefinition.

use std::collections::BTreeMap;

use regex::RegexBuilder;
use serde_json::{Map, Number, Value};

use super::{Additional, Bound, Checks, FieldPath, Format, ListType, Schema, Type, rules, structure, typing};
use crate::status::{FieldError, FieldErrorKind};

/// Memory a compiled `pattern` may take; a bigger one is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Schema {
    /// Reads a structural schema that someone sends. `path` is where it stands in its CustomResourceDefinition.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub(crate) fn parse(schema: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        let errors = structure::check(schema, path);
        if !errors.is_empty() {
            return Err(errors);
        }
        let built = Self::build(schema, path);
        if let Ok(built) = &built {
            let mut errors = structure::check_defaults(built, path);
            if errors.is_empty() {
                errors = typing::check(built, schema, path);
            }
            if !errors.is_empty() {
                return Err(errors);
            }
        }
        built
    }

    /// Reads a schema that was stored, and so accepted once.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub(crate) fn build(schema: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        structure::check_depth(schema, path)?;
        let mut parser = Parser { path: FieldPath::at(path), errors: Vec::new() };
        let built = parser.node(schema);
        if parser.errors.is_empty() { Ok(built) } else { Err(parser.errors) }
    }
}

struct Parser {
    path: FieldPath,
    errors: Vec<FieldError>,
}

impl Parser {
    fn node(&mut self, schema: &Value) -> Schema {
        let Some(schema) = schema.as_object() else {
            self.wrong(schema, "must be a schema, an object");
            return Schema::anything();
        };
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut node = Schema {
            ty: schema.get("type").and_then(Value::as_str).and_then(Type::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            ..Schema::default()
        };
        node.properties = self.map(schema, "properties");
        node.items = self.child(schema, "items").map(Box::new);
        node.additional = match schema.get("additionalProperties") {
            None | Some(Value::Null | Value::Bool(false)) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(_) => self
                .child(schema, "additionalProperties")
                .map_or(Additional::None, |schema| Additional::Each(Box::new(schema))),
        };
        node.list_type = list_type(schema);
        node.checks = self.checks(schema);
        node.rules = self.rules(schema);
        let below = || {
            node.properties.values().chain(node.items.as_deref()).chain(match &node.additional {
                Additional::Each(schema) => Some(&**schema),
                Additional::None | Additional::Any => None,
            })
        };
        let has_rules = !node.rules.is_empty() || below().any(|child| child.has_rules);
        let has_keyed_lists = node.list_type != ListType::Atomic || below().any(|child| child.has_keyed_lists);
        Schema { has_rules, has_keyed_lists, ..node }
    }

    fn checks(&mut self, schema: &Map<String, Value>) -> Checks {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let bound = |this: &mut Self, name: &str, exclusive: &str| {
            this.number(schema, name).map(|limit| Bound { limit, exclusive: flag(exclusive) })
        };
        Checks {
            required: self.names(schema, "required"),
            enumeration: schema.get("enum").and_then(Value::as_array).cloned(),
            minimum: bound(self, "minimum", "exclusiveMinimum"),
            maximum: bound(self, "maximum", "exclusiveMaximum"),
            multiple_of: self.number(schema, "multipleOf"),
            min_length: self.count(schema, "minLength"),
            max_length: self.count(schema, "maxLength"),
            pattern: self.pattern(schema),
            format: schema.get("format").and_then(Value::as_str).and_then(Format::parse),
            min_items: self.count(schema, "minItems"),
            max_items: self.count(schema, "maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: self.count(schema, "minProperties"),
            max_properties: self.count(schema, "maxProperties"),
            all_of: self.list(schema, "allOf"),
            any_of: self.list(schema, "anyOf"),
            one_of: self.list(schema, "oneOf"),
            not: self.child(schema, "not").map(Box::new),
        }
    }

    fn rules(&mut self, schema: &Map<String, Value>) -> Vec<rules::Rule> {
        let Some(list) = schema.get("x-kubernetes-validations").filter(|list| !list.is_null()) else {
            return Vec::new();
        };
        let len = self.path.push_field("x-kubernetes-validations");
        let mut parsed = Vec::new();
        match list.as_array() {
            None => self.wrong(list, "must be a list of rules"),
            Some(list) => {
                for (index, rule) in list.iter().enumerate() {
                    let len = self.path.push_index(index);
                    match rules::Rule::parse(rule, self.path.as_str()) {
                        Ok(rule) => parsed.push(rule),
                        Err(error) => self.errors.push(error),
                    }
                    self.path.cut(len);
                }
            }
        }
        self.path.cut(len);
        parsed
    }

    fn pattern(&mut self, schema: &Map<String, Value>) -> Option<regex::Regex> {
        let pattern = schema.get("pattern").filter(|pattern| !pattern.is_null())?;
        let text = pattern.as_str().unwrap_or_default();
        match RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let why = format!("must be a valid regular expression, but isn't: {error}");
                self.errors.push(FieldError::invalid(self.path.join("pattern"), pattern.clone(), why));
                None
            }
        }
    }

    fn number(&mut self, schema: &Map<String, Value>, name: &str) -> Option<Number> {
        match schema.get(name).filter(|value| !value.is_null())? {
            Value::Number(number) => Some(number.clone()),
            other => self.wrong_at(name, other, "must be a number"),
        }
    }

    fn count(&mut self, schema: &Map<String, Value>, name: &str) -> Option<u64> {
        let value = schema.get(name).filter(|value| !value.is_null())?;
        value.as_u64().or_else(|| self.wrong_at(name, value, "must be a non-negative integer"))
    }

    fn names(&mut self, schema: &Map<String, Value>, name: &str) -> Vec<String> {
        let Some(value) = schema.get(name).filter(|value| !value.is_null()) else { return Vec::new() };
        let names: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        names.unwrap_or_else(|| self.wrong_at(name, value, "must be a list of names").unwrap_or_default())
    }

    fn child(&mut self, schema: &Map<String, Value>, name: &str) -> Option<Schema> {
        let value = schema.get(name).filter(|value| !value.is_null())?;
        let len = self.path.push_field(name);
        let parsed = self.node(value);
        self.path.cut(len);
        Some(parsed)
    }

    fn map(&mut self, schema: &Map<String, Value>, name: &str) -> BTreeMap<String, Schema> {
        let Some(value) = schema.get(name).filter(|value| !value.is_null()) else { return BTreeMap::new() };
        let Some(map) = value.as_object() else {
            return self.wrong_at(name, value, "must be a map of schemas").unwrap_or_default();
        };
        let len = self.path.push_field(name);
        let mut parsed = BTreeMap::new();
        for (key, schema) in map {
            let len = self.path.push_key(key);
            parsed.insert(key.clone(), self.node(schema));
            self.path.cut(len);
        }
        self.path.cut(len);
        parsed
    }

    fn list(&mut self, schema: &Map<String, Value>, name: &str) -> Vec<Schema> {
        let Some(value) = schema.get(name).filter(|value| !value.is_null()) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            return self.wrong_at(name, value, "must be a list of schemas").unwrap_or_default();
        };
        let mut parsed = Vec::new();
        for (index, schema) in list.iter().enumerate() {
            let outer = self.path.push_field(name);
            self.path.push_index(index);
            parsed.push(self.node(schema));
            self.path.cut(outer);
        }
        parsed
    }

    fn wrong(&mut self, value: &Value, why: &str) {
        self.errors.push(FieldError {
            kind: FieldErrorKind::Invalid,
            field: self.path.as_str().to_owned(),
            value: Some(value.clone()),
            detail: why.to_owned(),
        });
    }

    fn wrong_at<T>(&mut self, name: &str, value: &Value, why: &str) -> Option<T> {
        self.errors.push(FieldError::invalid(self.path.join(name), value.clone(), why));
        None
    }
}

fn list_type(schema: &Map<String, Value>) -> ListType {
    let keys = || schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(keys().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => ListType::Atomic,
    }
}
