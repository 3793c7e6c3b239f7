//! What did not come through, counted by reason, and said once a second at most. The time is an argument.

use crate::telemetry::log::{Level, Log};
use std::time::Duration;

const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Why something did not come through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// There was no connection to Redis.
    Down,
    /// The connection was lost before Redis answered.
    Unanswered,
    /// Too much waited for Redis.
    Full,
    /// Redis answered with an error.
    Refused,
    /// Published on a channel that bridges keep for themselves.
    Reserved,
    /// The bus was faster than the bridge.
    Missed,
    /// Of other hosts, and longer than the bus takes.
    TooLong,
    /// Of other bridges, and not understood, or beyond what is accepted.
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
            Loss::Down => format!("{messages} not passed on to other hosts: no connection to Redis"),
            Loss::Unanswered => {
                format!(
                    "{messages} perhaps not passed on to other hosts: the connection was lost before Redis answered"
                )
            }
            Loss::Full => format!("{messages} not passed on to other hosts: more waits for Redis than --max-backlog"),
            Loss::Refused => format!("{messages} not passed on to other hosts: Redis says {error}"),
            Loss::Reserved => {
                format!(
                    "{messages} not passed on to other hosts: bridges keep the channel percore-presence for themselves"
                )
            }
            Loss::Missed => format!("{messages} of this host missed: the bus was faster than the bridge (--bus-size)"),
            Loss::TooLong => format!("{messages} of other hosts left out: longer than the bus takes (--bus-size)"),
            Loss::Ignored => format!("{messages} of other bridges left out: not understood, or more than is accepted"),
        }
    }
}

/// All losses.
#[derive(Default)]
pub struct Losses {
    totals: [u64; Loss::ALL.len()],
    unsaid: [u64; Loss::ALL.len()],
    said: Option<Duration>,
    /// What Redis said last.
    error: String,
}

impl Losses {
    /// So many more.
    pub fn add(&mut self, loss: Loss, count: u64) {
        self.totals[loss as usize] += count;
        self.unsaid[loss as usize] += count;
    }

    /// One more that Redis refused, in its words.
    pub fn refused(&mut self, error: String) {
        self.error = error;
        self.add(Loss::Refused, 1);
    }

    /// Returns what is unsaid, if it is time to.
    pub fn report(&mut self, now: Duration, log: &mut Log) {
        if self.next_deadline().is_some_and(|deadline| now >= deadline) {
            self.say(log);
            self.said = Some(now);
        }
    }

    /// Returns what is unsaid.
    pub fn say(&mut self, log: &mut Log) {
        for loss in Loss::ALL {
            let count = std::mem::take(&mut self.unsaid[loss as usize]);
            if count > 0 {
                log.push(Level::Warn, "lost", &[(loss.name(), &count)], loss.text(count, &self.error));
            }
        }
    }

    /// When there is something to be said.
    pub fn next_deadline(&self) -> Option<Duration> {
        let is_due = self.unsaid.iter().any(|count| *count > 0);
        is_due.then(|| self.said.map_or(Duration::ZERO, |said| said + REPORT_EVERY))
    }

    /// Each count by its name.
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
        assert_eq!(lines(&mut losses, 100), ["1 message not passed on to other hosts: no connection to Redis"]);
        losses.add(Loss::Down, 2);
        losses.refused("OOM".into());
        assert!(lines(&mut losses, 1099).is_empty());
        assert_eq!(losses.next_deadline(), Some(Duration::from_millis(1100)));
        let said = lines(&mut losses, 1100);
        assert!(said[0].starts_with("2 messages not") && said[1].ends_with("Redis says OOM"), "{said:?}");
        assert_eq!(losses.totals().map(|(_, count)| count).sum::<u64>(), 4);
    }
}
