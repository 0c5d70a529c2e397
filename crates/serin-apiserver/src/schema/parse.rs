//! Reading a schema from a CustomResourceDefinition, and refusing what is not structural.

use std::collections::BTreeMap;

use regex::RegexBuilder;
use serde_json::{Map, Number, Value};

use super::{Additional, Bound, Checks, FieldPath, Format, ListType, Schema, Type, rules};
use crate::status::{FieldError, FieldErrorKind};

/// Nesting allowed in a schema.
const DEPTH_MAX: usize = 64;
/// Memory a compiled `pattern` may take; a bigger one is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Every keyword of JSONSchemaProps that may be used; the ones that only explain are known and ignored.
const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "description",
    "enum",
    "example",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
/// Keywords that shape data, and so may not be used inside `allOf`, `anyOf`, `oneOf` and `not`.
const SHAPING: &[&str] = &[
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
    /// Inside `allOf` and its kin.
    Value,
}

impl Schema {
    /// Reads a structural schema. `path` is where it stands in its CustomResourceDefinition.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub(crate) fn parse(schema: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        let mut parser = Parser { path: FieldPath::at(path), errors: Vec::new(), depth: 0, int_or_string: false };
        let parsed = parser.node(schema, Level::Root);
        if parser.errors.is_empty() { Ok(parsed) } else { Err(parser.errors) }
    }
}

struct Parser {
    path: FieldPath,
    errors: Vec<FieldError>,
    depth: usize,
    /// Inside an int-or-string, `anyOf` may say `type: integer` and `type: string`.
    int_or_string: bool,
}

impl Parser {
    fn node(&mut self, schema: &Value, level: Level) -> Schema {
        let Some(schema) = schema.as_object() else {
            self.wrong(schema, "must be a schema, an object");
            return Schema::anything();
        };
        if self.depth >= DEPTH_MAX {
            self.wrong(&Value::Null, &format!("must not be nested more than {DEPTH_MAX} deep"));
            return Schema::anything();
        }
        self.depth += 1;
        let parsed = self.object(schema, level);
        self.depth -= 1;
        parsed
    }

    fn object(&mut self, schema: &Map<String, Value>, level: Level) -> Schema {
        self.check_keywords(schema, level);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut node = Schema {
            ty: self.get_type(schema),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").cloned(),
            ..Schema::default()
        };
        let child_level = |inner| if level == Level::Value { Level::Value } else { inner };
        node.properties = self.map(schema, "properties", child_level(Level::Field));
        node.items = self.child(schema, "items", child_level(Level::Item)).map(Box::new);
        node.additional = match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(_) => self
                .child(schema, "additionalProperties", child_level(Level::Field))
                .map_or(Additional::None, |schema| Additional::Each(Box::new(schema))),
        };
        node.list_type = self.list_type(schema);
        let outer = self.int_or_string;
        self.int_or_string |= node.int_or_string;
        node.checks = self.checks(schema);
        self.int_or_string = outer;
        node.rules = self.rules(schema);
        if level != Level::Value {
            self.check_structure(schema, &node, level);
        }
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

    fn check_keywords(&mut self, schema: &Map<String, Value>, level: Level) {
        for name in schema.keys() {
            if !KEYWORDS.contains(&name.as_str()) {
                let path = self.path.join(name);
                self.errors.push(FieldError::forbidden(path, "is not supported in a structural schema"));
            } else if level == Level::Value && SHAPING.contains(&name.as_str()) {
                let allowed_type = self.int_or_string && name == "type";
                if !allowed_type {
                    let path = self.path.join(name);
                    self.errors.push(FieldError::forbidden(path, "must be empty to be structural"));
                }
            }
        }
    }

    fn get_type(&mut self, schema: &Map<String, Value>) -> Option<Type> {
        let value = schema.get("type")?;
        match value.as_str() {
            Some("") => None,
            Some(name) if Type::parse(name).is_some() => Type::parse(name),
            _ => {
                let supported = ["array", "boolean", "integer", "number", "object", "string"];
                self.errors.push(FieldError::not_supported(self.path.join("type"), value.clone(), supported));
                None
            }
        }
    }

    fn list_type(&mut self, schema: &Map<String, Value>) -> ListType {
        let keys: Vec<String> = schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let Some(list_type) = schema.get("x-kubernetes-list-type") else { return ListType::Atomic };
        let path = self.path.join("x-kubernetes-list-type");
        match list_type.as_str() {
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") if keys.is_empty() => {
                let path = self.path.join("x-kubernetes-list-map-keys");
                self.errors.push(FieldError::required(path, "must not be empty if x-kubernetes-list-type is map"));
                ListType::Atomic
            }
            Some("map") => ListType::Map(keys),
            _ => {
                self.errors.push(FieldError::not_supported(path, list_type.clone(), ["atomic", "map", "set"]));
                ListType::Atomic
            }
        }
    }

    fn check_structure(&mut self, schema: &Map<String, Value>, node: &Schema, level: Level) {
        let path = |name: &str| self.path.join(name);
        let mut errors = Vec::new();
        if node.embedded && node.ty != Some(Type::Object) {
            errors.push(FieldError::required(path("type"), "must be object if x-kubernetes-embedded-resource is true"));
        } else if node.ty.is_none() && !node.int_or_string && !node.preserve_unknown {
            let why = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field | Level::Value => "must not be empty for specified object fields",
            };
            errors.push(FieldError::required(path("type"), why));
        }
        if level == Level::Root {
            if let Some(ty) = node.ty.filter(|ty| *ty != Type::Object) {
                errors.push(FieldError::invalid(path("type"), ty.name(), "must be object at the root"));
            }
            if !matches!(node.additional, Additional::None) {
                errors.push(FieldError::forbidden(path("additionalProperties"), "must not be used at the root"));
            }
        }
        if node.ty == Some(Type::Array) && node.items.is_none() {
            errors.push(FieldError::required(path("items"), "must be specified"));
        }
        if !node.properties.is_empty() && !matches!(node.additional, Additional::None) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(path("additionalProperties"), why));
        }
        if node.int_or_string && node.ty.is_some() {
            let shown = schema.get("type").cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(
                path("type"),
                shown,
                "must be empty if x-kubernetes-int-or-string is true",
            ));
        }
        if let Some(default) = &node.default {
            // A default must be what an object could hold after defaulting.
            let mut completed = default.clone();
            node.fill_defaults(&mut completed, true);
            let at = path("default");
            for mut error in node.validate(&completed, None, "") {
                error.field = if error.field.is_empty() { at.clone() } else { format!("{at}.{}", error.field) };
                errors.push(error);
            }
        }
        self.errors.extend(errors);
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
            not: self.child(schema, "not", Level::Value).map(Box::new),
        }
    }

    fn rules(&mut self, schema: &Map<String, Value>) -> Vec<rules::Rule> {
        let Some(list) = schema.get("x-kubernetes-validations") else { return Vec::new() };
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
        let pattern = schema.get("pattern")?;
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
        match schema.get(name)? {
            Value::Number(number) => Some(number.clone()),
            other => self.wrong_at(name, other, "must be a number"),
        }
    }

    fn count(&mut self, schema: &Map<String, Value>, name: &str) -> Option<u64> {
        let value = schema.get(name)?;
        value.as_u64().or_else(|| self.wrong_at(name, value, "must be a non-negative integer"))
    }

    fn names(&mut self, schema: &Map<String, Value>, name: &str) -> Vec<String> {
        let Some(value) = schema.get(name) else { return Vec::new() };
        let names: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        names.unwrap_or_else(|| self.wrong_at(name, value, "must be a list of names").unwrap_or_default())
    }

    fn child(&mut self, schema: &Map<String, Value>, name: &str, level: Level) -> Option<Schema> {
        let value = schema.get(name)?;
        let len = self.path.push_field(name);
        let parsed = self.node(value, level);
        self.path.cut(len);
        Some(parsed)
    }

    fn map(&mut self, schema: &Map<String, Value>, name: &str, level: Level) -> BTreeMap<String, Schema> {
        let Some(value) = schema.get(name) else { return BTreeMap::new() };
        let Some(map) = value.as_object() else {
            return self.wrong_at(name, value, "must be a map of schemas").unwrap_or_default();
        };
        let len = self.path.push_field(name);
        let mut parsed = BTreeMap::new();
        for (key, schema) in map {
            let len = self.path.push_key(key);
            parsed.insert(key.clone(), self.node(schema, level));
            self.path.cut(len);
        }
        self.path.cut(len);
        parsed
    }

    fn list(&mut self, schema: &Map<String, Value>, name: &str) -> Vec<Schema> {
        let Some(value) = schema.get(name) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            return self.wrong_at(name, value, "must be a list of schemas").unwrap_or_default();
        };
        let mut parsed = Vec::new();
        for (index, schema) in list.iter().enumerate() {
            let outer = self.path.push_field(name);
            self.path.push_index(index);
            parsed.push(self.node(schema, Level::Value));
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
