//! An object's way in: decoded, pruned, defaulted, compared with what is stored, validated.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::builtin::DEFINITIONS;
use crate::decode::Decoded;
use crate::definition;
use crate::fields;
use crate::metadata;
use crate::request::FieldValidation;
use crate::resource::{Served, View};
use crate::schema::{self, ERRORS_MAX, Type};
use crate::status::{About, ApiError, FieldError, FieldErrorKind};

/// What part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status, where that is a subresource.
    Main,
    /// The status alone.
    Status,
}

/// How the new object was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// As a whole object.
    Body,
    /// As a patch of the stored one.
    Patch,
    /// As a configuration that was applied to the stored one.
    Apply,
}

/// Reads the shape of an object: its kind, its metadata, its known fields, its defaults. The object is in the form of
/// `served`. Unknown and duplicate fields are refused, or added to `warnings`.
pub(crate) fn shape(
    served: &Served,
    decoded: Decoded,
    origin: Origin,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let Decoded { mut value, mut strict } = decoded;
    let Some(fields) = value.as_object_mut() else {
        return Err(BadRequest::NotAnObject { kind: served.names.kind.clone(), got: Type::of(&value) }.into());
    };
    check_type(served, fields, origin)?;
    let kind = || served.names.kind.clone();
    let unreadable = |field| {
        let (version, field) = (served.version.clone(), Box::new(field));
        ApiError::BadRequest(BadRequest::Unreadable { kind: kind(), version, field })
    };
    let mut unknown = metadata::normalize(fields).map_err(unreadable)?;
    let owners = metadata::dedup_owners(&mut value);
    unknown.extend(served.schema.prune(&mut value));
    if !served.is_custom() {
        unknown.sort();
    }
    if validation != FieldValidation::Ignore {
        strict.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
        match validation {
            FieldValidation::Strict if !strict.is_empty() => {
                return Err(match origin {
                    Origin::Body => {
                        BadRequest::Strict { kind: kind(), version: served.version.clone(), fields: strict }.into()
                    }
                    // kube-apiserver refuses the patch here, not the object, and names neither.
                    Origin::Patch | Origin::Apply => {
                        let why = format!("strict decoding error: {}", strict.join(", "));
                        let fields = vec![FieldError::invalid("patch", value.to_string(), why)];
                        ApiError::Invalid { about: About::default(), fields }
                    }
                });
            }
            _ => warnings.extend(strict),
        }
    }
    warnings.extend(owners);
    served.schema.fill_defaults(&mut value, !(origin == Origin::Apply && served.is_custom()));
    if !served.is_custom()
        && let Some(error) = served.schema.validate(&value, None, "").into_iter().find(is_about_type)
    {
        // A built-in kind is read into a type, so what does not fit cannot be read.
        return Err(unreadable(error));
    }
    served.check_quantities(&value)?;
    if served.is_custom() {
        // As once written and read again.
        fields::to_integers(&mut value);
    }
    served.settle(&mut value);
    (served.hooks.fill)(&mut value);
    served.settle(&mut value);
    Ok(value)
}

fn is_about_type(error: &FieldError) -> bool {
    error.kind == FieldErrorKind::TypeInvalid
}

fn check_type(served: &Served, fields: &mut Map<String, Value>, origin: Origin) -> Result<(), ApiError> {
    let name = fields.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default().to_owned();
    let refused = |about: About, field: &str, got: &str, wanted: &str| {
        let fields = vec![FieldError::invalid(field, got, format!("must be {wanted}"))];
        ApiError::Invalid { about, fields }
    };
    for (field, wanted) in [("kind", served.names.kind.as_str()), ("apiVersion", &served.api_version)] {
        match fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(got) if got == wanted => {}
            Some(got) if served.is_custom() && field == "kind" => {
                let about = About { kind: got.to_owned(), ..served.about(&name) };
                return Err(refused(about, field, got, wanted));
            }
            Some(got) if served.is_custom() && origin != Origin::Body => {
                let group = got.split_once('/').map_or("", |(group, _)| group);
                let about = About { group: group.to_owned(), ..served.about(&name) };
                return Err(refused(about, field, got, wanted));
            }
            Some(got) if field == "apiVersion" => {
                return Err(BadRequest::OtherApiVersion { got: got.into(), wanted: wanted.into() }.into());
            }
            Some(got) => {
                return Err(BadRequest::OtherKind { got: got.into(), wanted: wanted.into() }.into());
            }
            // Of a built-in kind the server knows what it must be.
            None if !served.is_custom() => {
                fields.insert(field.to_owned(), wanted.into());
            }
            None => {
                let field = if field == "kind" { "Kind" } else { "apiVersion" };
                return Err(BadRequest::Untyped { field }.into());
            }
        }
    }
    Ok(())
}

/// Completes a shaped new object and validates it. It comes out in the stored form.
pub(crate) fn complete_new(served: &Served, mut object: Value, namespace: &str) -> Result<Value, ApiError> {
    let name = metadata::text(&object, "name").to_owned();
    let given = metadata::text(&object, "namespace");
    if !given.is_empty() && given != namespace {
        return Err(BadRequest::OtherNamespace.into());
    }
    let now = metadata::now();
    metadata::fill_new(&mut object, namespace, &now);
    if served.has_status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if served.hooks.counts_generation {
        object["metadata"]["generation"] = 1.into();
    }
    let mut fields = metadata::validate_new(&object, served.hooks.name_rule);
    if !served.is_custom() {
        fields.extend(metadata::refuse_finalizers(&object));
    }
    check(served, &mut object, None, &mut fields);
    refuse(served, &name, fields)?;
    Ok(if &*served.collection == DEFINITIONS { establish(served, object, &now) } else { object })
}

/// Completes a shaped changed object against the stored one and validates it. Both `object` and `old` are in the form
/// of `served`, and so is what comes out with its stored form.
pub(crate) fn complete_update(
    served: &Served,
    mut object: Value,
    old: &Value,
    part: Part,
    origin: Origin,
) -> Result<Value, ApiError> {
    let name = metadata::text(old, "name").to_owned();
    check_preconditions(served, &object, old, origin)?;
    let mut fields = metadata::validate_kept(&object, old);
    metadata::keep_system_fields(&mut object, old);
    match part {
        Part::Main if served.has_status => copy_field(&mut object, old, "status"),
        Part::Main => {}
        Part::Status => {
            let mut next = old.clone();
            copy_field(&mut next, &object, "status");
            copy_owners(&mut next, &object);
            if !served.is_custom() && &*served.collection != DEFINITIONS {
                next["metadata"] = object["metadata"].take();
            }
            object = next;
        }
    }
    object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    if part == Part::Main && served.hooks.counts_generation && differs_beyond_metadata(&object, old) {
        object["metadata"]["generation"] = (metadata::generation(old) + 1).into();
    }
    fields.extend(metadata::validate_update(&object, old));
    if !served.is_custom() && object["metadata"]["finalizers"] != old["metadata"]["finalizers"] {
        fields.extend(metadata::refuse_finalizers(&object));
    }
    check(served, &mut object, Some(old), &mut fields);
    refuse(served, &name, fields)?;
    Ok(if &*served.collection == DEFINITIONS { establish(served, object, &metadata::now()) } else { object })
}

fn check_preconditions(served: &Served, object: &Value, old: &Value, origin: Origin) -> Result<(), ApiError> {
    let about = || served.about(metadata::text(old, "name"));
    let version = metadata::text(object, "resourceVersion");
    let (uid, old_uid) = (metadata::text(object, "uid"), metadata::text(old, "uid"));
    if origin == Origin::Body && !uid.is_empty() && uid != old_uid {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: UID in precondition: {uid}, UID in object meta: {old_uid}",
            served.registry_path(metadata::text(old, "namespace"), metadata::text(old, "name"))
        );
        return Err(ApiError::Conflict { about: about(), why });
    }
    match version {
        "" if served.hooks.unconditional_update => Ok(()),
        "" => {
            let why = "must be specified for an update";
            let fields = vec![FieldError::invalid("metadata.resourceVersion", 0, why)];
            let about = About { kind: served.names.plural.clone(), ..about() };
            Err(ApiError::Invalid { about, fields })
        }
        version if version == metadata::text(old, "resourceVersion") => Ok(()),
        _ => {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            Err(ApiError::Conflict { about: about(), why: why.into() })
        }
    }
}

/// A definition that is served from the moment it is stored.
fn establish(served: &Served, definition: Value, now: &str) -> Value {
    let mut next = definition.clone();
    next["status"] = definition::established(&next, now);
    served.owners.update(&served.api_version, Part::Status, Some(&definition), next, "kube-apiserver")
}

/// Who owns what is written with the status, too.
fn copy_owners(to: &mut Value, from: &Value) {
    let owners = from["metadata"]["managedFields"].clone();
    let metadata = metadata::of(to);
    match owners {
        Value::Null => metadata.remove("managedFields"),
        owners => metadata.insert("managedFields".into(), owners),
    };
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(to) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}

fn differs_beyond_metadata(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return true };
    let mut names = a.keys().chain(b.keys()).filter(|name| *name != "metadata");
    names.any(|name| a.get(name) != b.get(name))
}

/// Prepares, validates, and turns into the stored form. `fields` holds what is wrong with its metadata.
fn check(served: &Served, object: &mut Value, old: Option<&Value>, fields: &mut Vec<FieldError>) {
    // A built-in kind's types were checked when it was read, and its nulls are those that Go writes.
    if served.is_custom() {
        fields.extend(served.schema.validate(object, old, ""));
        fields.extend(served.scale.iter().flat_map(|scale| definition::check_replicas(scale, object)));
    }
    if served.schema.has_keyed_lists && old.is_none_or(|old| served.schema.duplicates(old, "").is_empty()) {
        fields.extend(served.schema.duplicates(object, ""));
    }
    if served.schema.has_rules {
        if fields.iter().any(blocks_rules) {
            fields.push(FieldError {
                kind: FieldErrorKind::Invalid,
                field: String::new(),
                value: Some(Value::Null),
                detail: "some validation rules were not checked because the object was invalid; correct the existing \
                    errors to complete validation"
                    .into(),
            });
        } else {
            fields.extend(schema::rules::evaluate(&served.schema, object, old));
        }
    }
    served.make_stored(object);
    let stored_old = match (old, served.view) {
        (Some(old), View::NewEvents) => {
            let mut old = old.clone();
            served.make_stored(&mut old);
            Some(Cow::Owned(old))
        }
        // The stored form differs in `apiVersion` at most, which no hook looks at.
        (old, View::Renamed) => old.map(Cow::Borrowed),
        (None, _) => None,
    };
    (served.hooks.prepare)(object, stored_old.as_deref());
    fields.extend((served.hooks.validate)(object, stored_old.as_deref()));
}

fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.kind,
        FieldErrorKind::NotSupported
            | FieldErrorKind::Required
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid
    )
}

fn refuse(served: &Served, name: &str, mut fields: Vec<FieldError>) -> Result<(), ApiError> {
    fields.truncate(ERRORS_MAX);
    if fields.is_empty() { Ok(()) } else { Err(ApiError::Invalid { about: served.about_kind(name), fields }) }
}

impl Api {
    /// Whether new objects of this kind may be made in this namespace.
    pub(crate) fn check_place(&self, served: &Served, namespace: &str, name: &str) -> Result<(), ApiError> {
        if served.is_terminating {
            return Err(ApiError::VerbNotAllowed { about: served.about(""), verb: "create" });
        }
        if served.names.namespaced { self.check_namespace(served, namespace, name) } else { Ok(()) }
    }
}
