//! The built-in kinds: a table, one row each.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::definition;
use crate::jsonpath::JsonPath;
use crate::metadata::NameRule;
use crate::resource::{Column, Hooks, Names, Served, View};
use crate::reviews;
use crate::status::FieldError;
use crate::types;

/// The collection of namespaces.
pub(crate) const NAMESPACES: &str = "namespaces";
/// The collection of definitions.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// The collection of events, whichever way they came in.
pub(crate) const EVENTS: &str = "events";

/// One built-in kind in one version.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    collection: &'static str,
    /// Its type, by its name in Kubernetes' OpenAPI document.
    ty: &'static str,
    has_status: bool,
    /// (name, type, path)
    columns: &'static [(&'static str, &'static str, &'static str)],
    view: View,
    hooks: Hooks,
}

/// What most built-in kinds do.
const PLAIN: Hooks = Hooks {
    prepare: |_, _| {},
    validate: |_, _| Vec::new(),
    name_rule: NameRule::Subdomain,
    unconditional_update: true,
    counts_generation: false,
    review: None,
    selectable: &[],
};

const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

const ROWS: &[Row] = &[
    Row {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        categories: &[],
        namespaced: false,
        collection: NAMESPACES,
        ty: "io.k8s.api.core.v1.Namespace",
        has_status: true,
        columns: &[("Status", "string", ".status.phase"), AGE],
        view: View::Renamed,
        hooks: Hooks { prepare: prepare_namespace, name_rule: NameRule::Label, selectable: &["status.phase"], ..PLAIN },
    },
    Row {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        short: &["cm"],
        categories: &[],
        namespaced: true,
        collection: "configmaps",
        ty: "io.k8s.api.core.v1.ConfigMap",
        has_status: false,
        columns: &[AGE],
        view: View::Renamed,
        hooks: Hooks { validate: validate_config, ..PLAIN },
    },
    Row {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        short: &[],
        categories: &[],
        namespaced: true,
        collection: "secrets",
        ty: "io.k8s.api.core.v1.Secret",
        has_status: false,
        columns: &[("Type", "string", ".type"), AGE],
        view: View::Renamed,
        hooks: Hooks { prepare: prepare_secret, validate: validate_secret, selectable: &["type"], ..PLAIN },
    },
    Row {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        categories: &[],
        namespaced: true,
        collection: EVENTS,
        ty: "io.k8s.api.core.v1.Event",
        has_status: false,
        columns: EVENT_COLUMNS,
        view: View::Renamed,
        hooks: EVENT_HOOKS,
    },
    Row {
        group: "events.k8s.io",
        version: "v1",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        categories: &[],
        namespaced: true,
        collection: EVENTS,
        ty: "io.k8s.api.events.v1.Event",
        has_status: false,
        columns: EVENT_COLUMNS,
        view: View::NewEvents,
        hooks: EVENT_HOOKS,
    },
    Row {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        short: &[],
        categories: &[],
        namespaced: true,
        collection: "coordination.k8s.io/leases",
        ty: "io.k8s.api.coordination.v1.Lease",
        has_status: false,
        columns: &[("Holder", "string", ".spec.holderIdentity"), AGE],
        view: View::Renamed,
        hooks: PLAIN,
    },
    Row {
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        collection: DEFINITIONS,
        ty: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        has_status: true,
        columns: &[("Created At", "string", ".metadata.creationTimestamp")],
        view: View::Renamed,
        hooks: Hooks {
            prepare: definition::prepare,
            validate: definition::validate,
            counts_generation: true,
            unconditional_update: false,
            ..PLAIN
        },
    },
    Row {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        short: &[],
        categories: &[],
        namespaced: false,
        collection: "authorization.k8s.io/selfsubjectaccessreviews",
        ty: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        has_status: false,
        columns: &[AGE],
        view: View::Renamed,
        hooks: Hooks { review: Some(reviews::access), ..PLAIN },
    },
    Row {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        short: &[],
        categories: &[],
        namespaced: false,
        collection: "authorization.k8s.io/selfsubjectrulesreviews",
        ty: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        has_status: false,
        columns: &[AGE],
        view: View::Renamed,
        hooks: Hooks { review: Some(reviews::rules), ..PLAIN },
    },
    Row {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        short: &[],
        categories: &[],
        namespaced: false,
        collection: "authentication.k8s.io/selfsubjectreviews",
        ty: "io.k8s.api.authentication.v1.SelfSubjectReview",
        has_status: false,
        columns: &[AGE],
        view: View::Renamed,
        hooks: Hooks { review: Some(reviews::subject), ..PLAIN },
    },
];

/// Paths in the stored form, which both views share.
const EVENT_COLUMNS: &[(&str, &str, &str)] = &[
    ("Last Seen", "date", ".lastTimestamp"),
    ("Type", "string", ".type"),
    ("Reason", "string", ".reason"),
    ("Object", "string", ".involvedObject.name"),
    ("Message", "string", ".message"),
];

const EVENT_HOOKS: Hooks = Hooks {
    validate: validate_event,
    name_rule: NameRule::PathSegment,
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    ..PLAIN
};

/// Every built-in kind, ready to be served.
pub(crate) fn all() -> Vec<Arc<Served>> {
    // Their schemas are the same for every server, and take a while to make.
    static ALL: LazyLock<Vec<Arc<Served>>> = LazyLock::new(|| ROWS.iter().map(|row| Arc::new(row.serve())).collect());
    ALL.clone()
}

impl Row {
    fn serve(&self) -> Served {
        let api_version =
            if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) };
        let columns = self.columns.iter().filter_map(|(name, ty, path)| {
            let path = JsonPath::parse(path).ok()?;
            let (name, ty) = ((*name).to_owned(), (*ty).to_owned());
            Some(Column { name, ty, format: String::new(), description: String::new(), priority: 0, path })
        });
        Served {
            names: Arc::new(Names {
                group: self.group.into(),
                kind: self.kind.into(),
                list_kind: format!("{}List", self.kind),
                plural: self.plural.into(),
                singular: self.kind.to_lowercase(),
                short_names: self.short.iter().map(|name| (*name).to_owned()).collect(),
                categories: self.categories.iter().map(|name| (*name).to_owned()).collect(),
                namespaced: self.namespaced,
            }),
            version: self.version.into(),
            stored_api_version: if self.view == View::NewEvents { "v1".into() } else { api_version.clone() },
            api_version,
            collection: self.collection.into(),
            schema: Arc::new(types::schema(self.ty)),
            openapi: Arc::new(types::openapi(self.ty).cloned().unwrap_or_default()),
            has_status: self.has_status,
            scale: None,
            columns: columns.collect(),
            view: self.view,
            hooks: self.hooks,
            ty: Some(self.ty),
            is_terminating: false,
            deprecation: None,
        }
    }
}

fn prepare_namespace(namespace: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        // Only the cleaning up of its content takes the finalizer away.
        namespace["spec"] = old["spec"].clone();
        return;
    }
    namespace["spec"] = json!({"finalizers": ["kubernetes"]});
    namespace["status"] = json!({"phase": "Active"});
    let name = crate::metadata::text(namespace, "name").to_owned();
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
}

/// Folds `stringData` into `data`.
fn prepare_secret(secret: &mut Value, _old: Option<&Value>) {
    let Some(fields) = secret.as_object_mut() else { return };
    fields.entry("type").or_insert_with(|| json!("Opaque"));
    let Some(Value::Object(texts)) = fields.remove("stringData") else { return };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data[key] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

fn validate_secret(secret: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_config(secret, old);
    if old.is_some_and(|old| old["type"] != secret["type"]) {
        errors.push(FieldError::invalid("type", secret["type"].clone(), "field is immutable"));
    }
    errors
}

/// What ConfigMap and Secret share: keys, total size, `immutable`.
fn validate_config(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const BYTES_MAX: usize = 1 << 20;
    let mut errors = Vec::new();
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            bytes += value.as_str().map_or(0, str::len);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if key.is_empty() || key.len() > 253 || !key.bytes().all(plain) || matches!(key.as_str(), "." | "..") {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                errors.push(FieldError::invalid(format!("{field}[{key}]"), key.as_str(), why));
            }
        }
    }
    if bytes > BYTES_MAX {
        errors.push(FieldError::too_long("data", BYTES_MAX as u64));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == json!(true)) {
        for field in ["data", "binaryData", "immutable"] {
            if old[field] != object[field] {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    errors
}

/// An event belongs to the namespace of what it is about; one about a cluster-scoped object to `default`.
fn validate_event(event: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let about = event["involvedObject"]["namespace"].as_str().unwrap_or("");
    let namespace = crate::metadata::text(event, "namespace");
    let fits = if about.is_empty() { matches!(namespace, "default" | "kube-system") } else { about == namespace };
    if fits {
        Vec::new()
    } else {
        vec![FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace")]
    }
}
