//! The Centrifuge client protocol, in JSON: commands, replies and pushes.

mod answers;
pub mod command;
mod conversation;
mod costs;
mod presence;
pub mod push;
pub(in crate::pubsub) mod replies;

pub(in crate::pubsub) use answers::LongAnswers;
pub(in crate::pubsub) use presence::{presence, presence_stats};
