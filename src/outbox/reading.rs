//! Whether a connection is read from: not while its peer leaves our output unread, or while the app or the server holds
//! it.

use super::{FRAMES, Outbox, READ_PAUSE_BYTES};
use crate::net::id::ConnectionId;

impl Outbox {
    /// Stops reading from an open connection, so that its own socket slows the client down.
    /// [`App::on_message`](crate::App::on_message) gets no message after the current one until [`Outbox::resume`];
    /// nothing is lost. The connection is still pinged, but a silence caused by the pause does not close it.
    /// [`Outbox::close`] lifts the pause. Returns whether the connection is open.
    pub fn pause(&mut self, id: ConnectionId) -> bool {
        let is_open = self.takes_frames_of(id);
        if is_open {
            self.queue.lane_at(id.index).held = true;
            // The rest of the current input is kept.
            self.yields = true;
        }
        is_open
    }

    /// Resumes reading from a paused connection. Returns whether the connection is open.
    pub fn resume(&mut self, id: ConnectionId) -> bool {
        let is_open = self.takes_frames_of(id);
        if is_open {
            self.release_hold(id);
        }
        is_open
    }

    fn takes_frames_of(&mut self, id: ConnectionId) -> bool {
        id.node == self.node && self.queue.lane(id.index, id.generation).is_some_and(|lane| lane.mode & FRAMES != 0)
    }

    /// Lifts the hold on reading from a connection.
    pub(crate) fn release_hold(&mut self, id: ConnectionId) {
        let lane = self.queue.lane_at(id.index);
        if std::mem::take(&mut lane.held) {
            self.resumed.push(id);
        }
    }

    /// Whether the app or the server has stopped reading from a connection.
    pub(crate) fn is_held(&mut self, key: u32) -> bool {
        self.queue.lane_at(key).held
    }

    /// Whether to read from this connection: not while it is held, nor while its peer leaves our output unread. But a
    /// message that is being echoed is read to its end, since a client may send all of it before it reads. This
    /// excludes messages that begin after the pause: a client may send any number of those.
    pub(crate) fn wants_read(&mut self, key: u32) -> bool {
        let lane = self.queue.lane_at(key);
        if lane.held {
            return false;
        }
        // With a smaller `max_backlog` that limit applies first.
        let is_behind =
            lane.is_blocked() && lane.queued_bytes() >= READ_PAUSE_BYTES && self.rules.max_backlog > READ_PAUSE_BYTES;
        !is_behind || self.under_way.get(&key).is_some_and(|echo| !echo.behind)
    }
}
