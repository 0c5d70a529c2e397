//! What the parts of control share: the newest knowledge, and who has to look at it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serin_api::receipt::Signer;
use serin_api::units::Millis;
use serin_api::wire::processes::NodeStatus;
use serin_api::{ModelEndpoint, ModelRevision, ModelRollout, ModelServer};
use tokio::sync::{Notify, watch};

use crate::artifact::Digests;
use crate::decisions::DecisionLog;
use crate::index::{Index, key_of};
use crate::observe::Observations;
use crate::outcomes::Outcomes;
use crate::publish::{Processes, Routes};

/// Everything shared.
pub struct Hub {
    /// Endpoints.
    pub endpoints: Index<ModelEndpoint>,
    /// Revisions.
    pub revisions: Index<ModelRevision>,
    /// Rollouts.
    pub rollouts: Index<ModelRollout>,
    /// Model servers.
    pub servers: Index<ModelServer>,
    /// What gateways reported.
    pub observations: Mutex<Observations>,
    /// What the node reported; `None` until it did.
    pub node: Mutex<Option<NodeStatus>>,
    /// Model servers whose processes cannot be described, by key, and why.
    pub unrunnable: Mutex<BTreeMap<String, String>>,
    /// State of servers that run elsewhere, by URL.
    pub remote: Mutex<HashMap<String, bool>>,
    /// Published routes.
    pub routes: Routes,
    /// Published processes.
    pub processes: Processes,
    /// Labels.
    pub outcomes: Outcomes,
    /// Decisions.
    pub decisions: DecisionLog,
    /// Receipt keys, ready to check with.
    pub signers: Mutex<Arc<Vec<Signer>>>,
    /// Digests of artifacts.
    pub digests: Digests,
    /// Endpoints whose route follows from what is written now, or that have none to publish.
    accounted: watch::Sender<BTreeSet<String>>,
    /// Endpoints whose worker has to look again.
    wakers: Mutex<HashMap<String, Arc<Notify>>>,
    /// Set when the set of processes may have changed.
    pub processes_changed: Notify,
    /// Set when an endpoint may have appeared.
    pub endpoints_changed: Notify,
}

impl Hub {
    /// A hub without objects.
    #[must_use]
    pub fn new(routes: Routes, processes: Processes, outcomes: Outcomes, decisions: DecisionLog) -> Hub {
        Hub {
            endpoints: Index::default(),
            revisions: Index::default(),
            rollouts: Index::default(),
            servers: Index::default(),
            observations: Mutex::default(),
            node: Mutex::default(),
            unrunnable: Mutex::default(),
            remote: Mutex::default(),
            routes,
            processes,
            outcomes,
            decisions,
            signers: Mutex::default(),
            digests: Digests::default(),
            accounted: watch::channel(BTreeSet::new()).0,
            wakers: Mutex::default(),
            processes_changed: Notify::new(),
            endpoints_changed: Notify::new(),
        }
    }

    /// Notes that an endpoint's route is published, or that it has none.
    pub fn account(&self, key: &str) {
        self.accounted.send_if_modified(|accounted| accounted.insert(key.to_owned()));
    }

    /// Waits until every endpoint is accounted for. A table that is sent before would take the others from gateways that serve them
    /// from an earlier run of control.
    pub async fn all_accounted(&self) {
        let mut accounted = self.accounted.subscribe();
        loop {
            let missing = {
                let accounted = accounted.borrow_and_update();
                self.endpoints.list(|e| !accounted.contains(&key_of(e))).len()
            };
            // The sender lives in this struct, so the channel cannot close. An endpoint may also be deleted meanwhile.
            if missing == 0 {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), accounted.changed()).await;
        }
    }

    /// The waker of an endpoint's worker.
    #[must_use]
    pub fn waker(&self, key: &str) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.entry(key.to_owned()).or_default().clone()
    }

    /// Tells an endpoint's worker to look again.
    pub fn wake(&self, key: &str) {
        let waker = self.wakers.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(waker) = waker {
            waker.notify_one();
        }
    }

    /// Tells all workers to look again.
    pub fn wake_all(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in wakers.values() {
            waker.notify_one();
        }
    }

    /// Drops the waker of an endpoint that is gone.
    pub fn drop_waker(&self, key: &str) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Wall-clock time. Decisions never read it; it is handed to them.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Locks, also after a panic elsewhere: every value here is whole between two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
