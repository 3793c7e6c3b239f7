//! The process's account of its memory: what an input can multiply, by kind.
//!
//! Whoever holds such memory keeps a running sum, so that adding all of it up costs a few additions.

use std::fmt;

/// What memory is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// The tables of connections: sessions, lanes, timers, subscriptions.
    Connections,
    /// Bytes that came and were not worked on yet: parts of requests, and what is left of a read.
    Input,
    /// Requests of whose content a part has come.
    Content,
    /// Messages of which a part has come.
    Assembly,
    /// What sockets did not take, copied for one connection.
    Backlog,
    /// Bytes that several connections are sent.
    Shared,
    /// Where in the buffers of a pass each connection's bytes lie.
    Spans,
    /// Frames that wait for the end of an echo under way.
    Held,
    /// Compression windows of connections that keep them between messages.
    Windows,
    /// Buffers of the process.
    Scratch,
    /// What the app keeps.
    App,
}

/// The kinds as label values, by index.
pub const MEMORY_KINDS: [&str; 11] =
    ["connections", "input", "content", "assembly", "backlog", "shared", "spans", "held", "windows", "scratch", "app"];

/// Bytes by [`MemoryKind`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Memory([usize; MEMORY_KINDS.len()]);

impl Memory {
    /// Adds bytes of a kind.
    #[inline]
    pub fn add(&mut self, kind: MemoryKind, bytes: usize) {
        self.0[kind as usize] += bytes;
    }

    /// Bytes of a kind.
    pub fn of(&self, kind: MemoryKind) -> usize {
        self.0[kind as usize]
    }

    /// Bytes of all kinds.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// The numbers for a metric, in the order of [`MEMORY_KINDS`].
    pub fn words(&self) -> [u64; MEMORY_KINDS.len()] {
        self.0.map(|bytes| bytes as u64)
    }
}

impl fmt::Display for Memory {
    /// For people: the kinds that count, in MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        write!(f, "{:.1} MiB in all", mebibytes(self.total()))?;
        for (kind, bytes) in MEMORY_KINDS.iter().zip(self.0).filter(|(_, bytes)| *bytes >= 1 << 20) {
            write!(f, ", {kind} {:.1}", mebibytes(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_add_up() {
        let mut memory = Memory::default();
        memory.add(MemoryKind::Connections, 1);
        memory.add(MemoryKind::Scratch, 2);
        memory.add(MemoryKind::Scratch, 3);
        assert_eq!((memory.of(MemoryKind::Scratch), memory.total()), (5, 6));
        assert_eq!((memory.words()[0], memory.words()[MemoryKind::Scratch as usize]), (1, 5));
    }
}
