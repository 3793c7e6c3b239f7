//! Subscriptions: clients with the same symbols share a set, so that a tick is written once for each set.
//!
//! A set holds its symbols in the market. Its weight, the made-up symbols divided among its clients, decides which set
//! is evicted when the market is full.

use super::market::{Market, SymbolId, WEIGHT};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::message::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::rc::Rc;

/// The longest message of prices: the original client reads no more.
pub(super) const MAX_CHANGES_BYTES: usize = 32 << 10;
/// The most new clients of a set that get all its prices at once.
const NEW_CLIENTS: usize = 256;
/// The temporary channel of these clients.
const NEW: &str = "ticker-new";
/// Beginning and end of a message.
const HEAD: &[u8] = br#"TickerChange:{"Changes":["#;
const TAIL: &[u8] = b"]}";

/// Clients with the same symbols.
struct Set {
    symbols: Rc<[SymbolId]>,
    /// The number of symbols that are not in the table.
    made_up: usize,
    channel: String,
    clients: BTreeSet<ConnectionId>,
    /// Clients that have not received prices yet and are not on the channel.
    new: BTreeSet<ConnectionId>,
    /// The number of the market's changes that it was shown.
    shown: u64,
}

impl Set {
    fn weight(&self) -> u64 {
        self.made_up as u64 * WEIGHT / self.clients.len().max(1) as u64
    }
}

/// All sets, by number.
#[derive(Default)]
pub(super) struct Sets {
    sets: BTreeMap<u64, Set>,
    numbers: HashMap<Rc<[SymbolId]>, u64>,
    /// Sets with made-up symbols, by weight.
    weights: BTreeSet<(u64, u64)>,
    last: u64,
}

impl Sets {
    /// Adds a client to the set of these symbols, which are sorted and held. Returns the set's number.
    pub fn join(&mut self, id: ConnectionId, symbols: Vec<SymbolId>, market: &mut Market) -> u64 {
        if let Some(number) = self.numbers.get(symbols.as_slice()).copied() {
            // The set already holds them.
            symbols.iter().for_each(|symbol| market.release(*symbol));
            self.change_clients(number, |set| {
                set.clients.insert(id);
                set.new.insert(id);
            });
            return number;
        }
        self.last += 1;
        let (number, symbols): (_, Rc<[SymbolId]>) = (self.last, symbols.into());
        let made_up = symbols.iter().filter(|symbol| !market.is_fixed(**symbol)).count();
        let (clients, channel) = (BTreeSet::from([id]), format!("ticker:{number}"));
        let set = Set { symbols: Rc::clone(&symbols), made_up, channel, new: clients.clone(), clients, shown: 0 };
        if made_up > 0 {
            self.weights.insert((set.weight(), number));
        }
        self.sets.insert(number, set);
        self.numbers.insert(symbols, number);
        number
    }

    /// Removes a client from its set; a set without clients is removed, and releases its symbols.
    pub fn leave(&mut self, id: ConnectionId, number: u64, market: &mut Market) {
        self.change_clients(number, |set| {
            set.clients.remove(&id);
            set.new.remove(&id);
        });
        if self.sets.get(&number).is_some_and(|set| set.clients.is_empty()) {
            self.remove(number, market);
        }
    }

    fn change_clients(&mut self, number: u64, change: impl FnOnce(&mut Set)) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        let before = set.weight();
        change(set);
        if set.made_up > 0 {
            self.weights.remove(&(before, number));
            self.weights.insert((set.weight(), number));
        }
    }

    /// Removes a set, and returns its clients.
    pub fn remove(&mut self, number: u64, market: &mut Market) -> BTreeSet<ConnectionId> {
        let Some(set) = self.sets.remove(&number) else { return BTreeSet::new() };
        self.weights.remove(&(set.weight(), number));
        self.numbers.remove(&set.symbols);
        set.symbols.iter().for_each(|symbol| market.release(*symbol));
        set.clients
    }

    /// Returns weight and number of the heaviest set.
    pub fn heaviest(&self) -> Option<(u64, u64)> {
        self.weights.last().copied()
    }

    /// Returns the channel of a set.
    pub fn channel(&self, number: u64) -> Option<&str> {
        self.sets.get(&number).map(|set| set.channel.as_str())
    }

    /// Returns the number of the last set created.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Returns the next set by number.
    pub fn next_after(&self, number: u64) -> Option<u64> {
        self.sets.range((Bound::Excluded(number), Bound::Unbounded)).next().map(|(number, _)| *number)
    }

    /// Sends a set's clients the changes since the last time, and all prices to some of the new ones. Returns the cost,
    /// in bytes or work that takes as long, and whether the set is done.
    pub fn show(&mut self, number: u64, market: &mut Market, out: &mut Outbox) -> (usize, bool) {
        let Some(set) = self.sets.get_mut(&number) else { return (0, true) };
        let now = market.changes();
        let mut cost = set.symbols.len() * 8;
        if set.shown < now && set.new.len() < set.clients.len() {
            cost += publish(&set.channel, market.changed(&set.symbols, set.shown), out);
        }
        set.shown = now;
        let new: Vec<ConnectionId> = set.new.iter().take(NEW_CLIENTS).copied().collect();
        if !new.is_empty() {
            for id in &new {
                out.subscribe(*id, NEW);
            }
            cost += publish(NEW, market.changed(&set.symbols, 0), out);
            for id in &new {
                out.unsubscribe(*id, NEW);
                out.subscribe(*id, &set.channel);
                set.new.remove(id);
            }
        }
        (cost + new.len() * 256, set.new.is_empty())
    }
}

/// Publishes prices, in as many messages as needed. Returns their length in bytes.
fn publish<'a>(channel: &str, prices: impl Iterator<Item = &'a str>, out: &mut Outbox) -> usize {
    let mut parts: Vec<&[u8]> = vec![HEAD];
    let (mut bytes, mut all) = (HEAD.len() + TAIL.len(), 0);
    let mut send = |parts: &mut Vec<&[u8]>, bytes: &mut usize| {
        if parts.len() > 1 {
            parts.push(TAIL);
            out.publish_here(channel, Kind::Text, parts);
            all += *bytes;
        }
        parts.truncate(1);
        *bytes = HEAD.len() + TAIL.len();
    };
    for price in prices {
        if bytes + 1 + price.len() > MAX_CHANGES_BYTES {
            send(&mut parts, &mut bytes);
        }
        if parts.len() > 1 {
            parts.push(b",");
        }
        parts.push(price.as_bytes());
        bytes += 1 + price.len();
    }
    send(&mut parts, &mut bytes);
    all
}
