//! The lifecycle of an endpoint, played on a small world that carries out every change that is due.
#![allow(clippy::unwrap_used)] // In a test that is the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use serin_api::resources::gates::GateMode;
use serin_api::resources::names;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::units::Millis;
use serin_api::{ModelEndpoint, ModelRevision, ModelRollout, ModelServer, ModelTemplate};
use serin_control::lifecycle::{self, Change, View};

struct World {
    endpoint: ModelEndpoint,
    broken: Option<String>,
    revisions: BTreeMap<String, Arc<ModelRevision>>,
    rollouts: BTreeMap<u64, Arc<ModelRollout>>,
    servers: BTreeMap<String, Arc<ModelServer>>,
    now: Millis,
}

impl World {
    fn new() -> World {
        World::created_at("2026-01-02T03:04:05Z")
    }

    fn created_at(time: &str) -> World {
        let endpoint = serde_json::from_value(serde_json::json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint",
            "metadata": {
                "name": "income", "namespace": "default", "uid": "u", "generation": 1, "creationTimestamp": time,
            },
            "spec": {"replicas": 2, "model": {"version": "v1", "storageUri": "/v1.onnx", "digest": "sha256:v1"}},
        }))
        .unwrap();
        let mut world = World {
            endpoint,
            broken: None,
            revisions: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            servers: BTreeMap::new(),
            now: Millis(1_000),
        };
        world.settle();
        world
    }

    fn view(&self) -> View<'_> {
        View {
            endpoint: &self.endpoint,
            model: self.broken.clone().map_or(Ok(self.endpoint.spec.model.clone()), Err),
            revisions: self.revisions.clone(),
            rollouts: self.rollouts.clone(),
            servers: self.servers.clone(),
            ready: self.revisions.keys().map(|r| (r.clone(), 2)).collect(),
            problems: self.revisions.keys().map(|r| (r.clone(), "it is late".to_owned())).collect(),
            now: self.now,
        }
    }

    /// Carries out what is due until nothing is; it must come to an end.
    fn settle(&mut self) -> usize {
        for round in 0..10 {
            let due = lifecycle::due(&self.view());
            if due.changes.is_empty() {
                return round;
            }
            for change in due.changes {
                self.carry_out(change);
            }
        }
        panic!("the lifecycle does not come to rest");
    }

    fn carry_out(&mut self, change: Change) {
        match change {
            Change::CreateRevision(r) => drop(self.revisions.insert(r.name_any(), Arc::new(*r))),
            Change::CreateRollout(r) => {
                let number = lifecycle::rollout_number("income", &r.name_any()).unwrap();
                assert!(self.rollouts.insert(number, Arc::new(*r)).is_none(), "a rollout is made twice");
            }
            Change::CreateServer(s) => drop(self.servers.insert(s.name_any(), Arc::new(*s))),
            Change::ScaleServer { name, replicas } => {
                Arc::make_mut(self.servers.get_mut(&name).unwrap()).spec.replicas = replicas;
            }
            Change::DeleteServer(name) => drop(self.servers.remove(&name)),
            Change::SetFailed { revision, failed_in } => {
                let revision = Arc::make_mut(self.revisions.get_mut(&revision).unwrap());
                revision.status.get_or_insert_default().failed_in = failed_in;
            }
            Change::SetStatus(status) => self.endpoint.status = Some(*status),
        }
    }

    fn ship(&mut self, version: &str) {
        self.edit(version);
        self.settle();
    }

    fn edit(&mut self, version: &str) {
        let json = serde_json::json!({
            "version": version, "storageUri": format!("/{version}.onnx"), "digest": format!("sha256:{version}"),
        });
        self.endpoint.spec.model = serde_json::from_value::<ModelTemplate>(json).unwrap();
        *self.endpoint.metadata.generation.as_mut().unwrap() += 1;
    }

    /// Dies after some of the changes that are due.
    fn die_after(&mut self, changes: usize) {
        for change in lifecycle::due(&self.view()).changes.into_iter().take(changes) {
            self.carry_out(change);
        }
    }

    fn end(&mut self, phase: RolloutPhase) {
        self.write_end(phase);
        self.settle();
    }

    /// What the engine would write.
    fn write_end(&mut self, phase: RolloutPhase) {
        let epoch = self.endpoint.status.as_ref().unwrap().epoch;
        let rollout = Arc::make_mut(self.rollouts.last_entry().unwrap().into_mut());
        let status = rollout.status.get_or_insert_default();
        status.phase = phase;
        status.epoch = status.epoch.max(epoch) + 5;
        status.finished_at = Some(self.now);
    }

    fn active(&self) -> &str {
        &self.endpoint.status.as_ref().unwrap().active.as_ref().unwrap().version
    }

    /// Versions that run, in one line.
    fn running(&self) -> String {
        let version = |s: &Arc<ModelServer>| self.revisions[&s.spec.revision].spec.model.version.clone();
        let mut running: Vec<String> = self.servers.values().map(version).collect();
        running.sort_unstable();
        running.join(" ")
    }
}

#[test]
fn a_spec_is_observed_once_its_rollout_can_be_seen() {
    let mut world = World::new();
    for (version, rollout) in [("v2", "income-1"), ("v3", "income-2")] {
        world.edit(version);
        loop {
            let due = lifecycle::due(&world.view());
            if due.changes.is_empty() {
                break;
            }
            for change in due.changes {
                world.carry_out(change);
                let status = world.endpoint.status.as_ref().unwrap();
                if status.observed_generation == world.endpoint.metadata.generation {
                    assert_eq!(status.rollout.as_ref().map(|r| r.name.as_str()), Some(rollout));
                }
            }
        }
        assert_eq!(world.endpoint.status.as_ref().unwrap().observed_generation, world.endpoint.metadata.generation);
        world.end(RolloutPhase::Promoted);
        world.settle();
    }
}

#[test]
fn the_first_version_serves_without_a_rollout() {
    let world = World::new();
    assert_eq!((world.active(), world.rollouts.len(), world.running()), ("v1", 0, "v1".to_owned()));
    assert_eq!(world.servers.values().next().unwrap().spec.replicas, 2);
}

#[test]
fn an_endpoint_that_is_made_again_has_none_of_the_epochs_of_the_earlier_one() {
    let mut earlier = World::new();
    earlier.ship("v2");
    earlier.end(RolloutPhase::Promoted);
    let again = World::created_at("2026-01-02T03:04:06Z");
    let epoch = |world: &World| world.endpoint.status.as_ref().unwrap().epoch;
    assert!(epoch(&again) > epoch(&earlier));
}

#[test]
fn a_promotion_is_taken_over_whenever_control_dies_although_a_newer_version_waits() {
    for changes in 0..8 {
        let mut world = World::new();
        world.ship("v2");
        world.write_end(RolloutPhase::Promoted);
        world.edit("v3");
        world.die_after(changes);
        world.settle();
        assert_eq!((world.active(), world.rollouts.len()), ("v2", 2), "after {changes} changes");
        assert_eq!(world.rollouts[&2].spec.from.version, "v2");
        let epoch = world.rollouts[&1].status.as_ref().unwrap().epoch;
        assert!(world.endpoint.status.as_ref().unwrap().epoch >= epoch);
    }
}

#[test]
fn a_new_version_is_a_rollout_and_becomes_active_when_promoted() {
    let mut world = World::new();
    world.ship("v2");
    assert_eq!((world.active(), world.rollouts.len(), world.running()), ("v1", 1, "v1 v2".to_owned()));
    let rollout = &world.rollouts[&1];
    assert_eq!((rollout.name_any().as_str(), rollout.spec.plan.steps.len()), ("income-1", 4));
    assert_eq!(rollout.spec.plan.gates.distribution.mode, Some(GateMode::Enforce));

    let before = world.endpoint.status.as_ref().unwrap().epoch;
    world.end(RolloutPhase::Promoted);
    assert_eq!((world.active(), world.running()), ("v2", "v1 v2".to_owned()), "the fallback stays warm");
    assert!(world.endpoint.status.as_ref().unwrap().epoch > before);

    world.now = Millis(world.now.0 + 600_001);
    world.settle();
    assert_eq!((world.running(), world.rollouts.len()), ("v2".to_owned(), 1));
}

#[test]
fn a_failed_version_is_sticky_until_it_is_retried() {
    let mut world = World::new();
    world.ship("v3");
    world.end(RolloutPhase::RolledBack);
    assert_eq!((world.active(), world.running(), world.rollouts.len()), ("v1", "v1".to_owned(), 1));

    // Applying the same again, or another version and then it again, does not start it.
    world.ship("v3");
    assert_eq!(world.rollouts.len(), 1);
    world.ship("v4");
    world.end(RolloutPhase::Promoted);
    world.ship("v3");
    assert_eq!((world.rollouts.len(), world.active()), (2, "v4"));

    // The retry verb on the rollout in which it failed does.
    Arc::make_mut(world.rollouts.get_mut(&1).unwrap()).spec.retry = 1;
    world.settle();
    assert_eq!((world.rollouts.len(), world.rollouts[&3].spec.to.version.as_str()), (3, "v3"));
    world.end(RolloutPhase::RolledBack);
    assert_eq!(world.rollouts.len(), 3, "one retry is one attempt");
}

#[test]
fn a_newer_version_supersedes_and_starts_when_the_old_rollout_is_over() {
    let mut world = World::new();
    world.ship("v2");
    world.ship("v3");
    assert_eq!(world.rollouts.len(), 1);
    assert!(lifecycle::is_superseded(&world.view(), &world.rollouts[&1]));
    world.end(RolloutPhase::Superseded);
    assert_eq!((world.rollouts.len(), world.rollouts[&2].spec.to.version.as_str()), (2, "v3"));
    assert_eq!(world.rollouts[&2].spec.from.version, "v1");
    assert_eq!(world.running(), "v1 v3");
}

#[test]
fn going_back_in_the_spec_ends_the_rollout_and_starts_none() {
    let mut world = World::new();
    world.ship("v2");
    world.ship("v1");
    assert!(lifecycle::is_superseded(&world.view(), &world.rollouts[&1]));
    world.end(RolloutPhase::Superseded);
    assert_eq!((world.rollouts.len(), world.running()), (1, "v1".to_owned()));
}

#[test]
fn an_undo_switches_at_once_and_only_once() {
    let mut world = World::new();
    world.ship("v2");
    world.end(RolloutPhase::Promoted);
    world.endpoint.annotations_mut().insert(names::UNDO_ANNOTATION.into(), "income-1".into());
    world.ship("v1");
    let spec = &world.rollouts[&2].spec;
    assert_eq!((spec.undo_of.as_deref(), spec.plan.steps.len()), (Some("income-1"), 1));
    assert!(spec.plan.steps[0].blue_green.is_some() && spec.plan.gates.errors.mode == GateMode::Disabled);
    world.end(RolloutPhase::Promoted);
    assert_eq!(world.active(), "v1");

    // The annotation is still there; an ordinary change back and forth is judged as any other.
    world.ship("v2");
    world.end(RolloutPhase::Promoted);
    world.ship("v1");
    assert_eq!(world.rollouts[&4].spec.undo_of, None);
}

#[test]
fn a_spec_that_cannot_be_resolved_changes_nothing_and_says_so() {
    let mut world = World::new();
    world.ship("v2");
    world.broken = Some("spec.model.storageUri /v9.onnx cannot be read".into());
    world.ship("v9");
    assert_eq!((world.rollouts.len(), world.active(), world.running()), (1, "v1", "v1 v2".to_owned()));
    assert!(!lifecycle::is_superseded(&world.view(), &world.rollouts[&1]));
    let conditions = &world.endpoint.status.as_ref().unwrap().conditions;
    let accepted = conditions.iter().find(|c| c.kind == "Accepted").unwrap();
    assert!(accepted.message.contains("cannot be read"));
}

#[test]
fn a_server_that_runs_elsewhere_needs_no_processes() {
    let mut world = World::new();
    let elsewhere = serde_json::json!({"version": "v2", "url": "http://h:1"});
    world.endpoint.spec.model = serde_json::from_value(elsewhere).unwrap();
    world.settle();
    assert_eq!(world.running(), "v1");
    let mode = world.rollouts[&1].spec.plan.gates.distribution.mode;
    assert_eq!(mode, Some(GateMode::Disabled), "said, not assumed");
}

#[test]
fn scaling_reaches_every_pool() {
    let mut world = World::new();
    world.ship("v2");
    world.endpoint.spec.replicas = 5;
    world.settle();
    assert!(world.servers.values().all(|s| s.spec.replicas == 5));
}
