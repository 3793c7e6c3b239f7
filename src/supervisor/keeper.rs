//! The keeper of the workers' history: another process, which starts before them and ends after them.

use super::worker::Worker;
use super::{KILL_AFTER, SlotListeners, Supervisor, cause};
use crate::reactor::Order;
use crate::telemetry::log::{Field, Level, in_words};
use std::time::Duration;

/// The command that starts it.
pub const KEEPER_COMMAND: &str = "keeper-of";
/// A keeper that lived this long is replaced at once, a younger one after a while.
const LONG_ENOUGH: Duration = Duration::from_secs(1);
const START_AGAIN: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Keeps a keeper running until all workers have ended.
    pub(super) fn look_after_keeper(&mut self) {
        let (now, hang_timeout) = (self.now, self.plan.hang_timeout);
        if self.stopping && self.workers().next().is_none() {
            self.keeper.due = None;
            self.end_keeper();
        }
        let slot = self.slots.len();
        if let Some(keeper) = &mut self.keeper.worker {
            keeper.listen();
            keeper.look(now, hang_timeout);
            let is_late = keeper.deadline.is_some_and(|deadline| deadline <= now);
            if !keeper.killed && (is_late || keeper.ready && keeper.pulse.hangs(hang_timeout)) {
                keeper.kill();
                let text = format!("the keeper, process {}, does not go on; it is killed", keeper.pid());
                self.log.push(Level::Error, "keeper", &[("pid", &keeper.pid())], text);
            }
            if let Some(status) = keeper.ended() {
                let (lived, pid) = (now.saturating_sub(keeper.started), keeper.pid());
                let was_told = keeper.deadline.is_some();
                self.keeper.past.add(&keeper.stats());
                self.keeper.worker = None;
                if !self.stopping || self.workers().next().is_some() {
                    let wait = if was_told || lived >= LONG_ENOUGH { Duration::ZERO } else { START_AGAIN };
                    self.keeper.due = Some(now + wait);
                }
                if !was_told {
                    self.keeper.restarts += 1;
                    let how = cause(status);
                    let fields: [(_, &dyn Field); 2] = [("pid", &pid), ("cause", &how)];
                    self.log.push(Level::Error, "keeper", &fields, format!("the keeper died: process {pid} {how}"));
                }
            }
        }
        if self.keeper.due.is_some_and(|due| due <= now)
            && let Some(program) = &self.plan.keeper
        {
            self.keeper.due = None;
            let none = SlotListeners::default();
            match Worker::start(program, (slot, None), &none, self.poll.registry(), now) {
                Ok(keeper) => {
                    let (pid, text) = (keeper.pid(), format!("the keeper is process {}", keeper.pid()));
                    self.log.push(Level::Debug, "keeper", &[("pid", &pid)], text);
                    self.keeper.worker = Some(keeper);
                }
                Err(error) => {
                    self.keeper.due = Some(now + START_AGAIN);
                    self.log.push(Level::Error, "keeper", &[], format!("no keeper: {}", in_words(&error)));
                }
            }
        }
    }

    /// Ends the keeper. Another takes its place, unless the service ends.
    pub(super) fn end_keeper(&mut self) {
        let deadline = self.now + KILL_AFTER;
        if let Some(keeper) = self.keeper.worker.as_mut().filter(|keeper| keeper.deadline.is_none()) {
            keeper.order(Order::Drain, deadline);
        }
    }

    pub(super) fn keeper_is_gone(&self) -> bool {
        self.keeper.worker.is_none()
    }
}
