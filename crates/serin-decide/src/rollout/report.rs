//! Why a rollout is where it is, for people.

use serin_api::resources::gates::DeadlinePolicy;
use serin_api::resources::rollout::{GateStatus, ModelRollout, ModelRolloutStatus, RolloutPhase, Verdict};
use serin_api::units::{Millis, Span};

use super::plan::{Plan, PlanStep};
use crate::analysis::judge::{count, number};
use crate::evidence::Totals;

/// An explanation: one line that says it all, and the lines that explain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where the rollout is.
    pub headline: String,
    /// Why; each gate with its numbers; what happens next, and when.
    pub lines: Vec<String>,
}

/// Explains a rollout as its status has it.
#[must_use]
pub fn explain(rollout: &ModelRollout, now: Millis) -> Explanation {
    let name = rollout.metadata.name.as_deref().unwrap_or("the rollout");
    let spec = &rollout.spec;
    let Some(status) = &rollout.status else {
        return Explanation { headline: format!("{name} has not begun"), lines: Vec::new() };
    };
    let headline = format!(
        "{name}: {} -> {} is {} ({} of {} steps, candidate at {})",
        spec.from.version,
        spec.to.version,
        phase_words(status),
        status.step,
        status.steps,
        status.weight
    );
    let mut lines = vec![format!("last decision: {} ({})", status.message, status.reason)];
    if !status.waiting_for.is_empty() && !status.phase.is_final() {
        lines.push(format!("waits for {}", status.waiting_for));
    }
    lines.extend(status.gates.iter().map(gate_line));
    let plan = Plan::of(spec);
    if let Ok(plan) = &plan {
        lines.extend(next_lines(plan, status, now));
    }
    for condition in status.conditions.iter().filter(|c| c.kind == "Degraded" && c.reason != "AsExpected") {
        lines.push(format!("degraded: {}", condition.message));
    }
    let exposed: u64 = Totals::of(&status.evidence).cells.iter().map(|c| c.candidate.requests).sum();
    lines.push(format!("{} requests went to the candidate in this attempt", count(exposed)));
    Explanation { headline, lines }
}

fn phase_words(status: &ModelRolloutStatus) -> &'static str {
    match status.phase {
        RolloutPhase::Pending => "waiting to begin",
        RolloutPhase::Progressing => "in progress",
        RolloutPhase::Paused => "paused",
        RolloutPhase::Held => "held at a deadline",
        RolloutPhase::Baking => "in the bake",
        RolloutPhase::Promoted => "promoted",
        RolloutPhase::RollingBack => "going back",
        RolloutPhase::RolledBack => "rolled back",
        RolloutPhase::Superseded => "superseded",
    }
}

fn gate_line(gate: &GateStatus) -> String {
    let verdict = match (gate.verdict, gate.missing) {
        (Verdict::Pass, _) => "pass".to_owned(),
        (Verdict::Fail, _) => "FAIL".to_owned(),
        (Verdict::Inconclusive, Some(why)) => format!("cannot tell ({why:?})"),
        (Verdict::Inconclusive, None) => "cannot tell".to_owned(),
    };
    format!("gate {}: {verdict}; {}", gate.name, gate.message)
}

/// What happens next, when, and how much evidence is still needed at the rate so far.
fn next_lines(plan: &Plan, status: &ModelRolloutStatus, now: Millis) -> Vec<String> {
    if status.phase.is_final() {
        let next = match status.phase {
            RolloutPhase::RolledBack => "it stays so until a person retries it, or the endpoint gets another model",
            _ => return Vec::new(),
        };
        return vec![next.to_owned()];
    }
    let entered = status.entered_at.unwrap_or(now);
    let step = plan.steps.get(status.step as usize);
    let times = match (status.phase, step) {
        (RolloutPhase::Baking, _) => plan.bake.map(|b| (b.duration, b.deadline)),
        (_, Some(PlanStep::Canary { min_time, deadline, .. })) => Some((*min_time, *deadline)),
        _ => None,
    };
    let mut lines = Vec::new();
    let watching = matches!(status.phase, RolloutPhase::Progressing | RolloutPhase::Held | RolloutPhase::Baking);
    if let Some((min_time, deadline)) = times.filter(|_| watching) {
        let ahead = match plan.steps.get(status.step as usize + 1) {
            _ if status.phase == RolloutPhase::Baking => "promotion".to_owned(),
            Some(PlanStep::Canary { weight, .. }) => format!("{weight}"),
            Some(PlanStep::Pause { .. }) => "a pause".to_owned(),
            Some(PlanStep::BlueGreen) => "the switch of all traffic".to_owned(),
            None if plan.bake.is_some() => "the bake".to_owned(),
            None => "promotion".to_owned(),
        };
        lines.push(format!(
            "next is {ahead}, not before {}, once every enforced gate passes",
            remaining(entered.plus(min_time), now)
        ));
        let policy = match plan.at_deadline() {
            DeadlinePolicy::Hold => "it is held at this weight, and goes on by itself once the gates pass",
            DeadlinePolicy::Promote => "it goes on without a pass",
            DeadlinePolicy::RollBack => "it is rolled back",
        };
        lines.push(format!("without a pass {}, {policy}", remaining(entered.plus(deadline), now)));
    }
    lines.extend(needs(plan, status, now.since(entered)));
    lines
}

/// How many more requests the step needs, and how long that takes at its rate so far.
fn needs(plan: &Plan, status: &ModelRolloutStatus, elapsed: Span) -> Option<String> {
    if !matches!(status.phase, RolloutPhase::Progressing | RolloutPhase::Held | RolloutPhase::Baking) {
        return None;
    }
    let record = status.epochs.last()?;
    let probability = record.weights.first()?.probability();
    let wanted = plan.gates.spec.errors.min_requests.max(plan.gates.spec.latency.min_requests);
    let totals = Totals::of(&status.evidence);
    let cell = totals.cells.iter().find(|c| (c.epoch, c.stratum) == (record.epoch, 0));
    let (control, candidate) = cell.map_or((0, 0), |c| (c.control.requests, c.candidate.requests));
    let missing_candidate = wanted.saturating_sub(candidate);
    let missing_control = if probability < 1.0 { wanted.saturating_sub(control) } else { 0 };
    if missing_candidate == 0 && missing_control == 0 {
        return None;
    }
    let rate = (control + candidate) as f64 / elapsed.secs_f64();
    // Requests of both arms until each arm has its own.
    let total = (missing_candidate as f64 / probability).max(missing_control as f64 / (1.0 - probability).max(1e-9));
    let when = if rate > 0.0 && rate.is_finite() {
        format!(", about {} at {} requests/s", Span::from_secs((total / rate).ceil() as u64), number(rate))
    } else {
        ", and none arrive".to_owned()
    };
    Some(format!(
        "{} more candidate and {} more control requests are needed in this step{when}",
        count(missing_candidate),
        count(missing_control)
    ))
}

fn remaining(at: Millis, now: Millis) -> String {
    if at > now { format!("in {}", at.since(now)) } else { "now".to_owned() }
}
