//! What the server of a simulation is set to.

use super::client::{MAX_CONTENT, MAX_MESSAGE};
use super::random::Random;
use percore::internal::protocol::extension::{Deflate, DeflateMode};
use percore::{ProxyRules, SendRules, Settings, SlowConsumer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Through this proxy come all but those that connect themselves.
pub const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4711);

/// Settings that a run chooses: short and long deadlines, both policies, every way of compression and to tell addresses.
pub fn settings(random: &mut Random) -> Settings {
    let heartbeat = random.millis(20_000, 120_000);
    let slow_consumer = *random.pick(&[SlowConsumer::Close, SlowConsumer::Close, SlowConsumer::Drop]);
    Settings {
        node: random.next() as u32,
        max_message: MAX_MESSAGE,
        deflate: Deflate {
            mode: *random.pick(&[DeflateMode::Off, DeflateMode::NoTakeover, DeflateMode::Takeover]),
            min_bytes: 150,
            max_bytes: 4_000,
            ..Deflate::default()
        },
        send: SendRules { max_backlog: *random.pick(&[5_000, 200_000]), slow_consumer },
        heartbeat,
        heartbeat_timeout: heartbeat * random.between(4, 6) as u32 / 2,
        handshake_timeout: random.millis(1_000, 20_000),
        http_lifetime: *random.pick(&[Duration::ZERO, Duration::from_secs(3), Duration::from_secs(60)]),
        max_content: MAX_CONTENT,
        answer_timeout: random.millis(1_000, 20_000),
        close_timeout: random.millis(500, 10_000),
        max_connections: *random.pick(&[60, 1_000_000]),
        max_connections_per_ip: *random.pick(&[0, 1, 3, 20]),
        proxies: ProxyRules {
            trusted: vec![PROXY.ip().to_string().parse().expect("an address")],
            proxy_protocol: random.one_in(2),
            ..ProxyRules::default()
        },
        ..Settings::default()
    }
}
