//! The result of a run: for people, and as JSON.

use super::load::Load;
use super::plan::{Plan, Workload};
use super::record::{Interval, Record, Times};
use super::stage::Stage;
use crate::protocol::extension::DeflateMode;
use crate::protocol::message::Kind;
use crate::telemetry::log::counted;
use serde_json::{Value, json};
use std::fmt::{self, Write};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

/// The percentiles in the report.
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("p99.999", 99.999)];

/// What the server used.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// CPU time while measuring.
    pub cpu: Duration,
    /// Resident bytes before the first connection.
    pub memory_before: u64,
    /// Resident bytes at the end, all connections still open.
    pub memory_after: u64,
}

/// See the module.
pub struct Report {
    pub(super) plan: Arc<Plan>,
    pub(super) connected: usize,
    /// How long the run measured.
    pub(super) measured: Duration,
    pub(super) record: Record,
    pub(super) server: Option<Server>,
    pub(super) interrupted: bool,
}

impl Load {
    /// Makes the report.
    pub fn into_report(self) -> Report {
        Report {
            connected: self.flights.len(),
            measured: self.record.measured(),
            server: self.server(),
            plan: self.plan,
            record: self.record,
            interrupted: self.interrupted,
        }
    }
}

impl Report {
    /// The number of errors.
    pub fn errors(&self) -> u64 {
        self.record.error_count()
    }

    fn count(&self) -> u64 {
        self.record.latency.count()
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.measured.is_zero() { 0.0 } else { count as f64 / self.measured.as_secs_f64() }
    }

    fn cpu_per_message(&self, server: &Server) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_secs_f64(server.cpu.as_secs_f64() / self.count() as f64))
    }

    fn memory_per_connection(&self, server: &Server) -> Option<f64> {
        let more = server.memory_after as f64 - server.memory_before as f64;
        (self.connected > 0).then(|| more / self.connected as f64)
    }

    /// The report for programs. Times are seconds; null stands for what was not measured.
    pub fn json(&self) -> Value {
        let plan = &self.plan;
        let connects = plan.workload == Workload::Connect;
        let handshakes = if connects { &self.record.latency } else { &self.record.handshake };
        let errors: Value = self.record.errors.iter().map(|(kind, (count, _))| (kind.to_string(), *count)).collect();
        let server = self.server.map(|server| {
            json!({
                "pids": plan.pids,
                "cpu_seconds": server.cpu.as_secs_f64(),
                "cpu_seconds_per_message": self.cpu_per_message(&server).map(|time| time.as_secs_f64()),
                "memory_bytes_before": server.memory_before,
                "memory_bytes_after": server.memory_after,
                "memory_bytes_per_connection": self.memory_per_connection(&server),
            })
        });
        let over_time = self.record.intervals.iter().map(|interval| {
            json!({
                "seconds": interval.end.as_secs_f64(),
                "messages": interval.count,
                "p50": interval.p50.as_secs_f64(),
                "p99": interval.p99.as_secs_f64(),
            })
        });
        json!({
            "percore": env!("CARGO_PKG_VERSION"),
            "workload": plan.workload.name(),
            "url": plan.url.text,
            "connections": plan.connections,
            "workers": plan.share.workers,
            "in_flight": plan.in_flight,
            "rate": plan.rate,
            "size": plan.size,
            "kind": kind_name(plan.kind),
            "deflate": plan.deflate != DeflateMode::Off,
            "duration_seconds": self.measured.as_secs_f64(),
            "warmup_seconds": plan.warmup.as_secs_f64(),
            "interrupted": self.interrupted,
            "connected": self.connected,
            "messages": if connects { 0 } else { self.count() },
            "messages_per_second": if connects { 0.0 } else { self.per_second(self.count()) },
            "latency_seconds": times_json(&self.record.latency),
            "published": self.record.published,
            "late": self.record.late.count(),
            "late_latency_seconds": times_json(&self.record.late),
            "handshakes": handshakes.count(),
            "handshakes_per_second": connects.then(|| self.per_second(self.count())),
            "handshake_latency_seconds": times_json(handshakes),
            "errors": errors,
            "server": server,
            "over_time": over_time.collect::<Vec<Value>>(),
        })
    }
}

fn times_json(times: &Times) -> Value {
    if times.count() == 0 {
        return Value::Null;
    }
    let mut value = json!({
        "min": times.min().as_secs_f64(),
        "mean": times.mean().as_secs_f64(),
        "max": times.max().as_secs_f64(),
    });
    for (name, percent) in PERCENTILES {
        value[name] = times.percentile(percent).as_secs_f64().into();
    }
    value
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Binary => "binary",
    }
}

impl fmt::Display for Report {
    /// The table at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        writeln!(f, "{} {}", plan.workload.name(), plan.url.text)?;
        writeln!(f, "{}", described(plan))?;
        let measured = self.measured.as_secs_f64();
        let cut = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "measured {measured:.1} s after {:.1} s of warm-up{cut}\n", plan.warmup.as_secs_f64())?;

        let rate = self.per_second(self.count());
        let unit = unit(plan.workload);
        match plan.workload {
            Workload::Idle { .. } => {}
            Workload::Connect => row(f, "throughput", &format!("{} {unit}/s", grouped(rate)))?,
            _ => {
                let megabytes = rate * plan.size as f64 / 1e6;
                row(f, "throughput", &format!("{} {unit}/s, {megabytes:.1} MB/s of payload", grouped(rate)))?;
            }
        }
        if plan.workload == Workload::Fanout {
            row(f, "published", &format!("{} messages/s", grouped(self.per_second(self.record.published))))?;
        }
        if self.count() > 0 {
            times_rows(f, "latency", &self.record.latency)?;
        }
        if self.record.late.count() > 0 {
            let (late, max) = (grouped(self.record.late.count() as f64), short(self.record.late.max()));
            row(f, "late", &format!("{late} {unit} arrived after that, the slowest after {max}"))?;
        }
        if plan.workload != Workload::Connect {
            row(f, "connected", &format!("{} of {}", self.connected, plan.connections))?;
            if self.record.handshake.count() > 0 {
                let (p50, p99) = (self.record.handshake.percentile(50.0), self.record.handshake.percentile(99.0));
                row(f, "handshake", &format!("p50 {}, p99 {}", short(p50), short(p99)))?;
            }
        }
        if let Some(server) = &self.server {
            let share = if self.measured.is_zero() { 0.0 } else { server.cpu.as_secs_f64() / measured * 100.0 };
            let each = self.cpu_per_message(server).map(|time| format!(", {} each", short(time)));
            row(f, "server CPU", &format!("{share:.0} % of a core{}", each.unwrap_or_default()))?;
            let memory = server.memory_after as f64 / 1e6;
            let each = self.memory_per_connection(server).filter(|_| plan.workload != Workload::Connect);
            let each = each.map(|bytes| format!(", {bytes:.0} bytes more per connection"));
            row(f, "server memory", &format!("{memory:.1} MB{}", each.unwrap_or_default()))?;
        }
        if self.record.errors.is_empty() {
            return row(f, "errors", "none");
        }
        for (index, (kind, (count, said))) in self.record.errors.iter().enumerate() {
            row(f, if index == 0 { "errors" } else { "" }, &format!("{count} x {kind} (first: {said})"))?;
        }
        Ok(())
    }
}

pub(super) fn described(plan: &Plan) -> String {
    let mut line = counted(plan.connections, "connection*");
    if plan.share.workers > 1 {
        let _ = write!(line, " of {} processes", plan.share.workers);
    }
    if matches!(plan.workload, Workload::Echo | Workload::Fanout) {
        let _ = match plan.rate {
            Some(rate) => write!(line, ", {} messages/s (open loop)", grouped(rate)),
            None => write!(line, ", {} in flight", plan.in_flight),
        };
        let _ = write!(line, ", {}, {}", counted(plan.size, "byte*"), kind_name(plan.kind));
    }
    if plan.deflate != DeflateMode::Off {
        line.push_str(", permessage-deflate");
    }
    line
}

pub(super) fn unit(workload: Workload) -> &'static str {
    match workload {
        Workload::Connect => "handshakes",
        Workload::Fanout => "deliveries",
        Workload::Echo | Workload::Idle { .. } => "messages",
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "  {name:<14} {value}")
}

fn times_rows(f: &mut fmt::Formatter<'_>, name: &str, times: &Times) -> fmt::Result {
    row(f, name, &format!("{:<8} {}", "min", short(times.min())))?;
    row(f, "", &format!("{:<8} {}", "mean", short(times.mean())))?;
    for (percentile, percent) in PERCENTILES {
        row(f, "", &format!("{percentile:<8} {}", short(times.percentile(percent))))?;
    }
    row(f, "", &format!("{:<8} {}", "max", short(times.max())))
}

/// Three digits and a unit.
pub(super) fn short(time: Duration) -> String {
    let nanoseconds = time.as_nanos() as f64;
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.0} ns"),
        ..1e4 => format!("{:.2} µs", nanoseconds / 1e3),
        ..1e5 => format!("{:.1} µs", nanoseconds / 1e3),
        ..1e6 => format!("{:.0} µs", nanoseconds / 1e3),
        ..1e7 => format!("{:.2} ms", nanoseconds / 1e6),
        ..1e8 => format!("{:.1} ms", nanoseconds / 1e6),
        ..1e9 => format!("{:.0} ms", nanoseconds / 1e6),
        _ => format!("{:.2} s", nanoseconds / 1e9),
    }
}

/// A whole number with separated thousands.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One line per second during a run.
pub struct Progress<'a> {
    /// Where the run is.
    pub stage: Stage,
    /// Connections open now.
    pub connected: usize,
    /// The plan of the run.
    pub plan: &'a Plan,
    /// The last second, if measured.
    pub interval: Option<Interval>,
    /// Errors so far.
    pub errors: u64,
}

impl Progress<'_> {
    /// Prints it to standard error.
    pub fn print(&self) {
        let mut line =
            format!("{} of {} connected", grouped(self.connected as f64), grouped(self.plan.connections as f64));
        match (self.stage, self.interval) {
            (_, Some(Interval { end, length, count, p50, p99 })) => {
                let rate = grouped(count as f64 / length.as_secs_f64());
                line = format!("{:>4.0} s  {line}  {rate} {}/s", end.as_secs_f64(), unit(self.plan.workload));
                if count > 0 {
                    let _ = write!(line, "  p50 {}  p99 {}", short(p50), short(p99));
                }
            }
            (Stage::Warmup(_), _) => line = format!("warm-up  {line}"),
            (Stage::Waiting(_), _) => line = format!("waiting for outstanding answers  {line}"),
            _ => line = format!("connecting  {line}"),
        }
        if self.errors > 0 {
            let _ = write!(line, "  {}", counted(self.errors, "error*"));
        }
        // With standard error closed, the report may still be wanted.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (number, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1234567.8, "1,234,568")] {
            assert_eq!(grouped(number), text);
        }
        for (nanoseconds, text) in
            [(7, "7 ns"), (1500, "1.50 µs"), (85_300, "85.3 µs"), (2_000_000, "2.00 ms"), (3_210_000_000, "3.21 s")]
        {
            assert_eq!(short(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
