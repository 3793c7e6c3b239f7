//! The flags of `serve` that limit what clients can take from the process and from each other.

use super::units::bytes;
use crate::net::rate::RateRules;
use crate::os::memory;
use clap::Args;

/// Flags of every server.
#[derive(Args, Debug, Clone)]
pub(super) struct LimitFlags {
    /// Messages and requests per second that a connection may send before it has to wait; 0 for no limit
    #[arg(long, env = "PERCORE_RATE_MESSAGES", value_name = "N", help_heading = "Limits")]
    #[arg(
        long_help = "Messages and HTTP requests per second that a connection may send, twice as many at once. Beyond it, \
        reading pauses and nothing is lost; 0 for no limit [default: 0, for chat and channels 200, for ticker 20]"
    )]
    rate_messages: Option<u32>,
    /// Bytes per second that a connection may send, after decompression, before it has to wait; 0 for no limit
    #[arg(long, env = "PERCORE_RATE_BYTES", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Payload bytes per second that a connection may send, after decompression, twice as many at once. Beyond \
        it, reading pauses and nothing is lost; 0 for no limit \
        [default: 0, for chat and channels 256K, for ticker 64K]"
    )]
    rate_bytes: Option<usize>,
    /// Bytes per second that a channel carries to each subscriber from all publishers; 0 for no limit
    #[arg(long, env = "PERCORE_RATE_CHANNEL", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Bytes per second that a channel carries to each subscriber from all publishers; above 64 subscribers, \
        as much in total as to 64. Divided among the workers. Beyond it, publishing clients take turns and nothing is \
        lost; 0 for no limit [default: 0, for chat and channels 1M]"
    )]
    rate_channel: Option<usize>,
    /// Memory that all connections of all workers may take; 0 for no limit [default: half of what is available]
    #[arg(long, env = "PERCORE_MAX_MEMORY", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Memory that all connections together may take, divided among the workers. Beyond it, the connections of \
        the client that holds most are closed (1013); 0 for no limit [default: half of what the machine, the control \
        group or the address-space limit grants]"
    )]
    max_memory: Option<usize>,
}

impl LimitFlags {
    /// How much a connection may send, and a channel carry, in one of `workers`; `rates` are the app's defaults.
    pub fn rates(&self, rates: RateRules, workers: usize) -> RateRules {
        RateRules {
            messages: self.rate_messages.unwrap_or(rates.messages),
            bytes: self.rate_bytes.unwrap_or(rates.bytes),
            channel: self.rate_channel.unwrap_or(rates.channel).div_ceil(workers.max(1)),
        }
    }

    /// The share of the memory of one of `workers`.
    pub fn max_memory(&self, workers: usize) -> usize {
        let all = self.max_memory.unwrap_or_else(|| memory::usable() / 2);
        all.div_ceil(workers.max(1))
    }
}
