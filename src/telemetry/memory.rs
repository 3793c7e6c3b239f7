//! The process's memory account: everything that input can multiply, by kind.
//!
//! Each owner of such memory keeps a running sum, so that the total costs a few additions.

use std::fmt;

/// What memory is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// The tables of connections: sessions, lanes, timers, subscriptions.
    Connections,
    /// Unprocessed input: parts of requests, and the rest of a read.
    Input,
    /// Requests with partly received content.
    Content,
    /// Partly received messages.
    Assembly,
    /// Output that sockets did not take, copied for one connection.
    Backlog,
    /// Output shared by several connections.
    Shared,
    /// Offsets of each connection's bytes in the buffers of a pass.
    Spans,
    /// Frames that wait for the end of an echo in pieces.
    Held,
    /// Compression windows of connections that keep them between messages.
    Windows,
    /// Buffers of the process.
    Scratch,
    /// Memory that the app reports.
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
    /// For people: the kinds of at least a MiB, in MiB.
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
