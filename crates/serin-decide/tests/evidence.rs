//! Evidence from many sources: it adds up, it never shrinks, and a unit counts once.

use proptest::prelude::*;
use serin_api::resources::rollout::{Frozen, FrozenQuantile, SourceEvidence};
use serin_api::wire::observations::{MAX_FAILING_UNITS, Observation, OutcomeClass};
use serin_decide::evidence::{LABELS, SETTLED, Side, Totals, at_least, record, record_label, settle};

fn observation(epoch: u64, ok: u64, failed: u64, units: &[u64], keyed: bool) -> Observation {
    let mut observation = Observation { epoch, failing_units: units.to_vec(), keyed, ..Observation::default() };
    observation.outcomes[OutcomeClass::Ok as usize] = ok;
    observation.outcomes[OutcomeClass::ServerError as usize] = failed;
    observation
}

fn failures(sources: &[SourceEvidence]) -> Vec<(u64, u64, u64)> {
    Totals::of(sources).cells.iter().map(|c| (c.epoch, c.control.failures, c.candidate.failures)).collect()
}

#[test]
fn an_observation_is_counted_by_what_each_gate_looks_at() {
    let frozen = Frozen {
        latency: vec![FrozenQuantile {
            quantile: 0.5,
            control_bucket: 100,
            candidate_bucket: 104,
            control_us: 1.0,
            candidate_us: 1.0,
        }],
        score_edges: vec![0.5],
        ..Frozen::default()
    };
    let mut seen = Observation {
        epoch: 3,
        latency: vec![(99, 5), (100, 3), (103, 2), (104, 1)],
        predictions: vec![(0, 7), (1, 4), (2, 9), (-1, 9)],
        null_predictions: 2,
        ..Observation::default()
    };
    for (class, n) in OutcomeClass::ALL.iter().zip([10, 1, 2, 3, 4, 5, 6, 7]) {
        seen.outcomes[*class as usize] = n;
    }
    let mut sources = Vec::new();
    record(&mut sources, "g/1", Side::Control, &seen, Some(&frozen));
    record(&mut sources, "g/1", Side::Candidate, &seen, Some(&frozen));
    let totals = Totals::of(&sources);
    let cell = &totals.cells[0];
    // All but client errors (2) and cancelled requests (6); of these all but the 10 that succeeded failed.
    assert_eq!((cell.control.requests, cell.control.failures), (30, 20));
    assert_eq!((cell.control.over.as_slice(), cell.candidate.over.as_slice()), (&[6][..], &[1][..]));
    assert_eq!((cell.control.bins.as_slice(), cell.control.null_predictions), (&[7, 4][..], 2));
    // Without references nothing is counted against them.
    let mut bare = Vec::new();
    record(&mut bare, "g/1", Side::Control, &seen, None);
    assert!(bare[0].cells[0].control.over.is_empty() && bare[0].cells[0].control.bins.is_empty());
}

#[test]
fn a_unit_counts_once_per_rollout_where_it_failed_first() {
    let mut sources = Vec::new();
    record(&mut sources, "g/1", Side::Control, &observation(1, 100, 3, &[7, 8], true), None);
    record(&mut sources, "g/2", Side::Control, &observation(1, 100, 2, &[8, 9], true), None);
    // Unit 7 is moved to the candidate by a higher weight and fails there again; unit 5 fails for the first time.
    record(&mut sources, "g/1", Side::Candidate, &observation(2, 100, 9, &[7, 5], true), None);
    assert_eq!(failures(&sources), [(1, 3, 0), (2, 0, 1)]);
    // The failing requests themselves are not counted, or a user who tries again would count twice.
    assert_eq!(sources[0].cells[0].control.failures, 0);
}

#[test]
fn too_many_failing_units_are_an_overflow_and_never_more_memory() {
    let units: Vec<u64> = (0..2 * MAX_FAILING_UNITS as u64).collect();
    let mut sources = Vec::new();
    record(&mut sources, "g/1", Side::Control, &observation(1, 0, 0, &units, true), None);
    assert!(sources[0].units_overflow && Totals::of(&sources).units_overflow);
    assert_eq!(failures(&sources), [(1, MAX_FAILING_UNITS as u64, 0)]);
    // Also when each source alone has room.
    let (mut sources, half) = (Vec::new(), MAX_FAILING_UNITS);
    record(&mut sources, "g/1", Side::Control, &observation(1, 0, 0, &units[..half], true), None);
    assert!(!Totals::of(&sources).units_overflow);
    record(&mut sources, "g/2", Side::Control, &observation(1, 0, 0, &units[half..half + 1], true), None);
    assert!(Totals::of(&sources).units_overflow);
    // A text that is no set of units is an overflow too: what it held is not known.
    sources.remove(1);
    sources[0].failing_units[0].units = "!".to_owned();
    assert!(Totals::of(&sources).units_overflow);
}

#[test]
fn labels_count_in_the_epoch_of_their_assignment() {
    let mut sources = Vec::new();
    record_label(&mut sources, 4, 0, Side::Candidate, true);
    record_label(&mut sources, 4, 0, Side::Candidate, false);
    record_label(&mut sources, 3, 0, Side::Control, true);
    assert_eq!(sources[0].source, LABELS);
    let cells = Totals::of(&sources).cells;
    assert_eq!((cells[0].epoch, cells[0].control.labels, cells[0].control.wrong), (3, 1, 1));
    assert_eq!((cells[1].epoch, cells[1].candidate.labels, cells[1].candidate.wrong), (4, 2, 1));
}

/// A report: source, epoch, side, counts, units.
type Report = (u8, u64, bool, u64, u64, Vec<u64>);

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let units = proptest::collection::vec(0u64..20, 0..6);
    proptest::collection::vec((0u8..3, 1u64..4, any::<bool>(), 0u64..100, 0u64..20, units), 0..30)
}

fn apply(sources: &mut Vec<SourceEvidence>, report: &Report) {
    let (source, epoch, candidate, ok, failed, units) = report;
    let side = if *candidate { Side::Candidate } else { Side::Control };
    // A source either counts by unit or it does not.
    let keyed = source % 2 == 1;
    let units = if keyed { units.as_slice() } else { &[] };
    record(sources, &format!("g/{source}"), side, &observation(*epoch, *ok, *failed, units, keyed), None);
}

proptest! {
    #[test]
    fn evidence_does_not_depend_on_the_order_or_the_number_of_times_it_is_sent(
        (list, shuffled) in reports().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
    ) {
        let (mut once, mut again) = (Vec::new(), Vec::new());
        for report in &list {
            apply(&mut once, report);
        }
        for report in shuffled.iter().chain(&list) {
            apply(&mut again, report);
        }
        prop_assert_eq!(Totals::of(&once), Totals::of(&again));
    }

    #[test]
    fn evidence_never_shrinks(list in reports()) {
        let mut sources = Vec::new();
        for report in &list {
            let before = Totals::of(&sources);
            apply(&mut sources, report);
            prop_assert!(Totals::of(&sources).covers(&before));
        }
    }

    #[test]
    fn settling_a_source_changes_no_total(list in reports(), which in 0u8..3) {
        let mut sources = Vec::new();
        for report in &list {
            apply(&mut sources, report);
        }
        let before = Totals::of(&sources);
        let name = format!("g/{which}");
        settle(&mut sources, &name);
        prop_assert!(sources.iter().all(|s| s.source != name));
        prop_assert_eq!(Totals::of(&sources), before);
        settle(&mut sources, SETTLED);
        settle(&mut sources, "g/unknown");
        prop_assert!(sources.len() <= 3);
    }

    #[test]
    fn what_was_known_is_never_lost_and_other_epochs_never_get_in(known in reports(), observed in reports()) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        known.iter().for_each(|r| apply(&mut a, r));
        observed.iter().for_each(|r| apply(&mut b, r));
        let epochs = [2, 3];
        let merged = Totals::of(&at_least(&a, &b, &epochs));
        let inside = |sources: &[SourceEvidence]| Totals::of(&at_least(&[], sources, &epochs));
        prop_assert!(merged.covers(&inside(&a)) && merged.covers(&inside(&b)));
        prop_assert!(merged.cells.iter().all(|c| epochs.contains(&c.epoch)));
        // Twice is once.
        let once = at_least(&a, &b, &epochs);
        prop_assert_eq!(at_least(&once, &b, &epochs), once.clone());
        prop_assert_eq!(at_least(&once, &once, &epochs), once);
    }
}
