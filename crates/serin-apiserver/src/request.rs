//! What a request asks for: its path, its query, the answer format it wants.

use axum::extract::Query;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, Uri};
use serde_json::Value;

use crate::bad_request::BadRequest;
use crate::decode;
use crate::fields::{ManagerNameError, check_manager};
use crate::status::{ApiError, FieldError, invalid_options};
use crate::types::protobuf;

/// A path below `/api/v1` or `/apis/group/version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// `None` for cluster-scoped paths and for all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Splits a path; `None` if it is not about a resource.
pub(crate) fn parse_path(path: &str) -> Option<ResourcePath> {
    let parts: Vec<String> = path.split('/').skip(1).map(percent_decode).collect::<Option<_>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let rest = match rest {
        [rest @ .., ""] => rest,
        rest => rest,
    };
    // `/namespaces/x` and `/namespaces/x/status` are about a namespace, `/namespaces/x/things` about things in it.
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, subresource] => (plural, Some(name), Some(subresource)),
        _ => return None,
    };
    Some(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        plural: (*plural).to_owned(),
        name: name.map(|name| (*name).to_owned()),
        subresource: subresource.map(|name| (*name).to_owned()),
    })
}

fn percent_decode(part: &str) -> Option<String> {
    if !part.contains('%') {
        return Some(part.to_owned());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// What to do with fields that the schema does not know, or that are given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    /// What a server does when it is not told.
    #[default]
    Warn,
    Strict,
}

/// How exact a resource version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// The query parameters that mean something here; others are ignored, as in kube-apiserver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pub(crate) watch: bool,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) allow_bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) include_object: IncludeObject,
    /// A value of `includeObject` that is none.
    pub(crate) include_object_refused: Option<String>,
    pub(crate) field_manager: String,
    pub(crate) force: Option<bool>,
    pub(crate) pretty: bool,
    /// What `version_match` was read from.
    pub(crate) match_text: String,
    /// Options that are not right.
    pub(crate) refused: Vec<FieldError>,
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What a table row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl Params {
    /// Reads a query.
    ///
    /// # Errors
    /// [`BadRequest`] naming the parameter.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, BadRequest> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| BadRequest::Query { cause: error.to_string() })?;
        let mut params = Self::default();
        for (name, value) in pairs {
            params.set(&name, value)?;
        }
        Ok(params)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BadRequest> {
        let number = || value.parse::<i64>().map_err(|_| not_a_number("ParseInt", &value));
        // Kubernetes takes whatever is not false for true.
        let flag = |value: &str| !(value == "0" || value.eq_ignore_ascii_case("false"));
        match name {
            "watch" => self.watch = flag(&value),
            "allowWatchBookmarks" => self.allow_bookmarks = flag(&value),
            "pretty" => self.pretty = flag(&value),
            "sendInitialEvents" => self.send_initial_events = Some(flag(&value)),
            "limit" => self.limit = usize::try_from(number()?).unwrap_or(0),
            "timeoutSeconds" => self.timeout_seconds = u64::try_from(number()?).ok(),
            "gracePeriodSeconds" => self.grace_seconds = Some(number()?),
            "orphanDependents" => {
                self.propagation = Some(if flag(&value) { Propagation::Orphan } else { Propagation::Background });
            }
            "fieldManager" => self.field_manager = value.clone(),
            "force" => self.force = Some(flag(&value)),
            "continue" => self.continue_token = value.clone(),
            "labelSelector" => self.label_selector = value.clone(),
            "fieldSelector" => self.field_selector = value.clone(),
            "resourceVersion" => {
                self.resource_version = match value.as_str() {
                    "" => None,
                    text => Some(text.parse().map_err(|_| BadRequest::Version { got: text.to_owned() })?),
                }
            }
            "resourceVersionMatch" => {
                self.version_match = match value.as_str() {
                    "Exact" => Some(VersionMatch::Exact),
                    "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                    _ => None,
                };
                self.match_text = value.clone();
            }
            "dryRun" => {
                self.dry_run = match value.as_str() {
                    "" => false,
                    "All" => true,
                    other => {
                        self.refused.push(FieldError::not_supported("dryRun", vec![other], ["All"]));
                        false
                    }
                }
            }
            "fieldValidation" => {
                self.field_validation = match value.as_str() {
                    "" | "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    "Strict" => FieldValidation::Strict,
                    other => {
                        let known = ["", "Ignore", "Strict", "Warn"];
                        self.refused.push(FieldError::not_supported("fieldValidation", other, known));
                        FieldValidation::Warn
                    }
                }
            }
            "propagationPolicy" => {
                self.propagation = Propagation::parse(&value);
                if self.propagation.is_none() {
                    self.refused.push(Propagation::refuse(value.as_str().into()));
                }
            }
            "includeObject" => {
                self.include_object = match value.as_str() {
                    "" | "Metadata" => IncludeObject::Metadata,
                    "None" => IncludeObject::None,
                    "Object" => IncludeObject::Object,
                    _ => {
                        self.include_object_refused = Some(value.clone());
                        IncludeObject::Metadata
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What Go says of a text that is no number.
fn not_a_number(function: &str, text: &str) -> BadRequest {
    BadRequest::Words(format!("strconv.{function}: parsing {text:?}: invalid syntax"))
}

impl Params {
    /// Refuses options of a write that are not right.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] naming all of them.
    pub(crate) fn check_options(&self, method: &Method) -> Result<(), ApiError> {
        let (kind, beside) = match *method {
            Method::POST => ("CreateOptions", "fieldValidation"),
            Method::PUT => ("UpdateOptions", "fieldValidation"),
            Method::PATCH => ("PatchOptions", "fieldValidation"),
            Method::DELETE => ("DeleteOptions", "propagationPolicy"),
            _ => return Ok(()),
        };
        let counts = |field: &&FieldError| field.field == "dryRun" || field.field == beside;
        let mut fields: Vec<FieldError> = self.refused.iter().filter(counts).cloned().collect();
        if *method != Method::DELETE {
            fields.extend(check_manager(&self.field_manager).into_iter().map(|error| match error {
                ManagerNameError::TooLong { max } => FieldError::too_long("fieldManager", max as u64),
                ManagerNameError::Unprintable { .. } => {
                    FieldError::invalid("fieldManager", self.field_manager.as_str(), error.to_string())
                }
            }));
        }
        if fields.is_empty() { Ok(()) } else { Err(invalid_options(kind, fields)) }
    }

    /// Refuses a way to match versions that is none.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] naming it.
    pub(crate) fn check_match(&self) -> Result<(), ApiError> {
        if self.version_match.is_some() || self.match_text.is_empty() {
            return Ok(());
        }
        let known: &[&str] = if self.watch { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
        let field = FieldError::not_supported("resourceVersionMatch", self.match_text.as_str(), known.iter().copied());
        Err(invalid_options("ListOptions", vec![field]))
    }
}

impl Propagation {
    /// Refuses a policy that is none.
    pub(crate) fn refuse(policy: Value) -> FieldError {
        FieldError::not_supported("propagationPolicy", policy, ["Foreground", "Background", "Orphan", "nil"])
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            "Orphan" => Some(Self::Orphan),
            _ => None,
        }
    }
}

/// The shape and format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Json,
    Yaml,
    Table(Form),
    PartialMetadata(Form),
    PartialMetadataList(Form),
}

/// How an answer of `meta.k8s.io` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) is_yaml: bool,
    /// `v1beta1`, which is the same as `v1` but for the name.
    pub(crate) is_beta: bool,
}

impl Form {
    pub(crate) fn api_version(self) -> &'static str {
        if self.is_beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

impl Output {
    /// Picks the first wanted answer that can be given.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`].
    pub(crate) fn negotiate(headers: &HeaderMap, is_custom: bool) -> Result<Self, ApiError> {
        let refused = || ApiError::NotAcceptable { is_custom };
        let Some(accept) = headers.get(ACCEPT) else { return Ok(Self::Json) };
        let accept = accept.to_str().map_err(|_| refused())?;
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        let mut wanted: Vec<(f64, &str)> =
            accept.split(',').map(|media_type| (quality(media_type), media_type)).collect();
        // The sort is stable: of equals, the first.
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        wanted.into_iter().find_map(|(_, media_type)| Self::of_media_type(media_type, is_custom)).ok_or_else(refused)
    }

    fn of_media_type(media_type: &str, is_custom: bool) -> Option<Self> {
        let mut parts = media_type.split(';').map(str::trim);
        let plain = match parts.next()? {
            "application/json" | "*/*" => Self::Json,
            "application/*" if is_custom => Self::Json,
            "application/yaml" => Self::Yaml,
            _ => return None,
        };
        let params: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let get = |name| params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'));
        let is_meta = get("g") == Some("meta.k8s.io") && matches!(get("v"), Some("v1" | "v1beta1"));
        let form = Form { is_yaml: plain == Self::Yaml, is_beta: get("v") == Some("v1beta1") };
        match get("as") {
            None => Some(plain),
            Some("Table") if is_meta => Some(Self::Table(form)),
            Some("PartialObjectMetadata") if is_meta => Some(Self::PartialMetadata(form)),
            Some("PartialObjectMetadataList") if is_meta => Some(Self::PartialMetadataList(form)),
            Some(_) => None,
        }
    }
}

/// How much a media type is wanted, from 0 to 1.
fn quality(media_type: &str) -> f64 {
    let params = media_type.split(';').skip(1).filter_map(|param| param.trim().split_once('='));
    params.filter(|(name, _)| *name == "q").find_map(|(_, value)| value.parse().ok()).unwrap_or(1.0)
}

/// How the body of a create or update is written.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`].
pub(crate) fn body_format(headers: &HeaderMap, takes_protobuf: bool) -> Result<decode::Format, ApiError> {
    let sent = media_type(headers).to_ascii_lowercase();
    match sent.as_str() {
        protobuf::MEDIA_TYPE if takes_protobuf => Ok(decode::Format::Protobuf),
        "" | "application/json" => Ok(decode::Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(decode::Format::Yaml),
        _ => Err(ApiError::UnsupportedMediaType {
            accepted: "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        }),
    }
}

/// The content type without its parameters, empty if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_into_resource_and_name() {
        let rows = [
            ("/api/v1/namespaces", "| v1 | - | namespaces | - | -"),
            ("/api/v1/namespaces/a", "| v1 | - | namespaces | a | -"),
            ("/api/v1/namespaces/a/status", "| v1 | - | namespaces | a | status"),
            ("/api/v1/namespaces/a/secrets", "| v1 | a | secrets | - | -"),
            ("/api/v1/namespaces/a/secrets/b", "| v1 | a | secrets | b | -"),
            ("/api/v1/secrets", "| v1 | - | secrets | - | -"),
            ("/apis/g.io/v2/namespaces/a/things/b/scale", "g.io| v2 | a | things | b | scale"),
            ("/apis/g.io/v2/things/b%3Ac", "g.io| v2 | - | things | b:c | -"),
        ];
        for (path, want) in rows {
            let got = parse_path(path).expect(path);
            let or = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".into());
            let got = format!(
                "{}| {} | {} | {} | {} | {}",
                got.group,
                got.version,
                or(&got.namespace),
                got.plural,
                or(&got.name),
                or(&got.subresource)
            );
            assert_eq!(got, want, "{path}");
        }
        for path in ["/", "/api", "/healthz", "/apis/g.io/v2", "/api/v1", "/apis/g/v/a/b/c/d/e", "/api/v1/x/%zz"] {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_first_answer_format_that_is_known_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let old_yaml = Form { is_yaml: true, is_beta: true };
        let rows = [
            ("", Ok(Output::Json)),
            ("*/*", Ok(Output::Json)),
            (table, Ok(Output::Table(Form::default()))),
            ("application/yaml;as=Table;v=v1beta1;g=meta.k8s.io", Ok(Output::Table(old_yaml))),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Ok(Output::PartialMetadata(Form::default())),
            ),
            ("application/vnd.kubernetes.protobuf, application/json", Ok(Output::Json)),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok(Output::PartialMetadataList(Form::default())),
            ),
            ("application/json;as=Other;g=meta.k8s.io;v=v1, application/json", Ok(Output::Json)),
            ("application/yaml", Ok(Output::Yaml)),
            ("application/vnd.kubernetes.protobuf", Err(())),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            assert_eq!(Output::negotiate(&headers, true).map_err(|_| ()), want, "{accept}");
        }
    }
}
