//! A rollout for people: one line, or a block with its gates.

use std::io::{self, Write};

use serin_api::resources::gates::RolloutPlan;
use serin_api::resources::rollout::{GateStatus, RolloutPhase, Verdict};
use serin_api::{ModelRollout, ModelRolloutStatus};

use super::history::{exposed, version};
use super::verbs::stage;
use super::{name, phase};
use crate::columns::Columns;
use crate::console::{self, Tone};
use crate::time;

/// `income-3 v2 -> v3  Progressing, step 2 of 4, 25%: waits for ...`.
pub fn line(rollout: &ModelRollout) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let (from, to) = (version(&rollout.spec.from), version(&rollout.spec.to));
    let mut text = format!("{} {from} -> {to}: {:?}", name(rollout), status.phase);
    if !status.phase.is_final() {
        text.push_str(&format!("{}, {}", place(&status), status.weight));
    }
    let why = why(&status);
    if !why.is_empty() {
        text.push_str(&format!(" - {why}"));
    }
    text
}

/// Which step it is in, after a comma. The bake is a phase of its own.
fn place(status: &ModelRolloutStatus) -> String {
    if status.phase == RolloutPhase::Baking { String::new() } else { format!(", {}", stage(status)) }
}

/// What it waits for; at the end, why it ended.
pub fn why(status: &ModelRolloutStatus) -> String {
    let waits = !status.waiting_for.is_empty() && !status.phase.is_final();
    if waits { format!("waiting for {}", status.waiting_for) } else { status.message.clone() }
}

/// The whole state, moved right by some spaces.
pub fn block(rollout: &ModelRollout, indent: usize, colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let status = rollout.status.clone().unwrap_or_default();
    let pad = " ".repeat(indent);
    let mut field =
        |label: &str, value: &str| writeln!(out, "{pad}{:<13} {}", format!("{label}:"), console::clean(value));
    field("Rollout", &format!("{} ({} -> {})", name(rollout), version(&rollout.spec.from), version(&rollout.spec.to)))?;
    let phase_text = console::paint(&format!("{:?}", status.phase), tone(status.phase), colour);
    // Painted text must not pass through `clean`, which takes escapes away.
    writeln!(out, "{pad}{:<13} {phase_text}{}", "Phase:", phase_details(rollout, &status))?;
    let mut field =
        |label: &str, value: &str| writeln!(out, "{pad}{:<13} {}", format!("{label}:"), console::clean(value));
    if !status.message.is_empty() {
        let reason = if status.reason.is_empty() { String::new() } else { format!("{}: ", status.reason) };
        field("Reason", &format!("{reason}{}", status.message))?;
    }
    if !status.phase.is_final() && !status.waiting_for.is_empty() {
        field("Waiting for", &status.waiting_for)?;
    }
    field("Exposed", &format!("{} requests to {}", exposed(&status), version(&rollout.spec.to)))?;
    if status.attempt > 0 {
        field("Retries", &status.attempt.to_string())?;
    }
    if let Some(undone) = &rollout.spec.undo_of {
        field("Undoes", undone)?;
    }
    if !status.gates.is_empty() {
        writeln!(out, "{pad}Gates:")?;
        gates(&status.gates, &rollout.spec.plan).indented(indent + 2).print(out)?;
    }
    Ok(())
}

fn phase_details(rollout: &ModelRollout, status: &ModelRolloutStatus) -> String {
    let mut text = String::new();
    if !status.phase.is_final() {
        text.push_str(&format!("{}, {} of traffic on {}", place(status), status.weight, version(&rollout.spec.to)));
    }
    let since = if status.phase.is_final() { status.finished_at.or(status.rolled_back_at) } else { status.entered_at };
    if let Some(at) = since {
        text.push_str(&format!(", since {}", time::ago(at)));
    }
    if rollout.spec.paused && !phase(rollout).is_final() {
        text.push_str(", paused by a person");
    }
    text
}

fn tone(phase: RolloutPhase) -> Tone {
    match phase {
        RolloutPhase::Promoted => Tone::Good,
        RolloutPhase::RollingBack | RolloutPhase::RolledBack => Tone::Bad,
        RolloutPhase::Held | RolloutPhase::Paused => Tone::Doubtful,
        _ => Tone::Strong,
    }
}

/// The gates with their numbers. FAILS AT is the e-value that fails the gate alone: one over its share of alpha.
pub fn gates(gates: &[GateStatus], plan: &RolloutPlan) -> Columns {
    let mut columns = Columns::new(["GATE", "VERDICT", "E-VALUE", "FAILS AT", "CONTROL", "CANDIDATE", "MESSAGE"]);
    for gate in gates {
        let verdict = match (gate.verdict, gate.missing) {
            (Verdict::Inconclusive, Some(missing)) => format!("Inconclusive({missing:?})"),
            (verdict, _) => format!("{verdict:?}"),
        };
        let verdict = if gate.enforced { verdict } else { format!("{verdict}, dry run") };
        let limit = 1.0 / (plan.gates.alpha * gate.share);
        columns.row([
            gate.name.clone(),
            verdict,
            short_number(gate.e_value),
            if limit.is_finite() { short_number(limit) } else { "-".to_owned() },
            count(gate.control),
            count(gate.candidate),
            without_numbers(&gate.message).to_owned(),
        ]);
    }
    columns
}

/// A gate's message without the e-value that it begins with, which has columns of its own.
fn without_numbers(message: &str) -> &str {
    match message.split_once(" needed; ") {
        Some((head, rest)) if head.starts_with("e=") => rest,
        _ => message,
    }
}

fn count([part, total]: [u64; 2]) -> String {
    format!("{part}/{total}")
}

/// Three significant digits; powers of ten beyond a million and below a thousandth.
pub fn short_number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return format!("{value}");
    }
    match size {
        1e-3..10.0 => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        10.0..100.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        100.0..1e6 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub fn rollout(status: serde_json::Value) -> ModelRollout {
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": "income-3"},
            "spec": {"endpoint": "income", "from": {"revision": "income-a", "version": "v2"},
                     "to": {"revision": "income-b", "version": "v3"}, "plan": {}, "bucketing": {"version": "v1", "seed": "s"}},
            "status": status
        }))
        .unwrap()
    }

    #[test]
    fn a_line_says_where_it_is_and_what_it_waits_for_and_at_the_end_why() {
        let on = rollout(
            json!({"phase": "Progressing", "step": 1, "steps": 4, "weight": 25, "waitingFor": "40 requests", "message": "m"}),
        );
        assert_eq!(line(&on), "income-3 v2 -> v3: Progressing, step 2 of 4, 25% - waiting for 40 requests");
        let over = rollout(
            json!({"phase": "RolledBack", "step": 1, "steps": 4, "waitingFor": "", "message": "errors failed"}),
        );
        assert_eq!(line(&over), "income-3 v2 -> v3: RolledBack - errors failed");
    }

    #[test]
    fn a_block_shows_each_gate_with_its_numbers() {
        let on =
            rollout(json!({"phase": "Baking", "step": 4, "steps": 4, "weight": 90, "reason": "Baking", "message": "m",
            "gates": [{"name": "errors", "verdict": "Pass", "enforced": true, "eValue": 0.25, "share": 0.5,
                       "control": [1, 900], "candidate": [2, 300], "message": "e=0.25 of 40 needed; fine"},
                      {"name": "labels", "verdict": "Inconclusive", "missing": "TooFewSamples", "enforced": false,
                       "eValue": 1.0, "share": 0.0, "control": [0, 0], "candidate": [0, 0], "message": "3 of 20"}]}));
        let mut out = Vec::new();
        block(&on, 2, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("  Phase:        Baking, 90% of traffic on v3\n"), "{text}");
        assert!(text.contains("errors   Pass"), "{text}");
        assert!(text.contains("0.25      40         1/900     2/300       fine"), "{text}");
        assert!(text.contains("Inconclusive(TooFewSamples), dry run"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let rows = [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.0, "1"),
            (12.34, "12.3"),
            (40.0, "40"),
            (123.4, "123"),
            (1e300, "1.0e300"),
            (1e-5, "1.0e-5"),
        ];
        for (value, text) in rows {
            assert_eq!(short_number(value), text);
        }
    }
}
