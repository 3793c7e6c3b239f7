//! The memory of a process: how much its connections hold in total, and what happens when that is too much.

use super::{Phase, Session, Sessions};
use crate::app::{App, Error};
use crate::net::per_client::client_of;
use crate::protocol::close::CloseReason;
use crate::telemetry::log::{Level, counted};
use crate::telemetry::memory::{Memory, MemoryKind};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// A connection that holds less than this is not worth ending.
const LEAST_HOLDING: usize = 1024;
/// Approximate size of a decompressor that keeps its window.
const INFLATER_BYTES: usize = 48 * 1024;
/// Ended connections are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// If ending connections could not free enough, the next attempt waits this long.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Once held memory has fallen by at least this much, and by half, the allocator returns it to the system.
const RELIEF_BYTES: usize = 8 << 20;
/// That takes about a millisecond per 100 MiB, so it is done at most this often.
const RELIEF_EVERY: Duration = Duration::from_secs(1);

/// Connections ended for lack of memory, and when that was logged.
#[derive(Default)]
pub(super) struct Shortage {
    unlogged: u64,
    logged: Option<Duration>,
    /// When to look again for connections to end.
    look_at: Duration,
    /// Memory held at the last look, and the peak since the allocator last returned memory.
    held: usize,
    peak: usize,
    /// Whether anything was released since.
    is_stale: bool,
    relieved: Duration,
}

impl Shortage {
    /// When to log ended connections, or to have the allocator return memory.
    pub fn next_deadline(&self) -> Option<Duration> {
        let relief = self.is_much_less().then_some(self.relieved + RELIEF_EVERY);
        self.log_deadline().into_iter().chain(relief).min()
    }

    fn log_deadline(&self) -> Option<Duration> {
        (self.unlogged > 0).then(|| self.logged.map_or(Duration::ZERO, |last| last + LOG_EVERY))
    }

    /// Notes that connections may hold less than at the last look.
    pub fn let_go(&mut self) {
        self.is_stale = true;
    }

    fn is_much_less(&self) -> bool {
        self.peak.saturating_sub(self.held) >= RELIEF_BYTES.max(self.peak / 2)
    }
}

impl<A: App> Sessions<A> {
    /// What the connections hold, by kind.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        let tables = self.slab.capacity() * size_of::<Session<A::State>>() + self.wheel.memory();
        memory.add(MemoryKind::Connections, tables + self.rates.memory());
        memory.add(MemoryKind::Input, self.rests.memory() + self.head_bytes);
        memory.add(MemoryKind::Content, self.content_bytes);
        memory.add(MemoryKind::Assembly, self.scratch.assembly_bytes);
        memory.add(MemoryKind::Windows, self.inflaters * INFLATER_BYTES);
        memory.add(MemoryKind::Scratch, self.scratch.memory());
        memory.add(MemoryKind::App, self.app.memory());
        self.outbox.account(&mut memory);
        memory
    }

    /// If the connections together exceed [`Settings::max_memory`](super::Settings), ends connections of the clients
    /// that hold most, until they hold an eighth less than that. A connection that can still be sent a Close frame gets
    /// 1013 (try again later). Returns whether any ended.
    #[inline]
    pub fn bound_memory(&mut self) -> bool {
        let most = self.settings.max_memory;
        if most == 0 {
            return false;
        }
        let held = self.memory().total();
        self.shortage.held = held;
        self.shortage.peak = self.shortage.peak.max(held);
        let is_short = held > most && self.now >= self.shortage.look_at;
        if is_short {
            self.relieve();
        }
        is_short
    }

    /// Whether the connections hold so much less than before that the allocator should return memory to the system.
    #[inline]
    pub fn is_relieved(&mut self) -> bool {
        if self.shortage.peak < RELIEF_BYTES {
            return false;
        }
        if self.shortage.is_stale {
            self.shortage.is_stale = false;
            self.shortage.held = self.memory().total();
        }
        if !self.shortage.is_much_less() || self.now < self.shortage.relieved + RELIEF_EVERY {
            return false;
        }
        (self.shortage.peak, self.shortage.relieved) = (self.shortage.held, self.now);
        true
    }

    /// Updates the memory counters.
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
        if self.memory().total() > goal {
            // The rest is not held by connections, or each holds too little.
            self.shortage.look_at = self.now + LOOK_EVERY;
        }
        self.outbox.stats.memory_closed += ended;
        self.shortage.unlogged += ended;
        self.log_shortage();
    }

    /// The connections that hold memory, in the order in which to end them: first those of the client that holds most,
    /// so that a thousand small holdings of one client end before a large one of another.
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
        // Connections without an address cannot be assigned to a client; each counts by itself.
        let of = |client: Option<u128>, bytes| if client.is_some() { of_client[&client] } else { bytes };
        holders.sort_unstable_by_key(|&(client, bytes, key)| Reverse((of(client, bytes), client, bytes, key)));
        holders.into_iter().map(|(_, _, key)| key).collect()
    }

    /// The memory that ending a connection would free.
    fn holding(&mut self, key: u32) -> usize {
        let session = &self.slab[key as usize];
        if session.phase == Phase::Ended {
            return 0;
        }
        let head = session.head.as_ref().map_or(0, |head| head.bytes.capacity());
        let published = self.outbox.pacing.memory_of((key, session.generation));
        head + session.receiver.memory() + self.rests.memory_of(key) + self.outbox.waiting_bytes(key) + published
    }

    fn end_for_memory(&mut self, key: u32) {
        let generation = self.slab[key as usize].generation;
        self.outbox.stats.messages_dropped += self.outbox.pacing.forget((key, generation)) as u64;
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

    /// Logs ended connections, if that is due.
    pub(super) fn log_shortage(&mut self) {
        if self.shortage.log_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        self.shortage.logged = Some(self.now);
        let ended = std::mem::take(&mut self.shortage.unlogged);
        let text = format!(
            "{}, those that held most: {} (raise --max-memory)",
            counted(ended, "connection* closed"),
            self.memory()
        );
        self.log.push(Level::Warn, "memory", &[("closed", &ended)], text);
    }
}
