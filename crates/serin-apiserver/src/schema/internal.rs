//! The JSON of kube-apiserver's internal types, which it shows when it refuses one of them whole.
//!
//! Source: `pkg/apis/apiextensions/types.go` and `types_jsonschema.go` of `k8s.io/apiextensions-apiserver`: every field is
//! written, under its Go name, in the order of the type.

use std::fmt::Write as _;

use serde_json::Value;

/// What a field holds, and so how it is written when it is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum As {
    Text,
    Flag,
    Count,
    /// A pointer, a list or a map of what is written as it stands.
    Value,
    Of(Kind),
    Each(Kind),
    Map(Kind),
    /// One schema or a list of them.
    Items,
    /// A schema, or whether anything is allowed.
    Additional,
    /// Schemas or lists of names.
    Dependencies,
}

/// A type that is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Rule,
    Schema,
    Version,
    Validation,
    Subresources,
    Status,
    Scale,
    Column,
    Selectable,
    Docs,
}

impl Kind {
    /// Go name, name in the API, and what it holds.
    pub(crate) fn fields(self) -> &'static [(&'static str, &'static str, As)] {
        match self {
            Self::Rule => &[
                ("Rule", "rule", As::Text),
                ("Message", "message", As::Text),
                ("MessageExpression", "messageExpression", As::Text),
                ("Reason", "reason", As::Value),
                ("FieldPath", "fieldPath", As::Text),
                ("OptionalOldSelf", "optionalOldSelf", As::Value),
            ],
            Self::Version => &[
                ("Name", "name", As::Text),
                ("Served", "served", As::Flag),
                ("Storage", "storage", As::Flag),
                ("Deprecated", "deprecated", As::Flag),
                ("DeprecationWarning", "deprecationWarning", As::Value),
                ("Schema", "schema", As::Of(Kind::Validation)),
                ("Subresources", "subresources", As::Of(Kind::Subresources)),
                ("AdditionalPrinterColumns", "additionalPrinterColumns", As::Each(Kind::Column)),
                ("SelectableFields", "selectableFields", As::Each(Kind::Selectable)),
            ],
            Self::Validation => &[("OpenAPIV3Schema", "openAPIV3Schema", As::Of(Kind::Schema))],
            Self::Subresources => {
                &[("Status", "status", As::Of(Kind::Status)), ("Scale", "scale", As::Of(Kind::Scale))]
            }
            Self::Status => &[],
            Self::Scale => &[
                ("SpecReplicasPath", "specReplicasPath", As::Text),
                ("StatusReplicasPath", "statusReplicasPath", As::Text),
                ("LabelSelectorPath", "labelSelectorPath", As::Value),
            ],
            Self::Column => &[
                ("Name", "name", As::Text),
                ("Type", "type", As::Text),
                ("Format", "format", As::Text),
                ("Description", "description", As::Text),
                ("Priority", "priority", As::Count),
                ("JSONPath", "jsonPath", As::Text),
            ],
            Self::Selectable => &[("JSONPath", "jsonPath", As::Text)],
            Self::Docs => &[("Description", "description", As::Text), ("URL", "url", As::Text)],
            Self::Schema => SCHEMA,
        }
    }
}

const SCHEMA: &[(&str, &str, As)] = &[
    ("ID", "id", As::Text),
    ("Schema", "$schema", As::Text),
    ("Ref", "$ref", As::Value),
    ("Description", "description", As::Text),
    ("Type", "type", As::Text),
    ("Nullable", "nullable", As::Flag),
    ("Format", "format", As::Text),
    ("Title", "title", As::Text),
    ("Default", "default", As::Value),
    ("Maximum", "maximum", As::Value),
    ("ExclusiveMaximum", "exclusiveMaximum", As::Flag),
    ("Minimum", "minimum", As::Value),
    ("ExclusiveMinimum", "exclusiveMinimum", As::Flag),
    ("MaxLength", "maxLength", As::Value),
    ("MinLength", "minLength", As::Value),
    ("Pattern", "pattern", As::Text),
    ("MaxItems", "maxItems", As::Value),
    ("MinItems", "minItems", As::Value),
    ("UniqueItems", "uniqueItems", As::Flag),
    ("MultipleOf", "multipleOf", As::Value),
    ("Enum", "enum", As::Value),
    ("MaxProperties", "maxProperties", As::Value),
    ("MinProperties", "minProperties", As::Value),
    ("Required", "required", As::Value),
    ("Items", "items", As::Items),
    ("AllOf", "allOf", As::Each(Kind::Schema)),
    ("OneOf", "oneOf", As::Each(Kind::Schema)),
    ("AnyOf", "anyOf", As::Each(Kind::Schema)),
    ("Not", "not", As::Of(Kind::Schema)),
    ("Properties", "properties", As::Map(Kind::Schema)),
    ("AdditionalProperties", "additionalProperties", As::Additional),
    ("PatternProperties", "patternProperties", As::Map(Kind::Schema)),
    ("Dependencies", "dependencies", As::Dependencies),
    ("AdditionalItems", "additionalItems", As::Additional),
    ("Definitions", "definitions", As::Map(Kind::Schema)),
    ("ExternalDocs", "externalDocs", As::Of(Kind::Docs)),
    ("Example", "example", As::Value),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", As::Value),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", As::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", As::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", As::Value),
    ("XListType", "x-kubernetes-list-type", As::Value),
    ("XMapType", "x-kubernetes-map-type", As::Value),
    ("XValidations", "x-kubernetes-validations", As::Each(Kind::Rule)),
];

/// The first keyword of a schema that is more than nothing and not one of `allowed`, both by their Go names.
pub(crate) fn first_beside(schema: &Value, allowed: &[&str]) -> Option<&'static str> {
    let says = |name: &str| match &schema[name] {
        Value::Null | Value::Bool(false) => schema.get(name).is_some_and(|_| name == "additionalProperties"),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    SCHEMA.iter().find(|(go, name, _)| says(name) && !allowed.contains(go)).map(|(go, _, _)| *go)
}

/// A value of one of the types.
pub(crate) fn show(kind: Kind, value: &Value) -> String {
    let mut text = String::new();
    write_kind(&mut text, kind, value);
    text
}

/// A list of one of the types.
pub(crate) fn show_list(kind: Kind, value: &Value) -> String {
    let mut text = String::new();
    write_list(&mut text, value, |text, item| write_kind(text, kind, item));
    text
}

/// JSON as Go writes it.
pub(crate) fn json(value: &Value) -> String {
    value.to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

fn write_kind(text: &mut String, kind: Kind, value: &Value) {
    if value.is_null() {
        text.push_str("null");
        return;
    }
    text.push('{');
    for (index, (go, name, holds)) in kind.fields().iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\"{go}\":");
        write_field(text, *holds, value.get(name).unwrap_or(&Value::Null));
    }
    text.push('}');
}

fn write_field(text: &mut String, holds: As, value: &Value) {
    match holds {
        As::Text if value.is_null() => text.push_str("\"\""),
        As::Flag if value.is_null() => text.push_str("false"),
        As::Count if value.is_null() => text.push('0'),
        As::Text | As::Flag | As::Count | As::Value => text.push_str(&json(value)),
        As::Of(kind) => write_kind(text, kind, value),
        As::Each(kind) => write_list(text, value, |text, item| write_kind(text, kind, item)),
        As::Map(kind) => write_map(text, value, |text, item| write_kind(text, kind, item)),
        As::Items if value.is_array() => {
            text.push_str("{\"Schema\":null,\"JSONSchemas\":");
            write_list(text, value, |text, item| write_kind(text, Kind::Schema, item));
            text.push('}');
        }
        As::Items if value.is_object() => {
            text.push_str("{\"Schema\":");
            write_kind(text, Kind::Schema, value);
            text.push_str(",\"JSONSchemas\":null}");
        }
        As::Additional if !value.is_null() => {
            let _ = write!(text, "{{\"Allows\":{},\"Schema\":", *value != Value::Bool(false));
            write_kind(text, Kind::Schema, if value.is_object() { value } else { &Value::Null });
            text.push('}');
        }
        As::Dependencies => write_map(text, value, |text, item| {
            text.push_str("{\"Schema\":");
            write_kind(text, Kind::Schema, if item.is_object() { item } else { &Value::Null });
            text.push_str(",\"Property\":");
            text.push_str(&if item.is_array() { json(item) } else { "null".into() });
            text.push('}');
        }),
        As::Items | As::Additional => text.push_str("null"),
    }
}

fn write_list(text: &mut String, value: &Value, mut item: impl FnMut(&mut String, &Value)) {
    let Some(items) = value.as_array() else { return text.push_str("null") };
    text.push('[');
    for (index, value) in items.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        item(text, value);
    }
    text.push(']');
}

fn write_map(text: &mut String, value: &Value, mut item: impl FnMut(&mut String, &Value)) {
    let Some(fields) = value.as_object() else { return text.push_str("null") };
    text.push('{');
    for (index, (key, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{}:", json(&Value::String(key.clone())));
        item(text, value);
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn every_field_of_an_internal_type_is_written() {
        assert_eq!(
            show(Kind::Rule, &value!({"rule": "self.a > 1", "optionalOldSelf": true})),
            "{\"Rule\":\"self.a \\u003e 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\
             \"OptionalOldSelf\":true}"
        );
        assert_eq!(
            show_list(Kind::Version, &value!([{"name": "v1", "served": true}])),
            "[{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\
             \"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]"
        );
        assert_eq!(show_list(Kind::Version, &Value::Null), "null");
        let schema =
            value!({"type": "object", "items": {}, "additionalProperties": true, "dependencies": {"a": ["b"]}});
        let shown = show(Kind::Schema, &schema);
        for part in [
            "\"JSONSchemas\":null}",
            "\"AdditionalProperties\":{\"Allows\":true,\"Schema\":null}",
            "\"Dependencies\":{\"a\":{\"Schema\":null,\"Property\":[\"b\"]}}",
        ] {
            assert!(shown.contains(part), "{shown} lacks {part}");
        }
        serde_json::from_str::<Value>(&shown).expect("what is written is JSON");
    }

    #[test]
    fn the_first_keyword_that_is_not_allowed_is_found() {
        assert_eq!(first_beside(&value!({"type": "object", "nullable": false, "oneOf": []}), &["Type"]), None);
        assert_eq!(first_beside(&value!({"type": "object", "oneOf": [{}]}), &["Type"]), Some("OneOf"));
    }
}
