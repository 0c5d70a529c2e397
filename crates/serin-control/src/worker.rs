//! One worker per endpoint: looks at what is known, asks the pure functions what is due, and carries it out.
//!
//! The order is the contract: the decision is in the log before it is in the status, and the status is written before the table
//! that follows from it is published. A crash between two of them repeats the first and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use serin_api::resources::endpoint::VersionRef;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::units::{Millis, Span};
use serin_api::wire::routes::Replica;
use serin_api::{ModelEndpoint, ModelRollout, ModelServer, ModelTemplate};
use serin_decide::rollout::{Decision, DecisionRecord, Input, Observed, Plan, Readiness, decide};
use serin_decide::route::{RolloutRoute, RouteInput, RouteVersion, build_route};

use crate::hub::{Hub, lock, now};
use crate::index::{key, key_of};
use crate::lifecycle::{self, Change, View};
use crate::process::{self, Replicas};

/// Rounds of changes before a worker stops for breath. Each round is one consequence of the one before: revision, rollout,
/// servers, status. More than a few mean that somebody else writes the same fields.
const ROUNDS_MAX: usize = 10;
/// Wait after an error of the API.
const AFTER_ERROR: Duration = Duration::from_millis(200);
/// How soon a rollout is looked at again whose replicas nobody has told of yet. News wakes the worker, too.
const UNKNOWN_RECHECK: Span = Span::from_secs(1);
/// Epochs whose publication is remembered. A living gateway is at most a few behind.
const EPOCHS_KEPT: usize = 64;
/// Longest time without a look.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the worker of an endpoint needs.
pub struct Worker {
    hub: Arc<Hub>,
    client: Client,
    recorder: Recorder,
    namespace: String,
    name: String,
    key: String,
    started_at: Millis,
    /// Generation of the route in which each of the newest epochs was published first.
    published: Vec<(u64, u64)>,
}

/// What a round of the engine did.
#[derive(Clone, Copy, Debug, Default)]
struct Decided {
    changed: bool,
    wake_at: Option<Millis>,
}

impl Worker {
    /// A worker for `namespace/name`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, client: Client, recorder: Recorder, namespace: &str, name: &str) -> Worker {
        Worker {
            hub,
            client,
            recorder,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key(namespace, name),
            started_at: now(),
            published: Vec::new(),
        }
    }

    /// Works until the endpoint is gone.
    pub async fn run(mut self) {
        let key = self.key.clone();
        let waker = self.hub.waker(&key);
        while let Some(endpoint) = self.hub.endpoints.get(&key) {
            let wait = match self.look(&endpoint).await {
                Ok(Some(at)) => at.since(now()).to_std().min(LOOK_AGAIN),
                Ok(None) => LOOK_AGAIN,
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    tracing::debug!(endpoint = %key, message = %status.message, "changed meanwhile, looking again");
                    Duration::from_millis(20)
                }
                Err(error) => {
                    tracing::warn!(endpoint = %key, %error, "cannot be carried out now, trying again");
                    AFTER_ERROR
                }
            };
            let _ = tokio::time::timeout(wait, waker.notified()).await;
        }
        self.hub.routes.delete(&key);
        self.hub.outcomes.forget(&key, None);
        self.hub.drop_waker(&key);
        self.hub.processes_changed.notify_one();
    }

    /// Carries out what is due until nothing is. Returns when to look again.
    async fn look(&mut self, endpoint: &ModelEndpoint) -> Result<Option<Millis>, kube::Error> {
        let model = self.model(endpoint).await;
        let mut endpoint = endpoint.clone();
        let mut wake_at = None;
        for _ in 0..ROUNDS_MAX {
            let view = self.view(&endpoint, model.clone());
            let due = lifecycle::due(&view);
            wake_at = due.wake_at;
            let settled = due.changes.is_empty();
            for change in due.changes {
                self.carry_out(&endpoint, change).await?;
                if let Some(fresh) = self.hub.endpoints.get(&self.key) {
                    endpoint = (*fresh).clone();
                }
            }
            let decided = self.decide(&self.view(&endpoint, model.clone())).await?;
            wake_at = wake_at.into_iter().chain(decided.wake_at).min();
            if settled && !decided.changed {
                break;
            }
        }
        self.publish(&self.view(&endpoint, model));
        Ok(wake_at)
    }

    /// The endpoint's template with its digest, if the template and the plan are good. A template that was accepted before keeps
    /// the digest that its file had then, whatever is in the file by now.
    async fn model(&self, endpoint: &ModelEndpoint) -> Result<ModelTemplate, String> {
        Plan::try_from(&endpoint.spec.rollout).map_err(|e| e.to_string())?;
        match self.accepted(endpoint) {
            Some(accepted) => Ok(accepted),
            None => self.hub.digests.resolve(&endpoint.spec.model).await,
        }
    }

    fn accepted(&self, endpoint: &ModelEndpoint) -> Option<ModelTemplate> {
        let status = endpoint.status.as_ref()?;
        let versions = [status.candidate.as_ref(), status.active.as_ref()].into_iter().flatten();
        let models = versions.filter_map(|v| self.hub.revisions.get(&key(&self.namespace, &v.revision)));
        let as_written = |model: &ModelTemplate| ModelTemplate { digest: None, ..model.clone() };
        let mut models = models.map(|revision| revision.spec.model.clone());
        models.find(|model| endpoint.spec.model.digest.is_none() && as_written(model) == endpoint.spec.model)
    }

    fn view<'a>(&self, endpoint: &'a ModelEndpoint, model: Result<ModelTemplate, String>) -> View<'a> {
        // What an earlier endpoint of this name left is collected in time, and is not this one's.
        let mine = |metadata: &ObjectMeta, name: &str| {
            let owners = metadata.owner_references.as_deref().unwrap_or_default();
            let is_owned = owners.is_empty() || owners.iter().any(|o| Some(&o.uid) == endpoint.metadata.uid.as_ref());
            metadata.namespace.as_deref() == Some(&self.namespace) && name == self.name && is_owned
        };
        let revisions = self.hub.revisions.list(|r| mine(&r.metadata, &r.spec.endpoint));
        let rollouts = self.hub.rollouts.list(|r| mine(&r.metadata, &r.spec.endpoint));
        let servers = self.hub.servers.list(|s| mine(&s.metadata, &s.spec.endpoint));
        let replicas: Vec<_> = revisions.iter().map(|r| (r.name_any(), self.replicas(&r.name_any()))).collect();
        let problems =
            replicas.iter().filter_map(|(name, found)| Some((name.clone(), found.problem.clone()?))).collect();
        View {
            endpoint,
            model,
            revisions: revisions.into_iter().map(|r| (r.name_any(), r)).collect(),
            rollouts: rollouts
                .into_iter()
                .filter_map(|r| Some((lifecycle::rollout_number(&self.name, &r.name_any())?, r)))
                .collect(),
            servers: servers.into_iter().map(|s| (s.name_any(), s)).collect(),
            ready: replicas.into_iter().map(|(name, found)| (name, found.ready)).collect(),
            problems,
            now: now(),
        }
    }

    /// Replicas of a revision: the node's, or the one server that runs elsewhere.
    fn replicas(&self, revision: &str) -> Replicas {
        let key = key(&self.namespace, revision);
        let Some(known) = self.hub.revisions.get(&key) else { return Replicas::default() };
        if let Some(url) = &known.spec.model.url {
            let answers = lock(&self.hub.remote).get(url).copied().unwrap_or(false);
            let replica = process::url_address(url).map(|address| Replica { id: key, address });
            return Replicas {
                ready: i32::from(answers),
                usable: replica.into_iter().collect(),
                problem: (!answers).then(|| format!("{url} does not answer")),
                ..Default::default()
            };
        }
        let mut found = match (self.hub.servers.get(&key), lock(&self.hub.node).as_ref()) {
            (Some(server), Some(node)) => process::replicas(&server, node),
            _ => Replicas::default(),
        };
        found.problem = found.problem.or_else(|| lock(&self.hub.unrunnable).get(&key).cloned());
        found
    }

    /// Whether it has been heard since the start of this process whether a version's replicas are ready.
    fn is_known(&self, view: &View<'_>, version: &VersionRef) -> bool {
        match view.revisions.get(&version.revision).map(|r| &r.spec.model.url) {
            Some(Some(url)) => lock(&self.hub.remote).contains_key(url),
            Some(None) => lock(&self.hub.node).is_some(),
            None => true,
        }
    }

    /// Lets the engine decide about the newest rollout, and makes the decision durable.
    async fn decide(&mut self, view: &View<'_>) -> Result<Decided, kube::Error> {
        let Some((_, rollout)) = lifecycle::current_rollout(&view.rollouts) else { return Ok(Decided::default()) };
        let status = rollout.status.clone().unwrap_or_default();
        if status.phase.is_final() && rollout.spec.retry <= status.attempt {
            return Ok(Decided::default());
        }
        let plan = match Plan::of(&rollout.spec) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(rollout = %rollout.name_any(), %error, "the frozen plan cannot be carried out; delete the rollout");
                return Ok(Decided::default());
            }
        };
        if [&rollout.spec.from, &rollout.spec.to].into_iter().any(|version| !self.is_known(view, version)) {
            return Ok(Decided { changed: false, wake_at: Some(now().plus(UNKNOWN_RECHECK)) });
        }
        let (candidate, active) =
            (self.replicas(&rollout.spec.to.revision), self.replicas(&rollout.spec.from.revision));
        let endpoint = view.endpoint;
        let wanted = view.servers.get(&rollout.spec.to.revision).map_or(1, |s| s.spec.replicas);
        let ready = Readiness {
            candidate_ready: unsigned(candidate.ready),
            candidate_wanted: unsigned(wanted),
            min_available: unsigned(endpoint.spec.min_available.unwrap_or(1)),
            active_ready: unsigned(active.ready),
            problem: candidate.problem,
        };
        let without_candidate = endpoint.status.as_ref().map_or(0, |s| s.epoch);
        // Also above the epochs of a rollout that was deleted before its end.
        let epoch_floor = self.published.iter().map(|(_, epoch)| *epoch).fold(without_candidate, u64::max);
        let labels = self.hub.outcomes.evidence(&self.key, &rollout.spec, &status);
        let at = now();
        let (evidence, reference, gateways, in_flight) = {
            let seen = lock(&self.hub.observations);
            let evidence = seen.evidence(&self.key, &rollout.spec, &status, labels);
            let reference = status.frozen.is_none().then(|| {
                let epochs: Vec<u64> = status.epochs.iter().map(|e| e.epoch).chain([without_candidate]).collect();
                seen.reference(&self.key, &epochs, &rollout.spec.from.revision)
            });
            let in_flight = [&rollout.spec.from, &rollout.spec.to].map(|v| seen.in_flight(&self.key, &v.revision, at));
            (evidence, reference, seen.gateways(at), in_flight)
        };
        let decision = decide(&Input {
            spec: &rollout.spec,
            plan: &plan,
            status: &status,
            ready: &ready,
            observed: Observed {
                evidence: &evidence,
                reference: reference.as_ref(),
                last_batch_at: gateways.last_batch_at.or(Some(self.started_at)),
                gateways: u32::try_from(gateways.alive).unwrap_or(u32::MAX),
                applied_epoch: gateways.applied_generation.and_then(|g| self.applied_epoch(g)),
                control_in_flight: in_flight[0],
                candidate_in_flight: in_flight[1],
                keyed: rollout.spec.bucketing.unit_header.is_some(),
            },
            epoch_floor,
            superseded: lifecycle::is_superseded(view, rollout),
            now: at,
        });
        let wake_at = decision.wake_at.into_iter().chain(decision.persist_by).min();
        if !decision.persist {
            return Ok(Decided { changed: false, wake_at });
        }
        if let Some(record) = &decision.record {
            self.log(record).await?;
        }
        let fresh = ModelRollout { status: Some(decision.status.clone()), ..(**rollout).clone() };
        let written = self.api().replace_status(&rollout.name_any(), &PostParams::default(), &fresh).await?;
        self.hub.rollouts.apply(written);
        if decision.record.is_some() {
            self.announce(endpoint, &fresh, &decision).await;
        }
        Ok(Decided { changed: decision.record.is_some(), wake_at })
    }

    /// A decision that cannot be recorded is not acted on.
    async fn log(&self, record: &DecisionRecord) -> Result<(), kube::Error> {
        let problem = |e: Box<dyn std::error::Error + Send + Sync>| kube::Error::Service(e);
        let body = serde_json::to_value(record).map_err(kube::Error::SerdeError)?;
        self.hub.decisions.append(record.at, body).await.map_err(|e| problem(e.into()))?;
        Ok(())
    }

    async fn announce(&self, endpoint: &ModelEndpoint, rollout: &ModelRollout, decision: &Decision) {
        let bad =
            matches!(decision.status.phase, RolloutPhase::RollingBack | RolloutPhase::RolledBack | RolloutPhase::Held);
        let kind = if bad { EventType::Warning } else { EventType::Normal };
        let note = format!("{}: {}", rollout.name_any(), decision.status.message);
        tracing::info!(rollout = %key_of(rollout), reason = decision.reason.as_str(), message = %decision.status.message, "decided");
        self.event(rollout, decision.reason.as_str(), &decision.status.message, kind).await;
        self.event(endpoint, decision.reason.as_str(), &note, kind).await;
    }

    /// Publishes the route that follows from what is written. Before the node has told what runs, nothing is published: gateways
    /// serve on with the table they have.
    fn publish(&mut self, view: &View<'_>) {
        let Some(status) = &view.endpoint.status else { return };
        let Some(active) = &status.active else {
            self.hub.account(&self.key);
            return;
        };
        let current = lifecycle::current_rollout(&view.rollouts).map(|(_, r)| r);
        let under_way = current.and_then(|r| {
            let state = r.status.as_ref().filter(|s| !s.phase.is_final() && !s.epochs.is_empty())?;
            Some((r, state))
        });
        let active = under_way.map_or(active, |(r, _)| &r.spec.from);
        let runs_here =
            |version: &VersionRef| view.revisions.get(&version.revision).is_some_and(|r| r.spec.model.url.is_none());
        if lock(&self.hub.node).is_none()
            && (runs_here(active) || under_way.is_some_and(|(r, _)| runs_here(&r.spec.to)))
        {
            return;
        }
        let active_replicas = self.replicas(&active.revision).usable;
        let candidate_replicas = under_way.map(|(r, _)| self.replicas(&r.spec.to.revision).usable).unwrap_or_default();
        let epoch = under_way.map_or(status.epoch, |(_, state)| state.epoch);
        let route = build_route(&RouteInput {
            namespace: &self.namespace,
            name: &self.name,
            spec: &view.endpoint.spec,
            generation: 0,
            epoch,
            active: Some(RouteVersion { version: active, replicas: &active_replicas }),
            candidate: under_way.map(|(r, _)| RouteVersion { version: &r.spec.to, replicas: &candidate_replicas }),
            rollout: under_way.map(|(r, state)| RolloutRoute {
                name: r.metadata.name.as_deref().unwrap_or_default(),
                weights: state.epochs.last().map(|e| e.weights.as_slice()).unwrap_or_default(),
                frozen: state.frozen.as_ref(),
                bucketing: &r.spec.bucketing,
            }),
        });
        let generation = self.hub.routes.upsert(&self.key, route);
        self.hub.account(&self.key);
        if self.published.last().is_none_or(|(_, known)| *known != epoch) {
            self.published.push((generation, epoch));
            let surplus = self.published.len().saturating_sub(EPOCHS_KEPT);
            self.published.drain(..surplus);
        }
        self.hub.processes_changed.notify_one();
    }

    /// The epoch that is in force at a gateway which has this generation.
    fn applied_epoch(&self, generation: u64) -> Option<u64> {
        self.published.iter().rev().find(|(g, _)| *g <= generation).map(|(_, epoch)| *epoch)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

// === carrying out ===

impl Worker {
    async fn carry_out(&self, endpoint: &ModelEndpoint, change: Change) -> Result<(), kube::Error> {
        let create = PostParams::default();
        match change {
            Change::CreateRevision(revision) => {
                let made = self.create(&*revision).await?;
                self.hub.revisions.apply(made);
            }
            Change::CreateRollout(rollout) => {
                let made = self.create(&*rollout).await?;
                let note =
                    format!("{}: {} to {}", rollout.name_any(), rollout.spec.from.version, rollout.spec.to.version);
                self.event(endpoint, "RolloutStarted", &note, EventType::Normal).await;
                self.hub.rollouts.apply(made);
            }
            Change::CreateServer(server) => {
                let made = self.create(&*server).await?;
                self.hub.servers.apply(made);
                self.hub.processes_changed.notify_one();
            }
            Change::ScaleServer { name, replicas } => {
                let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                self.hub.servers.apply(self.api().patch(&name, &PatchParams::default(), &patch).await?);
                self.hub.processes_changed.notify_one();
            }
            Change::DeleteServer(name) => {
                let api = self.api::<ModelServer>();
                match api.delete(&name, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
                if let Some(server) = self.hub.servers.get(&key(&self.namespace, &name)) {
                    self.hub.servers.delete(&server);
                }
                self.hub.processes_changed.notify_one();
            }
            Change::SetFailed { revision, failed_in } => {
                let Some(known) = self.hub.revisions.get(&key(&self.namespace, &revision)) else { return Ok(()) };
                let mut fresh = (*known).clone();
                let status = fresh.status.get_or_insert_default();
                status.failed_at = failed_in.is_some().then(now);
                status.failed_in = failed_in;
                self.hub.revisions.apply(self.api().replace_status(&revision, &create, &fresh).await?);
            }
            Change::SetStatus(status) => {
                let fresh = ModelEndpoint { status: Some(*status), ..endpoint.clone() };
                self.hub.endpoints.apply(self.api().replace_status(&self.name, &create, &fresh).await?);
            }
        }
        Ok(())
    }

    /// Creates an object, or gets the one that is there already: both end in the same state. One that an earlier endpoint of this
    /// name left has to go first.
    async fn create<K>(&self, object: &K) -> Result<K, kube::Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        match self.api().create(&PostParams::default(), object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there: K = self.api().get(&object.name_any()).await?;
                let owners = |object: &K| object.owner_references().iter().map(|o| o.uid.clone()).collect::<Vec<_>>();
                if owners(&there) == owners(object) { Ok(there) } else { Err(kube::Error::Api(status)) }
            }
            other => other,
        }
    }

    /// Records an event. An event that cannot be written is not worth a decision.
    async fn event(&self, about: &impl kube::Resource<DynamicType = ()>, reason: &str, note: &str, kind: EventType) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            // Events longer than this are refused by the API.
            note: Some(note.chars().take(1000).collect()),
            // The recorder makes a series of events that differ in nothing but their text, and keeps the first one's.
            action: format!("Rollout-{}", &serin_api::hash::sha256_hex(note.as_bytes())[..8]),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(%error, "event cannot be written");
        }
    }
}

fn unsigned(replicas: i32) -> u32 {
    u32::try_from(replicas).unwrap_or(0)
}
