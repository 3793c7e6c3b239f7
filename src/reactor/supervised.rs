//! What ties a loop to who supervises or watches it: orders over a line, and counters in shared memory.

use crate::os::control::{Control, ControlMessage};
use crate::os::listener::Listener;
use crate::os::shared_words::SharedWords;
use crate::telemetry::pulse::pass_every;
use crate::telemetry::stats::Stats;
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
    /// Accept for the worker of this slot as well, which does not serve, by the listeners that come with the order, of which
    /// the last so many are service listeners.
    Lend {
        /// The slot.
        slot: usize,
        /// How many.
        service: usize,
    },
    /// The worker of this slot serves again: stop accepting for it.
    TakeBack(usize),
}

impl Order {
    /// The order as a message.
    pub fn to_text(self) -> String {
        match self {
            Order::Drain => "drain".to_owned(),
            Order::Retire => "retire".to_owned(),
            Order::Lend { slot, service } => format!("lend {slot} {service}"),
            Order::TakeBack(slot) => format!("take-back {slot}"),
        }
    }

    /// The order of a message; `None` for a word of a later version, of which nobody here knows what it means.
    fn from_text(text: &str) -> Option<Order> {
        match text.split_once(' ') {
            None if text == "drain" => Some(Order::Drain),
            None if text == "retire" => Some(Order::Retire),
            Some(("lend", words)) => {
                // A supervisor of before service listeners says nothing of them.
                let (slot, service) = words.split_once(' ').unwrap_or((words, "0"));
                Some(Order::Lend { slot: slot.parse().ok()?, service: service.parse().ok()? })
            }
            Some(("take-back", slot)) => slot.parse().ok().map(Order::TakeBack),
            _ => None,
        }
    }
}

/// The next order, if there is one, and the listeners that came with it. `None` ends the line: no order comes any more.
pub(super) fn next_order(control: &Control) -> Option<Option<(Order, Vec<Listener>)>> {
    loop {
        return match control.receive() {
            Ok(Some(ControlMessage { text, descriptors })) => match Order::from_text(&text) {
                // Without one of them it would not be known which are for what; then there are none.
                Some(order) => {
                    let listeners = descriptors.into_iter().map(Listener::adopt).collect::<io::Result<Vec<_>>>();
                    Some(Some((order, listeners.unwrap_or_default())))
                }
                None => continue,
            },
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
    /// The longest sleep, so that whoever looks at the counters can tell a loop that hangs from one that idles.
    pub longest_sleep: Option<Duration>,
}

impl Published {
    pub fn new(words: Arc<SharedWords>, hang_timeout: Duration) -> Published {
        let longest_sleep = (!hang_timeout.is_zero()).then(|| pass_every(hang_timeout));
        Published { words, messages: 0, longest_sleep }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_text() {
        for order in [Order::Drain, Order::Retire, Order::Lend { slot: 0, service: 2 }, Order::TakeBack(1023)] {
            assert_eq!(Order::from_text(&order.to_text()), Some(order));
        }
        assert_eq!(Order::from_text("lend 3"), Some(Order::Lend { slot: 3, service: 0 }));
        for bad in ["", "lend", "lend x", "lend 1 x", "drain 1", "dance"] {
            assert_eq!(Order::from_text(bad), None, "{bad}");
        }
    }
}
