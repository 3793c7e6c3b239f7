//! What connects a loop to its supervisor: orders over a line, and counters in shared memory.

use crate::os::control::{Control, ControlMessage};
use crate::os::listener::Listener;
use crate::os::shared_words::SharedWords;
use crate::telemetry::pulse::pass_every;
use crate::telemetry::stats::Stats;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The word that tells the supervisor that a worker serves.
pub const READY: &str = "ready";

/// An order from the supervisor. The end of the line is an order to drain as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// As SIGTERM: close every connection at once.
    Drain,
    /// A successor serves: stop accepting, and close the connections over time.
    Retire,
    /// Accept also for the worker of this slot, which does not serve, on the listeners that come with the order; the
    /// last `service` of them are service listeners.
    Lend {
        /// The worker's slot.
        slot: usize,
        /// The number of service listeners.
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

    /// Parses a message; `None` for an order of a later version, unknown here.
    fn from_text(text: &str) -> Option<Order> {
        match text.split_once(' ') {
            None if text == "drain" => Some(Order::Drain),
            None if text == "retire" => Some(Order::Retire),
            Some(("lend", words)) => {
                // A supervisor from before service listeners does not mention them.
                let (slot, service) = words.split_once(' ').unwrap_or((words, "0"));
                Some(Order::Lend { slot: slot.parse().ok()?, service: service.parse().ok()? })
            }
            Some(("take-back", slot)) => slot.parse().ok().map(Order::TakeBack),
            _ => None,
        }
    }
}

/// Returns the next order, if there is one, with its listeners. `None` means that the line is closed: no more orders
/// come.
pub(super) fn next_order(control: &Control) -> Option<Option<(Order, Vec<Listener>)>> {
    loop {
        return match control.receive() {
            Ok(Some(ControlMessage { text, descriptors })) => match Order::from_text(&text) {
                // If one is missing, the rest cannot be told apart; then there are none.
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

/// Counters where other processes can read them, as [`Stats::words`].
pub(super) struct Published {
    words: Arc<SharedWords>,
    messages: u64,
    /// The longest sleep, so that a watching process can tell a hung loop from an idle one.
    pub longest_sleep: Option<Duration>,
}

impl Published {
    pub fn new(words: Arc<SharedWords>, hang_timeout: Duration) -> Published {
        let longest_sleep = (!hang_timeout.is_zero()).then(|| pass_every(hang_timeout));
        Published { words, messages: 0, longest_sleep }
    }

    /// Counts a pass of the loop that lasted `took`, and publishes the counters.
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
