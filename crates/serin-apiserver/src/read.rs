//! Lists: pages, selectors, versions.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::request::{Params, VersionMatch};
use crate::resource::Served;
use crate::selector::{Fields, Labels};
use crate::status::ApiError;
use crate::store::{Object, Page, TooOld};

/// What a list or watch selects.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) labels: Labels,
    pub(crate) fields: Fields,
    /// `namespace/`, or nothing for all.
    pub(crate) prefix: String,
}

impl Selection {
    pub(crate) fn parse(served: &Served, namespace: Option<&str>, params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            labels: Labels::parse(&params.label_selector).map_err(BadRequest::Selector)?,
            fields: Fields::parse(&params.field_selector, served.hooks.selectable).map_err(BadRequest::Selector)?,
            prefix: namespace.map_or_else(String::new, |namespace| format!("{namespace}/")),
        })
    }

    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn takes(&self, object: &Object) -> bool {
        self.labels.matches(&object.value) && self.fields.matches(&object.value)
    }
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
        let start = Start::of(params)?;
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
            None => self.store.list(&collection, &prefix, None, limit),
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
    let next = objects.last().filter(|_| remaining > 0).map(|last| make_token(revision, &last.key.path));
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
    fn of(params: &Params) -> Result<Self, ApiError> {
        let bad = |rule| ApiError::BadRequest(BadRequest::Parameters { rule });
        if params.version_match.is_some() && params.resource_version.is_none() {
            return Err(bad("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if params.version_match.is_some() && !params.continue_token.is_empty() {
            return Err(bad("resourceVersionMatch is forbidden when continue is provided"));
        }
        if params.version_match == Some(VersionMatch::Exact) && params.resource_version == Some(0) {
            return Err(bad("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""));
        }
        if !params.continue_token.is_empty() {
            let (revision, after) = read_token(&params.continue_token).ok_or(BadRequest::Continue)?;
            return Ok(Self { after: Some(after), exactly: Some(revision), at_least: None, is_continued: true });
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

fn make_token(revision: u64, after: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": 1, "rv": revision, "after": after}).to_string())
}

fn read_token(token: &str) -> Option<(u64, String)> {
    let json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    Some((json["rv"].as_u64()?, json["after"].as_str()?.to_owned()))
}
