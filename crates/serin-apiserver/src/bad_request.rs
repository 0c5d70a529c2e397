//! Requests that make no sense as they stand: everything that is answered with 400.

use crate::decode::DecodeError;
use crate::patch::PatchError;
use crate::selector::SelectorError;
use crate::status::FieldError;

/// Why a request was not understood. The wording is kube-apiserver's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// The body is no JSON or YAML.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// The body broke off, or its length is wrong.
    #[error("the body cannot be read: {cause}")]
    BodyBroken {
        /// What the connection said.
        cause: String,
    },
    /// The body of an object is none.
    #[error("the object provided is unrecognized (must be of type {kind}): got {got}")]
    NotAnObject {
        /// The kind that is served here.
        kind: String,
        /// The JSON type that was sent.
        got: &'static str,
    },
    /// The object has another `apiVersion` than its path.
    #[error("the API version in the data ({got}) does not match the expected API version ({wanted})")]
    OtherApiVersion {
        /// The one in the body.
        got: String,
        /// The one in the path.
        wanted: String,
    },
    /// The object has another kind than its path.
    #[error("the kind in the data ({got}) does not match the expected kind ({wanted})")]
    OtherKind {
        /// The one in the body.
        got: String,
        /// The one that is served here.
        wanted: String,
    },
    /// The object does not say what it is.
    #[error("Object '{field}' is missing in the request body")]
    Untyped {
        /// `Kind` or `apiVersion`.
        field: &'static str,
    },
    /// The object cannot be read into the kind.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {why}")]
    OtherForm {
        /// The kind.
        kind: String,
        /// Its version.
        version: String,
        /// Why, in Kubernetes' words.
        why: &'static str,
    },
    /// A field cannot be read into the kind.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {field}")]
    Unreadable {
        /// The kind.
        kind: String,
        /// Its version.
        version: String,
        /// The field, and what is wrong with it.
        field: Box<FieldError>,
    },
    /// The caller asked for no unknown or duplicate fields, and sent some.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}", fields.join(", "))]
    Strict {
        /// The kind.
        kind: String,
        /// Its version.
        version: String,
        /// Each as `unknown field "path"` or `duplicate field "path"`.
        fields: Vec<String>,
    },
    /// The object has another namespace than its path.
    #[error("the namespace of the provided object does not match the namespace sent on the request")]
    OtherNamespace,
    /// The object has another name than its path.
    #[error("the name of the object ({got}) does not match the name on the URL ({wanted})")]
    OtherName {
        /// The one in the body.
        got: String,
        /// The one in the path.
        wanted: String,
    },
    /// A new object has a version. Kubernetes answers 500.
    #[error("resourceVersion should not be set on objects to be created")]
    NewVersion,
    /// A resource version is no number. Kubernetes answers 500 where one object is asked for.
    #[error("resourceVersion: Invalid value: {got:?}: strconv.ParseUint: parsing {got:?}: invalid syntax")]
    Version {
        /// It.
        got: String,
    },
    /// A body or a query parameter, in the words of Kubernetes.
    #[error("{0}")]
    Words(String),
    /// A changed or applied object does not say its name.
    #[error("the name of the object ({wanted} based on URL) was undeterminable: name must be provided")]
    NoName {
        /// The one in the path.
        wanted: String,
    },
    /// The body of an apply is no object.
    #[error(
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {got} into Go value of type \
         map[string]interface {{}}"
    )]
    ApplyBody {
        /// The JSON type that was sent, in Go's words.
        got: &'static str,
    },
    /// The body of an apply is no YAML.
    #[error("error decoding YAML: {0}")]
    ApplyYaml(#[source] DecodeError),
    /// A patch cannot be read.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A strategic merge patch says something that cannot be. Kubernetes answers most of these with 500.
    #[error("{cause}")]
    StrategicPatch {
        /// What, in Kubernetes' words.
        cause: String,
    },
    /// A configuration cannot be applied.
    #[error("{cause}")]
    Apply {
        /// Why, in Kubernetes' words.
        cause: String,
    },
    /// The query is not encoded right.
    #[error("the query cannot be read: {cause}")]
    Query {
        /// What is wrong with it.
        cause: String,
    },
    /// A query parameter has a wrong value.
    #[error("{name}: Invalid value: {value:?}: {wanted}")]
    Parameter {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// Query parameters exclude or need each other.
    #[error("{rule}")]
    Parameters {
        /// The rule that they break.
        rule: &'static str,
    },
    /// A label or field selector.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// `continue` is not one that this server gave.
    #[error("invalid continue token: {why}")]
    Continue {
        /// Why, in Kubernetes' words.
        why: String,
    },
    /// `includeObject` is none of those that a table may have.
    #[error("Unable to convert to Table as requested: {0}")]
    TableOptions(FieldError),
    /// An option of a deletion.
    #[error("DeleteOptions{field}: want {wanted}")]
    DeleteOptions {
        /// The field, with a leading dot; empty for the whole.
        field: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// The body of `/scale` is something else.
    #[error("the body must be an autoscaling/v1 Scale")]
    NoScale,
}
