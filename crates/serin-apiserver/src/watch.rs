//! Watches: a stream of events from a version on.
//!
//! A watch reads the store by revision at its own pace: from memory, from the history on disk when it fell behind,
//! and ends with `410 Gone` when the history has been trimmed under it. Nothing waits for a watch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Api;
use crate::metadata::random_bytes;
use crate::read::Selection;
use crate::request::{IncludeObject, Output, Params};
use crate::resource::Served;
use crate::status::ApiError;
use crate::store::{Event, EventKind, Object, Previous, Store, TooOld};
use crate::{respond, table};

/// Bytes gathered into one chunk of the stream, roughly.
const CHUNK_BYTES: usize = 64 << 10;
/// A watch that sets no limit of its own ends after this and up to twice this, so that clients do not all come back
/// at once. The value is kube-apiserver's.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1800);
/// A watch ends after this at the latest.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A watch that marks the end of its first state has another bookmark this much later, or a tenth of it after its first
/// event: about as in kube-apiserver, which looks every second for those that have just caught up.
const BOOKMARK_SOON: Duration = Duration::from_secs(1);

/// Starts a watch.
///
/// # Errors
/// [`ApiError`]: a version that is not reached yet.
pub(crate) fn start(
    api: &Arc<Api>,
    served: Arc<Served>,
    selection: Selection,
    params: &Params,
    output: Output,
) -> Result<Response, ApiError> {
    let wants_yaml = match output {
        Output::Json => false,
        Output::Yaml => true,
        Output::Table(form) | Output::PartialMetadata(form) | Output::PartialMetadataList(form) => form.is_yaml,
    };
    if wants_yaml {
        // YAML cannot be told from what follows it; that is said in YAML all the same.
        let error = ApiError::NoStream;
        return Ok(respond::value(&error.to_status(), Output::Yaml, error.code()));
    }
    let store = api.store.clone();
    let changed = store.subscribe(&served.collection);
    let wants_state = match (params.send_initial_events, params.resource_version) {
        (Some(wants), _) => wants,
        (None, version) => version.unwrap_or(0) == 0,
    };
    if let Some(version) = params.resource_version {
        api.check_not_future(version)?;
    }
    let (initial, cursor) = if wants_state {
        let page = store.list(&served.collection, &selection.prefix, None, 0);
        (page.objects.into_iter().filter(|object| selection.takes(object)).collect(), page.revision)
    } else {
        let cursor = match params.resource_version {
            Some(0) | None => store.revision(),
            // Too old a version is said in the stream, not as the answer's code, as in kube-apiserver: kube-rs starts
            // over on the one, and tries the same version for ever on the other.
            Some(version) => version,
        };
        (VecDeque::new(), cursor)
    };
    let timeout =
        params.timeout_seconds.filter(|seconds| *seconds > 0).map_or_else(default_timeout, Duration::from_secs);
    let ends_initial = params.send_initial_events == Some(true) && params.allow_bookmarks;
    let first_bookmark = if ends_initial { BOOKMARK_SOON } else { TIMEOUT_MAX }.min(api.options.bookmark_every);
    let watch = Watch {
        store,
        changed,
        stopped: api.stopped(),
        initial,
        ends_initial,
        cursor,
        deadline: Instant::now() + timeout.min(TIMEOUT_MAX),
        bookmark_every: params.allow_bookmarks.then_some(api.options.bookmark_every),
        next_bookmark: Instant::now() + first_bookmark,
        catches_up: ends_initial,
        is_over: false,
        shape: Shape {
            served,
            selection,
            output,
            include: params.include_object,
            sent_columns: false,
            is_broken: false,
        },
    };
    let events = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watch))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// The path that a watch had before there was `?watch=true`, `/api/v1/watch/...`, without the word; `None` for any other.
pub(crate) fn older_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let at = match parts.as_slice() {
        ["", "api", _, "watch", _, ..] => 3,
        ["", "apis", _, _, "watch", _, ..] => 4,
        _ => return None,
    };
    Some([&parts[..at], &parts[at + 1..]].concat().join("/"))
}

fn default_timeout() -> Duration {
    let share = f64::from(u16::from_be_bytes(random_bytes())) / f64::from(u16::MAX);
    TIMEOUT_DEFAULT.mul_f64(1.0 + share)
}

struct Watch {
    store: Store,
    changed: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    /// Objects of the first state that are still to be sent.
    initial: VecDeque<Arc<Object>>,
    /// Whether the end of the first state is still to be marked.
    ends_initial: bool,
    /// Everything up to this revision has been sent, or is in `initial`.
    cursor: u64,
    deadline: Instant,
    bookmark_every: Option<Duration>,
    next_bookmark: Instant,
    /// Whether its first event, after the end of the first state was marked, is still to come.
    catches_up: bool,
    is_over: bool,
    shape: Shape,
}

impl Watch {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over || self.shape.is_broken {
            return None;
        }
        if let Some(chunk) = self.next_initial() {
            return Some(chunk);
        }
        loop {
            self.changed.borrow_and_update();
            match self.read().await {
                Err(too_old) => {
                    self.is_over = true;
                    return Some(line("ERROR", &ApiError::Expired(too_old).to_status()));
                }
                Ok(chunk) if !chunk.is_empty() => {
                    if std::mem::take(&mut self.catches_up) {
                        self.next_bookmark = self.next_bookmark.min(Instant::now() + BOOKMARK_SOON / 10);
                    }
                    return Some(chunk);
                }
                Ok(_) if self.shape.is_broken => return None,
                Ok(_) => {}
            }
            let is_bookmark = self.bookmark_every.is_some() && self.next_bookmark < self.deadline;
            let wake = if is_bookmark { self.next_bookmark } else { self.deadline };
            let is_over = tokio::select! {
                changed = self.changed.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => true,
                },
                _ = self.stopped.wait_for(|stopped| *stopped) => true,
                () = tokio::time::sleep_until(wake) => !is_bookmark,
            };
            // A last bookmark lets the client go on from here.
            self.is_over = is_over;
            return self.bookmark();
        }
    }

    fn next_initial(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES
            && let Some(object) = self.initial.pop_front()
        {
            self.shape.push("ADDED", &object, &mut chunk);
        }
        if self.initial.is_empty() && std::mem::take(&mut self.ends_initial) {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            let metadata = json!({"resourceVersion": self.cursor.to_string(), "annotations": annotations});
            self.shape.push_bookmark(metadata, &mut chunk);
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// Events since the cursor, as far as one chunk goes.
    async fn read(&mut self) -> Result<Bytes, TooOld> {
        loop {
            let collection = self.shape.served.collection.clone();
            let tail = match self.store.recent_tail(&collection, self.cursor)? {
                Some(tail) => tail,
                None => {
                    let (store, cursor) = (self.store.clone(), self.cursor);
                    let read = move || store.tail(&collection, cursor, store.revision());
                    // A task of this kind fails only if it panics, and reading does not.
                    let lost = TooOld { wanted: cursor, oldest: self.store.oldest() };
                    tokio::task::spawn_blocking(read).await.unwrap_or(Err(lost))?
                }
            };
            let mut chunk = Vec::new();
            for event in &tail.events {
                self.shape.push_event(event, &mut chunk);
            }
            let reached = tail.upto.max(self.cursor);
            let is_at_end = reached >= self.store.revision();
            self.cursor = reached;
            if !chunk.is_empty() || is_at_end {
                return Ok(chunk.into());
            }
        }
    }

    fn bookmark(&mut self) -> Option<Bytes> {
        let every = self.bookmark_every?;
        self.next_bookmark = Instant::now() + every;
        let mut chunk = Vec::new();
        self.shape.push_bookmark(json!({"resourceVersion": self.cursor.to_string()}), &mut chunk);
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

/// How objects are written, and which.
struct Shape {
    served: Arc<Served>,
    selection: Selection,
    output: Output,
    include: IncludeObject,
    sent_columns: bool,
    /// An event cannot be written in the form that was asked for, which ends the watch.
    is_broken: bool,
}

impl Shape {
    fn push_event(&mut self, event: &Event, chunk: &mut Vec<u8>) {
        let object = &event.object;
        if !object.key.path.starts_with(&self.selection.prefix) {
            return;
        }
        if self.selection.is_all() {
            let ty = match event.kind {
                EventKind::Added => "ADDED",
                EventKind::Modified => "MODIFIED",
                EventKind::Deleted => "DELETED",
            };
            return self.push(ty, object, chunk);
        }
        let is = event.kind != EventKind::Deleted && self.selection.takes(object);
        let was = match &event.previous {
            Previous::None => false,
            Previous::Known(previous) => self.selection.takes(previous),
            // Clients take a change of an object that they do not know as an addition, and ignore its removal.
            Previous::Forgotten => true,
        };
        match (was, is) {
            (false, true) => self.push("ADDED", object, chunk),
            (true, true) => self.push("MODIFIED", object, chunk),
            (false, false) => {}
            (true, false) if event.kind == EventKind::Deleted => self.push("DELETED", object, chunk),
            // The object left the selection: to this client it is gone, at this revision.
            (true, false) => {
                let mut value = match &event.previous {
                    Previous::Known(previous) => previous.value.clone(),
                    Previous::None | Previous::Forgotten => object.value.clone(),
                };
                value["metadata"]["resourceVersion"] = object.revision.to_string().into();
                let json = Bytes::from(value.to_string());
                self.push(
                    "DELETED",
                    &Object { key: object.key.clone(), revision: object.revision, value, json },
                    chunk,
                );
            }
        }
    }

    fn push(&mut self, ty: &str, object: &Object, chunk: &mut Vec<u8>) {
        let json = match self.output {
            Output::Json | Output::Yaml => self.served.show_json(object),
            _ => match self.of_meta(&object.value, self.include) {
                Some(value) => value.to_string().into(),
                None => return,
            },
        };
        push_line(ty, &json, chunk);
    }

    /// An object in a form of `meta.k8s.io`, or as it is; `None` if there is no such form of it.
    fn of_meta(&mut self, object: &Value, include: IncludeObject) -> Option<Value> {
        match self.output {
            Output::Json | Output::Yaml => Some(object.clone()),
            Output::PartialMetadata(form) => Some(table::partial(object, form)),
            Output::Table(form) => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let with_columns = !std::mem::replace(&mut self.sent_columns, true);
                Some(table::table(&self.served, [object], metadata, include, form, with_columns))
            }
            Output::PartialMetadataList(_) => {
                self.is_broken = true;
                None
            }
        }
    }

    fn push_bookmark(&mut self, metadata: Value, chunk: &mut Vec<u8>) {
        let (api_version, kind) = (&self.served.api_version, &self.served.names.kind);
        // The end of the initial events is marked in the metadata, which is then told in any case.
        let include = if metadata["annotations"].is_null() { self.include } else { IncludeObject::Metadata };
        let bookmark = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if let Some(bookmark) = self.of_meta(&bookmark, include) {
            push_line("BOOKMARK", bookmark.to_string().as_bytes(), chunk);
        }
    }
}

fn line(ty: &str, object: &Value) -> Bytes {
    let mut chunk = Vec::new();
    push_line(ty, object.to_string().as_bytes(), &mut chunk);
    chunk.into()
}

fn push_line(ty: &str, json: &[u8], chunk: &mut Vec<u8>) {
    chunk.extend_from_slice(b"{\"type\":\"");
    chunk.extend_from_slice(ty.as_bytes());
    chunk.extend_from_slice(b"\",\"object\":");
    chunk.extend_from_slice(json);
    chunk.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_path_of_a_watch_has_the_word_before_the_resource() {
        let rows = [
            ("/api/v1/watch/pods", Some("/api/v1/pods")),
            ("/api/v1/watch/namespaces/n/pods/p", Some("/api/v1/namespaces/n/pods/p")),
            ("/apis/g.io/v1/watch/things", Some("/apis/g.io/v1/things")),
            ("/api/v1/watch", None),
            ("/apis/g.io/v1/watch", None),
            ("/api/v1/pods/watch", None),
            ("/apis/g.io/watch/things", None),
            ("/watch/a/b/c/d", None),
        ];
        for (path, want) in rows {
            assert_eq!(older_path(path).as_deref(), want, "{path}");
        }
    }
}
