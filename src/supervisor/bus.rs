//! The bus that the workers are on, and whose files somebody may remove: a clean-up of old files, or the end of a user's
//! session. Those who are on it cannot be found any more then, and a worker that starts anew would be alone.

use super::Supervisor;
use crate::data::log::{Level, in_words};
use std::time::Duration;

/// When workers could not be replaced, this is tried again.
const MOVE_AGAIN: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Sees to it that all workers are on a bus that those who join find: if its files are gone they are made anew, and all
    /// workers are replaced as in a reload, so that all of them move.
    pub(super) fn keep_bus(&mut self) {
        let Some(bus) = self.plan.bus.as_mut().filter(|_| !self.stopping && self.reload.is_none()) else { return };
        let path = bus.path().display().to_string();
        match bus.restore() {
            Ok(true) => {
                (self.moves, self.bus_failed) = (Some(self.now), false);
                // It goes first, as the others wait for its files.
                self.end_keeper();
                let text = format!(
                    "the files of the bus in {path} were removed while it is in use: there is another one in their place, to which \
                    all workers move, as new ones take over"
                );
                self.log.push(Level::Warn, "bus", &[("path", &path)], text);
            }
            Ok(false) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.bus_failed, true) {
                    let text =
                        format!("the files of the bus were removed, and cannot be made anew: {}", in_words(&error));
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
