//! What a schema in a CustomResourceDefinition must be like, in kube-apiserver's words.
//!
//! Source: `apiserver/schema/validation.go` (the structure) and `apis/apiextensions/validation/validation.go` (the rest)
//! of `k8s.io/apiextensions-apiserver`. The schema is looked at as it was sent; a field that is null is not there.

use std::collections::HashSet;

use regex::RegexBuilder;
use serde_json::{Map, Value, json};

use super::{FieldPath, Schema, Type, internal};
use crate::status::FieldError;

/// Nesting allowed in a schema.
const DEPTH_MAX: usize = 64;
/// Memory a compiled `pattern` may take; a bigger one is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Keywords that no schema in a definition may have, with what is said of them.
const UNSUPPORTED: [&str; 6] = ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// Keywords that shape data, and so are refused inside `allOf`, `anyOf`, `oneOf` and `not`.
const SHAPING: [(&str, &str); 12] = [
    ("default", "must be undefined to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("title", "must be empty to be structural"),
    ("type", "must be empty to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

/// Everything that is wrong with a schema that stands at `path`.
pub(super) fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    if let Err(errors) = check_depth(schema, path) {
        return errors;
    }
    let mut checker = Checker { path: FieldPath::at(path), errors: Vec::new(), is_convertible: true };
    checker.openapi(Node(schema), true, Within::default());
    let mut errors = std::mem::take(&mut checker.errors);
    if checker.is_convertible {
        checker.structure(Node(schema), Level::Root);
        checker.errors.sort_by_cached_key(ToString::to_string);
        errors.splice(..0, checker.errors);
    } else if errors.is_empty() {
        errors.push(FieldError::invalid(path, "", "OpenAPIV3Schema 'schema' is not supported"));
    }
    let mut said = HashSet::new();
    errors.retain(|error| said.insert(error.to_string()));
    errors
}

/// Refuses a schema that is nested too deep to be looked at.
pub(super) fn check_depth(schema: &Value, path: &str) -> Result<(), Vec<FieldError>> {
    if depth(schema) <= 2 * DEPTH_MAX {
        return Ok(());
    }
    Err(vec![FieldError::forbidden(path, format!("must not be nested more than {DEPTH_MAX} deep"))])
}

/// Levels of objects and lists, counted no further than is allowed.
fn depth(value: &Value) -> usize {
    let mut level: Vec<&Value> = vec![value];
    let mut depth = 0;
    while !level.is_empty() && depth <= 2 * DEPTH_MAX {
        depth += 1;
        level = level
            .into_iter()
            .flat_map(|value| match value {
                Value::Object(fields) => fields.values().collect::<Vec<_>>(),
                Value::Array(items) => items.iter().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            })
            .collect();
    }
    depth
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// A schema as it was sent.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl<'a> Node<'a> {
    fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(self, name: &str) -> &'a str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn flag(self, name: &str) -> bool {
        self.get(name) == Some(&Value::Bool(true))
    }

    fn list(self, name: &str) -> &'a [Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn map(self, name: &str) -> impl Iterator<Item = (&'a String, Node<'a>)> + use<'a> {
        self.get(name).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key, Node(value)))
    }

    fn property(self, name: &str) -> Option<Node<'a>> {
        self.get("properties")?.get(name).map(Node)
    }

    fn schema(self, name: &str) -> Option<Node<'a>> {
        self.get(name).filter(|value| value.is_object()).map(Node)
    }

    fn ty(self) -> &'a str {
        self.text("type")
    }

    /// Whether a keyword says more than its absence.
    fn says(self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        }
    }
}

/// What the schemas around a schema say of it.
#[derive(Clone, Copy, Default)]
struct Within {
    /// Inside of what names an object.
    meta: bool,
    /// Why there may be no default.
    no_default: Option<&'static str>,
}

struct Checker {
    path: FieldPath,
    errors: Vec<FieldError>,
    /// Whether it can be asked at all if the schema is structural.
    is_convertible: bool,
}

impl Checker {
    fn at(&self, name: &str) -> String {
        self.path.join(name)
    }

    fn invalid(&mut self, name: &str, value: impl Into<Value>, why: impl Into<String>) {
        let path = self.at(name);
        self.errors.push(FieldError::invalid(path, value, why));
    }

    fn required(&mut self, name: &str, why: &str) {
        let path = self.at(name);
        self.errors.push(FieldError::required(path, why));
    }

    fn forbidden(&mut self, name: &str, why: &str) {
        let path = self.at(name);
        self.errors.push(FieldError::forbidden(path, why));
    }

    fn child(&mut self, name: &str, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        work(self);
        self.path.cut(len);
    }

    fn key(&mut self, name: &str, key: &str, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        self.path.push_key(key);
        work(self);
        self.path.cut(len);
    }

    fn index(&mut self, name: &str, index: usize, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        self.path.push_index(index);
        work(self);
        self.path.cut(len);
    }

    /// What makes a schema structural.
    fn structure(&mut self, node: Node<'_>, level: Level) {
        let ty = node.ty();
        if ty == "array" && node.get("items").is_none() {
            self.required("items", "must be specified");
        }
        if let Some(items) = node.schema("items") {
            self.child("items", |this| this.structure(items, Level::Item));
        }
        for (name, property) in node.map("properties") {
            self.key("properties", name, |this| this.structure(property, Level::Field));
        }
        if node.get("additionalProperties").is_some() {
            if level == Level::Root {
                self.forbidden("additionalProperties", "must not be used at the root");
            }
            if let Some(each) = node.schema("additionalProperties") {
                self.child("additionalProperties", |this| this.structure(each, Level::Field));
            }
        }
        let int_or_string = node.flag("x-kubernetes-int-or-string");
        for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if int_or_string && node.flag(other) {
                self.invalid(other, true, "must be false if x-kubernetes-int-or-string is true");
            }
        }
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let skips_any = node.get("anyOf") == Some(&either);
        let skips_first = node.list("allOf").first().is_some_and(|first| first["anyOf"] == either);
        self.values(node, skips_any, skips_first);

        let embedded = node.flag("x-kubernetes-embedded-resource");
        let preserving = node.flag("x-kubernetes-preserve-unknown-fields");
        if embedded && ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            if ty.is_empty() { self.required("type", why) } else { self.invalid("type", ty, why) }
        } else if ty.is_empty() && !int_or_string && !preserving {
            self.required(
                "type",
                match level {
                    Level::Root => "must not be empty at the root",
                    Level::Item => "must not be empty for specified array items",
                    Level::Field => "must not be empty for specified object fields",
                },
            );
        }
        if embedded && node.get("additionalProperties").is_some() {
            self.forbidden("additionalProperties", "must not be used if x-kubernetes-embedded-resource is set");
        }
        if level == Level::Root && !ty.is_empty() && ty != "object" {
            self.invalid("type", ty, "must be object at the root");
        }
        self.meta(node, level == Level::Root || embedded, level == Level::Root);
        if embedded && !preserving && node.map("properties").next().is_none() {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                x-kubernetes-preserve-unknown-fields";
            self.required("properties", why);
        }
    }

    /// What a schema says of the fields that name an object.
    fn meta(&mut self, node: Node<'_>, is_object: bool, is_root: bool) {
        for name in ["kind", "apiVersion"] {
            if let Some(ty) = node.property(name).map(Node::ty).filter(|ty| is_object && *ty != "string") {
                self.key("properties", name, |this| this.invalid("type", ty, "must be string"));
            }
        }
        let Some(metadata) = node.property("metadata") else { return };
        if is_object && metadata.ty() != "object" {
            self.key("properties", "metadata", |this| this.invalid("type", metadata.ty(), "must be object"));
        }
        let empty = Map::new();
        let allowed = ["type", "properties", "default"];
        let names_only = metadata.map("properties").all(|(name, _)| name == "name" || name == "generateName");
        let mut others = metadata.0.as_object().unwrap_or(&empty).keys();
        if is_root && (!names_only || others.any(|name| !allowed.contains(&name.as_str()) && metadata.says(name))) {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.key("properties", "metadata", |this| {
                let path = this.path.as_str().to_owned();
                this.errors.push(FieldError::forbidden(path, why));
            });
        }
    }

    /// The parts of a schema that only refuse values.
    fn values(&mut self, node: Node<'_>, skips_any: bool, skips_first: bool) {
        for name in ["anyOf", "allOf", "oneOf"] {
            for (index, branch) in node.list(name).iter().enumerate() {
                let skips_any_of = name == "allOf" && index == 0 && skips_first;
                if !(name == "anyOf" && skips_any) {
                    self.index(name, index, |this| this.nested(Node(branch), skips_any_of));
                }
            }
        }
        if let Some(branch) = node.schema("not") {
            self.child("not", |this| this.nested(branch, false));
        }
        let pattern = node.text("pattern");
        if !pattern.is_empty()
            && let Err(error) = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build()
        {
            let why = format!("must be a valid regular expression, but isn't: {}", words_of_go(pattern, &error));
            self.invalid("pattern", pattern, why);
        }
    }

    fn nested(&mut self, node: Node<'_>, skips_any: bool) {
        self.values(node, skips_any, false);
        if let Some(items) = node.schema("items") {
            self.child("items", |this| this.nested(items, false));
        }
        for (name, property) in node.map("properties") {
            self.key("properties", name, |this| this.nested(property, false));
        }
        if node.says("additionalProperties") {
            self.forbidden("additionalProperties", "must be undefined to be structural");
        }
        for (name, why) in SHAPING {
            // A default may be anything but null.
            if node.says(name) || name == "default" && node.get(name).is_some() {
                self.forbidden(name, why);
            }
        }
        if node.property("metadata").is_some() {
            self.key("properties", "metadata", |this| {
                let path = this.path.as_str().to_owned();
                this.errors.push(FieldError::forbidden(path, "must not be specified in a nested context"));
            });
        }
    }

    /// What every schema must be like, structural or not.
    fn openapi(&mut self, node: Node<'_>, is_root: bool, within: Within) {
        self.keywords(node, within);
        let embedded = node.flag("x-kubernetes-embedded-resource");
        let has_properties = node.map("properties").next().is_some();
        if let Some(additional) = node.get("additionalProperties") {
            if has_properties {
                self.forbidden("additionalProperties", "additionalProperties and properties are mutual exclusive");
            }
            if additional.is_object() {
                let why = "inside additionalProperties applying to object metadata";
                let within = Within { no_default: within.meta.then_some(why).or(within.no_default), ..within };
                self.child("additionalProperties", |this| this.openapi(Node(additional), false, within));
            }
        }
        for (name, property) in node.map("properties") {
            let mut within = within;
            if (is_root || embedded) && META_FIELDS.contains(&name.as_str()) {
                within.meta = true;
                if is_root {
                    within.no_default = Some(match name.as_str() {
                        "metadata" => "in top-level metadata",
                        "kind" => "in top-level kind",
                        _ => "in top-level apiVersion",
                    });
                }
            }
            self.key("properties", name, |this| this.openapi(property, false, within));
        }
        for name in ["allOf", "oneOf", "anyOf"] {
            for (index, branch) in node.list(name).iter().enumerate() {
                self.index(name, index, |this| this.openapi(Node(branch), false, within));
            }
        }
        for name in ["not", "items"] {
            if let Some(child) = node.schema(name) {
                self.child(name, |this| this.openapi(child, false, within));
            }
        }
        self.lists(node);
        self.rules(node);
    }

    fn keywords(&mut self, node: Node<'_>, within: Within) {
        let ty = node.ty();
        if !ty.is_empty() && Type::parse(ty).is_none() {
            let supported = ["array", "boolean", "integer", "number", "object", "string"];
            self.errors.push(FieldError::not_supported(self.path.join("type"), ty, supported));
        }
        if ty == "null" {
            self.forbidden("type", "type cannot be set to null, use nullable as an alternative");
        }
        if let Some(why) = within.no_default.filter(|_| node.get("default").is_some()) {
            self.forbidden("default", &format!("must not be set {why}"));
        }
        for name in UNSUPPORTED {
            let is_there = match node.get(name) {
                Some(Value::Object(fields)) => !fields.is_empty() || name == "additionalItems",
                Some(Value::String(text)) => !text.is_empty() || name == "$ref",
                other => other.is_some(),
            };
            if is_there {
                self.is_convertible = false;
                self.forbidden(name, &format!("{name} is not supported"));
            }
        }
        self.is_convertible &= node.text("$schema").is_empty();
        if node.get("items").is_some_and(Value::is_array) {
            self.is_convertible = false;
            self.forbidden("items", "items must be a schema object and not an array");
        }
        if within.meta && node.flag("x-kubernetes-embedded-resource") {
            self.forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
        if node.flag("uniqueItems") {
            self.forbidden(
                "uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            );
        }
        if node.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
            self.is_convertible = false;
            self.invalid("x-kubernetes-preserve-unknown-fields", false, "must be true or undefined");
        }
    }

    /// How lists and maps are merged.
    fn lists(&mut self, node: Node<'_>) {
        let ty = node.ty();
        if let Some(map_type) = node.get("x-kubernetes-map-type").and_then(Value::as_str) {
            self.type_is("object", ty, "x-kubernetes-map-type");
            if !["atomic", "granular"].contains(&map_type) {
                let path = self.at("x-kubernetes-map-type");
                self.errors.push(FieldError::not_supported(path, map_type, ["atomic", "granular"]));
            }
        }
        let list_type = node.get("x-kubernetes-list-type").and_then(Value::as_str);
        let items = node.schema("items");
        if let Some(list_type) = list_type {
            self.type_is("array", ty, "x-kubernetes-list-type");
            if !["atomic", "set", "map"].contains(&list_type) {
                let path = self.at("x-kubernetes-list-type");
                self.errors.push(FieldError::not_supported(path, list_type, ["atomic", "set", "map"]));
            }
        }
        let keys = node.list("x-kubernetes-list-map-keys");
        match list_type {
            None if !keys.is_empty() => {
                self.required("x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty");
            }
            Some(other) if !keys.is_empty() && other != "map" => {
                self.invalid("x-kubernetes-list-type", other, "must be map if x-kubernetes-list-map-keys is non-empty");
            }
            _ => {}
        }
        match (list_type, items) {
            (Some("set"), Some(items)) if ty == "array" => self.set_items(items),
            (Some("map"), items) => self.map_items(node, keys, items),
            _ => {}
        }
        if let (Some(list_type @ ("set" | "map")), Some(items)) = (list_type, items)
            && items.flag("nullable")
        {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
            self.child("items", |this| this.forbidden("nullable", &why));
        }
    }

    fn type_is(&mut self, wanted: &str, ty: &str, keyword: &str) {
        let why = format!("must be {wanted} if {keyword} is specified");
        if ty.is_empty() {
            self.required("type", &why);
        } else if ty != wanted {
            self.invalid("type", ty, why);
        }
    }

    fn set_items(&mut self, items: Node<'_>) {
        let keyword = match items.ty() {
            "array" => "x-kubernetes-list-type",
            "object" => "x-kubernetes-map-type",
            _ => return,
        };
        let atomic = match items.text(keyword) {
            "" => keyword == "x-kubernetes-list-type",
            other => other == "atomic",
        };
        if !atomic {
            // kube-apiserver shows the list's type in both cases.
            let shown = items.get("x-kubernetes-list-type").cloned().unwrap_or(Value::Null);
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            self.child("items", |this| this.invalid(keyword, shown, why));
        }
    }

    fn map_items(&mut self, node: Node<'_>, keys: &[Value], items: Option<Node<'_>>) {
        if keys.is_empty() {
            self.required("x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map");
        }
        let Some(items) = items else {
            if node.get("items").is_none() {
                self.required("items", "must have a schema if x-kubernetes-list-type is map");
            }
            return;
        };
        if items.ty() != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.child("items", |this| this.invalid("type", items.ty(), why));
            return;
        }
        let mut seen = HashSet::new();
        for key in keys.iter().filter_map(Value::as_str) {
            if !seen.insert(key) {
                self.invalid("x-kubernetes-list-map-keys", keys.to_vec(), "must not contain duplicate entries");
            }
            let Some(property) = items.property(key) else {
                let why = "entries must all be names of item properties";
                self.invalid("x-kubernetes-list-map-keys", keys.to_vec(), why);
                continue;
            };
            let is_scalar = !["array", "object"].contains(&property.ty());
            let is_set = property.get("default").is_some() || items.list("required").iter().any(|name| name == key);
            self.child("items", |this| {
                this.key("properties", key, |this| {
                    if !is_scalar {
                        // kube-apiserver shows the type of the item.
                        let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        this.invalid("type", items.ty(), why);
                    }
                    if !is_set {
                        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                            required property";
                        this.required("default", why);
                    }
                    if property.flag("nullable") {
                        let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                        this.forbidden("nullable", why);
                    }
                });
            });
        }
    }

    /// The form of rules; whether they can be compiled is another matter.
    fn rules(&mut self, node: Node<'_>) {
        let has_line_break = |text: &str| text.contains(['\n', '\r']);
        for (index, rule) in node.list("x-kubernetes-validations").iter().map(Node).enumerate() {
            self.index("x-kubernetes-validations", index, |this| {
                let (text, message) = (rule.text("rule").trim(), rule.text("message"));
                if text.is_empty() {
                    this.required("rule", "rule is not specified");
                } else if !message.is_empty() && message.trim().is_empty() {
                    this.invalid("message", message, "must be non-empty if specified");
                } else if has_line_break(message.trim()) {
                    this.invalid("message", message, "must not contain line breaks");
                } else if has_line_break(text) && message.is_empty() {
                    this.required("message", "message must be specified if rule contains line breaks");
                }
                let expression = rule.text("messageExpression");
                if !expression.is_empty() && expression.trim().is_empty() {
                    this.required("messageExpression", "messageExpression must be non-empty if specified");
                }
                if let Some(reason) = rule.get("reason").and_then(Value::as_str).filter(|got| !REASONS.contains(got)) {
                    let path = this.at("reason");
                    this.errors.push(FieldError::not_supported(path, reason, REASONS));
                }
                let path = rule.text("fieldPath");
                if !path.is_empty() {
                    if path.trim().is_empty() {
                        this.invalid("fieldPath", path, "must be non-empty if specified");
                    }
                    if has_line_break(path) {
                        this.invalid("fieldPath", path, "must not contain line breaks");
                    }
                    if field_at(node.0, path, true).is_err() {
                        this.invalid("fieldPath", path, "must be a valid path");
                    }
                }
            });
        }
    }
}

/// The schema and the steps of a path like `.a.b['c']` from a schema.
///
/// # Errors
/// Why it is not a path to a field of that schema.
pub(crate) fn field_at<'a>(
    schema: &'a Value,
    path: &str,
    allows_brackets: bool,
) -> Result<(&'a Value, Vec<String>), String> {
    let (mut at, mut rest, mut steps) = (schema, path, Vec::new());
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            let end = after.find(['.', '[', ']']).unwrap_or(after.len()).max(1).min(after.len());
            let (name, after) = after.split_at_checked(end).ok_or("does not refer to a valid field")?;
            rest = after;
            name.to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            if !allows_brackets {
                return Err("array notation is not allowed".into());
            }
            let (name, after) = quoted(after)?;
            rest = after.strip_prefix(']').ok_or("unexpected end of JSON path")?;
            name
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        let node = Node(at);
        let none = || "does not refer to a valid field".to_owned();
        at = if node.get("properties").is_some() {
            node.property(&name).ok_or_else(none)?.0
        } else {
            node.schema("additionalProperties").ok_or_else(none)?.0
        };
        steps.push(name);
    }
    Ok((at, steps))
}

/// A text in single quotes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let inner = text.strip_prefix('\'').ok_or_else(|| {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        format!("expected single quoted string but got {}", &text[..end])
    })?;
    let mut name = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' => return Ok((name, &inner[at + 1..])),
            '\\' => name.push(match chars.next().map(|(_, char)| char) {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(same @ ('\'' | '\\')) => same,
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid string literal: invalid escape char \\{other}"));
                }
            }),
            other => name.push(other),
        }
    }
    Err("unexpected end of JSON path".into())
}

/// What is wrong with defaults, once the schema is structural.
pub(super) fn check_defaults(schema: &Schema, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut path = FieldPath::at(path);
    defaults(schema, &mut path, &mut errors);
    errors
}

fn defaults(schema: &Schema, path: &mut FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(default) = &schema.default {
        let at = path.join("default");
        let mut pruned = default.clone();
        schema.prune_part(&mut pruned);
        if pruned != *default {
            let shown = internal::json(default);
            let why = format!("{shown}: must not have unknown fields");
            errors.push(FieldError { value: None, ..FieldError::invalid(at.as_str(), Value::Null, why) });
        }
        let mut completed = default.clone();
        schema.fill_defaults(&mut completed, true);
        for mut error in schema.validate(&completed, None, "").into_iter().chain(schema.duplicates(&completed, "")) {
            error.field = if error.field.is_empty() { at.clone() } else { format!("{at}.{}", error.field) };
            errors.push(error);
        }
        for mut error in super::rules::evaluate_part(schema, &completed) {
            error.field = if error.field.is_empty() { at.clone() } else { format!("{at}.{}", error.field) };
            errors.push(error);
        }
    }
    if let Some(items) = &schema.items {
        let len = path.push_field("items");
        defaults(items, path, errors);
        path.cut(len);
    }
    for (name, property) in &schema.properties {
        let len = path.push_field("properties");
        path.push_key(name);
        defaults(property, path, errors);
        path.cut(len);
    }
}

/// What Go says of a pattern that cannot be compiled, where it is one of the usual faults.
fn words_of_go(pattern: &str, error: &regex::Error) -> String {
    let said = error.to_string();
    let about = |start: &str| pattern.find(start).map(|at| &pattern[at..]);
    let (what, part) = if said.contains("look-around") {
        ("invalid or unsupported Perl syntax", about("(?").map(|rest| rest.get(..3).unwrap_or(rest)))
    } else if said.contains("unclosed character class") {
        ("missing closing ]", about("["))
    } else if said.contains("unclosed group") {
        ("missing closing )", Some(pattern))
    } else if said.contains("unopened group") {
        ("unexpected )", Some(pattern))
    } else {
        return said;
    };
    part.map_or(said, |part| format!("error parsing regexp: {what}: `{part}`"))
}
