//! `/metrics` in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serin_api::buckets::{LATENCY_BUCKETS, latency_bucket_upper_ns};
use serin_api::wire::OutcomeClass;

use crate::answer::Refusal;
use crate::counters::{ArmCounters, ArmLabels, STATUS_CLASSES};
use crate::shared::Shared;

/// Upper edges of the latency histogram in seconds. A request counts from the edge on that is not below its fine bucket, which
/// is 1/16 wide: one of 4.9 ms, in the bucket that ends at 5.1 ms, counts in `le="0.01"`, not in `le="0.005"`.
const EDGES_S: [f64; 18] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Sums that are kept of arms that no table has any more.
const RETIRED_MAX: usize = 10_000;

/// Sums of one arm over its epochs and strata.
#[derive(Clone, Debug)]
struct Sums {
    outcomes: [u64; OutcomeClass::COUNT],
    answers: [u64; STATUS_CLASSES.len()],
    retried: u64,
    in_flight: u64,
    latency_sum_ns: u64,
    latency: Box<[u64; LATENCY_BUCKETS]>,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums {
            outcomes: Default::default(),
            answers: Default::default(),
            retried: 0,
            in_flight: 0,
            latency_sum_ns: 0,
            latency: Box::new([0; LATENCY_BUCKETS]),
        }
    }
}

impl Sums {
    fn add(&mut self, counters: &ArmCounters) {
        for (sum, count) in self.outcomes.iter_mut().zip(counters.outcomes()) {
            *sum += count;
        }
        for (sum, count) in self.answers.iter_mut().zip(counters.answers()) {
            *sum += count;
        }
        self.retried += counters.retried();
        self.in_flight += counters.in_flight();
        self.latency_sum_ns += counters.latency_sum_ns();
        for (bucket, count) in counters.latency() {
            self.latency[bucket as usize] += count;
        }
    }
}

/// What forgotten counters had, so that the sums in the metrics never fall: a monitor would take that for a restart.
#[derive(Debug, Default)]
pub struct Retired(Mutex<BTreeMap<ArmLabels, Sums>>);

impl Retired {
    /// Adds the counts of counters that are being forgotten.
    pub fn add(&self, counters: &ArmCounters) {
        let mut sums = self.lock();
        sums.entry(counters.labels().clone()).or_default().add(counters);
        while sums.len() > RETIRED_MAX {
            sums.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ArmLabels, Sums>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All metrics as text.
#[must_use]
pub fn render(shared: &Shared, retired: &Retired) -> String {
    let mut arms = retired.lock().clone();
    for counters in shared.counters.all() {
        arms.entry(counters.labels().clone()).or_default().add(&counters);
    }
    arms.retain(|_, sums| sums.in_flight > 0 || sums.answers.iter().chain(&sums.outcomes).any(|count| *count > 0));
    let mut out = String::new();
    render_arms(&arms, &mut out);
    render_gateway(shared, &mut out);
    out
}

fn render_arms(arms: &BTreeMap<ArmLabels, Sums>, out: &mut String) {
    let arms: Vec<(String, &Sums)> = arms.iter().map(|(labels, sums)| (label_text(labels), sums)).collect();
    family(out, "serin_requests_total", "counter", "First attempts that ended, by the arm they were assigned to.");
    for (labels, sums) in &arms {
        for (class, count) in OutcomeClass::ALL.iter().zip(sums.outcomes).filter(|(_, count)| *count > 0) {
            line(out, "serin_requests_total", &format!("{labels},class=\"{}\"", class.name()), count);
        }
    }
    family(out, "serin_answers_total", "counter", "Answers that callers got, by the arm the request was assigned to.");
    for (labels, sums) in &arms {
        for (code, count) in STATUS_CLASSES.iter().zip(sums.answers).filter(|(_, count)| *count > 0) {
            line(out, "serin_answers_total", &format!("{labels},code=\"{code}\""), count);
        }
    }
    family(out, "serin_retries_total", "counter", "Requests that another arm or replica answered in the end.");
    for (labels, sums) in &arms {
        line(out, "serin_retries_total", labels, sums.retried);
    }
    family(out, "serin_in_flight_requests", "gauge", "Requests whose first attempt is under way.");
    for (labels, sums) in &arms {
        line(out, "serin_in_flight_requests", labels, sums.in_flight);
    }
    family(out, "serin_request_duration_seconds", "histogram", "Time of first attempts, to the end of the answer.");
    for (labels, sums) in &arms {
        render_histogram(out, labels, sums);
    }
}

fn render_histogram(out: &mut String, labels: &str, sums: &Sums) {
    let mut below = 0;
    let mut bucket = 0;
    for edge in EDGES_S {
        while bucket < LATENCY_BUCKETS && latency_bucket_upper_ns(bucket) as f64 <= edge * 1e9 {
            below += sums.latency[bucket];
            bucket += 1;
        }
        line(out, "serin_request_duration_seconds_bucket", &format!("{labels},le=\"{edge}\""), below);
    }
    let all: u64 = sums.latency.iter().sum();
    line(out, "serin_request_duration_seconds_bucket", &format!("{labels},le=\"+Inf\""), all);
    line(out, "serin_request_duration_seconds_sum", labels, sums.latency_sum_ns as f64 / 1e9);
    line(out, "serin_request_duration_seconds_count", labels, all);
}

fn render_gateway(shared: &Shared, out: &mut String) {
    let stats = &shared.stats;
    let counters: [(&str, &str, &AtomicU64); 7] = [
        ("serin_gateway_connections_accepted_total", "Client connections that were accepted.", &stats.accepted),
        ("serin_gateway_connections_over_limit_total", "Client connections over the limit.", &stats.over_limit),
        ("serin_gateway_connections_cut_total", "Client connections that were cut for slowness.", &stats.slow_heads),
        ("serin_gateway_replays_total", "Requests repeated after a loss on a kept connection.", &stats.replayed),
        ("serin_gateway_bad_routes_total", "Routes from control that were wrong.", &stats.bad_routes),
        ("serin_gateway_observation_batches_total", "Batches of observations control has.", &stats.batches),
        ("serin_gateway_undelivered_total", "Messages to control that were not delivered.", &stats.undelivered),
    ];
    for (name, help, count) in counters {
        family(out, name, "counter", help);
        line(out, name, "", count.load(Relaxed));
    }
    family(
        out,
        "serin_gateway_refused_total",
        "counter",
        "Requests that the gateway answered with an error of its own.",
    );
    for (reason, count) in Refusal::INDEX.iter().zip(&stats.refused) {
        line(out, "serin_gateway_refused_total", &format!("reason=\"{reason}\""), count.load(Relaxed));
    }
    let table = shared.table.load();
    let replicas = shared.replicas.all();
    let gauges: [(&str, &str, u64); 7] = [
        ("serin_gateway_connections", "Open client connections.", shared.connection_count() as u64),
        ("serin_gateway_table_generation", "Generation of the route table in force.", table.generation()),
        ("serin_gateway_endpoints", "Endpoints in the route table.", table.endpoints().len() as u64),
        ("serin_gateway_replicas", "Replicas in the route table.", replicas.len() as u64),
        (
            "serin_gateway_replicas_aside",
            "Replicas that refuse connections.",
            replicas.iter().filter(|replica| replica.is_aside()).count() as u64,
        ),
        (
            "serin_gateway_upstream_idle_connections",
            "Idle connections to replicas.",
            replicas.iter().map(|replica| replica.idle_count() as u64).sum(),
        ),
        ("serin_gateway_buffered_bytes", "Large request bodies in memory.", shared.buffered.load(Relaxed)),
    ];
    for (name, help, value) in gauges {
        family(out, name, "gauge", help);
        line(out, name, "", value);
    }
    family(out, "serin_endpoint_epoch", "gauge", "Epoch of the assignment in force.");
    for endpoint in table.endpoints() {
        let route = endpoint.route();
        let labels = format!("namespace=\"{}\",endpoint=\"{}\"", escape(&route.namespace), escape(&route.name));
        line(out, "serin_endpoint_epoch", &labels, route.epoch);
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

fn label_text(labels: &ArmLabels) -> String {
    format!(
        "namespace=\"{}\",endpoint=\"{}\",revision=\"{}\",version=\"{}\",role=\"{}\"",
        escape(&labels.namespace),
        escape(&labels.name),
        escape(&labels.revision),
        escape(&labels.version),
        labels.role
    )
}

/// Escapes a label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_accumulates_and_ends_at_its_count() {
        let mut sums = Sums { latency_sum_ns: 1_500_000_000, ..Sums::default() };
        for (ns, count) in [(400_000, 3), (4_900_000, 2), (3_600_000_000_000, 1)] {
            sums.latency[serin_api::buckets::latency_bucket(ns)] += count;
        }
        let mut out = String::new();
        render_histogram(&mut out, "a=\"b\"", &sums);
        let want = [
            ("le=\"0.0005\"} 3", "below the first edge"),
            ("le=\"0.005\"} 3", "its fine bucket reaches over the edge"),
            ("le=\"0.01\"} 5", "so it counts at the next"),
            ("le=\"600\"} 5", "an hour is above all edges"),
            ("le=\"+Inf\"} 6", "everything"),
            ("_count{a=\"b\"} 6", "everything"),
            ("_sum{a=\"b\"} 1.5", "seconds"),
        ];
        for (text, why) in want {
            assert!(out.contains(text), "{why}: {out}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
