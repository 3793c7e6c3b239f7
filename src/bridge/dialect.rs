//! The commands for channels of a single Redis and of a cluster.
//!
//! A cluster keeps each channel of sharded pub/sub on one node, by the slot of its name. All channels of a bridge have
//! the same tag in their names and so the same slot: one node has them all, and messages of a host arrive in order
//! across all of its channels, as on a single Redis.

/// The number of slots in a cluster.
const SLOTS: u16 = 16384;

/// Command names and the prefix of channel names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dialect {
    /// Prefix of channel names: `{TAG}`, or nothing for a single Redis.
    prefix: Vec<u8>,
}

impl Dialect {
    /// The dialect of a cluster; channel names begin with `{TAG}`.
    pub fn sharded(tag: &str) -> Dialect {
        Dialect { prefix: format!("{{{tag}}}").into_bytes() }
    }

    fn is_sharded(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Returns the prefix of channel names.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Returns a channel's name without the prefix; `None` for one that is not ours.
    pub fn own<'a>(&self, channel: &'a [u8]) -> Option<&'a [u8]> {
        channel.strip_prefix(&self.prefix[..])
    }

    /// The command that publishes.
    pub fn publish(&self) -> &'static [u8] {
        if self.is_sharded() { b"SPUBLISH" } else { b"PUBLISH" }
    }

    /// The command that subscribes.
    pub fn subscribe(&self) -> &'static [u8] {
        if self.is_sharded() { b"SSUBSCRIBE" } else { b"SUBSCRIBE" }
    }

    /// The command that ends subscriptions: those named, or all.
    pub fn unsubscribe(&self) -> &'static [u8] {
        if self.is_sharded() { b"SUNSUBSCRIBE" } else { b"UNSUBSCRIBE" }
    }

    /// Returns whether a push of that kind carries a message.
    pub fn is_message(&self, kind: &[u8]) -> bool {
        kind == if self.is_sharded() { &b"smessage"[..] } else { b"message" }
    }

    /// Returns whether a push of that kind confirms a subscription.
    pub fn is_subscribed(&self, kind: &[u8]) -> bool {
        kind == if self.is_sharded() { &b"ssubscribe"[..] } else { b"subscribe" }
    }

    /// Returns whether a push of that kind ends a subscription, as a node does by itself when the slot moves.
    pub fn is_unsubscribed(&self, kind: &[u8]) -> bool {
        self.is_sharded() && kind == b"sunsubscribe"
    }

    /// Returns whether an error means that another node has the slot now.
    pub fn is_moved(&self, error: &[u8]) -> bool {
        let words: [&[u8]; 3] = [b"MOVED ", b"ASK ", b"CLUSTERDOWN "];
        self.is_sharded() && words.iter().any(|word| error.starts_with(word))
    }
}

/// The slot of a name without braces: CRC-16/XMODEM, as in the specification of Redis Cluster.
pub fn slot_of(name: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in name {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from `CLUSTER KEYSLOT`, and the specification's check value.
    #[test]
    fn slots() {
        for (name, slot) in [("123456789", 0x31c3), ("foo", 12182), ("", 0), ("somekey", 11058)] {
            assert_eq!(slot_of(name.as_bytes()), slot, "{name}");
        }
    }

    #[test]
    fn names_of_channels() {
        let (plain, sharded) = (Dialect::default(), Dialect::sharded("chat"));
        assert_eq!((plain.prefix(), sharded.prefix()), (&b""[..], &b"{chat}"[..]));
        assert_eq!((plain.own(b"news"), sharded.own(b"{chat}news")), (Some(&b"news"[..]), Some(&b"news"[..])));
        assert_eq!(sharded.own(b"{other}news"), None);
        assert!(sharded.is_moved(b"MOVED 1 h:1") && !plain.is_moved(b"MOVED 1 h:1") && !sharded.is_moved(b"NOPERM"));
    }
}
