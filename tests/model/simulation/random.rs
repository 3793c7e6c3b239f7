//! Random choices from a seed: splitmix64.

use std::time::Duration;

/// The same seed makes the same choices, on every machine and in every build.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn size(&mut self, low: usize, high: usize) -> usize {
        self.between(low as u64, high as u64) as usize
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True once in `every` calls.
    pub fn one_in(&mut self, every: u64) -> bool {
        self.next().is_multiple_of(every)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.size(0, from.len() - 1)]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Text of about `length` bytes, with characters of one to four bytes. It never begins with `~` or `!`.
    pub fn text(&mut self, length: usize) -> String {
        const CHARACTERS: [char; 12] = ['a', 'e', 'n', ' ', '0', 'é', 'ß', 'Ж', '→', '水', '𝄞', '🦀'];
        let mut text = String::with_capacity(length + 4);
        while text.len() < length {
            text.push(*self.pick(&CHARACTERS));
        }
        text
    }
}
