//! What a client's commands cost the process, beyond what they are in number.

use super::replies::Replies;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::codes::Error;

/// With so many bytes of replies to one message, or waiting for the client, nothing more is told that may be long.
pub(super) const MOST_REPLIES_BYTES: usize = 1 << 20;
/// So many bytes of an answer count as a command more, ...
pub(super) const COMMAND_BYTES: usize = 16 << 10;
/// ... and so many clients that had to be looked at.
pub(super) const COMMAND_MEMBERS: usize = 32;

impl Channels {
    /// Counts a command as so many more, for which the client waits afterwards.
    pub(super) fn charge(&mut self, id: ConnectionId, commands: usize, out: &Outbox) {
        if let Some(client) = self.engine.clients.get_mut(id.index) {
            self.command_rates.take(&mut client.commands, commands as u64, 0, out.now());
        }
    }

    /// Whether a client may be told something long now.
    pub(super) fn may_be_long(&self, id: ConnectionId, replies: &Replies, out: &mut Outbox) -> Result<(), Error> {
        match replies.bytes().max(out.backlog_bytes(id)) < MOST_REPLIES_BYTES {
            true => Ok(()),
            false => Err(Error::TooManyRequests),
        }
    }
}
