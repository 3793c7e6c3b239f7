//! The rules of the gateway.

use std::time::Duration;

/// The prefix of the gateway's own channels.
const OWN_CHANNELS: &str = "percore.";
/// The longest name of a channel, in characters.
const LONGEST_CHANNEL: usize = 255;

/// Whether the application may use a channel of this name.
pub fn is_channel(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= LONGEST_CHANNEL && !name.starts_with(OWN_CHANNELS)
}

/// What happens to a connection with an event that cannot be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnFailure {
    /// It is closed with 1011.
    #[default]
    Close,
    /// The event is dropped and counted.
    Keep,
}

/// Which of several origins to call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balance {
    /// The one with the fewest calls under way.
    #[default]
    Least,
    /// One after the other.
    RoundRobin,
}

/// How long connections live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A connection ends at this age.
    pub lifetime: Duration,
    /// A connection ends after this long without a message either way.
    pub silence: Duration,
}

impl Limits {
    /// The limits of AWS API Gateway.
    pub const OF_AWS: Limits = Limits { lifetime: Duration::from_secs(2 * 3600), silence: Duration::from_secs(600) };
}

/// Rules of the core. The defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Messages of one connection that may wait for the origin; beyond it the connection is not read from. Default 100.
    pub queue_messages: usize,
    /// Their bytes, likewise. Default 1 MiB.
    pub queue_bytes: usize,
    /// Bytes of events of all connections that may wait; beyond it no connection is let in, and none is read from. Default
    /// 256 MiB.
    pub total_bytes: usize,
    /// How long to retry an event while no connection to an origin can be made. Default 2 s.
    pub patience: Duration,
    /// How long to retry telling the origin that a connection is closed. Default 5 min.
    pub closed_retry: Duration,
    /// Closed connections that the origin may not know of yet; beyond it, further ones go unreported. Default
    /// 100,000.
    pub max_closed: usize,
    /// What happens to a connection when an event could not be delivered. Default: it is closed.
    pub on_failure: OnFailure,
    /// How often to report open connections to the origin; zero for never. Default never.
    pub keep_alive_interval: Duration,
    /// Calls under way to one origin; others wait. Default 512.
    pub origin_calls: usize,
    /// How long connections live. Default: without limit.
    pub limits: Option<Limits>,
    /// Which of several origins to call. Default the one with the fewest calls.
    pub balance: Balance,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            queue_messages: 100,
            queue_bytes: 1 << 20,
            total_bytes: 256 << 20,
            patience: Duration::from_secs(2),
            closed_retry: Duration::from_secs(300),
            max_closed: 100_000,
            on_failure: OnFailure::Close,
            keep_alive_interval: Duration::ZERO,
            origin_calls: 512,
            limits: None,
            balance: Balance::Least,
        }
    }
}
