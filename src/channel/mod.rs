//! Floor 0, channels: who subscribes to what in this process, who is present in others, and the records that tell it.

pub mod presence;
pub mod record;
pub mod subscriptions;
