//! Watches the files of the workers' bus, which a clean-up of old files or the end of a user's session may remove. New
//! workers then cannot find the participants, and would be alone.

use super::Supervisor;
use crate::telemetry::log::{Level, in_words};
use std::time::Duration;

/// Interval of retries when workers could not be replaced.
const MOVE_AGAIN: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Keeps all workers on a bus that new processes can find: if its files are gone, creates them anew and replaces
    /// all workers as in a reload, so that all of them move.
    pub(super) fn keep_bus(&mut self) {
        let Some(bus) = self.plan.bus.as_mut().filter(|_| !self.stopping && self.reload.is_none()) else { return };
        let path = bus.path().display().to_string();
        match bus.restore() {
            Ok(true) => {
                (self.moves, self.bus_failed) = (Some(self.now), false);
                // It goes first, as the others wait for its files.
                self.end_keeper();
                let text = format!(
                    "the files of the bus in {path} were removed while in use: a new bus was created in their place, \
                    and new workers take over on it"
                );
                self.log.push(Level::Warn, "bus", &[("path", &path)], text);
            }
            Ok(false) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.bus_failed, true) {
                    let text =
                        format!("the files of the bus were removed and cannot be created again: {}", in_words(&error));
                    self.log.push(Level::Error, "bus", &[("path", &path)], text);
                }
                return;
            }
        }
        if self.moves.is_some_and(|at| at <= self.now) {
            self.moves = Some(self.now + MOVE_AGAIN);
            self.reload();
        }
    }
}
