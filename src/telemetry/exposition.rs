//! Counters in Prometheus's text exposition format, version 0.0.4.

use super::histogram::{BOUNDS_SECONDS, Histogram};
use super::stats::{Metric, MetricKind, Stats};
use std::fmt::{Display, Write};

/// Metrics as text. Each family must be added with all its values at once.
#[derive(Default)]
pub struct Exposition(String);

impl Exposition {
    /// The media type of the text.
    pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Adds a metric; each of `values` has its own labels, such as `worker="0"`, or none.
    pub fn family<V: Display>(&mut self, kind: MetricKind, name: &str, help: &str, values: &[(String, V)]) {
        self.head(kind, name, help);
        for (labels, value) in values {
            self.sample(name, labels, value);
        }
    }

    /// Adds all counters of `workers`, each with the label `worker`.
    pub fn workers(&mut self, workers: &[(String, Stats)]) {
        let all: Vec<_> = workers.iter().map(|(worker, stats)| (worker.as_str(), stats.metrics())).collect();
        let none = Stats::default();
        for (index, (metric, _)) in none.metrics().into_iter().enumerate() {
            self.head(metric.kind, metric.name, metric.help);
            for (worker, metrics) in &all {
                self.values(&metric, worker, metrics[index].1);
            }
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, kind: MetricKind, name: &str, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // A line feed or backslash would need escaping; help texts have none.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: &dyn Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn values(&mut self, metric: &Metric, worker: &str, words: &[u64]) {
        let own = format!("worker=\"{worker}\"");
        if metric.kind == MetricKind::Histogram {
            return self.histogram(metric.name, &own, words);
        }
        if metric.label.is_empty() {
            return words.iter().for_each(|word| self.sample(metric.name, &own, word));
        }
        for (value, word) in metric.values.iter().zip(words) {
            self.sample(metric.name, &format!("{own},{}=\"{value}\"", metric.label), word);
        }
    }

    fn histogram(&mut self, name: &str, own: &str, words: &[u64]) {
        let mut below = 0;
        for (bound, count) in BOUNDS_SECONDS.iter().chain(&["+Inf"]).zip(words) {
            below += count;
            self.sample(&format!("{name}_bucket"), &format!("{own},le=\"{bound}\""), &below);
        }
        self.sample(&format!("{name}_sum"), own, &Histogram::sum_seconds(words));
        self.sample(&format!("{name}_count"), own, &below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let mut stats = Stats { open: 2, ..Stats::default() };
        stats.receive(super::super::stats::TEXT, 5);
        stats.passes.observe(30_000, 4);
        let mut exposition = Exposition::default();
        exposition.family(MetricKind::Gauge, "up", "Whether it is.", &[(String::new(), 1)]);
        exposition.workers(&[("0".into(), stats), ("1".into(), Stats::default())]);
        let text = exposition.into_text();
        assert!(text.starts_with("# HELP up Whether it is.\n# TYPE up gauge\nup 1\n# HELP percore_"), "{text}");
        for line in [
            "# TYPE percore_connections_open gauge",
            "percore_connections_open{worker=\"0\"} 2",
            "percore_connections_open{worker=\"1\"} 0",
            "percore_messages_received_total{worker=\"0\",opcode=\"text\"} 1",
            "percore_received_bytes_total{worker=\"0\",opcode=\"text\"} 5",
            "percore_loop_pass_seconds_bucket{worker=\"0\",le=\"0.000025\"} 0",
            "percore_loop_pass_seconds_bucket{worker=\"0\",le=\"0.00005\"} 4",
            "percore_loop_pass_seconds_bucket{worker=\"0\",le=\"+Inf\"} 4",
            "percore_loop_pass_seconds_sum{worker=\"0\"} 0.00012",
            "percore_loop_pass_seconds_count{worker=\"0\"} 4",
        ] {
            assert_eq!(text.lines().filter(|have| *have == line).count(), 1, "{line} in\n{text}");
        }
    }

    #[test]
    fn names_keep_to_the_conventions() {
        for (metric, words) in Stats::default().metrics() {
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.name.starts_with("percore_") && !metric.help.contains(['\n', '\\']), "{}", metric.name);
            if metric.kind != MetricKind::Histogram {
                assert_eq!(words.len(), metric.values.len().max(1), "{}", metric.name);
            }
        }
    }
}
