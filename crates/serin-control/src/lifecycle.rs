//! From an endpoint's spec to the objects that carry it out: revisions, rollouts, model servers and the status. Pure: what is
//! known and the time go in, the changes that are due come out. Carrying them out and asking again ends in no changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use serin_api::conditions::{self, ConditionStatus};
use serin_api::resources::endpoint::{RolloutSummary, VersionRef};
use serin_api::resources::gates::{Bake, BlueGreenStep, GateMode, RolloutPlan, Step};
use serin_api::resources::names;
use serin_api::resources::rollout::{Bucketing, BucketingVersion, GateStatus, RolloutPhase, Verdict};
use serin_api::units::{Millis, Span, Weight};
use serin_api::wire::processes::brief;
use serin_api::{
    ModelEndpoint, ModelEndpointStatus, ModelRevision, ModelRevisionSpec, ModelRollout, ModelRolloutSpec, ModelServer,
    ModelServerSpec, ModelTemplate,
};

/// Everything known about one endpoint.
#[derive(Debug)]
pub struct View<'a> {
    /// The endpoint.
    pub endpoint: &'a ModelEndpoint,
    /// Its template with the artifact's digest filled in, or why that cannot be had.
    pub model: Result<ModelTemplate, String>,
    /// Its revisions by name.
    pub revisions: BTreeMap<String, Arc<ModelRevision>>,
    /// Its rollouts by number.
    pub rollouts: BTreeMap<u64, Arc<ModelRollout>>,
    /// Its model servers by name.
    pub servers: BTreeMap<String, Arc<ModelServer>>,
    /// Ready replicas by revision.
    pub ready: BTreeMap<String, i32>,
    /// Why a replica is not ready, by revision.
    pub problems: BTreeMap<String, String>,
    /// Now.
    pub now: Millis,
}

/// A change that is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Create a revision.
    CreateRevision(Box<ModelRevision>),
    /// Create a rollout.
    CreateRollout(Box<ModelRollout>),
    /// Create a model server.
    CreateServer(Box<ModelServer>),
    /// Change a model server's number of replicas.
    ScaleServer {
        /// Its name.
        name: String,
        /// Replicas that are wanted.
        replicas: i32,
    },
    /// Delete a model server.
    DeleteServer(String),
    /// Note on a revision that it failed, or that it no longer counts as failed.
    SetFailed {
        /// Name of the revision.
        revision: String,
        /// Rollout in which it failed.
        failed_in: Option<String>,
    },
    /// Write the endpoint's status.
    SetStatus(Box<ModelEndpointStatus>),
}

/// What is due now, and when to look again even if nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// Changes, in order.
    pub changes: Vec<Change>,
    /// Time of the next change that time alone brings.
    pub wake_at: Option<Millis>,
}

/// Number of a rollout, from its name `<endpoint>-<n>`.
#[must_use]
pub fn rollout_number(endpoint: &str, name: &str) -> Option<u64> {
    name.strip_prefix(endpoint)?.strip_prefix('-')?.parse().ok()
}

/// The newest rollout.
#[must_use]
pub fn current_rollout(rollouts: &BTreeMap<u64, Arc<ModelRollout>>) -> Option<(u64, &Arc<ModelRollout>)> {
    rollouts.last_key_value().map(|(n, r)| (*n, r))
}

/// Name of the revision that a resolved template describes.
#[must_use]
pub fn revision_name(endpoint: &str, model: &ModelTemplate) -> String {
    format!("{endpoint}-{}", model.identity())
}

/// Whether a rollout no longer leads to what the endpoint's spec asks for.
#[must_use]
pub fn is_superseded(view: &View<'_>, rollout: &ModelRollout) -> bool {
    match &view.model {
        Ok(model) => revision_name(&view.endpoint.name_any(), model) != rollout.spec.to.revision,
        // A spec that cannot be resolved changes nothing: the last good one stays in force.
        Err(_) => false,
    }
}

/// The epoch that an endpoint begins with: the time of its creation in milliseconds. An earlier endpoint of the same name, which
/// had fewer than one epoch per millisecond, is below, so that counts and labels of it that come late are of no epoch of this one.
fn first_epoch(endpoint: &ModelEndpoint) -> u64 {
    let created = endpoint.metadata.creation_timestamp.as_ref();
    created.and_then(|time| u64::try_from(time.0.as_millisecond()).ok()).unwrap_or(1)
}

/// What is due for an endpoint.
#[must_use]
pub fn due(view: &View<'_>) -> Due {
    let mut due = Due::default();
    let mut status = view.endpoint.status.clone().unwrap_or_default();
    let name = view.endpoint.name_any();
    let generation = view.endpoint.metadata.generation;
    status.observed_generation = generation;

    let wanted = view.model.as_ref().map(|model| (revision_name(&name, model), model));
    if let Ok((revision, model)) = &wanted {
        if !view.revisions.contains_key(revision) {
            due.changes.push(Change::CreateRevision(Box::new(new_revision(view.endpoint, revision, model))));
        }
        if status.active.is_none() {
            status.active = Some(version_ref(revision, model));
            status.epoch = (status.epoch + 1).max(first_epoch(view.endpoint));
        }
    }
    settle_rollout(view, &mut status, &mut due);
    if let (Ok((revision, model)), Some(active)) = (&wanted, &status.active)
        && revision != &active.revision
    {
        let is_to_come = start_rollout(view, revision, model, active, &mut due);
        if is_to_come {
            // A spec is observed once its rollout can be seen: who waits for that (`rollout status --watch` after an `apply`) would
            // otherwise take the rollout before for this one.
            status.observed_generation = view.endpoint.status.as_ref().and_then(|s| s.observed_generation);
        }
    }
    plan_servers(view, &mut status, &mut due);
    summarise(view, &mut status);
    let (accepted, reason, message) = match &view.model {
        Ok(_) => (ConditionStatus::True, "Valid", String::new()),
        Err(problem) => (ConditionStatus::False, "Invalid", problem.clone()),
    };
    conditions::set(&mut status.conditions, "Accepted", accepted, reason, &message, generation, view.now);
    if view.endpoint.status.as_ref() != Some(&status) {
        due.changes.push(Change::SetStatus(Box::new(status)));
    }
    due
}

/// Takes over what the newest rollout ended in.
fn settle_rollout(view: &View<'_>, status: &mut ModelEndpointStatus, due: &mut Due) {
    let Some((number, rollout)) = current_rollout(&view.rollouts) else { return };
    status.rollouts = status.rollouts.max(number);
    let Some(state) = rollout.status.as_ref().filter(|s| s.phase.is_final()) else { return };
    let failed_in = view.revisions.get(&rollout.spec.to.revision).and_then(|r| r.status.as_ref()?.failed_in.clone());
    let mark = |failed: Option<String>, due: &mut Due| {
        if failed_in != failed && view.revisions.contains_key(&rollout.spec.to.revision) {
            due.changes.push(Change::SetFailed { revision: rollout.spec.to.revision.clone(), failed_in: failed });
        }
    };
    match state.phase {
        RolloutPhase::Promoted => {
            mark(None, due);
            if status.active.as_ref().is_some_and(|a| a.revision == rollout.spec.from.revision) {
                status.active = Some(rollout.spec.to.clone());
                status.fallback = Some(rollout.spec.from.clone());
            }
        }
        RolloutPhase::RolledBack => mark(Some(rollout.name_any()), due),
        _ => {}
    }
    // The last epoch of an ended rollout is one without a candidate and without bins: it goes on as the endpoint's.
    status.epoch = status.epoch.max(state.epoch);
}

/// Starts a rollout to `revision` unless one is under way, or the revision failed and nobody asked for a retry. Says whether a
/// rollout to it is on its way that is not there yet.
fn start_rollout(view: &View<'_>, revision: &str, model: &ModelTemplate, active: &VersionRef, due: &mut Due) -> bool {
    let number =
        view.rollouts.keys().last().copied().unwrap_or(0).max(view.endpoint.status.as_ref().map_or(0, |s| s.rollouts));
    if let Some((_, current)) = current_rollout(&view.rollouts) {
        let state = current.status.as_ref();
        let is_final = state.is_some_and(|s| s.phase.is_final());
        // A failed rollout is retried in place, by its own verb.
        let failed_here = is_final
            && current.spec.to.revision == revision
            && state.is_some_and(|s| s.phase == RolloutPhase::RolledBack);
        if !is_final || failed_here {
            return current.spec.to.revision != revision;
        }
        // What the ended rollout came to has to be written down first: only the newest one is looked at.
        let written = view.endpoint.status.as_ref().map_or(0, |s| s.epoch);
        if state.is_some_and(|s| written < s.epoch) {
            return true;
        }
    }
    if let Some(failed_in) = view.revisions.get(revision).and_then(|r| r.status.as_ref()?.failed_in.as_deref()) {
        let retried = view
            .rollouts
            .values()
            .any(|r| r.name_any() == failed_in && r.spec.retry > r.status.as_ref().map_or(0, |s| s.attempt));
        if !retried {
            return false;
        }
    }
    let reports = |name: &str| view.revisions.get(name).is_some_and(|r| r.spec.model.reports_predictions());
    let undo_of = view.endpoint.annotations().get(names::UNDO_ANNOTATION).filter(|undone| {
        // The annotation outlives the undo: each rollout is undone at most once.
        view.rollouts.values().any(|r| r.name_any() == **undone && r.spec.from.revision == revision)
            && !view.rollouts.values().any(|r| r.spec.undo_of.as_ref() == Some(*undone))
    });
    let plan = if undo_of.is_some() {
        undo_plan(&view.endpoint.spec.rollout)
    } else {
        frozen_plan(&view.endpoint.spec.rollout, reports(&active.revision) && model.reports_predictions())
    };
    let number = number + 1;
    let endpoint = view.endpoint;
    let mut rollout = ModelRollout::new(
        &format!("{}-{number}", endpoint.name_any()),
        ModelRolloutSpec {
            endpoint: endpoint.name_any(),
            from: active.clone(),
            to: version_ref(revision, model),
            plan,
            bucketing: Bucketing {
                version: BucketingVersion::V1,
                seed: format!("{}/{number}", endpoint.uid().unwrap_or_default()),
                unit_header: endpoint.spec.traffic.unit_header(),
            },
            undo_of: undo_of.cloned(),
            paused: false,
            abort: false,
            retry: 0,
            promote: None,
        },
    );
    rollout.metadata = owned(endpoint, &rollout.name_any(), None);
    due.changes.push(Change::CreateRollout(Box::new(rollout)));
    true
}

/// The plan of a rollout: the endpoint's, with everything that has a default made explicit.
fn frozen_plan(plan: &RolloutPlan, predictions: bool) -> RolloutPlan {
    let mut plan = plan.clone();
    if plan.steps.is_empty() {
        let five_minutes = Span::from_secs(300);
        plan.steps = [10_000, 25_000, 50_000, 75_000].map(|w| Step::canary(Weight::from_parts(w), five_minutes)).into();
    }
    if plan.gates.distribution.mode.is_none() {
        plan.gates.distribution.mode = Some(if predictions { GateMode::Enforce } else { GateMode::Disabled });
    }
    if plan.bake.hold_back.is_none() {
        let canary = plan.steps.iter().any(|s| s.canary.is_some());
        plan.bake.hold_back = Some(if canary { Weight::from_parts(10_000) } else { Weight::ZERO });
    }
    plan
}

/// The plan of an undo: a switch as soon as the version is ready. It served before, so nothing has to be proved again.
fn undo_plan(plan: &RolloutPlan) -> RolloutPlan {
    let mut undo = plan.clone();
    undo.steps = vec![Step { canary: None, blue_green: Some(BlueGreenStep {}), pause: None }];
    undo.bake = Bake { duration: Span::ZERO, hold_back: Some(Weight::ZERO) };
    undo.gates.errors.mode = GateMode::Disabled;
    undo.gates.latency.mode = GateMode::Disabled;
    undo.gates.distribution.mode = Some(GateMode::Disabled);
    undo.gates.labels.mode = GateMode::Disabled;
    undo
}

/// Model servers: one pool per revision that has to run, and none else.
fn plan_servers(view: &View<'_>, status: &mut ModelEndpointStatus, due: &mut Due) {
    let replicas = view.endpoint.spec.replicas;
    let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
    if let Some(active) = &status.active {
        wanted.insert(active.revision.clone(), replicas);
    }
    let current = current_rollout(&view.rollouts).map(|(_, r)| r);
    if let Some(rollout) = current
        && !rollout.status.as_ref().is_some_and(|s| s.phase.is_final())
    {
        for version in [&rollout.spec.from, &rollout.spec.to] {
            wanted.insert(version.revision.clone(), replicas);
        }
    }
    if let Some(fallback) = &status.fallback {
        let until = current.and_then(|r| {
            let state = r.status.as_ref()?;
            (r.spec.from == *fallback && state.phase == RolloutPhase::Promoted)
                .then(|| state.finished_at.map(|at| at.plus(r.spec.plan.fallback_keep)))
                .flatten()
        });
        // A fallback of a rollout before the last one is no way back any more.
        match until.filter(|until| *until > view.now) {
            Some(until) => {
                wanted.entry(fallback.revision.clone()).or_insert(replicas);
                due.wake_at = Some(until);
            }
            None if current.is_none_or(|r| r.status.as_ref().is_some_and(|s| s.phase.is_final())) => {
                status.fallback = None
            }
            None => {}
        }
    }
    for (revision, replicas) in &wanted {
        let runs_here = view.revisions.get(revision).is_some_and(|r| r.spec.model.url.is_none());
        match view.servers.get(revision) {
            None if runs_here => {
                let spec = ModelServerSpec {
                    endpoint: view.endpoint.name_any(),
                    revision: revision.clone(),
                    replicas: *replicas,
                };
                let mut server = ModelServer::new(revision, spec);
                server.metadata = owned(view.endpoint, revision, Some(revision));
                due.changes.push(Change::CreateServer(Box::new(server)));
            }
            Some(server) if server.spec.replicas != *replicas => {
                due.changes.push(Change::ScaleServer { name: revision.clone(), replicas: *replicas });
            }
            _ => {}
        }
    }
    for name in view.servers.keys().filter(|name| !wanted.contains_key(*name)) {
        due.changes.push(Change::DeleteServer(name.clone()));
    }
}

/// Fills in what people read.
fn summarise(view: &View<'_>, status: &mut ModelEndpointStatus) {
    let ready_of = |version: &VersionRef| view.ready.get(&version.revision).copied().unwrap_or(0);
    let url = status
        .active
        .as_ref()
        .and_then(|a| view.revisions.get(&a.revision))
        .is_some_and(|r| r.spec.model.url.is_some());
    let wanted = if url { 1 } else { view.endpoint.spec.replicas };
    let ready = status.active.as_ref().map_or(0, ready_of);
    status.replicas = wanted;
    status.ready_replicas = ready;
    status.ready = Some(format!("{ready}/{wanted}"));
    status.selector = Some(format!("{}={}", names::ENDPOINT_LABEL, view.endpoint.name_any()));
    let least = view.endpoint.spec.min_available.unwrap_or(1).min(wanted.max(1));
    let generation = view.endpoint.metadata.generation;
    let (ready_now, reason) = if ready >= least {
        (ConditionStatus::True, "EnoughReplicas")
    } else {
        (ConditionStatus::False, "TooFewReplicas")
    };
    let mut message = format!("{ready} of {wanted} replicas are ready, {least} wanted at least");
    let problem = status.active.as_ref().and_then(|active| view.problems.get(&active.revision));
    if let Some(problem) = problem.filter(|_| ready < wanted) {
        message = format!("{message}: {}", brief(problem));
    }
    conditions::set(&mut status.conditions, "Ready", ready_now, reason, &message, generation, view.now);

    let current = current_rollout(&view.rollouts).map(|(_, r)| r);
    let state = current.map(|r| r.status.clone().unwrap_or_default());
    let under_way = state.as_ref().is_some_and(|s| !s.phase.is_final());
    status.candidate = current.filter(|_| under_way).map(|r| r.spec.to.clone());
    status.rollout = current.zip(state.as_ref()).map(|(rollout, state)| RolloutSummary {
        name: rollout.name_any(),
        phase: format!("{:?}", state.phase),
        step: state.progress.clone(),
        weight: if under_way { state.weight.to_string() } else { String::new() },
        weight_percent: if under_way { state.weight } else { Weight::ZERO },
        gates: gates_summary(&state.gates),
        waiting_for: state.waiting_for.clone(),
    });
    let (progressing, reason, message) = match (&state, current) {
        (Some(state), Some(rollout)) if under_way => {
            (ConditionStatus::True, format!("{:?}", state.phase), format!("{}: {}", rollout.name_any(), state.message))
        }
        (Some(state), Some(rollout)) => {
            (ConditionStatus::False, format!("{:?}", state.phase), format!("{}: {}", rollout.name_any(), state.message))
        }
        _ => (ConditionStatus::False, "NoRollout".to_owned(), "no version change so far".to_owned()),
    };
    conditions::set(&mut status.conditions, "Progressing", progressing, &reason, &message, generation, view.now);
}

/// `errors:pass latency:wait …`.
fn gates_summary(gates: &[GateStatus]) -> String {
    let word = |gate: &GateStatus| match gate.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "wait",
    };
    gates.iter().filter(|g| g.enforced).map(|g| format!("{}:{}", g.name, word(g))).collect::<Vec<_>>().join(" ")
}

fn version_ref(revision: &str, model: &ModelTemplate) -> VersionRef {
    VersionRef {
        revision: revision.to_owned(),
        version: model.version.clone(),
        digest: model.digest.clone().unwrap_or_default(),
    }
}

fn new_revision(endpoint: &ModelEndpoint, name: &str, model: &ModelTemplate) -> ModelRevision {
    let spec = ModelRevisionSpec { endpoint: endpoint.name_any(), model: model.clone() };
    let mut revision = ModelRevision::new(name, spec);
    revision.metadata = owned(endpoint, name, Some(name));
    revision
}

fn owned(endpoint: &ModelEndpoint, name: &str, revision: Option<&str>) -> ObjectMeta {
    let mut labels = BTreeMap::from([(names::ENDPOINT_LABEL.to_owned(), endpoint.name_any())]);
    if let Some(revision) = revision {
        labels.insert(names::REVISION_LABEL.to_owned(), revision.to_owned());
    }
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: endpoint.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: ModelEndpoint::api_version(&()).into_owned(),
            kind: ModelEndpoint::kind(&()).into_owned(),
            name: endpoint.name_any(),
            uid: endpoint.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..Default::default()
    }
}
