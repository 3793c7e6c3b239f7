//! The settings of a server, checked and in units.

use crate::net::rate::RateRules;
use crate::outbox::SendRules;
use crate::protocol::extension::Deflate;
use crate::protocol::forwarded::ProxyRules;
use crate::protocol::http::HeadLimits;
use crate::protocol::upgrade::UpgradeRules;
use std::time::Duration;

/// Settings of all connections of a process. The defaults are those of the command line.
///
/// ```
/// use percore::{Deflate, DeflateMode, SendRules, Settings, SlowConsumer, UpgradeRules};
/// use std::time::Duration;
///
/// let settings = Settings {
///     max_message: 64 << 10,
///     heartbeat: Duration::from_secs(10),
///     upgrade: UpgradeRules {
///         paths: vec!["/feed".into()],
///         origins: vec!["same".into(), "https://example.org".into()],
///         ..UpgradeRules::default()
///     },
///     deflate: Deflate { mode: DeflateMode::Off, ..Deflate::default() },
///     send: SendRules { max_backlog: 1 << 20, slow_consumer: SlowConsumer::Drop },
///     ..Settings::default()
/// };
/// assert_eq!(settings.heartbeat_timeout, Duration::from_secs(75));
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identifies this process in each [`ConnectionId`](crate::ConnectionId); 0 for a single process. Default 0.
    pub node: u32,
    /// The longest message, in bytes, with all fragments and after decompression; a longer one closes the connection
    /// with 1009 (RFC 6455, section 7.4.1). Default 1 MiB.
    pub max_message: usize,
    /// The longest frame, likewise; a message may have several. Default: no limit.
    pub max_frame: usize,
    /// Which requests are upgraded: paths, origins, subprotocols (RFC 6455, section 4.2). Default `/` and `/ws`, for
    /// any origin.
    pub upgrade: UpgradeRules,
    /// How messages are compressed, with clients that offer it (RFC 7692).
    pub deflate: Deflate,
    /// Limits on requests. Default 8 KiB for the request line (414 beyond), 16 KiB for the whole head (431).
    pub head: HeadLimits,
    /// Limits on messages waiting to be sent.
    pub send: SendRules,
    /// How much each connection may send; beyond it, the server pauses reading. Default no limit.
    pub rates: RateRules,
    /// Memory that all connections together may make the process hold, in bytes; beyond it, those that hold most are
    /// closed (1013). 0 for no limit. Default 0; `percore serve` sets half of the memory of the machine or its control
    /// group.
    pub max_memory: usize,
    /// How often an open connection is pinged (RFC 6455, section 5.5.2); zero for never. At most twelve days. Default
    /// 30 s.
    pub heartbeat: Duration,
    /// How long an open connection may be silent before it is closed with 1011; zero for no limit. Any byte counts, and
    /// so does taking output. Must exceed `heartbeat`, or no Pong can arrive in time. At most 24 days. Default 75 s.
    pub heartbeat_timeout: Duration,
    /// How long a request may take to arrive (408 beyond), and an HTTP connection may idle. Default 10 s.
    pub handshake_timeout: Duration,
    /// The longest content of a request, in bytes, for an app that takes content
    /// ([`App::takes_content`](crate::App::takes_content)); 413 beyond. It must arrive within `handshake_timeout` plus
    /// a second for each KiB received, and within `http_lifetime` in any case (408). Default 1 MiB.
    pub max_content: usize,
    /// How long a client waits for an answer that the app has deferred ([`Outbox::defer`](crate::Outbox::defer)) before
    /// it gets 504. Default 30 s.
    pub answer_timeout: Duration,
    /// The token that requests to a service listener must present as `Authorization: Bearer` (401 otherwise), except
    /// health checks. Default `None`: no token.
    pub service_token: Option<String>,
    /// How long a connection serves requests: the answer to the first request after that is its last, so that no client
    /// holds a place indefinitely by repeating requests; zero for no limit. Default 60 s.
    pub http_lifetime: Duration,
    /// How long a peer may take to answer a Close frame, and to take what was queued before it. Default 5 s.
    pub close_timeout: Duration,
    /// Whether the app still gets messages after it began to close a connection, up to the peer's Close frame: for a
    /// client that wants all its answers. Default false.
    pub hears_out: bool,
    /// Open WebSocket connections; further upgrades get 503 with `Retry-After`. At most 256 more connections wait for
    /// requests or for their end; the oldest of these makes room for a new one. Default 1,000,000.
    pub max_connections: usize,
    /// Connections of any kind, including those without a request. A new one beyond the limit closes the HTTP
    /// connection that has been silent longest. Default: no limit but `max_connections` and a few that get 503.
    pub max_sockets: usize,
    /// Open WebSocket connections of one client: of one IPv4 address, or of one IPv6 /64. Further upgrades get 429 with
    /// `Retry-After`. At most 8 more connections of that client wait for requests or for their end; the oldest of these
    /// makes room for a new one. Clients without an address (of unix sockets, or unknown) are not counted. Default 0,
    /// for no limit.
    pub max_connections_per_ip: u32,
    /// Proxies trusted for the addresses of clients. Default none.
    pub proxies: ProxyRules,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node: 0,
            max_message: 1 << 20,
            max_frame: usize::MAX,
            upgrade: UpgradeRules::default(),
            deflate: Deflate::default(),
            head: HeadLimits { request_line_bytes: 8 << 10, head_bytes: 16 << 10 },
            send: SendRules::default(),
            rates: RateRules::default(),
            max_memory: 0,
            heartbeat: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
            max_content: 1 << 20,
            answer_timeout: Duration::from_secs(30),
            service_token: None,
            http_lifetime: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            hears_out: false,
            max_connections: 1_000_000,
            max_sockets: usize::MAX,
            max_connections_per_ip: 0,
            proxies: ProxyRules::default(),
        }
    }
}
