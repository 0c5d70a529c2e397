//! Lists: pages, selectors, versions.

use std::sync::Arc;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use base64::{DecodeError, alphabet};
use serde_json::json;

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::builtin::EVENTS;
use crate::event_view;
use crate::request::{Params, VersionMatch};
use crate::resource::{Served, View};
use crate::selector::{self, Fields, Labels, Place, SelectorError};
use crate::status::{ApiError, FieldError, invalid_options};
use crate::store::{Object, Page, TooOld};

/// What a list or watch selects.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) labels: Labels,
    pub(crate) fields: Fields,
    /// What the paths of the keys begin with: `namespace/`, or nothing for all, or `/` for cluster-scoped kinds.
    pub(crate) prefix: String,
}

impl Selection {
    pub(crate) fn parse(served: &Served, namespace: Option<&str>, params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            labels: Labels::parse(&params.label_selector).map_err(BadRequest::Selector)?,
            fields: Fields::parse(&params.field_selector, |field| place(served, field))
                .map_err(BadRequest::Selector)?,
            prefix: match namespace {
                Some(namespace) => format!("{namespace}/"),
                None if served.names.namespaced => String::new(),
                None => "/".to_owned(),
            },
        })
    }

    /// Selects the one object that the older path of a watch names.
    ///
    /// # Errors
    /// [`BadRequest::Parameters`] if another one is selected already.
    pub(crate) fn keep_name(&mut self, name: &str) -> Result<(), BadRequest> {
        if self.fields.is_empty() {
            self.fields = Fields::of_name(name);
        } else if self.fields.name() != Some(name) {
            return Err(BadRequest::Parameters { rule: "fieldSelector metadata.name doesn't match requested name" });
        }
        Ok(())
    }

    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn takes(&self, object: &Object) -> bool {
        self.labels.matches(&object.value) && self.fields.matches(&object.value)
    }
}

/// Where the stored objects have a field that they can be selected by.
fn place(served: &Served, field: &str) -> Result<Place, SelectorError> {
    let own = served.hooks.selectable;
    let unsupported = || SelectorError::Field { field: field.to_owned() };
    let field = match served.view {
        View::NewEvents => event_view::core_field(field).ok_or_else(unsupported)?,
        View::Renamed => field.to_owned(),
    };
    // Kinds that say nothing of their fields let select by namespace, though they may have none.
    let has_namespace = served.names.namespaced || (own.is_empty() && !served.is_custom());
    match field.as_str() {
        "metadata.name" => return Ok(selector::dotted(&field)),
        "metadata.namespace" if has_namespace => return Ok(selector::dotted(&field)),
        known if own.contains(&known) && &*served.collection == EVENTS => return Ok(event_view::place(known)),
        known if own.contains(&known) => return Ok(selector::dotted(known)),
        _ => {}
    }
    match served.selectable.iter().find(|(known, _)| *known == field) {
        Some((_, pointer)) => Ok(vec![pointer.clone()]),
        None if own.is_empty() && !served.is_custom() => Err(SelectorError::UnknownField { field }),
        None => Err(unsupported()),
    }
}

/// Refuses options of a list or watch that exclude each other.
///
/// # Errors
/// [`ApiError::Invalid`] naming all of them.
pub(crate) fn check_options(params: &Params) -> Result<(), ApiError> {
    const MATCH: &str = "resourceVersionMatch";
    let (mut wanted, mut sends) = (params.version_match, params.send_initial_events.is_some());
    let mut fields = Vec::new();
    let mut refuse = |is_wrong: bool, detail: &str| {
        if is_wrong {
            fields.push(FieldError::forbidden(MATCH, detail));
        }
    };
    if params.watch {
        // Without a version, a watch begins with what is there.
        if wanted.is_none() && !sends && params.resource_version.unwrap_or(0) == 0 {
            (wanted, sends) = (Some(VersionMatch::NotOlderThan), true);
        }
        let is_other = wanted != Some(VersionMatch::NotOlderThan);
        refuse(sends && is_other, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        refuse(
            wanted.is_some() && !sends,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    } else {
        let is_at_zero = wanted == Some(VersionMatch::Exact) && params.resource_version == Some(0);
        refuse(
            wanted.is_some() && params.resource_version.is_none(),
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
        refuse(is_at_zero, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if params.watch && wanted == Some(VersionMatch::Exact) {
        fields.push(FieldError::not_supported(MATCH, "Exact", ["NotOlderThan"]));
    }
    if wanted.is_some() && !params.continue_token.is_empty() {
        fields.push(FieldError::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if !params.watch && sends {
        fields.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if fields.is_empty() { Ok(()) } else { Err(invalid_options("ListOptions", fields)) }
}

/// A list's objects and what its metadata says.
pub(crate) struct List {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Api {
    /// Lists objects. Pages that belong together show one state.
    pub(crate) async fn list(
        self: &Arc<Self>,
        served: &Served,
        selection: &Selection,
        params: &Params,
    ) -> Result<List, ApiError> {
        let start = Start::of(params, &selection.prefix)?;
        if let Some(wanted) = start.at_least {
            self.check_not_future(wanted)?;
        }
        let collection = served.collection.clone();
        let prefix = selection.prefix.clone();
        // A selector may skip any number of objects, so the page is cut after it.
        let limit = if selection.is_all() { params.limit } else { 0 };
        let page = match start.exactly {
            Some(revision) => {
                self.check_not_future(revision)?;
                let (store, after) = (self.store.clone(), start.after.clone());
                // The state at an older revision may need the disk.
                let read = move || store.list_at(&collection, &prefix, after.as_deref(), limit, revision);
                // A task of this kind fails only if it panics, and reading does not.
                let lost = TooOld { wanted: revision, oldest: self.store.oldest() };
                let page = tokio::task::spawn_blocking(read).await.unwrap_or(Err(lost));
                page.map_err(|error| if start.is_continued { ApiError::ContinueExpired } else { error.into() })?
            }
            None => self.store.list(&collection, &prefix, start.after.as_deref(), limit),
        };
        Ok(cut(page, selection, params.limit))
    }

    /// Refuses a version that this server has not reached.
    pub(crate) fn check_not_future(&self, wanted: u64) -> Result<(), ApiError> {
        let current = self.store.revision();
        if wanted > current { Err(ApiError::FutureVersion { wanted, current }) } else { Ok(()) }
    }
}

fn cut(page: Page, selection: &Selection, limit: usize) -> List {
    let Page { mut objects, revision, mut remaining } = page;
    if !selection.is_all() {
        objects.retain(|object| selection.takes(object));
        if limit > 0 && objects.len() > limit {
            remaining = objects.len() - limit;
            objects.truncate(limit);
        }
    }
    let next = objects.last().filter(|_| remaining > 0).map(|last| {
        let path = &last.key.path;
        make_token(revision, path.strip_prefix(selection.prefix.as_str()).unwrap_or(path))
    });
    // With a selector the rest is not counted, as in kube-apiserver.
    let remaining = (remaining > 0 && selection.is_all()).then_some(remaining);
    List { objects, revision, next, remaining }
}

struct Start {
    after: Option<String>,
    exactly: Option<u64>,
    at_least: Option<u64>,
    is_continued: bool,
}

impl Start {
    fn of(params: &Params, prefix: &str) -> Result<Self, ApiError> {
        if !params.continue_token.is_empty() {
            let (revision, after) = read_token(&params.continue_token).map_err(|why| BadRequest::Continue { why })?;
            if params.resource_version.is_some_and(|version| version != 0) {
                let rule = "specifying resource version is not allowed when using continue";
                return Err(BadRequest::Parameters { rule }.into());
            }
            // Below zero, the newest state is meant.
            let exactly = u64::try_from(revision).ok();
            let after = Some(format!("{prefix}{after}"));
            return Ok(Self { after, exactly, at_least: None, is_continued: true });
        }
        let exact = params.version_match == Some(VersionMatch::Exact);
        Ok(Self {
            after: None,
            exactly: params.resource_version.filter(|_| exact),
            at_least: params.resource_version.filter(|_| !exact),
            is_continued: false,
        })
    }
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// Base64 as Go reads it: bits after the end may be set.
const TOKEN_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What continues a list, in the form of kube-apiserver: the first key that may follow, without the list's prefix.
fn make_token(revision: u64, after: &str) -> String {
    // The smallest key above another is that with a zero behind it.
    TOKEN_BASE64.encode(json!({"v": TOKEN_VERSION, "rv": revision, "start": format!("{after}\0")}).to_string())
}

/// The revision and the key to go on after, or what is wrong with a token.
fn read_token(token: &str) -> Result<(i64, String), String> {
    let not_valid = |why: &str| format!("continue key is not valid: {why}");
    let bytes = TOKEN_BASE64.decode(token).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(len) => len.saturating_sub(1),
            DecodeError::InvalidPadding => token.find('=').unwrap_or(token.len()),
        };
        not_valid(&format!("illegal base64 data at input byte {at}"))
    })?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        not_valid(&match first {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) if !byte.is_ascii_digit() && !br#"{["-tfn"#.contains(&byte) => {
                format!("invalid character {:?} looking for beginning of value", char::from(byte))
            }
            Some(_) => error.to_string(),
        })
    })?;
    let version = json["v"].as_str().unwrap_or_default();
    if version != TOKEN_VERSION {
        return Err(not_valid(&format!("server does not recognize this encoded version {version}")));
    }
    let revision = json["rv"].as_i64().filter(|revision| *revision != 0);
    let revision =
        revision.ok_or_else(|| not_valid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))?;
    let start = json["start"].as_str().unwrap_or_default();
    if start.is_empty() {
        return Err(not_valid("encoded start key empty (version meta.k8s.io/v1)"));
    }
    let path = start.strip_prefix('/').unwrap_or(start);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(not_valid(start));
    }
    Ok((revision, path.strip_suffix('\0').unwrap_or(path).to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `EncodeContinue` of k8s.io/apiserver writes after the key `a`, at revision 12.
    const TOKEN: &str = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiYVx1MDAwMCJ9";

    #[test]
    fn page_tokens_have_the_form_of_kubernetes() {
        assert_eq!(read_token(TOKEN), Ok((12, "a".to_owned())));
        let json: serde_json::Value =
            serde_json::from_slice(&TOKEN_BASE64.decode(make_token(12, "a")).expect("base64")).expect("JSON");
        assert_eq!(json, json!({"v": "meta.k8s.io/v1", "rv": 12, "start": "a\0"}));
    }

    #[test]
    fn page_tokens_are_refused_in_the_words_of_kubernetes() {
        let encode = |json: serde_json::Value| TOKEN_BASE64.encode(json.to_string());
        let v = "meta.k8s.io/v1";
        let rows = [
            ("abcde".to_owned(), "illegal base64 data at input byte 4"),
            ("ab=c".to_owned(), "illegal base64 data at input byte 2"),
            ("a b".to_owned(), "illegal base64 data at input byte 1"),
            ("xyz".to_owned(), "invalid character 'Ç' looking for beginning of value"),
            (encode(json!({"v": "v2"})), "server does not recognize this encoded version v2"),
            (encode(json!({"v": v})), "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
            (encode(json!({"v": v, "rv": 1})), "encoded start key empty (version meta.k8s.io/v1)"),
            (encode(json!({"v": v, "rv": 1, "start": "../a"})), "../a"),
            (encode(json!({"v": v, "rv": 1, "start": "a//b"})), "a//b"),
        ];
        for (token, want) in rows {
            assert_eq!(read_token(&token), Err(format!("continue key is not valid: {want}")), "{token}");
        }
    }

    proptest! {
        #[test]
        fn page_tokens_are_read_as_they_were_made(revision in 1..=i64::MAX as u64, after in "[a-z0-9.-]{1,9}(/[a-z0-9]{1,9})?") {
            prop_assume!(!after.split('/').any(|part| matches!(part, "." | "..")));
            prop_assert_eq!(read_token(&make_token(revision, &after)), Ok((revision as i64, after)));
        }

        #[test]
        fn no_page_token_breaks_the_reader(token in "[A-Za-z0-9_=-]{0,40}") {
            let _ = read_token(&token);
        }
    }

    #[test]
    fn options_of_lists_and_watches_exclude_each_other() {
        let list = Params::default();
        let watch = Params { watch: true, ..Params::default() };
        let exact = Some(VersionMatch::Exact);
        let newer = Some(VersionMatch::NotOlderThan);
        let rows = [
            (list.clone(), ""),
            (
                Params { version_match: exact, ..list.clone() },
                "resourceVersionMatch is forbidden unless resourceVersion",
            ),
            (
                Params { version_match: exact, resource_version: Some(0), ..list.clone() },
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                Params { version_match: newer, resource_version: Some(1), continue_token: "x".into(), ..list.clone() },
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            (Params { send_initial_events: Some(false), ..list.clone() }, "sendInitialEvents is forbidden for list"),
            (watch.clone(), ""),
            (
                Params { continue_token: "x".into(), ..watch.clone() },
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            (Params { continue_token: "x".into(), resource_version: Some(7), ..watch.clone() }, ""),
            (
                Params { send_initial_events: Some(true), ..watch.clone() },
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (Params { send_initial_events: Some(true), version_match: newer, ..watch.clone() }, ""),
            (
                Params { version_match: newer, ..watch.clone() },
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (Params { version_match: exact, ..watch.clone() }, "supported values: \"NotOlderThan\""),
        ];
        for (params, want) in rows {
            match check_options(&params) {
                Ok(()) => assert_eq!(want, "", "{params:?}"),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!want.is_empty() && said.contains(want), "{params:?}: {said}");
                }
            }
        }
    }
}
