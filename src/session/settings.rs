//! What a server is set to, checked and in units.

use crate::outbox::SendRules;
use crate::protocol::http::HeadLimits;
use crate::protocol::upgrade::UpgradeRules;
use std::time::Duration;

/// Settings of all connections of a process. The default is that of the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this process in connection ids.
    pub node: u32,
    /// The longest message, in bytes, after decompression; beyond it the connection is closed with 1009.
    pub max_message: usize,
    /// What is upgraded.
    pub upgrade: UpgradeRules,
    /// Bounds on requests.
    pub head: HeadLimits,
    /// What is sent.
    pub send: SendRules,
    /// How often an open connection is pinged; zero for never.
    pub heartbeat: Duration,
    /// After how long without a byte an open connection is ended; zero for never.
    pub heartbeat_timeout: Duration,
    /// How long a request may take to come, and an HTTP connection may idle.
    pub handshake_timeout: Duration,
    /// How long a peer has to answer a Close frame.
    pub close_timeout: Duration,
    /// Open WebSocket connections; further upgrades are answered by 503.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node: 0,
            max_message: 16 << 20,
            upgrade: UpgradeRules::default(),
            head: HeadLimits { request_line_bytes: 8 << 10, head_bytes: 16 << 10 },
            send: SendRules::default(),
            heartbeat: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            max_connections: 1_000_000,
        }
    }
}
