//! The memory of a process: what all its connections together make it hold, and what is done when that is too much.

use super::{Phase, Session, Sessions};
use crate::app::{App, Error};
use crate::data::log::Level;
use crate::data::memory::{Memory, MemoryKind};
use crate::data::tally::client_of;
use crate::protocol::close::CloseReason;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// A connection that holds less than this is not worth ending.
const LEAST_HOLDING: usize = 1024;
/// About what a decompressor takes that keeps its window.
const INFLATER_BYTES: usize = 48 * 1024;
/// Ended connections are logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Connections ended for want of memory, and when that was logged.
#[derive(Default)]
pub(super) struct Shortage {
    unlogged: u64,
    logged: Option<Duration>,
}

impl<A: App> Sessions<A> {
    /// What the connections hold, by kind.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        let tables = self.slab.capacity() * size_of::<Session<A::Connection>>() + self.wheel.memory();
        memory.add(MemoryKind::Connections, tables + self.rates.memory());
        memory.add(MemoryKind::Input, self.rests.memory() + self.head_bytes);
        memory.add(MemoryKind::Content, self.content_bytes);
        memory.add(MemoryKind::Assembly, self.scratch.assembly_bytes);
        memory.add(MemoryKind::Windows, self.inflaters * INFLATER_BYTES);
        memory.add(MemoryKind::Scratch, self.scratch.memory());
        self.outbox.account(&mut memory);
        memory
    }

    /// Ends connections of the clients that hold most, if all together hold more than [`Settings::max_memory`](super::Settings), until
    /// they hold an eighth less than that. A connection that can still be told gets 1013 (try again later).
    #[inline]
    pub fn bound_memory(&mut self) {
        if self.settings.max_memory != 0 && self.memory().total() > self.settings.max_memory {
            self.relieve();
        }
    }

    /// Shows what the connections hold among the counters.
    pub fn show_memory(&mut self) {
        self.outbox.stats.memory = self.memory().words();
        self.outbox.stats.max_memory = self.settings.max_memory as u64;
    }

    #[cold]
    fn relieve(&mut self) {
        self.outbox.queue.pool.clear();
        self.scratch.trim();
        let goal = self.settings.max_memory - self.settings.max_memory / 8;
        let mut ended = 0;
        for key in self.holders() {
            if self.memory().total() <= goal {
                break;
            }
            self.end_for_memory(key);
            ended += 1;
        }
        self.outbox.stats.memory_closed += ended;
        self.shortage.unlogged += ended;
        self.log_shortage();
    }

    /// The connections that hold something, in the order in which they go: those of the client that holds most first, so that
    /// a thousand small holdings of one client go before a large one of another.
    fn holders(&mut self) -> Vec<u32> {
        let keys: Vec<u32> = self.slab.iter().map(|(key, _)| key as u32).collect();
        let mut of_client: HashMap<Option<u128>, usize> = HashMap::new();
        let mut holders = Vec::new();
        for key in keys {
            let (bytes, client) = (self.holding(key), client_of(self.slab[key as usize].peer));
            if bytes >= LEAST_HOLDING {
                *of_client.entry(client).or_default() += bytes;
                holders.push((client, bytes, key));
            }
        }
        // Connections without an address are not known to be one client's, and count each for itself.
        let of = |client: Option<u128>, bytes| if client.is_some() { of_client[&client] } else { bytes };
        holders.sort_unstable_by_key(|&(client, bytes, key)| Reverse((of(client, bytes), client, bytes, key)));
        holders.into_iter().map(|(_, _, key)| key).collect()
    }

    /// What would be given back if a connection ended.
    fn holding(&mut self, key: u32) -> usize {
        let session = &self.slab[key as usize];
        if session.phase == Phase::Ended {
            return 0;
        }
        let head = session.head.as_ref().map_or(0, |head| head.bytes.capacity());
        head + session.receiver.memory() + self.rests.memory_of(key) + self.outbox.waiting_bytes(key)
    }

    fn end_for_memory(&mut self, key: u32) {
        let backlog_bytes = self.outbox.waiting_bytes(key);
        let is_open = matches!(self.slab[key as usize].phase, Phase::Open | Phase::Closing);
        if !is_open || backlog_bytes >= LEAST_HOLDING || !self.outbox.takes_frames(key) {
            self.outbox.stats.slow_consumers_closed += u64::from(is_open);
            return self.break_off(key, Error::SlowConsumer { backlog_bytes });
        }
        let reason = "the server is short of memory";
        self.outbox.push_close(key, Some((CloseCode::Again, reason)));
        self.report(key, &Error::OutOfMemory);
        self.closed(key, CloseReason { code: CloseCode::Again, reason: reason.into(), clean: false });
        self.enter(key, Phase::Lingering);
    }

    /// Logs which connections were ended, if it is time to.
    pub(super) fn log_shortage(&mut self) {
        let Shortage { unlogged, logged } = &mut self.shortage;
        if *unlogged == 0 || logged.is_some_and(|last| self.now < last + LOG_EVERY) {
            return;
        }
        *logged = Some(self.now);
        let ended = std::mem::take(unlogged);
        let text = format!("{ended} connections closed, those that held most: {} (raise --max-memory)", self.memory());
        self.log.push(Level::Warn, "memory", &[("closed", &ended)], text);
    }
}
