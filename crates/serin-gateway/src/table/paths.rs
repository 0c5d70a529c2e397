//! Paths to endpoints.
//!
//! `/v2/models/{endpoint}...` is the default namespace, `/n/{namespace}/v2/models/{endpoint}...` any other; an endpoint may
//! also own a plain path prefix. The longest prefix wins, at the border of a path segment.

use std::collections::HashMap;
use std::sync::Arc;

use super::Endpoint;

/// Namespace of paths that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// Segments of a path that are looked at for a prefix; bounds the work on a hostile path.
const SEGMENTS_MAX: usize = 32;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the endpoint.
    pub endpoint: usize,
    /// Bytes at the beginning of the path that the model server does not get to see (the namespace).
    pub strip: usize,
    /// The path came by a plain prefix, not by the inference protocol.
    pub plain: bool,
}

/// Finds endpoints by path.
#[derive(Debug, Default)]
pub struct Paths {
    /// Endpoints of the default namespace, by name: one lookup for most requests.
    models: HashMap<Box<str>, usize>,
    /// Endpoints of all others.
    others: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    prefixes: HashMap<Box<str>, usize>,
}

impl Paths {
    /// Indexes endpoints. Of two with the same prefix, the first (by key) has it.
    #[must_use]
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Paths {
        let mut paths = Paths::default();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let route = endpoint.route();
            let models = match route.namespace.as_str() {
                DEFAULT_NAMESPACE => &mut paths.models,
                namespace => paths.others.entry(namespace.into()).or_default(),
            };
            models.insert(route.name.as_str().into(), index);
            if let Some(prefix) = endpoint.prefix() {
                let owner = *paths.prefixes.entry(prefix.into()).or_insert(index);
                if owner != index {
                    let (owner, endpoint) = (endpoints[owner].key(), endpoint.key());
                    tracing::warn!(prefix, owner, endpoint, "two endpoints want the same path; the first has it");
                }
            }
        }
        paths
    }

    /// What a path leads to.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Found> {
        if let Some(model) = model_path(path) {
            let models = match model.namespace {
                DEFAULT_NAMESPACE => &self.models,
                namespace => self.others.get(namespace)?,
            };
            let endpoint = *models.get(model.name)?;
            return Some(Found { endpoint, strip: model.strip, plain: false });
        }
        if is_reserved(path) {
            return None;
        }
        let mut prefix = path;
        for _ in 0..SEGMENTS_MAX {
            if let Some(&endpoint) = self.prefixes.get(prefix) {
                return Some(Found { endpoint, strip: 0, plain: true });
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
        None
    }
}

/// A path of the inference protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPath<'p> {
    /// Namespace.
    pub namespace: &'p str,
    /// Endpoint.
    pub name: &'p str,
    /// Length of the namespace's part.
    pub strip: usize,
}

/// Reads a path of the inference protocol; `None` for any other.
#[must_use]
pub fn model_path(path: &str) -> Option<ModelPath<'_>> {
    let (namespace, strip) = match path.strip_prefix("/n/").and_then(|rest| rest.split_once('/')) {
        Some((namespace, _)) => (namespace, "/n/".len() + namespace.len()),
        None => (DEFAULT_NAMESPACE, 0),
    };
    let rest = path[strip..].strip_prefix("/v2/models/")?;
    let name = rest.split('/').next().filter(|name| !name.is_empty())?;
    Some(ModelPath { namespace, name, strip })
}

/// Whether a path belongs to the inference protocol or to Serin itself.
fn is_reserved(path: &str) -> bool {
    ["/v2", "/serin"].iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether an endpoint may own this prefix.
#[must_use]
pub fn is_routable_prefix(prefix: &str) -> bool {
    prefix.starts_with('/')
        && !is_reserved(prefix)
        && prefix.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
}
