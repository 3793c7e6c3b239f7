//! Limits what a channel carries of what clients publish, so that a subscriber that reads at that rate never falls
//! behind, however many clients publish at once.
//!
//! Beyond the rate a publication waits, and its client is not read from until it is sent. Waiting publications take
//! turns by length: a short one of a client that seldom publishes passes the long ones of all others.

use crate::protocol::message::Kind;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// A burst is what a channel may carry in this time.
const BURST: Duration = Duration::from_millis(250);
/// A batch of waiting publications is what a channel carries in this time: few large writes cost less than many small
/// ones.
const BATCH: Duration = Duration::from_millis(5);
/// Cost of a publication besides its payload, for each subscriber.
const OVERHEAD_BYTES: usize = 64;
/// Up to this many subscribers get the channel's whole rate; more of them share the total of these.
const FULL_RATE_SUBSCRIBERS: usize = 64;

/// A connection that publishes: its key and generation.
pub(crate) type Publisher = (u32, u32);

/// A waiting publication.
pub(crate) struct Held {
    pub kind: Kind,
    pub payload: Vec<u8>,
    publisher: Publisher,
    cost: Duration,
    /// The cost when it was queued, which determined its turn.
    weight: u64,
}

/// A channel that is over its rate, or was a moment ago.
#[derive(Default)]
struct Carrier {
    /// When everything it has accepted will have been carried.
    carried_at: Duration,
    /// The start of the turn of the last publication sent.
    turn: u64,
    /// By turn, and in order among equals; indices into `held`.
    waiting: BinaryHeap<Reverse<(u64, u64, usize)>>,
    held: slab::Slab<Held>,
}

/// A client's waiting publications.
#[derive(Default)]
struct Waiting {
    publications: usize,
    bytes: usize,
}

/// The channels of a process. The default has no limit.
#[derive(Default)]
pub(crate) struct Pacing {
    /// Bytes per second to each subscriber; 0 for no limit.
    rate: usize,
    channels: HashMap<Box<[u8]>, Carrier>,
    publishers: HashMap<Publisher, Waiting>,
    /// Publishers with no more waiting publications.
    freed: Vec<Publisher>,
    bytes: usize,
    order: u64,
}

impl Pacing {
    pub fn new(rate: usize) -> Pacing {
        Pacing { rate, ..Pacing::default() }
    }

    /// Whether a channel's rate is limited.
    pub fn is_limited(&self) -> bool {
        self.rate > 0
    }

    /// Memory of the waiting publications.
    pub fn memory(&self) -> usize {
        self.bytes
    }

    /// Memory of one client's waiting publications.
    pub fn memory_of(&self, publisher: Publisher) -> usize {
        self.publishers.get(&publisher).map_or(0, |waiting| waiting.bytes)
    }

    /// Whether a client must wait for its publications to be sent.
    #[inline]
    pub fn has_waiting(&self, publisher: Publisher) -> bool {
        !self.publishers.is_empty() && self.publishers.contains_key(&publisher)
    }

    /// Whether a publication may go now; if so, it is charged to the channel.
    pub fn admit(&mut self, channel: &[u8], payload_bytes: usize, subscribers: usize, now: Duration) -> bool {
        let cost = self.cost(payload_bytes, subscribers);
        if !self.channels.contains_key(channel) {
            if self.channels.len() == self.channels.capacity() {
                self.channels.retain(|_, carrier| carrier.carried_at > now || !carrier.held.is_empty());
            }
            self.channels.insert(channel.into(), Carrier::default());
        }
        let Some(carrier) = self.channels.get_mut(channel) else { return true };
        let may_go = carrier.held.is_empty() && carrier.carried_at <= now + BURST;
        if may_go {
            carrier.carried_at = carrier.carried_at.max(now) + cost;
        }
        may_go
    }

    fn cost(&self, payload_bytes: usize, subscribers: usize) -> Duration {
        let bytes = (payload_bytes + OVERHEAD_BYTES) as f64;
        let crowd = (subscribers as f64 / FULL_RATE_SUBSCRIBERS as f64).max(1.0);
        Duration::from_secs_f64((bytes * crowd / self.rate.max(1) as f64).min(1e6))
    }

    /// Queues a publication that may not go now.
    pub fn hold(&mut self, channel: &[u8], kind: Kind, parts: &[&[u8]], subscribers: usize, publisher: Publisher) {
        let payload = parts.concat();
        let cost = self.cost(payload.len(), subscribers);
        let waiting = self.publishers.entry(publisher).or_default();
        waiting.publications += 1;
        waiting.bytes += payload.capacity();
        self.bytes += payload.capacity();
        let Some(carrier) = self.channels.get_mut(channel) else { return };
        let weight = cost.as_nanos() as u64;
        let turn = carrier.turn + weight;
        let place = carrier.held.insert(Held { kind, payload, publisher, cost, weight });
        carrier.waiting.push(Reverse((turn, self.order, place)));
        self.order += 1;
    }

    /// When the next waiting publication may go.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.publishers.is_empty() {
            return None;
        }
        let waiting = self.channels.values().filter(|carrier| !carrier.held.is_empty());
        waiting.map(|carrier| (carrier.carried_at + BATCH).saturating_sub(BURST)).min()
    }

    /// Returns the next publication that may go, with its channel.
    pub fn next(&mut self, now: Duration) -> Option<(Box<[u8]>, Held)> {
        let ready = |carrier: &Carrier| !carrier.held.is_empty() && carrier.carried_at <= now + BURST;
        let (channel, carrier) = self.channels.iter_mut().find(|(_, carrier)| ready(carrier))?;
        let Reverse((turn, _, place)) = carrier.waiting.pop()?;
        let held = carrier.held.remove(place);
        // By its start, or a newcomer would be behind all waiting publications.
        carrier.turn = carrier.turn.max(turn - held.weight);
        carrier.carried_at = carrier.carried_at.max(now) + held.cost;
        let channel = channel.clone();
        self.release(&held);
        Some((channel, held))
    }

    fn release(&mut self, held: &Held) {
        self.bytes -= held.payload.capacity();
        let Some(waiting) = self.publishers.get_mut(&held.publisher) else { return };
        waiting.publications -= 1;
        waiting.bytes -= held.payload.capacity();
        if waiting.publications == 0 {
            self.publishers.remove(&held.publisher);
            self.freed.push(held.publisher);
        }
    }

    /// Drops a client's waiting publications. Returns how many there were.
    pub fn forget(&mut self, publisher: Publisher) -> usize {
        let Some(waiting) = self.publishers.remove(&publisher) else { return 0 };
        self.bytes -= waiting.bytes;
        for carrier in self.channels.values_mut() {
            let held = &mut carrier.held;
            carrier.waiting.retain(|Reverse((.., place))| held[*place].publisher != publisher);
            held.retain(|_, held| held.publisher != publisher);
        }
        waiting.publications
    }

    /// Lifts the limit: all waiting publications may go.
    pub fn end(&mut self) {
        self.rate = 0;
        self.channels.values_mut().for_each(|carrier| carrier.carried_at = Duration::ZERO);
        let all = self.channels.values_mut().flat_map(|carrier| carrier.held.iter_mut());
        all.for_each(|(_, held)| held.cost = Duration::ZERO);
    }

    /// Takes the clients that wait no longer.
    pub fn take_freed(&mut self, freed: &mut Vec<Publisher>) {
        freed.append(&mut self.freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANNEL: &[u8] = b"room";

    fn publish(pacing: &mut Pacing, publisher: Publisher, payload: &[u8], subscribers: usize, now: Duration) -> bool {
        let goes = pacing.admit(CHANNEL, payload.len(), subscribers, now);
        if !goes {
            pacing.hold(CHANNEL, Kind::Text, &[payload], subscribers, publisher);
        }
        goes
    }

    proptest! {
        /// Over any time a channel carries at most its rate, a burst and one publication; everything is sent, in order
        /// for each client.
        #[test]
        fn a_channel_carries_its_rate(
            rate in 1_000usize..1_000_000,
            steps in prop::collection::vec((0u64..300, 0u32..5, 0usize..40_000, 1usize..300), 1..200)
        ) {
            let mut pacing = Pacing::new(rate);
            let (mut now, mut given, mut carried, mut largest) = (Duration::ZERO, 0usize, 0.0f64, 0.0f64);
            let mut last: HashMap<u32, u32> = HashMap::new();
            let mut out = 0;
            let mut heard = |payload: &[u8], publisher: u32| {
                let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
                let before = last.insert(publisher, number);
                assert!(before.is_none_or(|before| before < number), "client {publisher}: {before:?}, then {number}");
                out += 1;
            };
            for (number, &(pause, client, bytes, subscribers)) in steps.iter().enumerate() {
                now += Duration::from_millis(pause);
                let worth = |bytes: usize| {
                    (bytes + OVERHEAD_BYTES) as f64 * (subscribers as f64 / FULL_RATE_SUBSCRIBERS as f64).max(1.0)
                };
                while let Some((_, held)) = pacing.next(now) {
                    carried += held.cost.as_secs_f64() * rate as f64;
                    heard(&held.payload, held.publisher.0);
                }
                // A waiting client publishes nothing more.
                if pacing.has_waiting((client, 1)) {
                    continue;
                }
                let mut payload = vec![0; bytes + 4];
                payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
                given += 1;
                largest = largest.max(worth(payload.len()));
                if publish(&mut pacing, (client, 1), &payload, subscribers, now) {
                    carried += worth(payload.len());
                    heard(&payload, client);
                }
                let most = rate as f64 * (now + BURST).as_secs_f64() + largest + 1.0;
                prop_assert!(carried <= most, "{carried} of {most}");
                prop_assert_eq!(pacing.next_deadline().is_some(), pacing.memory() > 0);
            }
            while let Some(at) = pacing.next_deadline() {
                now = now.max(at);
                while let Some((_, held)) = pacing.next(now) {
                    heard(&held.payload, held.publisher.0);
                }
            }
            prop_assert_eq!(out, given);
            prop_assert_eq!(pacing.memory(), 0);
        }
    }

    #[test]
    fn a_short_publication_passes_long_ones() {
        let mut pacing = Pacing::new(1_000);
        let now = Duration::ZERO;
        assert!(publish(&mut pacing, (0, 1), &[0; 10_000], 1, now));
        for client in 1..10 {
            assert!(!publish(&mut pacing, (client, 1), &[0; 10_000], 1, now));
        }
        assert!(!publish(&mut pacing, (10, 1), b"short", 1, now));
        let at = pacing.next_deadline().expect("some wait");
        assert!(pacing.next(at - 2 * BATCH).is_none());
        let (channel, held) = pacing.next(at).expect("it is time");
        assert_eq!((&channel[..], &held.payload[..]), (CHANNEL, &b"short"[..]));
        let mut freed = Vec::new();
        pacing.take_freed(&mut freed);
        assert_eq!(freed, [(10, 1)]);
    }

    /// However many clients publish long messages, and for however long.
    #[test]
    fn a_newcomer_waits_for_no_round_of_others() {
        let (mut pacing, long) = (Pacing::new(10_000), [0; 10_000]);
        let mut now = Duration::ZERO;
        for client in 0..60 {
            publish(&mut pacing, (client, 1), &long, 1, now);
        }
        for newcomer in 60..100 {
            now = now.max(pacing.next_deadline().expect("some wait"));
            while let Some((_, held)) = pacing.next(now) {
                // It publishes again at once.
                let again = publish(&mut pacing, held.publisher, &long, 1, now);
                assert!(!again);
            }
            assert!(!publish(&mut pacing, (newcomer, 1), b"short", 1, now));
            now = now.max(pacing.next_deadline().expect("some wait"));
            let (_, next) = pacing.next(now).expect("it is time");
            assert_eq!(&next.payload[..], b"short");
        }
    }

    #[test]
    fn what_a_client_has_waiting_can_be_given_up() {
        let mut pacing = Pacing::new(1_000);
        assert!(publish(&mut pacing, (0, 1), &[0; 10_000], 1, Duration::ZERO));
        for client in [1, 2, 2] {
            assert!(!publish(&mut pacing, (client, 1), &[0; 100], 1, Duration::ZERO));
        }
        assert_eq!((pacing.memory_of((2, 1)), pacing.memory()), (200, 300));
        assert_eq!((pacing.forget((2, 1)), pacing.forget((2, 1)), pacing.memory()), (2, 0, 100));
        pacing.end();
        assert_eq!(pacing.next(Duration::ZERO).map(|(_, held)| held.publisher), Some((1, 1)));
        assert!(pacing.next(Duration::ZERO).is_none() && pacing.memory() == 0);
    }
}
