//! Payloads that can be checked when they come back: each message carries its number.

/// Length of the number at the start of a message; a shorter message has only a part of it.
const NUMBER_BYTES: usize = 8;
/// Length of the time in a published message, after the number.
const TIME_BYTES: usize = 16;
/// The shortest message that can be published: its number and its time.
pub const PUBLISHED_BYTES: usize = NUMBER_BYTES + TIME_BYTES;

/// Fills messages: text like that of real servers, which compresses alike.
const FILL: &str = r#"{"stream":"ticker","symbol":"BTCUSDT","price":"43251.70","quantity":"0.0182","side":"buy","time":1700000000123,"trades":[{"id":918273,"price":"43251.60"},{"id":918274,"price":"43251.80"}]},"#;

/// Makes and checks messages of one length.
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Makes a payload of `size` bytes, all ASCII.
    pub fn new(size: usize) -> Payload {
        Payload { bytes: FILL.bytes().cycle().take(size).collect() }
    }

    /// Returns the message with number `number`.
    pub fn numbered(&mut self, number: u32) -> &[u8] {
        let digits = digits::<NUMBER_BYTES>(u64::from(number));
        let length = self.bytes.len().min(NUMBER_BYTES);
        self.bytes[..length].copy_from_slice(&digits[..length]);
        &self.bytes
    }

    /// Returns whether `got` is the message with number `number`.
    pub fn is(&mut self, number: u32, got: &[u8]) -> bool {
        self.numbered(number) == got
    }

    /// Returns the message with number `number`, published at `time`.
    pub fn published(&mut self, number: u32, time: u64) -> &[u8] {
        self.bytes[..NUMBER_BYTES].copy_from_slice(&digits::<NUMBER_BYTES>(u64::from(number)));
        self.bytes[NUMBER_BYTES..PUBLISHED_BYTES].copy_from_slice(&digits::<TIME_BYTES>(time));
        &self.bytes
    }

    /// Returns number and time of a published message, `None` if it is not ours. Servers may put a prefix in front.
    pub fn read_published(&self, got: &[u8]) -> Option<(u32, u64)> {
        let ours = &got[got.len().checked_sub(self.bytes.len())?..];
        let (head, fill) = ours.split_at_checked(PUBLISHED_BYTES)?;
        let (number, time) = head.split_at(NUMBER_BYTES);
        (fill == &self.bytes[PUBLISHED_BYTES..]).then_some((value(number)? as u32, value(time)?))
    }
}

/// Hexadecimal digits, the least significant first, so that the shortest messages differ as well.
fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    std::array::from_fn(|_| {
        let digit = b"0123456789abcdef"[(value % 16) as usize];
        value /= 16;
        digit
    })
}

fn value(digits: &[u8]) -> Option<u64> {
    let mut values = digits.iter().rev().map(|digit| (*digit as char).to_digit(16));
    values.try_fold(0, |value, digit| Some(value * 16 + u64::from(digit?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_is_its_own_and_no_other(size in 0usize..200, number: u32, other: u32, at: prop::sample::Index) {
            let mut payload = Payload::new(size);
            let message = payload.numbered(number).to_vec();
            prop_assert!(message.is_ascii() && message.len() == size);
            prop_assert!(payload.is(number, &message));
            if size >= NUMBER_BYTES && other != number {
                prop_assert!(!payload.is(other, &message));
            }
            if size > 0 {
                let mut wrong = message.clone();
                wrong[at.index(size)] ^= 1;
                prop_assert!(!payload.is(number, &wrong));
                prop_assert!(!payload.is(number, &message[1..]));
            }
        }

        #[test]
        fn number_and_time_are_found_behind_what_a_server_puts_in_front(
            size in PUBLISHED_BYTES..200, number: u32, time: u64, front in "\\PC{0,20}"
        ) {
            let mut payload = Payload::new(size);
            let message = payload.published(number, time).to_vec();
            prop_assert_eq!(payload.read_published(&message), Some((number, time)));
            let with_front = [front.as_bytes(), &message].concat();
            prop_assert_eq!(payload.read_published(&with_front), Some((number, time)));
            prop_assert_eq!(payload.read_published(&message[1..]), None);
        }

        #[test]
        fn no_answer_makes_it_panic(size in 0usize..50, got in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Payload::new(size).read_published(&got);
        }
    }
}
