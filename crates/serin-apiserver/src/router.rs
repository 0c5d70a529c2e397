//! The HTTP side: one handler that knows every path.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::decode::{self, BODY_BYTES_MAX};
use crate::delete::{DeleteOptions, Deleted};
use crate::intake::{self, Origin, Part};
use crate::patch::{self, Patch};
use crate::read::{self, Selection};
use crate::request::{self, Output, Params, ResourcePath};
use crate::resource::Served;
use crate::schema::Type;
use crate::status::{About, ApiError, FieldError, invalid_options, json_response};
use crate::write::{Ask, Written};
use crate::{discovery, fields, metadata, openapi, respond, table, watch};

/// The routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(handle).with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    // A bug in one answer must not take the connection, and every other request on it, down.
    let wants_yaml = matches!(Output::negotiate(request.headers(), true), Ok(Output::Yaml));
    let answer = async {
        match answer(api, request).await {
            Ok(response) => response,
            Err(error) if wants_yaml && !matches!(error, ApiError::NoPath) => respond::refusal_as_yaml(&error),
            Err(error) => error.into_response(),
        }
    };
    let mut response = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(request = what, "the handler panicked");
            ApiError::Panicked { request: what }.into_response()
        }
    };
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

async fn answer(api: Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    if let Some(answer) = fixed(&api, path, &request)? {
        return Ok(answer);
    }
    let missing = || if is_always_there(&api, path) { ApiError::NoResource } else { ApiError::NoPath };
    let older = watch::older_path(path);
    let mut path = request::parse_path(older.as_deref().unwrap_or(path)).ok_or_else(missing)?;
    let served = api.find(&path.group, &path.version, &path.plural).ok_or_else(missing)?;
    if let Some(subresource) = path.subresource.as_deref() {
        let exists = match subresource {
            "status" => served.has_status,
            "scale" => served.scale.is_some(),
            _ => false,
        };
        if !exists {
            return Err(match &path.name {
                Some(name) if served.is_custom() => ApiError::NotFound(served.about(name)),
                _ => ApiError::NoResource,
            });
        }
    }
    if !served.names.namespaced && path.namespace.is_some() {
        return Err(ApiError::NoResource);
    }
    let (parts, body) = request.into_parts();
    let mut params = Params::parse(&parts.uri)?;
    params.check_options(&parts.method)?;
    let output = Output::negotiate(&parts.headers, served.is_custom())?;
    table::check_options(&params, output)?;
    let mut watched = None;
    if older.is_some() {
        (watched, params.watch) = (path.name.take(), true);
        if path.subresource.is_some() {
            return Err(ApiError::NoResource);
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(ApiError::MethodNotAllowed);
        }
    }
    let call = Call {
        manager: manager(&params, &parts.headers),
        params,
        watched,
        output,
        headers: parts.headers,
        api,
        served,
        path,
    };
    if let Some(review) = call.served.hooks.review {
        return call.review(&parts.method, body, review).await;
    }
    let warnings = call.served.deprecation.iter().cloned().collect();
    call.dispatch(&parts.method, body, warnings).await
}

/// Whether a path lies in a group of Kubernetes' own.
fn is_always_there(api: &Api, path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("api"), _) => true,
        (Some("apis"), Some(group)) => {
            api.registry().all().any(|served| !served.is_custom() && served.names.group == group)
        }
        _ => false,
    }
}

/// Paths that are not about a resource.
fn fixed(api: &Api, path: &str, request: &Request) -> Result<Option<Response>, ApiError> {
    let ok = || Ok(Some(([(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok").into_response()));
    let json = |value: Value| Ok(Some(json_response(StatusCode::OK, value.to_string())));
    let registry = api.registry();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] if request.uri().path().ends_with('/') => return Err(ApiError::NoPath),
        ["healthz" | "livez" | "readyz"] => return ok(),
        ["healthz" | "livez" | "readyz", "ping" | "log" | "etcd"] | ["readyz", "informer-sync" | "shutdown"] => {
            return ok();
        }
        ["healthz" | "livez" | "readyz", ..] => return Err(ApiError::NoPath),
        [""] | ["version"] | ["api"] | ["apis"] | ["openapi", ..] if !is_read => {
            return Err(ApiError::MethodNotAllowed);
        }
        [""] => return json(discovery::paths(&registry)),
        ["version"] => return json(discovery::version(&api.options.git_version)),
        ["api" | "apis"] if discovery::wants_aggregated(request.headers()) => {
            return Ok(Some(discovery::aggregated(&registry, parts == ["api"])));
        }
        ["api"] => return json(discovery::core_versions()),
        ["apis"] => return json(discovery::groups(&registry)),
        ["openapi", "v2"] => return Ok(Some(openapi::v2(request.headers()))),
        ["openapi", "v3"] => return json(openapi::root(&registry)),
        ["openapi", "v3", "api", version] => return openapi::document(&registry, "", version).map(Some),
        ["openapi", "v3", "apis", group, version] => return openapi::document(&registry, group, version).map(Some),
        _ => {}
    }
    let found = match parts.as_slice() {
        ["api", version] => discovery::resources(&registry, "", version),
        ["apis", group] => discovery::group(&registry, group),
        ["apis", group, version] => discovery::resources(&registry, group, version),
        _ => return Ok(None),
    };
    if !is_read {
        return Err(ApiError::MethodNotAllowed);
    }
    let missing = || match parts.as_slice() {
        ["apis", _] => ApiError::NoPath,
        _ if is_always_there(api, path) => ApiError::NoResource,
        _ => ApiError::NoPath,
    };
    json(found.ok_or_else(missing)?)
}

/// Who owns what a request writes.
fn manager(params: &Params, headers: &HeaderMap) -> String {
    if !params.field_manager.is_empty() {
        return params.field_manager.clone();
    }
    let user_agent = headers.get(USER_AGENT).map_or("", |value| value.to_str().unwrap_or(""));
    fields::manager_of_user_agent(user_agent)
}

/// One request about a resource.
struct Call {
    api: Arc<Api>,
    served: Arc<Served>,
    path: ResourcePath,
    params: Params,
    /// The name that the older path of a watch has.
    watched: Option<String>,
    /// Who owns what is written: the one that is named, or the client.
    manager: String,
    output: Output,
    headers: HeaderMap,
}

impl Call {
    async fn dispatch(self, method: &Method, body: Body, mut warnings: Vec<String>) -> Result<Response, ApiError> {
        let name = self.path.name.clone();
        let subresource = self.path.subresource.clone();
        let response = match (method, name.as_deref(), subresource.as_deref()) {
            (&Method::GET | &Method::HEAD, None, None) => self.list_or_watch().await,
            (&Method::GET | &Method::HEAD, Some(name), None | Some("status")) => self.get(name),
            (&Method::GET | &Method::HEAD, Some(name), Some(_)) => self.get_scale(name),
            (&Method::POST, None, None) => self.create(body, &mut warnings).await,
            (&Method::PUT, Some(name), None) => self.update(name, Part::Main, body, &mut warnings).await,
            (&Method::PUT, Some(name), Some("status")) => self.update(name, Part::Status, body, &mut warnings).await,
            (&Method::PUT, Some(name), Some(_)) => self.put_scale(name, body).await,
            (&Method::PATCH, Some(name), None) => self.patch(name, Part::Main, body, &mut warnings).await,
            (&Method::PATCH, Some(name), Some("status")) => self.patch(name, Part::Status, body, &mut warnings).await,
            (&Method::PATCH, Some(name), Some(_)) => self.patch_scale(name, body).await,
            (&Method::DELETE, Some(name), None) => self.delete(name, body).await,
            (&Method::DELETE, None, None) => self.delete_collection(body).await,
            _ => Err(self.not_allowed(method)),
        }?;
        Ok(respond::warn(response, &warnings))
    }

    fn not_allowed(&self, method: &Method) -> ApiError {
        if !self.served.is_custom() {
            return ApiError::MethodNotAllowed;
        }
        if self.path.namespace.is_none() && self.served.names.namespaced {
            return ApiError::NoPath;
        }
        let verb = match *method {
            Method::POST => "create",
            Method::DELETE => "delete",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "",
        };
        ApiError::VerbNotAllowed { about: self.served.about(""), verb }
    }

    /// Answers an object that is never stored.
    async fn review(
        &self,
        method: &Method,
        body: Body,
        review: fn(&mut Value) -> Vec<FieldError>,
    ) -> Result<Response, ApiError> {
        if *method != Method::POST || self.path.name.is_some() {
            return Err(ApiError::MethodNotAllowed);
        }
        let mut warnings = Vec::new();
        let decoded = self.decode(body).await?;
        let mut object =
            intake::shape(&self.served, decoded, Origin::Body, self.params.field_validation, &mut warnings)?;
        let asked = object.clone();
        let fields = review(&mut object);
        if !fields.is_empty() {
            // Kubernetes does not name the kind here.
            let about = About { kind: String::new(), ..self.served.about("") };
            return Err(ApiError::Invalid { about, fields });
        }
        let served = &self.served;
        let owned = served.owners.update(&served.api_version, Part::Main, None, asked, &self.manager);
        if let Some(owners) = owned["metadata"].get("managedFields") {
            object["metadata"]["managedFields"] = owners.clone();
        }
        Ok(respond::warn(respond::value(&object, self.output, StatusCode::CREATED), &warnings))
    }

    /// The namespace of a request about one object; empty for a cluster-scoped one.
    fn namespace(&self) -> Result<&str, ApiError> {
        match &self.path.namespace {
            Some(namespace) => Ok(namespace),
            // Only lists and watches go over all of them.
            None if self.served.names.namespaced => {
                Err(if self.served.is_custom() { ApiError::NoPath } else { ApiError::MethodNotAllowed })
            }
            None => Ok(""),
        }
    }

    fn ask(&self) -> Result<Ask<'_>, ApiError> {
        Ok(Ask { served: &self.served, namespace: self.namespace()?, params: &self.params, manager: &self.manager })
    }

    fn get(&self, name: &str) -> Result<Response, ApiError> {
        let key = self.served.key(self.namespace()?, name);
        if let Some(wanted) = self.params.resource_version {
            self.api.check_not_future(wanted)?;
        }
        let object = self.api.store.get(&key).ok_or_else(|| ApiError::NotFound(self.served.about(name)))?;
        Ok(respond::object(&self.served, &object, self.output, self.params.include_object, StatusCode::OK))
    }

    fn get_scale(&self, name: &str) -> Result<Response, ApiError> {
        Ok(respond::value(&self.api.get_scale(&self.ask()?, name)?, self.output, StatusCode::OK))
    }

    async fn list_or_watch(self) -> Result<Response, ApiError> {
        self.params.check_match()?;
        read::check_options(&self.params)?;
        let mut selection = Selection::parse(&self.served, self.path.namespace.as_deref(), &self.params)?;
        if let Some(name) = &self.watched {
            selection.keep_name(name)?;
        }
        if self.params.watch {
            return watch::start(&self.api, self.served, selection, &self.params, self.output);
        }
        let list = self.api.list(&self.served, &selection, &self.params).await?;
        Ok(respond::list(&self.served, &list, self.output, self.params.include_object))
    }

    async fn create(&self, body: Body, warnings: &mut Vec<String>) -> Result<Response, ApiError> {
        let ask = self.ask()?;
        let decoded = self.decode(body).await?;
        let written = self.api.create(&ask, decoded, warnings).await?;
        Ok(self.written(written, StatusCode::CREATED))
    }

    async fn update(
        &self,
        name: &str,
        part: Part,
        body: Body,
        warnings: &mut Vec<String>,
    ) -> Result<Response, ApiError> {
        let ask = self.ask()?;
        let decoded = self.decode(body).await?;
        let (written, is_new) = self.api.update(&ask, name, part, decoded, warnings).await?;
        Ok(self.written(written, if is_new { StatusCode::CREATED } else { StatusCode::OK }))
    }

    async fn patch(
        &self,
        name: &str,
        part: Part,
        body: Body,
        warnings: &mut Vec<String>,
    ) -> Result<Response, ApiError> {
        let ask = self.ask()?;
        if request::media_type(&self.headers) == patch::APPLY {
            return self.apply(&ask, name, part, body, warnings).await;
        }
        Patch::check_media_type(&self.headers, self.served.ty)?;
        if self.params.force.is_some() {
            return Err(invalid_options(
                "PatchOptions",
                vec![FieldError::forbidden("force", "may not be specified for non-apply patch")],
            ));
        }
        let patch = Patch::new(&self.headers, read(body).await?, self.served.ty, self.params.field_validation)?;
        let written = self.api.patch(&ask, name, part, &patch, warnings).await?;
        Ok(self.written(written, StatusCode::OK))
    }

    async fn apply(
        &self,
        ask: &Ask<'_>,
        name: &str,
        part: Part,
        body: Body,
        warnings: &mut Vec<String>,
    ) -> Result<Response, ApiError> {
        if self.params.field_manager.is_empty() {
            return Err(invalid_options(
                "PatchOptions",
                vec![FieldError::required("fieldManager", "is required for apply patch")],
            ));
        }
        let body = read(body).await?;
        let mut config = decode::decode(&body, decode::Format::Yaml, |_, _| None).map_err(BadRequest::ApplyYaml)?;
        match &config.value {
            Value::Object(_) => {}
            Value::Null => config.value = json!({}),
            other => return Err(BadRequest::ApplyBody { got: Type::in_go(other) }.into()),
        }
        let (written, is_new) = self.api.apply(ask, name, part, &config, warnings).await?;
        Ok(self.written(written, if is_new { StatusCode::CREATED } else { StatusCode::OK }))
    }

    async fn put_scale(&self, name: &str, body: Body) -> Result<Response, ApiError> {
        let ask = self.ask()?;
        let scale = self.decode(body).await?.value;
        if !scale.is_object() || scale["kind"].as_str().is_some_and(|kind| kind != "Scale") {
            return Err(BadRequest::NoScale.into());
        }
        let scale = self.api.set_scale(&ask, name, |_| Ok(scale.clone())).await?;
        Ok(respond::value(&scale, self.output, StatusCode::OK))
    }

    async fn patch_scale(&self, name: &str, body: Body) -> Result<Response, ApiError> {
        let ask = self.ask()?;
        let ty = self.served.ty.and(Some("io.k8s.api.autoscaling.v1.Scale"));
        let patch = Patch::new(&self.headers, read(body).await?, ty, self.params.field_validation)?;
        let scale = self.api.set_scale(&ask, name, |scale| Ok(patch.apply(scale)?.value)).await?;
        Ok(respond::value(&scale, self.output, StatusCode::OK))
    }

    async fn delete(&self, name: &str, body: Body) -> Result<Response, ApiError> {
        let key = self.served.key(self.namespace()?, name);
        let options = self.delete_options(body).await?;
        let deleted = self.api.delete(&self.served, &key, &options).await?;
        Ok(match deleted {
            Deleted::Gone(object) | Deleted::Dry(object) if self.served.hooks.shows_deleted => {
                respond::object(&self.served, &object, self.output, self.params.include_object, StatusCode::OK)
            }
            Deleted::Waits(object) => {
                respond::object(&self.served, &object, self.output, self.params.include_object, StatusCode::OK)
            }
            Deleted::DryWaits(mut value) => {
                self.served.make_shown(&mut value);
                respond::value(&value, self.output, StatusCode::OK)
            }
            Deleted::Gone(object) | Deleted::Dry(object) => {
                let mut details = json!({
                    "name": name, "kind": self.served.names.plural, "uid": metadata::text(&object.value, "uid"),
                });
                if !self.served.names.group.is_empty() {
                    details["group"] = self.served.names.group.as_str().into();
                }
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                });
                respond::value(&status, Output::Json, StatusCode::OK)
            }
        })
    }

    async fn delete_collection(&self, body: Body) -> Result<Response, ApiError> {
        let selection = Selection::parse(&self.served, self.path.namespace.as_deref(), &self.params)?;
        let options = self.delete_options(body).await?;
        let mut list = self.api.list(&self.served, &selection, &self.params).await?;
        for object in &mut list.objects {
            match self.api.delete(&self.served, &object.key, &options).await {
                Ok(Deleted::Gone(last) | Deleted::Waits(last) | Deleted::Dry(last)) => *object = last,
                // Nothing was done, or someone else was faster.
                Ok(Deleted::DryWaits(_)) => {}
                Err(ApiError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(respond::list(&self.served, &list, self.output, self.params.include_object))
    }

    async fn delete_options(&self, body: Body) -> Result<DeleteOptions, ApiError> {
        let body = read(body).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return DeleteOptions::parse(&self.params, None);
        }
        let decoded = self.decode_bytes(&body)?;
        DeleteOptions::parse(&self.params, Some(&decoded.value))
    }

    async fn decode(&self, body: Body) -> Result<decode::Decoded, ApiError> {
        self.decode_bytes(&read(body).await?)
    }

    fn decode_bytes(&self, body: &[u8]) -> Result<decode::Decoded, ApiError> {
        let format = request::body_format(&self.headers, self.served.has_binary_form())?;
        Ok(decode::decode(body, format, |version, kind| self.type_of(version, kind)).map_err(BadRequest::Body)?)
    }

    /// The type of what a request about this resource may carry in binary form.
    fn type_of(&self, version: &str, kind: &str) -> Option<&'static str> {
        match kind {
            "DeleteOptions" => Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            "Scale" => Some("io.k8s.api.autoscaling.v1.Scale"),
            _ if kind == self.served.names.kind && version == self.served.api_version => self.served.ty,
            _ => None,
        }
    }

    fn written(&self, written: Written, code: StatusCode) -> Response {
        match written {
            Written::Stored(object) => {
                respond::object(&self.served, &object, self.output, self.params.include_object, code)
            }
            Written::Unstored(mut value) => {
                self.served.make_shown(&mut value);
                respond::value(&value, self.output, code)
            }
        }
    }
}

/// A whole body, up to the limit.
async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge { limit: BODY_BYTES_MAX }),
        Err(error) => Err(BadRequest::BodyBroken { cause: error.to_string() }.into()),
    }
}
