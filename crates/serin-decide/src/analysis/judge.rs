//! The verdicts of the gates, and whether the rollout has to go back.

use serin_api::resources::gates::GateMode;
use serin_api::resources::rollout::{ArmCounts, CellEvidence, EpochRecord, Frozen, GateStatus, MissingReason, Verdict};
use serin_api::units::{Millis, Span};

use super::eprocess::{self, Direction, e_value, ln_mean_exp, ln_split_e};
use super::onesample;
use super::psi::{psi, psi_noise};
use super::split::{GateName, GateSet};
use crate::evidence::{Totals, add};

/// Observations older than this are stale: gateways report every 100 ms.
pub const STALE_AFTER: Span = Span::from_secs(2);
/// Level of the check, per epoch, that the split is the one that was asked for. Strict, because it is about Serin itself, not
/// about the model, and because it voids evidence.
pub const SPLIT_ALPHA: f64 = 1e-4;

/// Everything that verdicts depend on.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The gates.
    pub gates: &'a GateSet,
    /// Assignments of this attempt, ascending; the last one is in force.
    pub epochs: &'a [EpochRecord],
    /// Evidence of this attempt.
    pub totals: &'a Totals,
    /// Frozen references.
    pub frozen: Option<&'a Frozen>,
    /// When a gateway last reported.
    pub last_batch_at: Option<Millis>,
    /// Whether requests carry a unit key.
    pub keyed: bool,
    /// Requests being answered, of the control and of the candidate.
    pub in_flight: [u64; 2],
    /// The time.
    pub now: Millis,
}

/// What all gates say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Each gate that is not disabled.
    pub gates: Vec<GateStatus>,
    /// Set when the rollout has to go back.
    pub failed: Option<Failure>,
    /// Whether the split under the epoch in force is not the one that was asked for. What was counted under it is void; the
    /// engine begins another epoch with the same weights, so that there is evidence again once the split is right.
    pub split_broken: bool,
}

impl Judgement {
    /// Whether every enforced gate passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.failed.is_none() && self.gates.iter().all(|g| !g.enforced || g.verdict == Verdict::Pass)
    }

    /// The enforced gates that cannot tell.
    pub fn missing(&self) -> impl Iterator<Item = (&GateStatus, MissingReason)> {
        self.gates.iter().filter(|g| g.enforced).filter_map(|g| g.missing.map(|reason| (g, reason)))
    }
}

/// Why the rollout has to go back: the share-weighted sum of the e-values reached 1/alpha.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The gate with the largest part in it.
    pub gate: GateName,
    /// The sum.
    pub sum: f64,
    /// 1/alpha.
    pub needed: f64,
}

/// Judges the candidate.
///
/// One copy of each e-process runs through all canary steps; a fresh one runs in the bake. In the bake both are watched, because
/// events and labels of the canary steps still arrive, and each has its own part of alpha.
#[must_use]
pub fn judge(scene: &Scene<'_>) -> Judgement {
    let current = Copy::new(scene, scene.epochs.last().is_some_and(|e| e.bake));
    let judgement = current.judge();
    if current.bake && judgement.failed.is_none() {
        let before = Copy::new(scene, false).judge();
        if before.failed.is_some() {
            return before;
        }
    }
    judgement
}

/// One copy of the e-processes with the evidence that belongs to it.
struct Copy<'a> {
    scene: &'a Scene<'a>,
    bake: bool,
    /// Cells with an assignment probability in (0, 1), the only ones with evidence, and with the split that was asked for.
    cells: Vec<(f64, &'a CellEvidence)>,
    /// All evidence of both arms.
    control: ArmCounts,
    candidate: ArmCounts,
    /// Requests of the step under way.
    step_control: ArmCounts,
    step_candidate: ArmCounts,
    /// Requests of both arms under the epoch in force, when their split is not the one that was asked for.
    broken: Option<[u64; 2]>,
}

/// What one gate measured.
struct Measure {
    ln_e: f64,
    control: [u64; 2],
    candidate: [u64; 2],
    /// What the counts are, for people.
    what: String,
    missing: Option<(MissingReason, String)>,
}

impl<'a> Copy<'a> {
    fn new(scene: &'a Scene<'a>, bake: bool) -> Copy<'a> {
        let mut copy = Copy {
            scene,
            bake,
            cells: Vec::new(),
            control: ArmCounts::default(),
            candidate: ArmCounts::default(),
            step_control: ArmCounts::default(),
            step_candidate: ArmCounts::default(),
            broken: None,
        };
        let newest = scene.epochs.last().map_or(0, |e| e.epoch);
        let step = scene.epochs.last().filter(|e| e.bake == bake).map(|e| e.step);
        for cell in &scene.totals.cells {
            let Ok(at) = scene.epochs.binary_search_by_key(&cell.epoch, |e| e.epoch) else { continue };
            let record = &scene.epochs[at];
            let Some(weight) = record.weights.get(usize::from(cell.stratum)) else { continue };
            let probability = weight.probability();
            // In a one-sample watch the candidate has all traffic of the default stratum; rules choose their users.
            let watched = scene.gates.one_sample_bake && bake && cell.stratum == 0;
            if record.bake != bake || (!watched && (probability <= 0.0 || probability >= 1.0)) {
                continue;
            }
            // Requests that are still being answered count, or a slower candidate would look as if it received less.
            let waiting = if cell.epoch == newest && cell.stratum == 0 { scene.in_flight } else { [0; 2] };
            let requests = [cell.control.requests + waiting[0], cell.candidate.requests + waiting[1]];
            let split = [(probability, requests[0], requests[1])];
            if !scene.keyed && ln_split_e(&split) >= -SPLIT_ALPHA.ln() {
                if cell.epoch == newest {
                    copy.broken = Some(requests);
                }
                continue;
            }
            copy.cells.push((probability, cell));
            add(&mut copy.control, &cell.control);
            add(&mut copy.candidate, &cell.candidate);
            if Some(record.step) == step {
                add(&mut copy.step_control, &cell.control);
                add(&mut copy.step_candidate, &cell.candidate);
            }
        }
        copy
    }

    fn judge(&self) -> Judgement {
        let gates = self.scene.gates;
        let alpha = gates.alpha(self.bake);
        let mut statuses = Vec::with_capacity(4);
        let (mut sum, mut most) = (0.0, (0.0, GateName::Errors));
        for gate in GateName::ALL {
            let mode = gates.mode(gate);
            if mode == GateMode::Disabled {
                continue;
            }
            let share = gates.share(gate, self.bake);
            let untested = self.bake && gates.one_sample_bake && gate != GateName::Errors;
            let enforced = mode == GateMode::Enforce && !untested;
            let status = if untested { untested_status(gate) } else { self.status(gate, enforced, share, alpha) };
            if enforced {
                let part = share * status.e_value;
                sum += part;
                if part > most.0 {
                    most = (part, gate);
                }
            }
            statuses.push(status);
        }
        let needed = 1.0 / alpha;
        let failed = (sum >= needed).then_some(Failure { gate: most.1, sum, needed });
        if let Some(failure) = &failed {
            for status in statuses.iter_mut().filter(|s| s.enforced) {
                let share = status.share * gates.spec.alpha;
                if status.name == failure.gate.as_str() || share * status.e_value >= 1.0 {
                    status.verdict = Verdict::Fail;
                    status.missing = None;
                }
            }
        }
        Judgement { gates: statuses, failed, split_broken: self.broken.is_some() }
    }

    fn status(&self, gate: GateName, enforced: bool, share: f64, alpha: f64) -> GateStatus {
        let measure = self.measure(gate, alpha * share);
        // In dry run the verdict is the one that the gate would give with all of alpha.
        let needed = 1.0 / (alpha * if enforced { share } else { 1.0 });
        let e = e_value(measure.ln_e);
        let missing = measure.missing.or_else(|| self.missing(gate));
        let (verdict, missing, tail) = match missing {
            _ if e >= needed => (Verdict::Fail, None, String::new()),
            Some((reason, text)) => (Verdict::Inconclusive, Some(reason), format!("; {text}")),
            None => (Verdict::Pass, None, String::new()),
        };
        let dry = if enforced { "" } else { " (dry run)" };
        let goal = if needed.is_finite() {
            format!(" of {} needed", number(needed))
        } else {
            " (no share of alpha is kept for the bake)".to_owned()
        };
        GateStatus {
            name: gate.as_str().to_owned(),
            verdict,
            missing,
            enforced,
            e_value: e,
            share: share * alpha / self.scene.gates.spec.alpha,
            control: measure.control,
            candidate: measure.candidate,
            message: format!("e={}{goal}{dry}; {}{tail}", number(e), measure.what),
        }
    }

    fn measure(&self, gate: GateName, alpha: f64) -> Measure {
        match gate {
            GateName::Errors if self.bake && self.scene.gates.one_sample_bake => self.errors_one_sample(alpha),
            GateName::Errors => self.errors(),
            GateName::Latency => self.latency(),
            GateName::Distribution => self.distribution(),
            GateName::Labels => self.labels(),
        }
    }

    fn ln_e(&self, event: impl Fn(&ArmCounts) -> u64, tolerance: f64, direction: Direction) -> f64 {
        let cells: Vec<(f64, u64, u64)> =
            self.cells.iter().map(|(w, cell)| (*w, event(&cell.control), event(&cell.candidate))).collect();
        eprocess::ln_e(&cells, tolerance, direction)
    }

    fn errors(&self) -> Measure {
        let control = [self.control.failures, self.control.requests];
        let candidate = [self.candidate.failures, self.candidate.requests];
        let what = if self.scene.keyed {
            format!(
                "{} users failed in {} candidate requests and {} in {} control requests",
                count(candidate[0]),
                count(candidate[1]),
                count(control[0]),
                count(control[1])
            )
        } else {
            format!("{} candidate and {} control requests failed", of(candidate), of(control))
        };
        let ratio = self.scene.gates.spec.errors.ratio;
        Measure {
            ln_e: self.countable(self.ln_e(|arm| arm.failures, ratio, Direction::TooMany)),
            control,
            candidate,
            what,
            missing: self.overflow(),
        }
    }

    fn errors_one_sample(&self, alpha: f64) -> Measure {
        let baseline = self.scene.frozen.map_or((0, 0), |f| (f.failures, f.requests));
        let candidate = [self.candidate.failures, self.candidate.requests];
        let ratio = self.scene.gates.spec.errors.ratio;
        let ln_e = onesample::ln_e(baseline, (candidate[0], candidate[1]), ratio, alpha);
        let what = format!(
            "{} candidate requests failed, {} of the active version's before the switch (one-sample: an incident that has nothing to do with the version counts too)",
            of(candidate),
            of([baseline.0, baseline.1])
        );
        let missing = self.overflow().or_else(|| {
            let text = "the active version's failures before the switch allow no limit".to_owned();
            ln_e.is_none().then_some((MissingReason::NoSeries, text))
        });
        let ln_e = self.countable(ln_e.unwrap_or(0.0));
        Measure { ln_e, control: [baseline.0, baseline.1], candidate, what, missing }
    }

    /// The arm with more users reaches the limit first, so that counts up to a limit say nothing about who failed more often.
    fn countable(&self, ln_e: f64) -> f64 {
        if self.scene.totals.units_overflow { 0.0 } else { ln_e }
    }

    fn overflow(&self) -> Option<(MissingReason, String)> {
        let text = "more users failed than can be told apart, so that failing users can not be counted".to_owned();
        self.scene.totals.units_overflow.then_some((MissingReason::LowPower, text))
    }

    fn latency(&self) -> Measure {
        let thresholds = self.scene.frozen.map_or(&[][..], |f| &f.latency);
        let ln: Vec<f64> =
            (0..thresholds.len()).map(|q| self.ln_e(|arm| at(&arm.over, q), 1.0, Direction::TooMany)).collect();
        let Some((q, threshold)) = largest(&ln).and_then(|q| Some((q, thresholds.get(q)?))) else {
            return unreferenced("no latency of the active version was frozen");
        };
        let control = [at(&self.control.over, q), self.control.requests];
        let candidate = [at(&self.candidate.over, q), self.candidate.requests];
        let what = format!(
            "p{}: {} candidate requests above {}, {} control requests above {}",
            number(threshold.quantile * 100.0),
            of(candidate),
            micros(threshold.candidate_us),
            of(control),
            micros(threshold.control_us)
        );
        Measure { ln_e: ln_mean_exp(&ln), control, candidate, what, missing: None }
    }

    fn distribution(&self) -> Measure {
        let Some(frozen) = self.scene.frozen.filter(|f| crate::evidence::bin_count(f) > 0) else {
            return unreferenced("no predictions of the active version were frozen");
        };
        let ratio = self.scene.gates.spec.distribution.ratio;
        let bins = crate::evidence::bin_count(frozen);
        // Predictions without a number are one more bin: a null rate that rises is a distribution that changed.
        let event =
            |bin: usize| move |arm: &ArmCounts| if bin < bins { at(&arm.bins, bin) } else { arm.null_predictions };
        let total = |arm: &ArmCounts| arm.bins.iter().sum::<u64>() + arm.null_predictions;
        // That a candidate makes too few predictions of a kind is held against it only once it makes predictions: one that is
        // sent nothing is not a bad one. A lower e-value is always valid.
        let sent = total(&self.candidate) >= self.scene.gates.spec.distribution.min_requests.max(1);
        let ln: Vec<f64> = (0..=bins)
            .flat_map(|bin| {
                let few = self.ln_e(event(bin), ratio, Direction::TooFew);
                [self.ln_e(event(bin), ratio, Direction::TooMany), if sent { few } else { few.min(0.0) }]
            })
            .collect();
        let bin = largest(&ln).map_or(0, |i| i / 2);
        let control = [event(bin)(&self.control), total(&self.control)];
        let candidate = [event(bin)(&self.candidate), total(&self.candidate)];
        let binned = |arm: &ArmCounts| (0..bins).map(|bin| at(&arm.bins, bin)).collect::<Vec<u64>>();
        let (p, q) = (binned(&self.candidate), binned(&self.control));
        let shown = psi(&q, &p).map_or_else(String::new, |value| {
            let noise = psi_noise(q.iter().sum(), p.iter().sum(), bins, 0.999);
            format!("; PSI {} (noise alone stays below {})", number(value), number(noise))
        });
        let what = format!(
            "{}: {} candidate and {} control predictions{shown}",
            bin_name(frozen, bin),
            of(candidate),
            of(control)
        );
        let nan = |arm: &ArmCounts, whose: &str| {
            let nulls = [arm.null_predictions, total(arm)];
            (nulls[0] > 0 && 2 * nulls[0] >= nulls[1])
                .then(|| (MissingReason::Nan, format!("{} {whose} predictions are not a number", of(nulls))))
        };
        let missing = nan(&self.candidate, "candidate").or_else(|| nan(&self.control, "control"));
        Measure { ln_e: ln_mean_exp(&ln), control, candidate, what, missing }
    }

    fn labels(&self) -> Measure {
        let control = [self.control.wrong, self.control.labels];
        let candidate = [self.candidate.wrong, self.candidate.labels];
        Measure {
            ln_e: self.ln_e(|arm| arm.wrong, self.scene.gates.spec.labels.ratio, Direction::TooMany),
            control,
            candidate,
            what: format!("{} candidate and {} control labels say wrong", of(candidate), of(control)),
            missing: None,
        }
    }

    /// Why a gate that did not fail cannot tell either.
    ///
    /// Requests and predictions are counted in the step under way: a step whose traffic ended is not passed by an earlier step's.
    /// Labels are counted over the copy: they arrive late, and whether an answer is right does not depend on the share of traffic.
    fn missing(&self, gate: GateName) -> Option<(MissingReason, String)> {
        let spec = &self.scene.gates.spec;
        let predictions = |arm: &ArmCounts| arm.bins.iter().sum::<u64>();
        let (seen, ever, wanted, what) = match gate {
            GateName::Errors | GateName::Latency => (
                [self.step_control.requests, self.step_candidate.requests],
                self.control.requests + self.candidate.requests,
                if gate == GateName::Errors { spec.errors.min_requests } else { spec.latency.min_requests },
                "requests in this step",
            ),
            GateName::Distribution => (
                [predictions(&self.step_control), predictions(&self.step_candidate)],
                predictions(&self.control) + predictions(&self.candidate),
                spec.distribution.min_requests,
                "predictions in this step",
            ),
            GateName::Labels => (
                [self.control.labels, self.candidate.labels],
                self.control.labels + self.candidate.labels,
                spec.labels.min_labels,
                "labels",
            ),
        };
        let Some(last) = self.scene.last_batch_at else {
            return Some((MissingReason::NoSeries, "no gateway has reported".to_owned()));
        };
        if ever == 0 && self.broken.is_none() {
            return Some((MissingReason::NoSeries, format!("no {what} yet")));
        }
        let age = self.scene.now.since(last);
        if age > STALE_AFTER {
            return Some((MissingReason::Stale, format!("the last report of a gateway is {age} old")));
        }
        if let Some([control, candidate]) = self.broken {
            let text = format!(
                "{} requests went to the candidate, which is not the share that was asked for",
                of([candidate, candidate + control])
            );
            return Some((MissingReason::SampleRatioMismatch, text));
        }
        let one_sample = self.bake && self.scene.gates.one_sample_bake;
        for (side, seen) in [("candidate", seen[1]), ("control", seen[0])] {
            if seen < wanted && !(one_sample && side == "control") {
                return Some((
                    MissingReason::TooFewSamples,
                    format!("{} of {} {side} {what}", count(seen), count(wanted)),
                ));
            }
        }
        None
    }
}

fn untested_status(gate: GateName) -> GateStatus {
    GateStatus {
        name: gate.as_str().to_owned(),
        verdict: Verdict::Inconclusive,
        missing: Some(MissingReason::NoSeries),
        enforced: false,
        e_value: 1.0,
        share: 0.0,
        control: [0; 2],
        candidate: [0; 2],
        message: "not tested: the candidate has all traffic, so there is nothing to compare with; set bake.holdBack to test it"
            .to_owned(),
    }
}

fn unreferenced(text: &str) -> Measure {
    Measure {
        ln_e: 0.0,
        control: [0; 2],
        candidate: [0; 2],
        what: "nothing to compare with".to_owned(),
        missing: Some((MissingReason::NoSeries, text.to_owned())),
    }
}

fn at(counts: &[u64], index: usize) -> u64 {
    counts.get(index).copied().unwrap_or(0)
}

fn largest(values: &[f64]) -> Option<usize> {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]))
}

fn bin_name(frozen: &Frozen, bin: usize) -> String {
    if bin == crate::evidence::bin_count(frozen) {
        return "not a number".to_owned();
    }
    if frozen.score_edges.is_empty() {
        return frozen.classes.get(bin).map_or("other classes".to_owned(), |class| format!("class {class}"));
    }
    match (bin.checked_sub(1).and_then(|b| frozen.score_edges.get(b)), frozen.score_edges.get(bin)) {
        (None, Some(high)) => format!("scores below {}", number(*high)),
        (Some(low), None) => format!("scores from {}", number(*low)),
        (Some(low), Some(high)) => format!("scores from {} to {}", number(*low), number(*high)),
        (None, None) => "all scores".to_owned(),
    }
}

/// `9 of 1,804`.
fn of(counts: [u64; 2]) -> String {
    format!("{} of {}", count(counts[0]), count(counts[1]))
}

/// A count with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with as many digits as people read.
pub(crate) fn number(x: f64) -> String {
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-3..1e6).contains(&magnitude) {
        format!("{x:.1e}")
    } else if magnitude >= 100.0 || x == x.trunc() {
        format!("{x:.0}")
    } else if magnitude >= 1.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.3}")
    }
}

fn micros(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{us:.0} µs")
    }
}
