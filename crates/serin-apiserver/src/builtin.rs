//! The built-in kinds: a table, one row each.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::definition;
use crate::jsonpath::JsonPath;
use crate::kinds::{account, autoscaler, config, deployment, endpoint_slice, event, lease, pod, secret, service};
use crate::metadata::NameRule;
use crate::owners::Owners;
use crate::resource::{Column, Hooks, Names, Served, View};
use crate::reviews;
use crate::{table, types};

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
pub(crate) const PLAIN: Hooks = Hooks {
    fill: |_| {},
    prepare: |_, _| {},
    validate: |_, _| Vec::new(),
    name_rule: NameRule::Subdomain,
    unconditional_update: true,
    create_on_update: false,
    counts_generation: false,
    shows_deleted: false,
    review: None,
    selectable: &[],
    grace: |_, _| None,
    printer: None,
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
        hooks: Hooks {
            fill: fill_namespace,
            prepare: prepare_namespace,
            name_rule: NameRule::Label,
            selectable: &["status.phase"],
            ..PLAIN
        },
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
        columns: &[("Data", "entries", ".data"), AGE],
        view: View::Renamed,
        hooks: Hooks { fill: config::fill, validate: config::validate, ..PLAIN },
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
        columns: &[("Type", "string", ".type"), ("Data", "entries", ".data"), AGE],
        view: View::Renamed,
        hooks: Hooks { fill: secret::fill, validate: secret::validate, selectable: &["type"], ..PLAIN },
    },
    Row {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: &["sa"],
        categories: &[],
        namespaced: true,
        collection: "serviceaccounts",
        ty: "io.k8s.api.core.v1.ServiceAccount",
        has_status: false,
        columns: &[],
        view: View::Renamed,
        hooks: account::HOOKS,
    },
    Row {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        short: &["po"],
        categories: &["all"],
        namespaced: true,
        collection: "pods",
        ty: "io.k8s.api.core.v1.Pod",
        has_status: true,
        columns: &[],
        view: View::Renamed,
        hooks: pod::HOOKS,
    },
    Row {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        short: &["deploy"],
        categories: &["all"],
        namespaced: true,
        collection: "apps/deployments",
        ty: "io.k8s.api.apps.v1.Deployment",
        has_status: true,
        columns: &[],
        view: View::Renamed,
        hooks: deployment::HOOKS,
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
        columns: &[],
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
        columns: &[],
        view: View::NewEvents,
        hooks: Hooks { validate: event::validate_new, ..EVENT_HOOKS },
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
        hooks: Hooks {
            prepare: lease::prepare,
            validate: lease::validate,
            create_on_update: true,
            unconditional_update: false,
            ..PLAIN
        },
    },
    Row {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        short: &["svc"],
        categories: &["all"],
        namespaced: true,
        collection: service::SERVICES,
        ty: "io.k8s.api.core.v1.Service",
        has_status: true,
        columns: &[],
        view: View::Renamed,
        hooks: service::HOOKS,
    },
    Row {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short: &["hpa"],
        categories: &["all"],
        namespaced: true,
        collection: "autoscaling/horizontalpodautoscalers",
        ty: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        has_status: true,
        columns: &[],
        view: View::Renamed,
        hooks: autoscaler::HOOKS,
    },
    Row {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        short: &[],
        categories: &[],
        namespaced: true,
        collection: "discovery.k8s.io/endpointslices",
        ty: "io.k8s.api.discovery.v1.EndpointSlice",
        has_status: false,
        columns: &[],
        view: View::Renamed,
        hooks: endpoint_slice::HOOKS,
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
        columns: &[("Created At", "timestamp", ".metadata.creationTimestamp")],
        view: View::Renamed,
        hooks: Hooks {
            fill: definition::fill,
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

const EVENT_HOOKS: Hooks = Hooks {
    validate: event::validate_core,
    name_rule: NameRule::PathSegment,
    create_on_update: true,
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
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Of all rows that show the same objects.
    fn owners(&self) -> Owners {
        let versions = ROWS.iter().filter(|row| row.collection == self.collection);
        let versions: Vec<(String, &'static str)> = versions.map(|row| (row.api_version(), row.ty)).collect();
        let kept_by_status: &[&[&str]] = match self.kind {
            "CustomResourceDefinition" => &[&["metadata"], &["spec"]],
            "Deployment" => &[&["spec"], &["metadata", "labels"]],
            "Pod" => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            _ => &[&["spec"]],
        };
        Owners::builtin(self.kind, &versions, self.has_status, kept_by_status)
    }

    fn serve(&self) -> Served {
        let api_version = self.api_version();
        let columns = self.columns.iter().filter_map(|(name, ty, path)| {
            let path = JsonPath::parse(path).ok()?;
            let description = table::describe(self.ty, name, &path);
            let (name, ty) = ((*name).to_owned(), (*ty).to_owned());
            Some(Column { name, ty, format: String::new(), description, priority: 0, path })
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
            scale: (self.kind == "Deployment").then(deployment::scale_paths),
            columns: columns.collect(),
            selectable: Vec::new(),
            view: self.view,
            hooks: self.hooks,
            ty: Some(self.ty),
            owners: Arc::new(self.owners()),
            is_terminating: false,
            on_read: None,
            on_store: None,
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
}

/// Each namespace has a label with its name, so that selectors can say it.
fn fill_namespace(namespace: &mut Value) {
    let name = crate::metadata::text(namespace, "name").to_owned();
    if !name.is_empty() {
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
}
