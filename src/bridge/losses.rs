//! Lost messages, counted by reason and logged at most once a second. The time is an argument.

use crate::telemetry::log::{Level, Log};
use std::time::Duration;

const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Why a message was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// There was no connection to Redis.
    Down,
    /// The connection was lost before Redis answered.
    Unanswered,
    /// The queue for Redis was full.
    Full,
    /// Redis answered with an error.
    Refused,
    /// It was published on a channel reserved for bridges.
    Reserved,
    /// The bus overwrote messages before the bridge read them.
    Missed,
    /// From another host, and longer than the bus takes.
    TooLong,
    /// From another bridge, and invalid or beyond the limits.
    Ignored,
}

impl Loss {
    const ALL: [Loss; 8] = [
        Loss::Down,
        Loss::Unanswered,
        Loss::Full,
        Loss::Refused,
        Loss::Reserved,
        Loss::Missed,
        Loss::TooLong,
        Loss::Ignored,
    ];

    fn name(self) -> &'static str {
        match self {
            Loss::Down => "not_connected",
            Loss::Unanswered => "unanswered",
            Loss::Full => "backlog_full",
            Loss::Refused => "refused",
            Loss::Reserved => "reserved",
            Loss::Missed => "missed",
            Loss::TooLong => "too_long",
            Loss::Ignored => "ignored",
        }
    }

    fn text(self, count: u64, error: &str) -> String {
        let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
        match self {
            Loss::Down => format!("{messages} not forwarded to other hosts: no connection to Redis"),
            Loss::Unanswered => {
                format!(
                    "{messages} possibly not forwarded to other hosts: the connection was lost before Redis answered"
                )
            }
            Loss::Full => format!("{messages} not forwarded to other hosts: the queue for Redis exceeds --max-backlog"),
            Loss::Refused => format!("{messages} not forwarded to other hosts: Redis replied {error}"),
            Loss::Reserved => {
                format!("{messages} not forwarded to other hosts: the channel percore-presence is reserved for bridges")
            }
            Loss::Missed => format!("{messages} of this host missed: the bridge reads the bus too slowly (--bus-size)"),
            Loss::TooLong => format!("{messages} of other hosts dropped: longer than the bus takes (--bus-size)"),
            Loss::Ignored => format!("{messages} of other bridges dropped: invalid or beyond the limits"),
        }
    }
}

/// All losses.
#[derive(Default)]
pub struct Losses {
    totals: [u64; Loss::ALL.len()],
    unsaid: [u64; Loss::ALL.len()],
    said: Option<Duration>,
    /// The last error of Redis.
    error: String,
}

impl Losses {
    /// Counts more losses.
    pub fn add(&mut self, loss: Loss, count: u64) {
        self.totals[loss as usize] += count;
        self.unsaid[loss as usize] += count;
    }

    /// Counts a message that Redis refused with this error.
    pub fn refused(&mut self, error: String) {
        self.error = error;
        self.add(Loss::Refused, 1);
    }

    /// Logs the losses not logged yet, if it is time to.
    pub fn report(&mut self, now: Duration, log: &mut Log) {
        if self.next_deadline().is_some_and(|deadline| now >= deadline) {
            self.say(log);
            self.said = Some(now);
        }
    }

    /// Logs the losses not logged yet.
    pub fn say(&mut self, log: &mut Log) {
        for loss in Loss::ALL {
            let count = std::mem::take(&mut self.unsaid[loss as usize]);
            if count > 0 {
                log.push(Level::Warn, "lost", &[(loss.name(), &count)], loss.text(count, &self.error));
            }
        }
    }

    /// Returns when there is something to log.
    pub fn next_deadline(&self) -> Option<Duration> {
        let is_due = self.unsaid.iter().any(|count| *count > 0);
        is_due.then(|| self.said.map_or(Duration::ZERO, |said| said + REPORT_EVERY))
    }

    /// Returns each count with its name.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Loss::ALL.into_iter().map(|loss| (loss.name(), self.totals[loss as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_second_with_the_number() {
        let (mut losses, mut log) = (Losses::default(), Log::new(Some(Level::Warn)));
        let mut lines = |losses: &mut Losses, milliseconds: u64| {
            losses.report(Duration::from_millis(milliseconds), &mut log);
            log.take().into_iter().map(|record| record.text).collect::<Vec<_>>()
        };
        assert!(lines(&mut losses, 0).is_empty() && losses.next_deadline().is_none());
        losses.add(Loss::Down, 1);
        assert_eq!(lines(&mut losses, 100), ["1 message not forwarded to other hosts: no connection to Redis"]);
        losses.add(Loss::Down, 2);
        losses.refused("OOM".into());
        assert!(lines(&mut losses, 1099).is_empty());
        assert_eq!(losses.next_deadline(), Some(Duration::from_millis(1100)));
        let said = lines(&mut losses, 1100);
        assert!(said[0].starts_with("2 messages not") && said[1].ends_with("Redis replied OOM"), "{said:?}");
        assert_eq!(losses.totals().map(|(_, count)| count).sum::<u64>(), 4);
    }
}
