//! What gateways reported, kept per boot, and turned into a rollout's evidence.
//!
//! Gateways send cumulative counts, so the newest message of a boot replaces what came before and a lost one costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serin_api::resources::rollout::SourceEvidence;
use serin_api::units::Millis;
use serin_api::wire::observations::{Observation, ObservationBatch};
use serin_api::{ModelRolloutSpec, ModelRolloutStatus};
use serin_decide::analysis::freeze::ReferenceSample;
use serin_decide::evidence::{self, Side};

/// A gateway that was silent for longer is not counted as alive: twenty of its 100 ms messages are missing.
pub const GATEWAY_ALIVE_MS: i64 = 2_000;
/// Boots kept apart in a rollout's status; older ones of gateways that run a newer boot are added up.
const SOURCES_MAX: usize = 8;

/// Identifies one cumulative count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct CellKey {
    epoch: u64,
    stratum: u16,
    revision: String,
}

/// One run of one gateway.
#[derive(Debug, Default)]
struct Boot {
    last_batch_at: Millis,
    received_at: Millis,
    acked_generation: u64,
    /// By endpoint key.
    endpoints: HashMap<String, BTreeMap<CellKey, Observation>>,
}

/// Everything that gateways reported since control started.
#[derive(Debug, Default)]
pub struct Observations {
    /// By gateway id and boot id.
    boots: BTreeMap<(String, String), Boot>,
}

/// What is known about the gateways as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// Gateways heard of in the last two seconds.
    pub alive: usize,
    /// Lowest route generation in force on one of them; `None` when there is none.
    pub applied_generation: Option<u64>,
    /// When the newest message came.
    pub last_batch_at: Option<Millis>,
}

impl Observations {
    /// Takes in a batch. Returns the endpoints it changed.
    pub fn absorb(&mut self, batch: ObservationBatch, now: Millis) -> BTreeSet<String> {
        let key = (batch.gateway, batch.boot);
        let boot = self.boots.entry(key).or_default();
        boot.last_batch_at = batch.at;
        boot.received_at = now;
        boot.acked_generation = boot.acked_generation.max(batch.generation);
        let mut changed = BTreeSet::new();
        for observation in batch.observations {
            let cell = CellKey {
                epoch: observation.epoch,
                stratum: observation.stratum,
                revision: observation.revision.clone(),
            };
            changed.insert(observation.endpoint.clone());
            boot.endpoints.entry(observation.endpoint.clone()).or_default().insert(cell, observation);
        }
        changed
    }

    /// Notes which generation a gateway has in force.
    pub fn acknowledge(&mut self, gateway: String, boot: String, generation: u64, now: Millis) {
        let boot = self.boots.entry((gateway, boot)).or_default();
        boot.acked_generation = boot.acked_generation.max(generation);
        boot.received_at = now;
    }

    /// Drops boots that ended long ago, and what is known about endpoints that are gone.
    pub fn forget(&mut self, keep_endpoint: impl Fn(&str) -> bool, now: Millis) {
        self.boots.retain(|_, boot| now.since(boot.received_at).ms() < 3_600_000);
        for boot in self.boots.values_mut() {
            boot.endpoints.retain(|endpoint, _| keep_endpoint(endpoint));
        }
    }

    /// The gateways as a whole.
    #[must_use]
    pub fn gateways(&self, now: Millis) -> Gateways {
        let alive: Vec<&Boot> =
            self.boots.values().filter(|b| now.0.saturating_sub(b.received_at.0) <= GATEWAY_ALIVE_MS).collect();
        Gateways {
            alive: alive.len(),
            applied_generation: alive.iter().map(|b| b.acked_generation).min(),
            last_batch_at: self.boots.values().map(|b| b.received_at).max().filter(|at| at.0 > 0),
        }
    }

    /// What the active version did in epochs without frozen bins: the reference from which a rollout freezes.
    #[must_use]
    pub fn reference(&self, endpoint: &str, epochs: &[u64], revision: &str) -> ReferenceSample {
        let mut sample = ReferenceSample::default();
        for (cell, observation) in self.boots.values().filter_map(|b| b.endpoints.get(endpoint)).flatten() {
            if cell.revision == revision && epochs.contains(&cell.epoch) {
                sample.add(observation);
            }
        }
        sample
    }

    /// Requests to a revision that are being answered now, under any epoch.
    #[must_use]
    pub fn in_flight(&self, endpoint: &str, revision: &str, now: Millis) -> u64 {
        self.boots
            .values()
            .filter(|b| now.0.saturating_sub(b.received_at.0) <= GATEWAY_ALIVE_MS)
            .filter_map(|b| b.endpoints.get(endpoint))
            .flatten()
            .filter(|(cell, _)| cell.revision == revision)
            .map(|(_, o)| o.in_flight)
            .sum()
    }

    /// Evidence of a rollout: what is persisted in its status, brought up to date by what gateways reported since.
    ///
    /// `labels` replaces the labels' source: the store of outcomes has them all.
    #[must_use]
    pub fn evidence(
        &self,
        endpoint: &str,
        spec: &ModelRolloutSpec,
        status: &ModelRolloutStatus,
        labels: Option<SourceEvidence>,
    ) -> Vec<SourceEvidence> {
        let mut sources = status.evidence.clone();
        for ((gateway, boot_id), boot) in &self.boots {
            let name = format!("{gateway}/{boot_id}");
            for (cell, observation) in boot.endpoints.get(endpoint).into_iter().flatten() {
                let side = match &cell.revision {
                    revision if *revision == spec.from.revision => Side::Control,
                    revision if *revision == spec.to.revision => Side::Candidate,
                    _ => continue,
                };
                if status.epochs.iter().any(|e| e.epoch == cell.epoch) {
                    evidence::record(&mut sources, &name, side, observation, status.frozen.as_ref());
                }
            }
        }
        if let Some(labels) = labels {
            sources.retain(|s| s.source != evidence::LABELS);
            sources.push(labels);
        }
        self.settle(&mut sources);
        sources
    }

    /// Adds up boots that certainly ended (their gateway runs another one now), so that a status stays small.
    fn settle(&self, sources: &mut Vec<SourceEvidence>) {
        if sources.len() <= SOURCES_MAX {
            return;
        }
        let ended: Vec<String> = sources
            .iter()
            .filter_map(|s| s.source.split_once('/'))
            .filter(|(gateway, boot)| {
                let mut boots = self.boots.keys().filter(|(g, _)| g == gateway).peekable();
                boots.peek().is_some() && !boots.any(|(_, b)| b == boot)
            })
            .map(|(gateway, boot)| format!("{gateway}/{boot}"))
            .collect();
        for source in ended {
            evidence::settle(sources, &source);
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_api::resources::endpoint::VersionRef;
    use serin_api::resources::rollout::{Bucketing, EpochRecord, Frozen, FrozenQuantile};
    use serin_api::units::Weight;
    use serin_api::wire::observations::OutcomeClass;

    use super::*;

    fn spec() -> ModelRolloutSpec {
        let version = |revision: &str| VersionRef { revision: revision.into(), ..Default::default() };
        ModelRolloutSpec {
            endpoint: "e".into(),
            from: version("a"),
            to: version("b"),
            plan: Default::default(),
            bucketing: Bucketing { seed: "s".into(), ..Bucketing::default() },
            undo_of: None,
            paused: false,
            abort: false,
            retry: 0,
            promote: None,
        }
    }

    fn status() -> ModelRolloutStatus {
        ModelRolloutStatus {
            epochs: vec![EpochRecord {
                epoch: 4,
                weights: vec![Weight::from_parts(10_000)],
                at: Millis(0),
                step: 0,
                bake: false,
            }],
            frozen: Some(Frozen {
                latency: vec![FrozenQuantile {
                    quantile: 0.5,
                    control_bucket: 100,
                    candidate_bucket: 110,
                    control_us: 1.0,
                    candidate_us: 2.0,
                }],
                score_edges: vec![0.5],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn batch(boot: &str, sequence: u64, revision: &str, ok: u64, failed: u64) -> ObservationBatch {
        let mut outcomes = [0; OutcomeClass::COUNT];
        outcomes[OutcomeClass::Ok as usize] = ok;
        outcomes[OutcomeClass::ServerError as usize] = failed;
        outcomes[OutcomeClass::ClientError as usize] = 1000;
        ObservationBatch {
            gateway: "g".into(),
            boot: boot.into(),
            sequence,
            at: Millis(1),
            generation: 9,
            observations: vec![Observation {
                endpoint: "default/e".into(),
                epoch: 4,
                revision: revision.into(),
                outcomes,
                latency: vec![(99, 1), (105, 2), (120, 4)],
                predictions: vec![(0, 3), (1, 4)],
                ..Default::default()
            }],
        }
    }

    fn totals(evidence: &[SourceEvidence]) -> (u64, u64, u64, u64) {
        evidence.iter().flat_map(|s| &s.cells).fold((0, 0, 0, 0), |t, c| {
            (t.0 + c.control.requests, t.1 + c.control.failures, t.2 + c.candidate.requests, t.3 + c.candidate.failures)
        })
    }

    #[test]
    fn counts_are_taken_per_arm_against_its_own_thresholds() {
        let mut seen = Observations::default();
        seen.absorb(batch("b1", 1, "a", 90, 2), Millis(10));
        seen.absorb(batch("b1", 2, "b", 9, 1), Millis(11));
        let evidence = seen.evidence("default/e", &spec(), &status(), None);
        assert_eq!(totals(&evidence), (92, 2, 10, 1));
        let cell = &evidence[0].cells[0];
        assert_eq!((cell.control.over.as_slice(), cell.candidate.over.as_slice()), ([6].as_slice(), [4].as_slice()));
        assert_eq!(cell.control.bins, [3, 4]);
    }

    #[test]
    fn resending_changes_nothing_and_a_restart_of_control_loses_nothing() {
        let mut seen = Observations::default();
        seen.absorb(batch("b1", 1, "a", 90, 2), Millis(10));
        seen.absorb(batch("b1", 2, "a", 90, 2), Millis(11));
        let mut persisted = status();
        persisted.evidence = seen.evidence("default/e", &spec(), &status(), None);
        assert_eq!(totals(&persisted.evidence), (92, 2, 0, 0));

        // A fresh control knows the status only; then the boot resends everything, and a new boot starts from zero.
        let mut fresh = Observations::default();
        assert_eq!(totals(&fresh.evidence("default/e", &spec(), &persisted, None)), (92, 2, 0, 0));
        fresh.absorb(batch("b1", 7, "a", 95, 3), Millis(20));
        fresh.absorb(batch("b2", 1, "a", 5, 0), Millis(21));
        assert_eq!(totals(&fresh.evidence("default/e", &spec(), &persisted, None)), (103, 3, 0, 0));
    }

    #[test]
    fn many_ended_boots_are_added_up_without_losing_a_count() {
        let mut persisted = status();
        let mut expected = 0;
        for boot in 0..20 {
            let mut seen = Observations::default();
            seen.absorb(batch(&format!("b{boot}"), 1, "a", 10, 1), Millis(10));
            expected += 11;
            persisted.evidence = seen.evidence("default/e", &spec(), &persisted, None);
            assert_eq!(totals(&persisted.evidence).0, expected);
            assert!(persisted.evidence.len() <= SOURCES_MAX + 1);
        }
    }

    #[test]
    fn evidence_of_other_epochs_and_revisions_is_left_out() {
        let mut seen = Observations::default();
        let mut other = batch("b1", 1, "a", 90, 2);
        other.observations[0].epoch = 3;
        seen.absorb(other, Millis(10));
        seen.absorb(batch("b1", 2, "c", 90, 2), Millis(10));
        assert!(seen.evidence("default/e", &spec(), &status(), None).is_empty());
    }

    #[test]
    fn silent_gateways_are_not_alive() {
        let mut seen = Observations::default();
        seen.absorb(batch("b1", 1, "a", 90, 2), Millis(10_000));
        assert_eq!(
            seen.gateways(Millis(11_000)),
            Gateways { alive: 1, applied_generation: Some(9), last_batch_at: Some(Millis(10_000)) }
        );
        assert_eq!(seen.gateways(Millis(12_001)).alive, 0);
        assert_eq!(Observations::default().gateways(Millis(0)).last_batch_at, None);
    }
}
