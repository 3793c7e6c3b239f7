//! Floor 0, plain data: ids, the out queue, the timer wheel, channels, records, counters, networks, dates.
//!
//! Nothing here does input or output or reads a clock: a point in time is an argument, given as the `Duration` since
//! the process began.

pub mod calendar;
pub mod channels;
#[cfg(feature = "cli")]
pub mod fields;
#[cfg(feature = "cli")]
pub mod hex;
pub mod histogram;
pub mod id;
pub mod input;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod pool;
pub mod presence;
pub mod pulse;
pub mod queue;
pub mod rate;
pub mod record;
pub mod retry;
pub mod stats;
pub mod tally;
pub mod wheel;
