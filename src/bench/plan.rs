//! What a run is to do.

use super::url::Url;
use crate::os::listener::ListenAddr;
use crate::os::tls::TlsClient;
use crate::protocol::extension::DeflateMode;
use crate::protocol::message::Kind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// So many connections go from one address to one address and port, out of the ports that Linux gives out by default.
const PER_SOURCE: usize = 20_000;
/// Addresses that a run uses that connects all the time, so that ports have rested before they are used again.
const SOURCES_TO_CONNECT: u8 = 16;

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
}

impl Plan {
    /// The addresses to connect from in turn.
    pub(super) fn sources(&self) -> Vec<Option<IpAddr>> {
        if !self.source.is_empty() {
            return self.source.iter().copied().map(Some).collect();
        }
        let count = match self.workload {
            Workload::Connect => SOURCES_TO_CONNECT,
            _ => self.connections.div_ceil(PER_SOURCE).clamp(1, 250) as u8,
        };
        match &self.url.addr {
            ListenAddr::Tcp(addr) if count > 1 && addr.ip().is_loopback() && addr.is_ipv4() => {
                (1..=count).map(|last| Some(Ipv4Addr::new(127, 0, 0, last).into())).collect()
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
