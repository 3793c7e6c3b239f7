//! What a run is to do.

use super::share::Share;
use super::url::Url;
use crate::os::listener::ListenAddr;
use crate::os::tls::TlsClient;
use crate::protocol::extension::DeflateMode;
use crate::protocol::message::Kind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// So many connections go from one address to one address and port before Linux, by its default range of ports, has to
/// search for one that is free: it takes every second port first.
const PER_SOURCE: usize = 14_000;
/// Addresses of a net of the loopback's that are used.
const IN_A_NET: usize = 250;
/// Addresses that a run uses that connects all the time, so that ports have rested before they are used again.
const SOURCES_TO_CONNECT: usize = 16;

/// The kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Each connection sends messages and gets them back.
    Echo,
    /// Connections are held; `echo` has each send one message and get it back first.
    Idle {
        /// Whether they do.
        echo: bool,
    },
    /// Connections are opened and closed all the time.
    Connect,
    /// One connection publishes, all others get what it does.
    Fanout,
}

impl Workload {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Echo => "echo",
            Workload::Idle { .. } => "idle",
            Workload::Connect => "connect",
            Workload::Fanout => "fanout",
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kind of load.
    pub workload: Workload,
    /// The server.
    pub url: Url,
    /// Where the one that publishes connects instead.
    pub publish_to: Option<Url>,
    /// Connections; for [`Workload::Connect`], so many at a time.
    pub connections: usize,
    /// Messages under way: on each connection, or from the publisher.
    pub in_flight: usize,
    /// Messages a second of all connections together, sent when they are due whether or not answers have come (an open
    /// loop); `None` sends the next when an answer has come (a closed loop).
    pub rate: Option<f64>,
    /// Payload of a message, in bytes.
    pub size: usize,
    /// Text or binary.
    pub kind: Kind,
    /// Compression to ask for.
    pub deflate: DeflateMode,
    /// Subprotocols to ask for.
    pub subprotocols: Vec<String>,
    /// Further headers of the handshake.
    pub headers: Vec<(String, String)>,
    /// What is measured takes so long.
    pub duration: Duration,
    /// What comes before it, and is not.
    pub warmup: Duration,
    /// Connections opened a second; `None` as fast as they open.
    pub connect_rate: Option<f64>,
    /// How long a connection may take to open.
    pub handshake_timeout: Duration,
    /// Addresses to connect from; empty for the kernel's choice, or for several of the loopback's where one would not do.
    pub source: Vec<IpAddr>,
    /// The server's processes, whose processor time and memory are read.
    pub pids: Vec<u32>,
    /// Messages after which it ends, whatever the time.
    pub count: Option<u64>,
    /// Whom to trust, where TLS is spoken.
    pub tls: Option<TlsClient>,
    /// No progress lines.
    pub quiet: bool,
    /// Which part of all this is: other processes have the others.
    pub share: Share,
}

impl Plan {
    /// The addresses to connect from in turn.
    pub(super) fn sources(&self) -> Vec<Option<IpAddr>> {
        if !self.source.is_empty() {
            return self.source.iter().copied().map(Some).collect();
        }
        let count = match self.workload {
            Workload::Connect => SOURCES_TO_CONNECT,
            _ => self.connections.div_ceil(PER_SOURCE).clamp(1, IN_A_NET * IN_A_NET),
        };
        match &self.url.addr {
            ListenAddr::Tcp(addr) if count > 1 && addr.ip().is_loopback() && addr.is_ipv4() => {
                let address = |number| Ipv4Addr::new(127, 0, (number / IN_A_NET) as u8, (number % IN_A_NET) as u8 + 1);
                (0..count).map(|number| Some(address(number).into())).collect()
            }
            _ => vec![None],
        }
    }

    /// What may wait for one connection's socket: all that is in flight, or in an open loop so much that a server that
    /// has stalled is seen as such and costs no more memory.
    pub(super) fn max_backlog(&self) -> usize {
        let in_flight = self.in_flight.saturating_mul(self.size + 16);
        if self.rate.is_some() { in_flight.max(16 << 20) } else { usize::MAX }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A hundred connections to an echo on the loopback.
    pub fn plan() -> Plan {
        Plan {
            workload: Workload::Echo,
            url: "ws://127.0.0.1:8080/".parse().expect("an address"),
            publish_to: None,
            connections: 100,
            in_flight: 1,
            rate: None,
            size: 125,
            kind: Kind::Binary,
            deflate: DeflateMode::Off,
            subprotocols: Vec::new(),
            headers: Vec::new(),
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            connect_rate: None,
            handshake_timeout: Duration::from_secs(10),
            source: Vec::new(),
            pids: Vec::new(),
            count: None,
            tls: None,
            quiet: true,
            share: Share::WHOLE,
        }
    }

    #[test]
    fn a_million_connections_go_from_addresses_that_suffice() {
        for (connections, wanted) in [(1, 1), (14_000, 1), (14_001, 2), (1_000_000, 72), (4_000_000, 286)] {
            let sources = Plan { connections, ..plan() }.sources();
            assert_eq!(sources.len(), wanted, "{connections}");
            assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), wanted);
            assert!(sources.iter().flatten().all(|address| address.is_loopback()));
        }
        let remote = Plan { connections: 1_000_000, url: "ws://10.0.0.1/".parse().expect("an address"), ..plan() };
        assert_eq!(remote.sources(), [None]);
    }
}
