//! Refusals, logged at most once a second with the number of each cause.

use super::Sessions;
use crate::app::App;
use crate::net::id::Peer;
use crate::telemetry::log::{Field, Level, Log};
use crate::telemetry::stats::{STATUSES, Stats};
use std::time::Duration;

/// Refusals are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Statuses that do not refuse a client: the request was for something that does not exist here.
const NO_REFUSALS: [&str; 3] = ["404", "405", "426"];

/// Refusals not logged yet: the difference between the counters and their values at the last log line.
#[derive(Default)]
pub(super) struct Refusals {
    said: [u64; STATUSES.len()],
    /// Connections closed without an answer; nothing else is known of them.
    unanswered: u64,
    /// The latest request that was not logged yet.
    latest: Option<(u16, Peer, String)>,
    logged: Option<Duration>,
    /// When the next log line is due.
    due: Option<Duration>,
}

impl Refusals {
    /// When the next log line is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }

    /// Notes a refusal.
    fn note(&mut self, now: Duration) {
        self.due = Some(self.logged.map_or(now, |logged| logged + LOG_EVERY));
    }

    fn report(&mut self, now: Duration, stats: &Stats, log: &mut Log) {
        (self.logged, self.due) = (Some(now), None);
        let unsaid = STATUSES.iter().zip(&stats.rejected).zip(&mut self.said);
        let unsaid = unsaid.map(|((status, &count), said)| (*status, count - std::mem::replace(said, count)));
        let counts: Vec<(&str, u64)> =
            unsaid.filter(|(status, count)| *count > 0 && !NO_REFUSALS.contains(status)).collect();
        let mut causes: Vec<String> = counts.iter().map(|(status, count)| format!("{count} with {status}")).collect();
        let mut fields: Vec<(&str, &dyn Field)> = counts.iter().map(|(status, count)| (*status, count as _)).collect();
        let unanswered = std::mem::take(&mut self.unanswered);
        if unanswered > 0 {
            causes.push(format!("{unanswered} closed unanswered, far beyond --max-connections"));
            fields.push(("unanswered", &unanswered));
        }
        let mut text = format!("refused: {}", causes.join(", "));
        let latest = self.latest.take();
        if let Some((status, peer, path)) = &latest {
            text += &format!("; last {peer} with {status}");
            if path != "?" {
                text += &format!(" for {path}");
            }
            fields.extend([("peer", peer as &dyn Field), ("status", status), ("path", path)]);
        }
        log.push(Level::Warn, "refused", &fields, text);
    }
}

impl<A: App> Sessions<A> {
    /// A request was answered with a status of 400 or more, and counted.
    pub(super) fn refused(&mut self, peer: Peer, status: u16, path: String) {
        if self.log.keeps(Level::Warn) && !NO_REFUSALS.iter().any(|other| other.parse() == Ok(status)) {
            self.refusals.latest = Some((status, peer, path));
            self.refusals.note(self.now);
            self.report_refusals();
        }
    }

    /// A connection was closed without an answer, because there are far too many.
    pub(super) fn turned_away(&mut self) {
        if self.log.keeps(Level::Warn) {
            self.refusals.unanswered += 1;
            self.refusals.note(self.now);
            self.report_refusals();
        }
    }

    /// Logs refusals, if that is due.
    #[cold]
    pub(super) fn report_refusals(&mut self) {
        if self.refusals.due.is_some_and(|due| due <= self.now) {
            self.refusals.report(self.now, &self.outbox.stats, &mut self.log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_number() {
        let (mut refusals, mut stats, mut log) = (Refusals::default(), Stats::default(), Log::new(Some(Level::Warn)));
        let mut lines = |refusals: &mut Refusals, stats: &Stats, seconds| {
            refusals.report(Duration::from_secs(seconds), stats, &mut log);
            log.take().into_iter().map(|record| record.text).collect::<Vec<_>>()
        };
        assert_eq!(refusals.next_deadline(), None);
        [503, 503, 403, 404].into_iter().for_each(|status| stats.reject(status));
        refusals.latest = Some((403, Peer::UNIX, "/ws".into()));
        refusals.note(Duration::from_secs(5));
        assert_eq!(refusals.next_deadline(), Some(Duration::from_secs(5)));
        assert_eq!(lines(&mut refusals, &stats, 5), ["refused: 1 with 403, 2 with 503; last unix with 403 for /ws"]);
        assert_eq!(refusals.next_deadline(), None);
        stats.reject(408);
        refusals.latest = Some((408, Peer::UNKNOWN, "?".into()));
        refusals.unanswered = 7;
        refusals.note(Duration::from_millis(5_100));
        assert_eq!(refusals.next_deadline(), Some(Duration::from_secs(6)));
        let told = "refused: 1 with 408, 7 closed unanswered, far beyond --max-connections; last unknown with 408";
        assert_eq!(lines(&mut refusals, &stats, 6), [told]);
    }
}
