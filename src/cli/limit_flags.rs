//! The flags of `serve` that bound what clients can take from the process, and from each other.

use super::units::bytes;
use crate::net::rate::RateRules;
use crate::os::memory;
use clap::Args;

/// Flags of every server.
#[derive(Args, Debug, Clone)]
pub(super) struct LimitFlags {
    /// Messages and requests a second that a connection may send before it has to wait; 0 for any number
    #[arg(long, env = "PERCORE_RATE_MESSAGES", value_name = "N", help_heading = "Limits")]
    #[arg(
        long_help = "Messages and HTTP requests a second that a connection may send; twice as many at once. Beyond it \
        nothing is read from it for a while, and nothing is lost; 0 for any number [default: 0, for chat and channels 200, for ticker 20]"
    )]
    rate_messages: Option<u32>,
    /// Bytes a second that a connection may send, after decompression, before it has to wait; 0 for any number
    #[arg(long, env = "PERCORE_RATE_BYTES", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Payload bytes a second that a connection may send, after decompression; twice as many at once. Beyond it \
        nothing is read from it for a while, and nothing is lost; 0 for any number \
        [default: 0, for chat and channels 256K, for ticker 64K]"
    )]
    rate_bytes: Option<usize>,
    /// Bytes a second that a channel carries to each subscriber, of all that clients publish; 0 for any number
    #[arg(long, env = "PERCORE_RATE_CHANNEL", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Bytes a second that a channel carries to each subscriber, of all that clients publish there; to more than 64 \
        subscribers as much in all as to 64. Divided among the workers. Beyond it clients that publish take turns, and nothing is \
        lost; 0 for any number [default: 0, for chat and channels 1M]"
    )]
    rate_channel: Option<usize>,
    /// Memory that all connections may take, of all workers together; 0 for any amount [default: half of what there is]
    #[arg(long, env = "PERCORE_MAX_MEMORY", value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    #[arg(
        long_help = "Memory that all connections together may take, divided among the workers. Beyond it the connections of \
        the client that holds most are closed (1013); 0 for any amount [default: half of what the machine, the control group or the limit of address \
        space grants]"
    )]
    max_memory: Option<usize>,
}

impl LimitFlags {
    /// How much a connection may send, and a channel carry in one of `workers`, where the app's own default is `rates`.
    pub fn rates(&self, rates: RateRules, workers: usize) -> RateRules {
        RateRules {
            messages: self.rate_messages.unwrap_or(rates.messages),
            bytes: self.rate_bytes.unwrap_or(rates.bytes),
            channel: self.rate_channel.unwrap_or(rates.channel).div_ceil(workers.max(1)),
        }
    }

    /// The share of one of `workers` in the memory.
    pub fn max_memory(&self, workers: usize) -> usize {
        let all = self.max_memory.unwrap_or_else(|| memory::usable() / 2);
        all.div_ceil(workers.max(1))
    }
}
