//! What a server is set to, checked and in units.

use crate::net::rate::RateRules;
use crate::outbox::SendRules;
use crate::protocol::extension::Deflate;
use crate::protocol::forwarded::ProxyRules;
use crate::protocol::http::HeadLimits;
use crate::protocol::upgrade::UpgradeRules;
use std::time::Duration;

/// Settings of all connections of a process. The default is that of the command line.
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
    /// Names this process in each [`ConnectionId`](crate::ConnectionId); 0 for a process alone. Default 0.
    pub node: u32,
    /// The longest message, in bytes, all fragments together and after decompression; beyond it the connection is closed
    /// with 1009 (RFC 6455, section 7.4.1). Default 1 MiB.
    pub max_message: usize,
    /// The longest frame, likewise; a message may have several. Default any.
    pub max_frame: usize,
    /// What is upgraded: paths, origins, subprotocols (RFC 6455, section 4.2). Default `/` and `/ws`, for
    /// any origin.
    pub upgrade: UpgradeRules,
    /// How messages are compressed, with clients that offer it (RFC 7692).
    pub deflate: Deflate,
    /// Bounds on requests. Default 8 KiB for the request line (414 beyond), 16 KiB for the whole head (431).
    pub head: HeadLimits,
    /// What may wait to be sent.
    pub send: SendRules,
    /// How much each connection may send; beyond it, it is not read from for a while. Default no limit.
    pub rates: RateRules,
    /// What all connections together may make the process hold, in bytes; beyond it, those that hold most are closed
    /// (1013). 0 for no bound. Default 0; `percore serve` sets half of what the machine or its control group has.
    pub max_memory: usize,
    /// How often an open connection is pinged (RFC 6455, section 5.5.2); zero for never. Twelve days at most. Default
    /// 30 s.
    pub heartbeat: Duration,
    /// After how long without a byte an open connection is ended with 1011; zero for never. Any byte counts, and so does
    /// taking what was sent. Longer than `heartbeat`, or else no Pong can come in time. 24 days at most. Default 75 s.
    pub heartbeat_timeout: Duration,
    /// How long a request may take to come (408 beyond), and an HTTP connection may idle. Default 10 s.
    pub handshake_timeout: Duration,
    /// The longest content of a request, in bytes, for an app that takes content ([`App::takes_content`](crate::App::takes_content));
    /// 413 beyond. It is to come within `handshake_timeout` and a second for each KiB that has come, and within
    /// `http_lifetime` in any case (408). Default 1 MiB.
    pub max_content: usize,
    /// How long a client waits for an answer that the app has put off ([`Outbox::defer`](crate::Outbox::defer)); then it is
    /// 504. Default 30 s.
    pub answer_timeout: Duration,
    /// What requests to a service listener have to give as `Authorization: Bearer` (401 otherwise), but those that ask how the
    /// server is. Default `None`: nothing.
    pub service_token: Option<String>,
    /// How long a connection serves requests: the answer to the first one after that is its last, so that nobody holds a
    /// place for ever by asking again and again; zero for no limit. Default 60 s.
    pub http_lifetime: Duration,
    /// How long a peer has to answer a Close frame, and to take what was queued before it. Default 5 s.
    pub close_timeout: Duration,
    /// Whether the app is given messages that come after it began to close a connection, up to the peer's Close frame: for a
    /// client that wants the answers to all it asked. Default false.
    pub hears_out: bool,
    /// Open WebSocket connections; further upgrades are answered by 503 with `Retry-After`. At most 256 more connections
    /// wait for requests or for their end; the oldest of these makes room for a newer one. Default 1,000,000.
    pub max_connections: usize,
    /// Connections of any kind, those that have sent no request included. For another one the HTTP connection that has been
    /// silent longest is closed. Default: no limit but `max_connections` and some for those who are told 503.
    pub max_sockets: usize,
    /// Open WebSocket connections of one client: of one IPv4 address, or of one IPv6 /64. Further upgrades are answered by
    /// 429 with `Retry-After`. At most 8 more connections of that client wait for requests or for their end; the oldest
    /// of these makes room for a newer one. Clients without an address (of unix sockets, or unknown) are not counted.
    /// Default 0, for no limit.
    pub max_connections_per_ip: u32,
    /// Whom we believe about the addresses of clients. Default nobody.
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
