//! Publishing to subscribers, some of which may belong to other processes of the run.
//!
//! The publishing process counts the deliveries in flight to each other process, and each process reports its
//! deliveries back. The others learn the number of messages only at the end, and compare their subscribers with it.

use super::line::{Order, Word};
use super::load::{Flight, Load, nanoseconds};
use super::plan::Workload;
use super::stage::Stage;
use crate::outbox::{Delivery, Outbox};
use crate::protocol::message::Message;

/// The publisher's view of the subscribers of another process.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Elsewhere {
    pub subscribers: u64,
    /// Deliveries in flight to them.
    pub out: u64,
}

impl Load {
    /// Returns whether this process publishes, or is the only one.
    pub(super) fn is_first(&self) -> bool {
        self.plan.share.index == 0
    }

    /// The connections that should receive published messages.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &Flight> {
        let publisher = usize::from(self.plan.workload == Workload::Fanout && self.is_first());
        self.flights.iter().skip(publisher)
    }

    /// Publishes while fewer deliveries than allowed are outstanding.
    pub(super) fn publish_closed(&mut self, out: &mut Outbox) {
        let allowed = self.subscribers() * self.plan.in_flight as u64;
        while self.out < allowed && self.publish(nanoseconds(out), out) {}
    }

    fn subscribers(&self) -> u64 {
        let elsewhere: u64 = self.elsewhere.iter().map(|process| process.subscribers).sum();
        elsewhere + self.open.saturating_sub(1) as u64
    }

    pub(super) fn publish(&mut self, at: u64, out: &mut Outbox) -> bool {
        if self.is_all_sent() || !self.is_first() {
            return false;
        }
        let Some(Flight { id: Some(id), .. }) = self.flights.first() else { return false };
        let message = self.payload.published(self.published, at);
        if out.send(*id, self.plan.kind, &[message]) != Delivery::Queued {
            self.record
                .error("not sent", || "the publisher cannot send: the server reads too slowly, or is closing".into());
            return false;
        }
        self.published = self.published.wrapping_add(1);
        self.out += self.subscribers();
        self.elsewhere.iter_mut().for_each(|process| process.out += process.subscribers);
        self.count_sent(out.now());
        self.record.published += u64::from(self.stage.is_measured());
        true
    }

    /// A subscriber received a message, published or not.
    pub(super) fn delivered(&mut self, flight: usize, message: &mut Message<'_>, out: &mut Outbox) {
        let now = nanoseconds(out);
        let Some((number, at)) = self.payload.read_published(message.payload()) else {
            // A room's greeting, or a change of its members.
            return;
        };
        if flight == 0 && self.is_first() {
            return;
        }
        let expected = self.flights[flight].answered;
        // While the number of messages is unknown, any later one may have been published.
        let ahead = if self.knows_published() { self.published.wrapping_sub(expected) } else { u32::MAX / 2 };
        if number.wrapping_sub(expected) >= ahead {
            // Delivered before, or never published: it makes nothing missing.
            let came_before = expected.wrapping_sub(number).wrapping_sub(1) < u32::MAX / 2;
            let kind = if came_before { "delivered twice" } else { "unasked message" };
            return self.record.error(kind, || format!("got message {number}, expected {expected}"));
        }
        self.flights[flight].answered = number.wrapping_add(1);
        self.delivered = true;
        // Skipped messages will not arrive any more: do not wait for them.
        let missing = u64::from(number.wrapping_sub(expected));
        self.record.errors("missing delivery", missing, || format!("got message {number}, expected {expected}"));
        self.tell_came(1 + missing);
        self.came(now.saturating_sub(at), 1 + missing, out);
        if self.send_pace.is_none() && self.stage.is_loaded() {
            self.publish_closed(out);
        }
    }

    /// Returns whether this process reports its deliveries to another one, which publishes in a closed loop.
    pub(super) fn tells_publisher(&self) -> bool {
        self.line.is_some() && !self.is_first() && self.plan.workload == Workload::Fanout && self.plan.rate.is_none()
    }

    /// Reports deliveries to the publisher, once there is one for each subscriber here.
    fn tell_came(&mut self, count: u64) {
        if self.tells_publisher() {
            self.untold += count;
            if self.untold >= self.open as u64 {
                self.tell_untold();
            }
        }
    }

    /// Reports the deliveries not reported yet.
    pub(super) fn tell_untold(&mut self) {
        if self.untold > 0 {
            let count = std::mem::take(&mut self.untold);
            self.say(&Word::Came(count));
        }
    }

    /// Reports that a subscriber here is gone, and how many messages it had received.
    pub(super) fn tell_gone(&mut self, answered: u32) {
        if self.tells_publisher() {
            self.tell_untold();
            self.say(&Word::Gone(answered));
        }
    }

    /// Takes another process's report to the publisher.
    pub(super) fn hear_of(&mut self, order: &Order, out: &mut Outbox) {
        let (Order::Came(worker, _) | Order::Gone(worker, _) | Order::Died(worker)) = *order else { return };
        let published = self.published;
        let Some(process) = self.elsewhere.get_mut(worker) else { return };
        let fewer = match *order {
            Order::Came(_, count) => count,
            Order::Gone(_, answered) => {
                process.subscribers = process.subscribers.saturating_sub(1);
                u64::from(published.wrapping_sub(answered))
            }
            _ => {
                process.subscribers = 0;
                process.out
            }
        };
        let fewer = fewer.min(process.out);
        process.out -= fewer;
        self.out = self.out.saturating_sub(fewer);
        if self.send_pace.is_none() && self.stage.is_loaded() {
            self.publish_closed(out);
        }
        self.end_if_all_came(out);
    }

    /// Returns whether this process knows how many messages were published: it published them, or was told.
    pub(super) fn knows_published(&self) -> bool {
        self.plan.workload != Workload::Fanout || self.is_first() || self.told_published
    }

    /// The publisher is done: tells the others how many messages to expect.
    pub(super) fn tell_published(&mut self) {
        if self.plan.workload == Workload::Fanout && self.is_first() && !self.told_published {
            self.told_published = true;
            self.say(&Word::Published(self.published));
        }
    }

    /// Learns how many messages there were, and so how many deliveries to wait for.
    pub(super) fn hear_published(&mut self, published: u32, out: &mut Outbox) {
        (self.published, self.told_published) = (published, true);
        let there = self.subscriptions().filter(|flight| flight.id.is_some());
        // A subscriber ahead of the number got messages that were never published.
        let missing = there.map(|flight| published.wrapping_sub(flight.answered) as i32);
        let (ahead, out_now) = missing.fold((0, 0), |(ahead, sum), missing| match u64::try_from(missing) {
            Ok(missing) => (ahead, sum + missing),
            Err(_) => (ahead + 1, sum),
        });
        self.record.errors("unasked message", ahead, || format!("more came than the {published} published messages"));
        self.out = out_now;
        let now = out.now();
        if matches!(self.stage, Stage::Measuring(_) | Stage::Waiting(_)) {
            self.wait(now, out);
        }
    }
}
