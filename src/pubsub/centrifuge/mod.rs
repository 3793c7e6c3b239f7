//! The Centrifuge client protocol, in JSON: what clients say and are answered.

mod answers;
pub mod command;
mod conversation;
mod costs;
mod presence;
pub mod push;
pub(in crate::pubsub) mod replies;

pub(in crate::pubsub) use answers::LongAnswers;
pub(in crate::pubsub) use presence::{presence, presence_stats};
