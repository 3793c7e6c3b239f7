//! What ties a loop to who supervises or watches it: orders over a line, and counters in shared memory.

use crate::data::stats::Stats;
use crate::os::control::Control;
use crate::os::shared_words::SharedWords;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The word by which a worker tells its supervisor that it serves.
pub const READY: &str = "ready";

/// What a supervisor orders. Its end is an order to drain as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// As SIGTERM: everyone is told at once.
    Drain,
    /// A successor serves: stop accepting, and tell everyone over time.
    Retire,
}

impl Order {
    /// The order as a message.
    pub fn name(self) -> &'static str {
        match self {
            Order::Drain => "drain",
            Order::Retire => "retire",
        }
    }
}

/// The next order, if there is one. `None` ends the line: no order comes any more.
pub(super) fn next_order(control: &Control) -> Option<Option<Order>> {
    loop {
        return match control.receive() {
            Ok(Some(message)) => {
                match [Order::Drain, Order::Retire].into_iter().find(|order| order.name() == message.text) {
                    Some(order) => Some(Some(order)),
                    // A word of a later version; what it means here nobody knows.
                    None => continue,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(None) | Err(_) => None,
        };
    }
}

/// Counters where others can read them, as [`Stats::words`].
pub(super) struct Published {
    words: Arc<SharedWords>,
    messages: u64,
}

impl Published {
    pub fn new(words: Arc<SharedWords>) -> Published {
        Published { words, messages: 0 }
    }

    /// Counts a pass of the loop that took so long, and shows the counters.
    pub fn pass(&mut self, took: Duration, stats: &mut Stats) {
        let (nanoseconds, messages) = (took.as_nanos() as u64, stats.messages_in());
        stats.passes.observe(nanoseconds, 1);
        if messages > self.messages {
            stats.message_latency.observe(nanoseconds, messages - self.messages);
            self.messages = messages;
        }
        for (word, value) in self.words.iter().zip(stats.words()) {
            word.store(value, Relaxed);
        }
    }
}
