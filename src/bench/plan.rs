//! The plan of a run.

use super::share::Share;
use super::url::Url;
use crate::os::listener::ListenAddr;
use crate::os::tls::TlsClient;
use crate::protocol::extension::DeflateMode;
use crate::protocol::message::Kind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Connections from one address to one address and port before Linux, with its default range of ports, has to search
/// for a free one: it takes every second port first.
const PER_SOURCE: usize = 14_000;
/// Addresses to use in each subnet of the loopback.
const IN_A_NET: usize = 250;
/// Addresses of a run that keeps connecting, so that a port rests before it is reused.
const SOURCES_TO_CONNECT: usize = 16;

/// The kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Each connection sends messages and expects them back.
    Echo,
    /// Connections stay open and idle.
    Idle {
        /// Whether each first sends one message and waits for its echo.
        echo: bool,
    },
    /// Connections are opened and closed continuously.
    Connect,
    /// One connection publishes, all others receive.
    Fanout,
}

impl Workload {
    /// Returns its name on the command line.
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
    /// Where the publisher connects instead.
    pub publish_to: Option<Url>,
    /// Connections; for [`Workload::Connect`], at a time.
    pub connections: usize,
    /// Messages in flight: on each connection, or from the publisher.
    pub in_flight: usize,
    /// Messages per second over all connections, sent when due whether or not answers have come (an open loop); with
    /// `None` each answer triggers the next message (a closed loop).
    pub rate: Option<f64>,
    /// Payload length of a message, in bytes.
    pub size: usize,
    /// Text or binary.
    pub kind: Kind,
    /// Compression to offer.
    pub deflate: DeflateMode,
    /// Subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// Extra headers of the handshake.
    pub headers: Vec<(String, String)>,
    /// How long to measure.
    pub duration: Duration,
    /// How long to run the load before measuring.
    pub warmup: Duration,
    /// Connections to open per second; `None` for as fast as possible.
    pub connect_rate: Option<f64>,
    /// How long a connection may take to open.
    pub handshake_timeout: Duration,
    /// Addresses to connect from; empty for the kernel's choice, or for several of the loopback if one is not enough.
    pub source: Vec<IpAddr>,
    /// The server's processes, to measure their CPU time and memory.
    pub pids: Vec<u32>,
    /// Messages to send in total, whatever the time.
    pub count: Option<u64>,
    /// The TLS client, with the certificates to trust, if the URL uses TLS.
    pub tls: Option<TlsClient>,
    /// Whether to omit progress lines.
    pub quiet: bool,
    /// The share of this process.
    pub share: Share,
}

impl Plan {
    /// The addresses to connect from, used in turn.
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

    /// Most bytes queued for a connection: all that is in flight, or in an open loop a limit at which the server counts
    /// as stalled, so that it costs no more memory.
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
