//! Counters, and their Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one model server. Relaxed everywhere: each is read on its own.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Inference requests answered with 200.
    pub(super) succeeded: Counter,
    /// Inference requests answered with a 4xx.
    pub(super) refused: Counter,
    /// Inference requests answered with a 500 on purpose.
    pub(super) faults: Counter,
    /// Rows of the requests answered with 200.
    pub(super) rows: Counter,
    /// Time spent reading, evaluating and writing, in nanoseconds.
    pub(super) busy_ns: Counter,
    in_flight: AtomicU64,
    connections: AtomicU64,
}

/// A count that only rises.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts one up, and down when it is dropped.
pub(super) struct Gauged<'a>(&'a AtomicU64);

impl<'a> Gauged<'a> {
    fn new(gauge: &'a AtomicU64) -> Gauged<'a> {
        gauge.fetch_add(1, Ordering::Relaxed);
        Gauged(gauge)
    }
}

impl Drop for Gauged<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request under way.
    pub(super) fn request(&self) -> Gauged<'_> {
        Gauged::new(&self.in_flight)
    }

    /// Counts an open connection.
    pub(super) fn connection(&self) -> Gauged<'_> {
        Gauged::new(&self.connections)
    }

    pub(super) fn busy(&self, time: Duration) {
        self.busy_ns.add(time.as_nanos() as u64);
    }

    /// The Prometheus text format, version 0.0.4.
    pub(super) fn text(&self, model: &str, version: &str) -> String {
        let labels = format!("model=\"{}\",version=\"{}\"", escape(model), escape(version));
        let mut out = String::with_capacity(1024);
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (extra, value) in values {
                let _ = writeln!(out, "{name}{{{labels}{extra}}} {value}");
            }
        };
        let answers = [
            (",code=\"200\"", self.succeeded.get() as f64),
            (",code=\"4xx\"", self.refused.get() as f64),
            (",code=\"500\"", self.faults.get() as f64),
        ];
        metric("serin_model_requests_total", "counter", "Inference requests by class of answer.", &answers);
        metric("serin_model_rows_total", "counter", "Rows predicted.", &[("", self.rows.get() as f64)]);
        let busy = self.busy_ns.get() as f64 / 1e9;
        metric("serin_model_busy_seconds_total", "counter", "Time spent on inference requests.", &[("", busy)]);
        let in_flight = self.in_flight.load(Ordering::Relaxed) as f64;
        metric("serin_model_requests_in_flight", "gauge", "Inference requests under way.", &[("", in_flight)]);
        let connections = self.connections.load(Ordering::Relaxed) as f64;
        metric("serin_model_connections", "gauge", "Open connections.", &[("", connections)]);
        out
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_written_with_their_labels() {
        let metrics = Metrics::default();
        metrics.succeeded.add(3);
        metrics.busy(Duration::from_millis(1500));
        let under_way = metrics.request();
        let text = metrics.text("a\"b", "1");
        assert!(text.contains("serin_model_requests_total{model=\"a\\\"b\",version=\"1\",code=\"200\"} 3\n"), "{text}");
        assert!(text.contains("serin_model_busy_seconds_total{model=\"a\\\"b\",version=\"1\"} 1.5\n"), "{text}");
        assert!(text.contains("serin_model_requests_in_flight{model=\"a\\\"b\",version=\"1\"} 1\n"), "{text}");
        drop(under_way);
        assert!(metrics.text("m", "1").contains("serin_model_requests_in_flight{model=\"m\",version=\"1\"} 0\n"));
    }
}
