//! The public names of connections: `0x00`, the address of the node that holds the connection, and 20 bytes, as base64.
//!
//! This is the layout of websocket-service, whose nodes read only the address in it. Here the 20 bytes are a serial
//! number and a MAC over all that stands before it, so that a made-up name reaches nobody and no made-up address is called.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ring::hmac;

/// The prefix of every name.
const VERSION: u8 = 0;
const SERIAL_BYTES: usize = 8;
const MAC_BYTES: usize = 12;
/// The bytes after the address.
const TAIL_BYTES: usize = SERIAL_BYTES + MAC_BYTES;
/// The longest address: a host's name, a port and a path.
const MAX_ADDRESS_BYTES: usize = 300;
/// The slot of a worker is in the upper bits of a serial number.
const SLOT_SHIFT: u32 = 56;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_ALPHABET: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_ALPHABET: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The destination of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// A connection of this node.
    Here(u64),
    /// A connection of another node with our key, at this address.
    There(String),
    /// A connection of the node at this address, which has another key or none; or a forged name.
    Unproven(String),
    /// No connection: not a valid name, or a forged one of this node.
    Nobody,
}

/// Makes and reads names.
#[derive(Clone, Debug)]
pub struct Names {
    /// The version and the address.
    head: Vec<u8>,
    key: hmac::Key,
}

impl Names {
    /// Names of connections of the node at `address`, such as `192.0.2.7:9465/sr`, proven by `key`.
    pub fn new(address: &str, key: &[u8]) -> Names {
        let head = [&[VERSION], address.as_bytes()].concat();
        Names { head, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The address of the node.
    pub fn address(&self) -> &str {
        std::str::from_utf8(&self.head[1..]).unwrap_or_default()
    }

    /// The public name of a connection.
    pub fn name(&self, serial: u64) -> String {
        let mut bytes = Vec::with_capacity(self.head.len() + TAIL_BYTES);
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&serial.to_be_bytes());
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        STANDARD.encode(bytes)
    }

    /// Reads a name, in either alphabet of base64, padded or not.
    pub fn read(&self, name: &str) -> Named {
        decode(name).map_or(Named::Nobody, |bytes| self.read_bytes(&bytes))
    }

    /// Reads a decoded name.
    pub fn read_bytes(&self, bytes: &[u8]) -> Named {
        let Some((before, mac)) = bytes.split_last_chunk::<MAC_BYTES>() else { return Named::Nobody };
        let Some((head, serial)) = before.split_last_chunk::<SERIAL_BYTES>() else { return Named::Nobody };
        let [VERSION, address @ ..] = head else { return Named::Nobody };
        let Ok(address) = std::str::from_utf8(address) else { return Named::Nobody };
        if address.is_empty() || address.len() > MAX_ADDRESS_BYTES {
            return Named::Nobody;
        }
        match (self.is_proven(before, mac), head == self.head) {
            (true, true) => Named::Here(u64::from_be_bytes(*serial)),
            (true, false) => Named::There(address.to_owned()),
            (false, true) => Named::Nobody,
            (false, false) => Named::Unproven(address.to_owned()),
        }
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(&self.key, bytes);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&tag.as_ref()[..MAC_BYTES]);
        mac
    }

    /// Takes the same time for any MAC.
    fn is_proven(&self, bytes: &[u8], mac: &[u8; MAC_BYTES]) -> bool {
        let wanted = self.mac(bytes);
        wanted.iter().zip(mac).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// The bytes of a name in either alphabet of base64, padded or not.
pub fn decode(name: &str) -> Option<Vec<u8>> {
    if name.len() > 2 * (MAX_ADDRESS_BYTES + TAIL_BYTES) {
        return None;
    }
    let engine = if name.contains(['-', '_']) { &URL_ALPHABET } else { &STANDARD_ALPHABET };
    engine.decode(name).ok()
}

/// Numbers the connections of a process; no other connection of the host ever has the same number.
#[derive(Clone, Copy, Debug)]
pub struct Serials(u64);

impl Serials {
    /// Numbers of the worker in `slot`, which starts `microseconds` after 1970. They increase by one per
    /// connection, at less than one per microsecond, so its successor begins beyond them.
    pub fn new(slot: u8, microseconds: u64) -> Serials {
        Serials(first_of(slot) | microseconds & ((1 << SLOT_SHIFT) - 1))
    }

    /// The next one.
    pub fn take(&mut self) -> u64 {
        let serial = self.0;
        self.0 += 1;
        serial
    }
}

/// The number below all those of the worker in a slot.
pub fn first_of(slot: u8) -> u64 {
    u64::from(slot) << SLOT_SHIFT
}

/// The slot of the worker that holds the connection with this number.
pub fn slot_of(serial: u64) -> u32 {
    (serial >> SLOT_SHIFT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Names {
        Names::new("127.0.0.1:9465/sr", b"key")
    }

    /// As websocket-service reads the address of an id.
    fn address(name: &str) -> String {
        let bytes = STANDARD.decode(name).expect("standard base64 with padding");
        assert_eq!(bytes[0], 0);
        String::from_utf8(bytes[1..bytes.len() - 20].to_vec()).expect("text")
    }

    #[test]
    fn a_name_leads_to_its_connection() {
        let mut serials = Serials::new(3, 1_700_000_000_000_000);
        let (first, second) = (serials.take(), serials.take());
        assert!(first != second && slot_of(first) == 3 && slot_of(second) == 3);
        let name = names().name(first);
        assert_eq!(address(&name), "127.0.0.1:9465/sr");
        assert_eq!(names().read(&name), Named::Here(first));
        let url_safe = name.replace('+', "-").replace('/', "_");
        assert_eq!(names().read(url_safe.trim_end_matches('=')), Named::Here(first));
        let other = Names::new("192.0.2.1:9465/sr", b"key");
        assert_eq!(other.read(&name), Named::There("127.0.0.1:9465/sr".into()));
        let stranger = Names::new("192.0.2.1:9465/sr", b"another key");
        assert_eq!(stranger.read(&name), Named::Unproven("127.0.0.1:9465/sr".into()));
        assert_eq!(Names::new("127.0.0.1:9465/sr", b"another key").read(&name), Named::Nobody);
        for nobody in ["", "====", "AA==", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(names().read(nobody), Named::Nobody, "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_name_leads_nowhere_here(serial in any::<u64>(), at in 0usize..38, flip in 1u8..) {
            let mut bytes = STANDARD.decode(names().name(serial)).expect("base64");
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(!matches!(names().read_bytes(&bytes), Named::Here(_) | Named::There(_)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in ".*") {
            prop_assert!(!matches!(names().read_bytes(&bytes), Named::Here(_)));
            prop_assert!(!matches!(names().read(&text), Named::Here(_)));
        }
    }
}
