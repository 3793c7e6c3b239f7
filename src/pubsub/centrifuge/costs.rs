//! The cost of a client's commands to the process, beyond their number.

use super::replies::Replies;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::pubsub::app::Channels;
use crate::pubsub::codes::Error;

/// With this many bytes of replies to one message, or waiting for the client, long replies are refused.
pub(super) const MOST_REPLIES_BYTES: usize = 1 << 20;
/// This many bytes of an answer count as another command, ...
pub(super) const COMMAND_BYTES: usize = 16 << 10;
/// ... and so do this many clients examined for it.
pub(super) const COMMAND_MEMBERS: usize = 32;

impl Channels {
    /// Charges a command as this many more, for which the client waits afterwards.
    pub(super) fn charge(&mut self, id: ConnectionId, commands: usize, out: &Outbox) {
        if let Some(client) = self.engine.clients.get_mut(id.index) {
            self.command_rates.take(&mut client.commands, commands as u64, 0, out.now());
        }
    }

    /// Whether a client may get a long answer now.
    pub(super) fn may_be_long(&self, id: ConnectionId, replies: &Replies, out: &mut Outbox) -> Result<(), Error> {
        match replies.bytes().max(out.backlog_bytes(id)) < MOST_REPLIES_BYTES {
            true => Ok(()),
            false => Err(Error::TooManyRequests),
        }
    }
}
