//! Adds up the counts and times of several processes.

use super::line::{Outcome, Second};
use super::record::{Interval, Record};
use super::report::Server;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A second that ends up to this much late belongs to the whole one before: the loop was late.
const LATE: Duration = Duration::from_millis(100);

/// A second that not all processes have reported.
#[derive(Default)]
struct Part {
    end: Duration,
    length: Duration,
    pairs: Vec<u64>,
}

/// See the module.
pub(super) struct Merged {
    pub record: Record,
    pub connected: u64,
    pub interrupted: bool,
    pub delivered: bool,
    pub published: u32,
    pub server: Option<Server>,
    undelivered: (u64, u64),
    /// By number, from 1.
    seconds: BTreeMap<u64, Part>,
}

impl Merged {
    pub fn new() -> Merged {
        Merged {
            record: Record::new(),
            connected: 0,
            interrupted: false,
            delivered: false,
            published: 0,
            server: None,
            undelivered: (0, 0),
            seconds: BTreeMap::new(),
        }
    }

    /// Adds what a process measured in a second, and returns the number of the second.
    pub fn add_second(&mut self, second: &Second) -> Option<u64> {
        let (end, length, pairs) = second.interval.as_ref()?;
        let (end, length) = (Duration::from_nanos(*end), Duration::from_nanos(*length));
        let number = end.saturating_sub(LATE).as_secs() + 1;
        let part = self.seconds.entry(number).or_default();
        part.end = part.end.max(end);
        part.length = part.length.max(length);
        part.pairs.extend_from_slice(pairs);
        Some(number)
    }

    /// Adds up the seconds up to this one, which all processes have reported, and returns the last.
    pub fn end_seconds(&mut self, last: u64) -> Option<Interval> {
        let mut interval = None;
        while let Some(entry) = self.seconds.first_entry().filter(|entry| *entry.key() <= last) {
            let Part { end, length, pairs } = entry.remove();
            interval = Some(self.record.add_interval(end, length, &pairs));
        }
        interval
    }

    /// Adds the report of a process.
    pub fn add_report(&mut self, report: &Value) -> Option<()> {
        let outcome = Outcome::add(report, &mut self.record)?;
        self.connected += outcome.connected;
        self.interrupted |= outcome.interrupted;
        self.delivered |= outcome.delivered;
        self.undelivered.0 += outcome.undelivered.0;
        self.undelivered.1 += outcome.undelivered.1;
        self.server = self.server.or(outcome.server);
        Some(())
    }

    /// All have reported: compares deliveries with what was published.
    pub fn end(&mut self, fanout: bool) {
        self.end_seconds(u64::MAX);
        if fanout {
            self.record.compare(self.published, self.delivered, self.undelivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(end_ms: u64, length_ms: u64, pairs: &[u64]) -> Second {
        let interval = Some((end_ms * 1_000_000, length_ms * 1_000_000, pairs.to_vec()));
        Second { interval, ..Second::default() }
    }

    #[test]
    fn seconds_of_two_processes_are_one() {
        let mut merged = Merged::new();
        let told = [
            second(1003, 1003, &[100, 2]),
            second(1000, 1000, &[100, 3, 900, 1]),
            second(2001, 998, &[100, 1]),
            second(2300, 299, &[]),
            second(2004, 1004, &[100, 1]),
            second(2301, 297, &[500, 4]),
        ];
        let numbers = told.each_ref().map(|second| merged.add_second(second));
        assert_eq!(numbers, [1, 1, 2, 3, 2, 3].map(Some));
        let interval = merged.end_seconds(1).expect("the first");
        assert_eq!((interval.count, interval.end), (6, Duration::from_millis(1003)));
        merged.end(false);
        let counts: Vec<u64> = merged.record.intervals.iter().map(|interval| interval.count).collect();
        assert_eq!((counts, merged.record.latency.count()), (vec![6, 2, 4], 12));
        assert_eq!(merged.record.measured(), Duration::from_millis(2301));
        assert_eq!(merged.add_second(&Second::default()), None);
    }
}
