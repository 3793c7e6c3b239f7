//! Counters of a process. Whatever is refused, cut short or thrown away is counted here.

use std::fmt;

/// Declares the counters once: field, name and meaning.
macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the process began, but for `open`, which is a level. Handlers read it by
        /// [`Outbox::stats`](crate::Outbox::stats), and [`Server::run`](crate::Server::run) ends with it.
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Stats {
            /// Each counter's name and value, in the order of the fields.
            pub fn fields(&self) -> Vec<(&'static str, &dyn fmt::Display)> {
                vec![$((stringify!($name), &self.$name),)+]
            }
        }
    };
}

stats! {
    /// Connections accepted from a listener.
    accepted,
    /// Connections accepted and closed at once: out of descriptors, or far beyond `--max-connections`.
    refused,
    /// Accept calls that failed for want of descriptors (EMFILE, ENFILE).
    accept_errors,
    /// WebSocket connections open now.
    open,
    /// Upgrades answered with 101.
    upgrades,
    /// Requests answered with a status of 400 or more.
    rejected,
    /// Connections closed because they did not begin with a PROXY protocol header that we take (`--proxy-protocol`).
    proxy_errors,
    /// Upgrades answered with 429, beyond `--max-connections-per-ip`.
    limited_per_ip,
    /// Messages received.
    messages_in,
    /// Messages queued for sending.
    messages_out,
    /// Connections ended because nothing came for the heartbeat timeout.
    heartbeat_timeouts,
    /// Connections that did not finish their request in time.
    handshake_timeouts,
    /// Connections ended because their backlog was full (`--slow-consumer close`).
    slow_consumers_closed,
    /// Messages not queued because a backlog was full (`--slow-consumer drop`).
    messages_dropped,
    /// Connections ended for breaking the protocol.
    protocol_errors,
    /// Connections that ended without a closing handshake.
    unclean_closes,
}

impl fmt::Display for Stats {
    /// What was counted at all, for a line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} messages in, {} out", self.upgrades, self.messages_in, self.messages_out)?;
        let losses = [
            (self.refused, "connections refused"),
            (self.rejected, "requests rejected"),
            (self.proxy_errors, "PROXY headers missing"),
            (self.limited_per_ip, "upgrades beyond the limit per address"),
            (self.handshake_timeouts, "handshake timeouts"),
            (self.heartbeat_timeouts, "heartbeat timeouts"),
            (self.protocol_errors, "protocol errors"),
            (self.slow_consumers_closed, "slow consumers closed"),
            (self.messages_dropped, "messages dropped"),
            (self.unclean_closes, "unclean closes"),
        ];
        for (count, what) in losses.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}
