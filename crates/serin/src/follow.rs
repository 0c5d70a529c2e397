//! One object over time: its state now, and each new one.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::{Api, View, Watch};
use crate::console;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::output::text;

/// How long the API may be away (control restarts, for instance) before following gives up.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Follows one object.
pub struct Follow<'a> {
    api: &'a Api,
    resource: Resource,
    namespace: String,
    name: String,
    watch: Option<Watch>,
    version: String,
    away_since: Option<Instant>,
}

impl<'a> Follow<'a> {
    /// Nothing is asked yet.
    pub fn new(api: &'a Api, resource: Resource, namespace: &str, name: &str) -> Follow<'a> {
        Follow {
            api,
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            watch: None,
            version: String::new(),
            away_since: None,
        }
    }

    /// The object as it is now, then each newer state of it. States in between may be left out, the last one never is.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the object is not there, or no longer. Other errors once the API was away for a minute.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            match self.step().await {
                Ok(Some(object)) => {
                    if self.away_since.take().is_some() {
                        console::note("the API is back");
                    }
                    return Ok(object);
                }
                Ok(None) => {}
                Err(error @ (Error::Unreachable { .. } | Error::BrokenAnswer { .. })) => {
                    self.watch = None;
                    let first = self.away_since.is_none();
                    let since = *self.away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_MAX {
                        return Err(error);
                    }
                    if first {
                        console::note(&format!("the API is away, waiting for it: {}", error.chain()));
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One exchange; `None` when there is nothing new yet.
    async fn step(&mut self) -> Result<Option<Value>> {
        let Some(watch) = &mut self.watch else {
            let object = self.api.fetch(&self.resource, &self.namespace, &self.name).await?;
            let version = text(&object, "/metadata/resourceVersion").to_owned();
            if version != self.version {
                // Hand it over before anything else can fail; the next round begins the watch.
                self.version = version;
                return Ok(Some(object));
            }
            let field = format!("metadata.name={}", self.name);
            let query = [("fieldSelector", field.as_str()), ("resourceVersion", version.as_str())];
            match self.api.watch(&self.resource, Some(&self.namespace), &query, View::Object).await {
                Ok(watch) => self.watch = Some(watch),
                // Expired at once: the next round asks again.
                Err(error) if error.has_code(410) => {}
                Err(error) => return Err(error),
            }
            return Ok(None);
        };
        match watch.next().await? {
            Some(event) if event.kind == "ADDED" || event.kind == "MODIFIED" => {
                text(&event.object, "/metadata/resourceVersion").clone_into(&mut self.version);
                Ok(Some(event.object))
            }
            Some(event) if event.kind == "BOOKMARK" => Ok(None),
            // Deleted, expired, or closed: look at the object itself. A short wait, lest a server that always closes is flooded.
            _ => {
                self.watch = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(None)
            }
        }
    }
}
