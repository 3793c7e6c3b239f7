//! What the server of a simulation is set to.

use super::client::MAX_MESSAGE;
use super::random::Random;
use percore::protocol::extension::DeflateMode;
use percore::protocol::upgrade::UpgradeRules;
use percore::{SendRules, Settings, SlowConsumer};

/// Settings that a run chooses: short and long deadlines, both policies, every way of compression.
pub fn settings(random: &mut Random) -> Settings {
    let heartbeat = random.millis(20_000, 120_000);
    let slow_consumer = *random.pick(&[SlowConsumer::Close, SlowConsumer::Close, SlowConsumer::Drop]);
    Settings {
        node: random.next() as u32,
        max_message: MAX_MESSAGE,
        upgrade: UpgradeRules {
            deflate: *random.pick(&[DeflateMode::Off, DeflateMode::NoTakeover, DeflateMode::Takeover]),
            ..UpgradeRules::default()
        },
        send: SendRules {
            max_backlog: *random.pick(&[5_000, 200_000]),
            slow_consumer,
            deflate_min: 150,
            deflate_level: 1,
        },
        heartbeat,
        heartbeat_timeout: heartbeat * random.between(4, 6) as u32 / 2,
        handshake_timeout: random.millis(1_000, 20_000),
        close_timeout: random.millis(500, 10_000),
        max_connections: *random.pick(&[60, 1_000_000]),
        ..Settings::default()
    }
}
