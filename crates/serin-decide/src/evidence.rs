//! Counts from many gateways as one body of evidence.
//!
//! A source (one boot of one gateway, or the labels) reports counts that only grow, so its newest report replaces the one before
//! and resending is harmless. Within an epoch and stratum the likelihood depends on counts only, so the counts of all sources add
//! up. Failing units are the exception: a unit may fail at two gateways and in two epochs, and counts once per rollout, where it
//! failed first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serin_api::resources::rollout::{ArmCounts, CellEvidence, FailingUnits, Frozen, SourceEvidence};
use serin_api::wire::observations::{MAX_FAILING_UNITS, Observation, OutcomeClass};

/// Name of the source that holds labelled outcomes.
pub const LABELS: &str = "labels";
/// Name of the source that holds what ended sources contributed.
pub const SETTLED: &str = "settled";

/// An arm of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The active version, arm 0.
    Control,
    /// The version on trial, arm 1.
    Candidate,
}

/// Puts a gateway's observation into its source, replacing what the source said about this epoch, stratum and arm before.
///
/// * `source`: `gateway/boot`.
/// * `side`: the arm that `observation.revision` is in this rollout.
/// * `frozen`: the references in force in the observation's epoch; without them nothing is counted over a threshold or in a bin.
///
/// Counts never go down: a report that arrives late changes nothing. Where failures are counted by unit (`observation.keyed`),
/// failing requests are not counted themselves, so a gateway gives a failing request without a unit key a random hash of its own.
pub fn record(
    sources: &mut Vec<SourceEvidence>,
    source: &str,
    side: Side,
    observation: &Observation,
    frozen: Option<&Frozen>,
) {
    let counts = arm_counts(observation, side, frozen);
    let entry = source_mut(sources, source);
    raise(side_mut(cell_mut(entry, observation.epoch, observation.stratum), side), &counts);
    if !observation.failing_units.is_empty() {
        let mut units = observation.failing_units.clone();
        entry.units_overflow |= merge_units(entry, observation.epoch, observation.stratum, side, &mut units);
    }
    entry.units_overflow |= observation.units_overflow;
}

/// Counts one labelled outcome in the epoch and stratum of its assignment.
pub fn record_label(sources: &mut Vec<SourceEvidence>, epoch: u64, stratum: u16, side: Side, wrong: bool) {
    let arm = side_mut(cell_mut(source_mut(sources, LABELS), epoch, stratum), side);
    arm.labels += 1;
    arm.wrong += u64::from(wrong);
}

/// Folds a source that will not report again into [`SETTLED`], so that the evidence does not grow with every restart of a gateway.
/// A source that still reports afterwards would be counted twice.
pub fn settle(sources: &mut Vec<SourceEvidence>, source: &str) {
    let Some(at) = sources.iter().position(|s| s.source == source && source != SETTLED) else { return };
    let ended = sources.remove(at);
    let settled = source_mut(sources, SETTLED);
    for cell in &ended.cells {
        let sum = cell_mut(settled, cell.epoch, cell.stratum);
        add(&mut sum.control, &cell.control);
        add(&mut sum.candidate, &cell.candidate);
    }
    for group in &ended.failing_units {
        let (mut units, ok) = decode_units(&group.units);
        let side = if group.candidate { Side::Candidate } else { Side::Control };
        settled.units_overflow |= merge_units(settled, group.epoch, group.stratum, side, &mut units) || !ok;
    }
    settled.units_overflow |= ended.units_overflow;
}

/// The evidence of one attempt: only what belongs to `epochs` (ascending), and never less than what was `known`.
///
/// `observed` normally holds all of `known`. After a restart it may for a moment lack a source or lag behind; then each source
/// keeps the larger counts.
#[must_use]
pub fn at_least(known: &[SourceEvidence], observed: &[SourceEvidence], epochs: &[u64]) -> Vec<SourceEvidence> {
    let mut sources: Vec<SourceEvidence> = observed.iter().map(|s| keep_epochs(s, epochs)).collect();
    let known: Vec<SourceEvidence> = known.iter().map(|s| keep_epochs(s, epochs)).collect();
    if !Totals::of(&sources).covers(&Totals::of(&known)) {
        for source in &known {
            let entry = source_mut(&mut sources, &source.source);
            for cell in &source.cells {
                let mine = cell_mut(entry, cell.epoch, cell.stratum);
                raise(&mut mine.control, &cell.control);
                raise(&mut mine.candidate, &cell.candidate);
            }
            for group in &source.failing_units {
                let (mut units, ok) = decode_units(&group.units);
                let side = if group.candidate { Side::Candidate } else { Side::Control };
                entry.units_overflow |= merge_units(entry, group.epoch, group.stratum, side, &mut units) || !ok;
            }
            entry.units_overflow |= source.units_overflow;
        }
    }
    sources.retain(|s| !s.cells.is_empty() || !s.failing_units.is_empty() || s.units_overflow);
    sources.sort_by(|a, b| a.source.cmp(&b.source));
    sources
}

fn keep_epochs(source: &SourceEvidence, epochs: &[u64]) -> SourceEvidence {
    let mut kept = source.clone();
    kept.cells.retain(|c| epochs.binary_search(&c.epoch).is_ok());
    kept.failing_units.retain(|u| epochs.binary_search(&u.epoch).is_ok());
    kept
}

/// The sum of all sources, per epoch and stratum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Cells in the order of (epoch, stratum). `failures` includes the failing units, each counted once.
    pub cells: Vec<CellEvidence>,
    /// More units failed than can be told apart, so that failures can not be counted.
    pub units_overflow: bool,
}

impl Totals {
    /// Adds up the sources.
    #[must_use]
    pub fn of(sources: &[SourceEvidence]) -> Totals {
        let mut sum = SourceEvidence::default();
        let mut units: Vec<(u64, u64, u16, Side)> = Vec::new();
        let mut overflow = false;
        for source in sources {
            overflow |= source.units_overflow;
            for cell in &source.cells {
                let mine = cell_mut(&mut sum, cell.epoch, cell.stratum);
                add(&mut mine.control, &cell.control);
                add(&mut mine.candidate, &cell.candidate);
            }
            for group in &source.failing_units {
                let (hashes, ok) = decode_units(&group.units);
                overflow |= !ok;
                let side = if group.candidate { Side::Candidate } else { Side::Control };
                units.extend(hashes.into_iter().map(|hash| (hash, group.epoch, group.stratum, side)));
            }
        }
        // The first failure of a unit is the one in the lowest epoch.
        units.sort_unstable();
        units.dedup_by_key(|unit| unit.0);
        overflow |= units.len() > MAX_FAILING_UNITS;
        for (_, epoch, stratum, side) in units {
            side_mut(cell_mut(&mut sum, epoch, stratum), side).failures += 1;
        }
        Totals { cells: sum.cells, units_overflow: overflow }
    }

    /// Whether every count of `other` is reached here.
    ///
    /// Failures are compared by their sum: a unit whose first failure is reported late moves from one cell to an earlier one.
    #[must_use]
    pub fn covers(&self, other: &Totals) -> bool {
        let failures = |totals: &Totals| {
            totals
                .cells
                .iter()
                .fold(0, |sum: u64, c| sum.saturating_add(c.control.failures).saturating_add(c.candidate.failures))
        };
        (self.units_overflow || !other.units_overflow)
            && failures(self) >= failures(other)
            && other.cells.iter().all(|theirs| {
                self.cells.iter().any(|mine| {
                    (mine.epoch, mine.stratum) == (theirs.epoch, theirs.stratum)
                        && arm_covers(&mine.control, &theirs.control)
                        && arm_covers(&mine.candidate, &theirs.candidate)
                })
            })
    }

    /// The same as one source, for a record: the units are counted, their hashes left out.
    #[must_use]
    pub fn as_source(&self) -> SourceEvidence {
        SourceEvidence {
            source: SETTLED.to_owned(),
            cells: self.cells.clone(),
            failing_units: Vec::new(),
            units_overflow: self.units_overflow,
        }
    }
}

/// The counts of one observation, as its arm's counts.
fn arm_counts(observation: &Observation, side: Side, frozen: Option<&Frozen>) -> ArmCounts {
    let count = |wanted: fn(OutcomeClass) -> bool| {
        OutcomeClass::ALL.iter().filter(|c| wanted(**c)).map(|c| observation.outcomes[*c as usize]).sum::<u64>()
    };
    let mut counts = ArmCounts {
        requests: count(OutcomeClass::is_evidence),
        failures: if observation.keyed { 0 } else { count(OutcomeClass::is_failure) },
        null_predictions: observation.null_predictions,
        ..ArmCounts::default()
    };
    let Some(frozen) = frozen else { return counts };
    counts.over = frozen
        .latency
        .iter()
        .map(|q| match side {
            Side::Control => q.control_bucket,
            Side::Candidate => q.candidate_bucket,
        })
        .map(|first| observation.latency.iter().filter(|(bucket, _)| *bucket >= first).map(|(_, n)| n).sum())
        .collect();
    counts.bins = vec![0; bin_count(frozen)];
    for (bin, n) in &observation.predictions {
        if let Some(sum) = usize::try_from(*bin).ok().and_then(|bin| counts.bins.get_mut(bin)) {
            *sum += n;
        }
    }
    counts
}

/// Number of prediction bins that the references have; 0 where predictions are not counted.
#[must_use]
pub fn bin_count(frozen: &Frozen) -> usize {
    let named = frozen.score_edges.len().max(frozen.classes.len());
    if named == 0 { 0 } else { named + 1 }
}

fn source_mut<'a>(sources: &'a mut Vec<SourceEvidence>, name: &str) -> &'a mut SourceEvidence {
    let at = sources.iter().position(|s| s.source == name).unwrap_or_else(|| {
        sources.push(SourceEvidence { source: name.to_owned(), ..SourceEvidence::default() });
        sources.len() - 1
    });
    &mut sources[at]
}

/// The cell of an epoch and stratum; cells stay in order.
fn cell_mut(source: &mut SourceEvidence, epoch: u64, stratum: u16) -> &mut CellEvidence {
    let at = source.cells.binary_search_by_key(&(epoch, stratum), |c| (c.epoch, c.stratum));
    let at = at.unwrap_or_else(|at| {
        source.cells.insert(at, CellEvidence { epoch, stratum, ..CellEvidence::default() });
        at
    });
    &mut source.cells[at]
}

fn side_mut(cell: &mut CellEvidence, side: Side) -> &mut ArmCounts {
    match side {
        Side::Control => &mut cell.control,
        Side::Candidate => &mut cell.candidate,
    }
}

fn combine(into: &mut ArmCounts, other: &ArmCounts, with: fn(u64, u64) -> u64) {
    let each = |mine: &mut Vec<u64>, theirs: &[u64]| {
        mine.resize(mine.len().max(theirs.len()), 0);
        mine.iter_mut().zip(theirs).for_each(|(a, b)| *a = with(*a, *b));
    };
    into.requests = with(into.requests, other.requests);
    into.failures = with(into.failures, other.failures);
    into.null_predictions = with(into.null_predictions, other.null_predictions);
    into.labels = with(into.labels, other.labels);
    into.wrong = with(into.wrong, other.wrong);
    each(&mut into.over, &other.over);
    each(&mut into.bins, &other.bins);
}

pub(crate) fn add(into: &mut ArmCounts, other: &ArmCounts) {
    combine(into, other, u64::saturating_add);
}

fn raise(into: &mut ArmCounts, other: &ArmCounts) {
    combine(into, other, u64::max);
}

/// Whether all counts but the failures are reached.
fn arm_covers(mine: &ArmCounts, theirs: &ArmCounts) -> bool {
    let mut raised = mine.clone();
    raise(&mut raised, theirs);
    raised.failures = mine.failures;
    raised == *mine
}

/// Adds units to a source's group; the group stays a sorted set. Returns whether it is full, so that some were left out.
fn merge_units(source: &mut SourceEvidence, epoch: u64, stratum: u16, side: Side, units: &mut Vec<u64>) -> bool {
    let candidate = side == Side::Candidate;
    let group =
        source.failing_units.iter_mut().find(|u| (u.epoch, u.stratum, u.candidate) == (epoch, stratum, candidate));
    let mut overflow = false;
    if let Some(group) = &group {
        let (known, ok) = decode_units(&group.units);
        overflow |= !ok;
        units.extend(known);
    }
    units.sort_unstable();
    units.dedup();
    overflow |= units.len() > MAX_FAILING_UNITS;
    units.truncate(MAX_FAILING_UNITS);
    let units = encode_units(units);
    match group {
        Some(group) => group.units = units,
        None => source.failing_units.push(FailingUnits { epoch, stratum, candidate, units }),
    }
    overflow
}

fn encode_units(units: &[u64]) -> String {
    STANDARD.encode(units.iter().flat_map(|u| u.to_be_bytes()).collect::<Vec<u8>>())
}

/// The hashes, and whether the text was whole.
fn decode_units(text: &str) -> (Vec<u64>, bool) {
    let Ok(bytes) = STANDARD.decode(text) else { return (Vec::new(), false) };
    let words = bytes.chunks_exact(8);
    let whole = words.remainder().is_empty();
    (words.map(|w| u64::from_be_bytes(w.try_into().unwrap_or_default())).collect(), whole)
}
