//! One line per second during a run, including the last one.

use super::load::Load;
use super::record::Interval;
use super::report::Progress;
use std::time::Duration;

pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(1);

impl Load {
    /// Reports progress once per second.
    pub(super) fn progress(&mut self, now: Duration) {
        if now < self.next_progress {
            return;
        }
        // Whole seconds, as in other processes, unless one was missed.
        self.next_progress = (self.next_progress + PROGRESS_EVERY).max(now);
        if self.line.is_some() {
            return self.tell_interval(now);
        }
        let interval = if self.stage.is_measured() { self.record.end_interval(now) } else { None };
        self.show_progress(interval);
    }

    /// Ends the last interval, with a line unless it is too short to be meaningful.
    pub(super) fn end_interval(&mut self, now: Duration) {
        if self.line.is_some() {
            return self.tell_interval(now);
        }
        let interval = self.record.end_interval(now);
        if interval.is_some_and(|interval| interval.length >= PROGRESS_EVERY / 10) {
            self.show_progress(interval);
        }
    }

    /// Ends an interval, if measuring, and reports it to the process that adds them up.
    fn tell_interval(&mut self, now: Duration) {
        let pairs = self.record.current_pairs();
        let interval = if self.stage.is_measured() { self.record.end_interval(now) } else { None };
        self.say_progress(interval.map(|interval| (interval.end, interval.length, pairs)));
    }

    fn show_progress(&self, interval: Option<Interval>) {
        if !self.plan.quiet {
            let (connected, errors) = (self.open, self.record.error_count());
            Progress { stage: self.stage, connected, plan: &self.plan, interval, errors }.print();
        }
    }
}
