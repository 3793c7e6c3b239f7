//! Counts each client's connections, to limit them, and orders those without an open WebSocket by age, so that the
//! oldest can make room.
//!
//! A connection is *waiting* (for a request, or for its end) or *open*. An open one costs only its share of a count; a
//! waiting one has a place in two lists, that of all and that of its client, linked through one table.

use super::id::Peer;
use slab::Slab;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// No place, and the end of a list.
pub const NOWHERE: u32 = u32::MAX;
/// A client that is not counted. The lower half of a /64 is zero, and an IPv4 address has one bits in it.
const NOBODY: u128 = 1;
/// The oldest is searched among this many, so that finding it costs the same however many there are.
const LOOKS: usize = 16;
/// A table of places that has grown beyond this is freed once it is empty.
const KEPT_PLACES: usize = 1024;

/// Neighbours in a list.
#[derive(Clone, Copy)]
struct Links {
    previous: u32,
    next: u32,
}

/// The first and the last of a list.
#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

const EMPTY: Ends = Ends { first: NOWHERE, last: NOWHERE };

/// The lists that a waiting connection is in.
#[derive(Clone, Copy)]
enum List {
    All = 0,
    Client = 1,
}

struct Waiting {
    key: u32,
    client: u128,
    since: Duration,
    /// Whether it may still open, and counts as if it had.
    reserved: bool,
    links: [Links; 2],
}

#[derive(Clone, Copy)]
struct Counts {
    open: u32,
    waiting: u32,
    /// Waiting connections with a reserved place among the open ones.
    reserved: u32,
    ends: Ends,
}

const NONE: Counts = Counts { open: 0, waiting: 0, reserved: 0, ends: EMPTY };

/// Connections by client, counted only if there is a limit, and waiting connections in order of arrival. Clients
/// without an address are not counted.
///
/// Invariant: a waiting connection is in the list of all once, and once in that of its client, if that is counted; the
/// counts are those of connections that [`Tally::enter`]ed and did not [`Tally::leave`], and no entry has a count of
/// zero.
pub struct Tally {
    limit: u32,
    counts: HashMap<u128, Counts>,
    waiting: Slab<Waiting>,
    reserved: usize,
    all: Ends,
}

/// The unit that counts as one client: an IPv4 address, or the /64 of an IPv6 address, the least that a network assigns
/// to one customer; `None` without an address.
pub fn client_of(peer: Peer) -> Option<u128> {
    Some(match peer.addr()?.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    })
}

impl Tally {
    /// No connections yet; at most `limit` open ones per client, 0 for no limit.
    pub fn new(limit: u32) -> Tally {
        Tally { limit, counts: HashMap::new(), waiting: Slab::new(), reserved: 0, all: EMPTY }
    }

    /// Whether the client has reached its limit of open connections and reserved places.
    pub fn is_full(&self, peer: Peer) -> bool {
        let taken = self.counts.get(&self.client(peer)).map_or(0, |counts| counts.open + counts.reserved);
        self.limit > 0 && taken >= self.limit
    }

    /// Reserves a place among the open ones for a waiting connection, so that it can open whatever arrives meanwhile.
    pub fn reserve(&mut self, place: u32) {
        self.set_reserved(place, true);
    }

    /// Ends [`Tally::reserve`]; so does opening or leaving.
    pub fn release(&mut self, place: u32) {
        self.set_reserved(place, false);
    }

    /// The number of reserved places, over all clients.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    fn set_reserved(&mut self, place: u32, reserved: bool) {
        let waiting = &mut self.waiting[place as usize];
        if std::mem::replace(&mut waiting.reserved, reserved) == reserved {
            return;
        }
        let counts = self.counts.get_mut(&waiting.client).map(|counts| &mut counts.reserved);
        if reserved {
            self.reserved += 1;
            counts.into_iter().for_each(|count| *count += 1);
        } else {
            self.reserved -= 1;
            counts.into_iter().for_each(|count| *count -= 1);
        }
    }

    /// The number of the client's connections; 0 if there is no limit.
    pub fn count(&self, peer: Peer) -> u32 {
        self.counts.get(&self.client(peer)).map_or(0, |counts| counts.open + counts.waiting)
    }

    /// How many of them are open.
    pub fn open_connections(&self, peer: Peer) -> u32 {
        self.counts.get(&self.client(peer)).map_or(0, |counts| counts.open)
    }

    /// The number of clients with connections.
    pub fn clients(&self) -> usize {
        self.counts.len()
    }

    /// The number of waiting connections, over all clients.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a new connection; [`Peer::UNKNOWN`] if its client is not known yet. Returns its place.
    pub fn enter(&mut self, key: u32, peer: Peer, now: Duration) -> u32 {
        let (client, links) = (self.client(peer), [Links { previous: NOWHERE, next: NOWHERE }; 2]);
        let place = self.waiting.insert(Waiting { key, client, since: now, reserved: false, links }) as u32;
        self.append(List::All, place);
        self.count_waiting(place, client);
        place
    }

    /// Whether a waiting connection counts for this client.
    pub fn is_of(&self, place: u32, peer: Peer) -> bool {
        self.waiting[place as usize].client == self.client(peer)
    }

    /// Assigns a waiting connection to its client, now known.
    pub fn resolve(&mut self, place: u32, peer: Peer) {
        let reserved = self.waiting[place as usize].reserved;
        self.release(place);
        self.discount_waiting(place);
        self.count_waiting(place, self.client(peer));
        self.set_reserved(place, reserved);
    }

    /// A waiting connection opens, and gives up its place. One that never waited has [`NOWHERE`].
    pub fn open(&mut self, place: u32, peer: Peer) {
        let client = self.client(peer);
        if client != NOBODY {
            self.counts.entry(client).or_insert(NONE).open += 1;
        }
        self.leave(place);
    }

    /// An open connection of the client closes, and waits for its end. Returns its place.
    pub fn close(&mut self, key: u32, peer: Peer, now: Duration) -> u32 {
        let place = self.enter(key, peer, now);
        let client = self.client(peer);
        let counts = self.counts.get_mut(&client);
        debug_assert!(client == NOBODY || counts.as_ref().is_some_and(|counts| counts.open > 0), "it was open");
        if let Some(counts) = counts {
            counts.open = counts.open.saturating_sub(1);
        }
        place
    }

    /// Removes a waiting connection.
    pub fn leave(&mut self, place: u32) {
        if place == NOWHERE {
            return;
        }
        self.release(place);
        self.discount_waiting(place);
        self.unlink(List::All, place);
        self.waiting.remove(place as usize);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_PLACES {
            self.waiting = Slab::new();
        }
    }

    /// Since when a connection has been waiting.
    pub fn since(&self, place: u32) -> Duration {
        self.waiting[place as usize].since
    }

    /// The oldest connection waiting since before `now`; preferably one that `is_idle`, among the first few.
    pub fn oldest(&self, now: Duration, is_idle: impl FnMut(u32) -> bool) -> Option<u32> {
        self.pick(List::All, self.all.first, is_idle, |waiting| waiting.since < now)
    }

    /// The oldest of a client, likewise, except `except`.
    pub fn oldest_of(&self, peer: Peer, except: u32, is_idle: impl FnMut(u32) -> bool) -> Option<u32> {
        let counts = self.counts.get(&self.client(peer))?;
        self.pick(List::Client, counts.ends.first, is_idle, |waiting| waiting.key != except)
    }

    fn pick(
        &self,
        list: List,
        first: u32,
        mut is_idle: impl FnMut(u32) -> bool,
        may_go: impl Fn(&Waiting) -> bool,
    ) -> Option<u32> {
        let at = |place: u32| self.waiting.get(place as usize);
        let all = std::iter::successors(at(first), |waiting| at(waiting.links[list as usize].next));
        let mut keys = all.take(LOOKS).filter(|waiting| may_go(waiting)).map(|waiting| waiting.key);
        let oldest = keys.next()?;
        if is_idle(oldest) { Some(oldest) } else { keys.find(|key| is_idle(*key)).or(Some(oldest)) }
    }

    /// The unit that counts as one client: an IPv4 address, or the /64 of an IPv6 address, the least that a network
    /// assigns to one customer.
    fn client(&self, peer: Peer) -> u128 {
        client_of(peer).filter(|_| self.limit > 0).unwrap_or(NOBODY)
    }

    fn count_waiting(&mut self, place: u32, client: u128) {
        self.waiting[place as usize].client = client;
        if client != NOBODY {
            self.counts.entry(client).or_insert(NONE).waiting += 1;
            self.append(List::Client, place);
        }
    }

    fn discount_waiting(&mut self, place: u32) {
        let client = self.waiting[place as usize].client;
        if client == NOBODY {
            return;
        }
        self.unlink(List::Client, place);
        if let Some(counts) = self.counts.get_mut(&client) {
            counts.waiting -= 1;
            if counts.open + counts.waiting == 0 {
                self.counts.remove(&client);
            }
        }
    }

    /// The ends of a list that `place` is in or will join.
    fn ends(&mut self, list: List, place: u32) -> Option<&mut Ends> {
        match list {
            List::All => Some(&mut self.all),
            List::Client => {
                let counts = self.counts.get_mut(&self.waiting[place as usize].client);
                counts.map(|counts| &mut counts.ends)
            }
        }
    }

    fn append(&mut self, list: List, place: u32) {
        let Some(ends) = self.ends(list, place) else { return };
        let previous = std::mem::replace(&mut ends.last, place);
        match previous {
            NOWHERE => ends.first = place,
            previous => self.waiting[previous as usize].links[list as usize].next = place,
        }
        self.waiting[place as usize].links[list as usize] = Links { previous, next: NOWHERE };
    }

    fn unlink(&mut self, list: List, place: u32) {
        let Links { previous, next } = self.waiting[place as usize].links[list as usize];
        if previous != NOWHERE {
            self.waiting[previous as usize].links[list as usize].next = next;
        } else if let Some(ends) = self.ends(list, place) {
            ends.first = next;
        }
        if next != NOWHERE {
            self.waiting[next as usize].links[list as usize].previous = previous;
        } else if let Some(ends) = self.ends(list, place) {
            ends.last = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    const NOW: Duration = Duration::from_secs(1);

    fn peer(addr: &str) -> Peer {
        Peer::from(addr.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn each_client_has_its_own_count() {
        let mut tally = Tally::new(2);
        for addr in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8:0:0:ffff::]:2"] {
            let place = tally.enter(0, peer(addr), NOW);
            tally.open(place, peer(addr));
        }
        for (addr, count) in [("192.0.2.1:9", 2), ("192.0.2.2:9", 1), ("[2001:db8::]:9", 2), ("[2001:db8:0:1::]:9", 0)]
        {
            assert_eq!((tally.count(peer(addr)), tally.is_full(peer(addr))), (count, count == 2), "{addr}");
        }
        assert_eq!((tally.clients(), tally.waiting()), (3, 0));
        // One that waits for its end counts, but keeps no other from opening.
        let place = tally.close(0, peer("[2001:db8::abcd]:3"), NOW);
        assert_eq!((tally.count(peer("[2001:db8::1]:1")), tally.is_full(peer("[2001:db8::1]:1"))), (2, false));
        tally.leave(place);
        for addr in ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1"] {
            let place = tally.close(0, peer(addr), NOW);
            tally.leave(place);
        }
        assert_eq!(tally.clients(), 0, "no client is kept without a connection");
    }

    #[test]
    fn who_has_no_address_is_not_counted() {
        let mut tally = Tally::new(1);
        for nobody in [Peer::UNIX, Peer::UNKNOWN] {
            let places = [tally.enter(0, nobody, NOW), tally.enter(1, nobody, NOW)];
            assert_eq!((tally.count(nobody), tally.clients(), tally.waiting()), (0, 0, 2));
            tally.open(places[0], nobody);
            assert!(!tally.is_full(nobody) && tally.clients() == 0);
            tally.leave(places[1]);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_counted_but_the_order_is_kept() {
        let mut tally = Tally::new(0);
        let place = tally.enter(7, peer("192.0.2.1:1"), NOW);
        assert!(!tally.is_full(peer("192.0.2.1:1")) && tally.clients() == 0);
        assert_eq!(tally.oldest(NOW * 2, |_| true), Some(7));
        tally.leave(place);
        assert_eq!(tally.oldest(NOW * 2, |_| true), None);
    }

    #[test]
    fn the_oldest_idle_one_goes_first() {
        let mut tally = Tally::new(9);
        let (a, b) = (peer("192.0.2.1:1"), peer("192.0.2.2:1"));
        for key in 0..4 {
            tally.enter(key, if key % 2 == 0 { a } else { b }, NOW);
        }
        assert_eq!(tally.oldest(NOW, |_| true), None, "these came just now");
        assert_eq!(tally.oldest(NOW * 2, |_| true), Some(0));
        assert_eq!(tally.oldest(NOW * 2, |key| key == 3), Some(3));
        assert_eq!(tally.oldest(NOW * 2, |_| false), Some(0));
        assert_eq!(tally.oldest_of(b, NOWHERE, |_| true), Some(1));
        assert_eq!(tally.oldest_of(b, 1, |_| true), Some(3));
        assert_eq!(tally.oldest_of(peer("192.0.2.3:1"), NOWHERE, |_| true), None);
    }

    #[test]
    fn a_large_table_is_given_back() {
        let mut tally = Tally::new(0);
        let places: Vec<u32> = (0..10_000).map(|key| tally.enter(key, Peer::UNIX, NOW)).collect();
        places.into_iter().for_each(|place| tally.leave(place));
        assert_eq!(tally.waiting.capacity(), 0);
    }

    proptest! {
        /// Against a model: the waiting connections in order, and the open ones.
        #[test]
        fn counts_and_order_are_those_of_a_list(steps in prop::collection::vec((0u8..7, 0usize..40, 0u8..4), 1..200)) {
            let peer = |number: u8| match number {
                0 => Peer::UNKNOWN,
                number => Peer::from(SocketAddr::from(([192, 0, 2, number], 1))),
            };
            let mut tally = Tally::new(3);
            let (mut waiting, mut open) = (Vec::<(u32, u32, bool, u8)>::new(), Vec::new());
            for (key, (what, which, who)) in steps.into_iter().enumerate() {
                let key = key as u32;
                match what {
                    0 => waiting.push((key, tally.enter(key, peer(who), NOW), false, who)),
                    1 if which < waiting.len() => {
                        tally.resolve(waiting[which].1, peer(who));
                        waiting[which].3 = who;
                    }
                    2 if which < waiting.len() => {
                        tally.open(waiting.remove(which).1, peer(who));
                        open.push(who);
                    }
                    3 if which < open.len() => {
                        let who = open.remove(which);
                        waiting.push((key, tally.close(key, peer(who), NOW), false, who));
                    }
                    4 if which < waiting.len() => tally.leave(waiting.remove(which).1),
                    5 if which < waiting.len() => {
                        tally.reserve(waiting[which].1);
                        waiting[which].2 = true;
                    }
                    6 if which < waiting.len() => {
                        tally.release(waiting[which].1);
                        waiting[which].2 = false;
                    }
                    _ => {}
                }
                prop_assert_eq!(tally.waiting(), waiting.len());
                prop_assert_eq!(tally.reserved(), waiting.iter().filter(|(_, _, reserved, _)| *reserved).count());
                prop_assert_eq!(tally.oldest(NOW * 2, |_| true), waiting.first().map(|(key, ..)| *key));
                for who in 1..4 {
                    let (waits, opened) = (waiting.iter().filter(|(.., other)| *other == who), open.iter());
                    let opened = opened.filter(|other| **other == who).count();
                    prop_assert_eq!(tally.open_connections(peer(who)) as usize, opened);
                    let reserved = waits.clone().filter(|(_, _, reserved, _)| *reserved).count();
                    prop_assert_eq!(tally.is_full(peer(who)), opened + reserved >= 3);
                    prop_assert_eq!(tally.count(peer(who)) as usize, opened + waits.clone().count());
                    let oldest = tally.oldest_of(peer(who), NOWHERE, |_| true);
                    prop_assert_eq!(oldest.is_some(), waits.clone().count() > 0);
                    prop_assert!(oldest.is_none_or(|key| waits.clone().any(|(other, ..)| *other == key)));
                }
            }
        }
    }
}
