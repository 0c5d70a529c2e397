//! OpenAPI: what kubectl needs to validate, apply and explain.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::resource::{Registry, Served, ServedVersion};
use crate::status::{ApiError, json_response};
use crate::types;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`. Clients old enough to need it take an empty document as "nothing to check here".
pub(crate) fn v2(headers: &HeaderMap) -> Response {
    let wants_protobuf = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.split(',').next().is_some_and(|first| first.contains("protobuf")));
    if wants_protobuf {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        return response;
    }
    let document = json!({
        "swagger": "2.0", "info": {"title": "Serin", "version": "v1"}, "paths": {}, "definitions": {},
    });
    json_response(StatusCode::OK, document.to_string())
}

/// `/openapi/v3`.
pub(crate) fn root(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for ServedVersion { version, resources } in versions {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            // Clients cache a document by this address, so it changes with what the document says.
            let hash = hash(resources.values().map(|served| &**served));
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    json!({"paths": paths})
}

fn hash<'a>(resources: impl Iterator<Item = &'a Served>) -> String {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    for served in resources {
        hasher.update(served.names.plural.as_bytes());
        hasher.update(served.openapi.to_string().as_bytes());
        hasher.update([u8::from(served.has_status), u8::from(served.scale.is_some())]);
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3/apis/GROUP/VERSION`, `/openapi/v3/api/VERSION`.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Result<Response, ApiError> {
    let resources = registry.resources(group, version).ok_or(ApiError::NoResource)?;
    let own = resources.values().filter_map(|served| served.ty);
    let mut schemas = Map::new();
    for (name, schema) in types::with_references(own.chain([OBJECT_META, LIST_META])) {
        schemas.insert(name.to_owned(), schema.clone());
    }
    let mut paths = Map::new();
    for served in resources.values() {
        let name = schema_name(served);
        if served.is_custom() {
            schemas.insert(name.clone(), object_schema(served));
        }
        schemas.insert(format!("{name}List"), list_schema(served, &name));
        add_paths(served, &name, &mut paths);
    }
    let document = json!({
        "openapi": "3.0.0", "info": {"title": "Serin", "version": "v1"}, "paths": paths,
        "components": {"schemas": schemas},
    });
    Ok(json_response(StatusCode::OK, document.to_string()))
}

/// `dev.serin.v1alpha1.ModelEndpoint`: the group backwards, the version, the kind.
fn schema_name(served: &Served) -> String {
    let names = &served.names;
    if let Some(ty) = served.ty {
        return ty.to_owned();
    }
    let group: Vec<&str> = names.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), served.version, names.kind)
}

fn kind_of(served: &Served) -> Value {
    json!({"group": served.names.group, "version": served.version, "kind": served.names.kind})
}

/// The schema of a custom resource.
fn object_schema(served: &Served) -> Value {
    let mut schema = (*served.openapi).clone();
    let described = |ty: &str, description: &str| json!({"type": ty, "description": description});
    schema["properties"]["apiVersion"] = described(
        "string",
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized \
            schemas to the latest internal value, and may reject unrecognized values.",
    );
    schema["properties"]["kind"] = described(
        "string",
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from the \
            endpoint the client submits requests to. Cannot be updated. In CamelCase.",
    );
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.",
        "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}], "default": {},
    });
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(served)]);
    schema
}

fn list_schema(served: &Served, name: &str) -> Value {
    let kind = json!({"group": served.names.group, "version": served.version, "kind": served.names.list_kind});
    json!({
        "description": format!("{} is a list of {}", served.names.list_kind, served.names.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": format!("#/components/schemas/{LIST_META}")}], "default": {}},
            "items": {"type": "array", "items": {"allOf": [{"$ref": format!("#/components/schemas/{name}")}], "default": {}}},
        },
        "x-kubernetes-group-version-kind": [kind],
    })
}

fn add_paths(served: &Served, schema: &str, paths: &mut Map<String, Value>) {
    let names = &served.names;
    let base = if names.group.is_empty() {
        format!("/api/{}", served.version)
    } else {
        format!("/apis/{}/{}", names.group, served.version)
    };
    let scope = if names.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", names.plural);
    let operation = |action: &str, id: &str, answer: &str, parameters: Vec<Value>, body: Option<Value>| {
        let mut operation = json!({
            "operationId": format!("{id}{}{}", names.kind, served.version),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference(answer)}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_of(served),
        });
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        operation
    };
    let object_body = || json!({"required": true, "content": {"application/json": {"schema": reference(schema)}}});
    let patch_body = || {
        json!({"required": true, "content": {
            "application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
            "application/merge-patch+json": {"schema": {"type": "object"}},
        }})
    };
    let list = format!("{schema}List");
    let mut in_collection = vec![query("pretty", "string")];
    let mut on_object = vec![in_path("name")];
    if names.namespaced {
        in_collection.push(in_path("namespace"));
        on_object.push(in_path("namespace"));
    }
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", "list", &list, list_parameters(), None),
            "post": operation("post", "create", schema, write_parameters(), Some(object_body())),
            "delete": operation("deletecollection", "deleteCollection", &list, list_parameters(), None),
            "parameters": in_collection,
        }),
    );
    let object = |suffix: &str, answer: &str| {
        let mut object = json!({
            "get": operation("get", &format!("read{suffix}"), answer, Vec::new(), None),
            "put": operation("put", &format!("replace{suffix}"), answer, write_parameters(), Some(object_body())),
            "patch": operation("patch", &format!("patch{suffix}"), answer, patch_parameters(), Some(patch_body())),
            "parameters": on_object,
        });
        if suffix.is_empty() {
            let parameters = vec![query("dryRun", "string"), query("propagationPolicy", "string")];
            object["delete"] = operation("delete", "delete", answer, parameters, None);
        }
        object
    };
    paths.insert(format!("{collection}/{{name}}"), object("", schema));
    if served.has_status {
        paths.insert(format!("{collection}/{{name}}/status"), object("Status", schema));
    }
    if names.namespaced {
        let everywhere = json!({"get": operation("list", "listAll", &list, list_parameters(), None), "parameters": []});
        paths.insert(format!("{base}/{}", names.plural), everywhere);
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn query(name: &str, ty: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn list_parameters() -> Vec<Value> {
    let text = ["continue", "fieldSelector", "labelSelector", "resourceVersion", "resourceVersionMatch"];
    let numbers = ["limit", "timeoutSeconds"];
    let flags = ["allowWatchBookmarks", "sendInitialEvents", "watch"];
    let all = text.map(|name| query(name, "string")).into_iter();
    all.chain(numbers.map(|name| query(name, "integer"))).chain(flags.map(|name| query(name, "boolean"))).collect()
}

/// kubectl sends `fieldValidation` only where a document says that the server knows it.
fn write_parameters() -> Vec<Value> {
    ["dryRun", "fieldManager", "fieldValidation"].map(|name| query(name, "string")).into()
}

fn patch_parameters() -> Vec<Value> {
    let mut parameters = write_parameters();
    parameters.push(query("force", "boolean"));
    parameters
}
