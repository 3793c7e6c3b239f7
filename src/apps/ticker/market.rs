//! Prices: a random walk for each symbol that stays positive and near its start.

use super::wire::Change;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, RangeInclusive};
use std::rc::Rc;

/// The most symbols in a market.
pub const MAX_SYMBOLS: usize = 10_000;
/// The longest symbol, in bytes.
pub const MAX_SYMBOL_BYTES: usize = 32;

/// The range of prices.
pub(super) const PRICES: RangeInclusive<f64> = 0.01..=1e12;

/// The size of a step, relative to the price.
const STEP: f64 = 0.002;
/// The part of the way back to its start that a price goes in a step.
const PULL: f64 = 0.001;
/// The greatest distance from its start, as a logarithm: half and double.
const FARTHEST: f64 = std::f64::consts::LN_2;

/// The weight of each made-up symbol of a client, divided among the clients with the same subscription.
pub const WEIGHT: u64 = 1000;

/// A symbol's index in the market, valid while the symbol is there.
pub type SymbolId = u32;

/// A symbol, its price and its demand.
struct Quote {
    symbol: Rc<str>,
    start: f64,
    /// The logarithm of price over start.
    offset: f64,
    /// To the cent.
    price: f64,
    /// When the price last changed, in Unix seconds, and the number of that change in the market.
    update_time: u64,
    changed: u64,
    /// The price as JSON; empty until a client needs it.
    json: String,
    /// It is always there.
    is_fixed: bool,
    /// Subscriptions of this process with this symbol.
    sets: u32,
    /// Weight of the lightest subscription that has asked for it.
    weight: u64,
    /// The last round in which another process asked for it.
    elsewhere: Option<u64>,
}

impl Quote {
    fn set_price(&mut self, update_time: u64, change: u64) {
        let price = ((self.start * self.offset.exp() * 100.0).round() / 100.0).max(0.01);
        if price != self.price {
            (self.price, self.update_time, self.changed) = (price, update_time, change);
            self.json.clear();
        }
    }

    /// Returns whether only other processes want it.
    fn is_foreign(&self) -> bool {
        !self.is_fixed && self.sets == 0
    }

    fn change(&self) -> Change {
        Change { symbol: self.symbol.as_ref().to_owned(), update_time: self.update_time, price: self.price }
    }
}

/// All symbols and their prices.
///
/// A symbol that is not in the table stays as long as a subscription of this process holds it, or another process has
/// asked for it in the last rounds.
pub struct Market {
    ids: BTreeMap<Rc<str>, SymbolId>,
    quotes: Vec<Option<Quote>>,
    free: Vec<SymbolId>,
    /// Symbols that only other processes want, by weight.
    foreign: BTreeSet<(u64, SymbolId)>,
    random: StdRng,
    round: u64,
    /// Counts changes of prices.
    changes: u64,
}

/// Why a symbol is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadSymbol {
    /// It is not a valid symbol.
    Form(String),
    /// There are [`MAX_SYMBOLS`] already.
    TooMany,
}

impl fmt::Display for BadSymbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSymbol::Form(symbol) => {
                write!(f, "'{symbol}' is not a symbol: give 1 to {MAX_SYMBOL_BYTES} letters, digits and .-^=_/")
            }
            BadSymbol::TooMany => {
                write!(f, "there are already {MAX_SYMBOLS} symbols, and no client made up more of them than you would")
            }
        }
    }
}

impl std::error::Error for BadSymbol {}

impl Market {
    /// Makes a market of permanent symbols. `seed` determines how their prices move.
    pub fn new(table: impl IntoIterator<Item = (String, f64)>, seed: u64, now: u64) -> Market {
        let mut market = Market {
            ids: BTreeMap::new(),
            quotes: Vec::new(),
            free: Vec::new(),
            foreign: BTreeSet::new(),
            random: StdRng::seed_from_u64(seed),
            round: 0,
            changes: 0,
        };
        // If a symbol appears twice, the last price counts.
        for (symbol, start) in table.into_iter().collect::<BTreeMap<_, _>>() {
            let id = market.insert(&symbol, start, now);
            market.quote(id).is_fixed = true;
        }
        market
    }

    /// Returns a symbol that must be there.
    fn quote(&mut self, id: SymbolId) -> &mut Quote {
        self.quotes[id as usize].as_mut().expect("an id is valid while its symbol is held")
    }

    /// Begins a round: forgets symbols that only other processes wanted and did not ask for in the last `keep` rounds.
    pub fn begin_round(&mut self, keep: u64) -> u64 {
        self.round += 1;
        let Market { ids, quotes, free, foreign, round, .. } = self;
        ids.retain(|_, id| {
            let Some(quote) = &mut quotes[*id as usize] else { return false };
            quote.elsewhere = quote.elsewhere.filter(|asked| asked + keep >= *round);
            let stays = !quote.is_foreign() || quote.elsewhere.is_some();
            if !stays {
                foreign.remove(&(quote.weight, *id));
                quotes[*id as usize] = None;
                free.push(*id);
            }
            stays
        });
        *round
    }

    /// Returns the number of symbols that still fit.
    pub fn room(&self) -> usize {
        MAX_SYMBOLS.saturating_sub(self.ids.len())
    }

    /// Returns the id of a symbol, if it is there.
    pub fn find(&self, symbol: &str) -> Option<SymbolId> {
        self.ids.get(symbol).copied()
    }

    /// Adds a new symbol for a subscription, which holds it. Its name determines its first price. The symbol must be
    /// valid and not there yet, and there must be room.
    pub fn add(&mut self, symbol: &str, weight: u64, now: u64) -> SymbolId {
        let id = self.insert(symbol, start_price(symbol), now);
        let quote = self.quote(id);
        (quote.sets, quote.weight) = (1, weight);
        id
    }

    fn insert(&mut self, symbol: &str, start: f64, now: u64) -> SymbolId {
        if let Some(id) = self.find(symbol) {
            return id;
        }
        let id = self.free.pop().unwrap_or(self.quotes.len() as SymbolId);
        self.quotes.resize_with(self.quotes.len().max(id as usize + 1), || None);
        let symbol: Rc<str> = symbol.into();
        self.ids.insert(Rc::clone(&symbol), id);
        self.changes += 1;
        let (json, changed) = (String::new(), self.changes);
        let mut quote = Quote {
            symbol,
            start,
            offset: 0.0,
            price: 0.0,
            update_time: now,
            changed,
            json,
            is_fixed: false,
            sets: 0,
            weight: 0,
            elsewhere: None,
        };
        quote.set_price(now, changed);
        self.quotes[id as usize] = Some(quote);
        id
    }

    /// Counts one more subscription of a symbol.
    pub fn hold(&mut self, id: SymbolId, weight: u64) {
        let quote = self.quote(id);
        let (was_foreign, before) = (quote.is_foreign(), quote.weight);
        quote.sets += 1;
        quote.weight = before.min(weight);
        if was_foreign {
            self.foreign.remove(&(before, id));
        }
    }

    /// Counts one subscription less, and forgets a symbol without any.
    pub fn release(&mut self, id: SymbolId) {
        let quote = self.quote(id);
        quote.sets -= 1;
        if quote.is_foreign() {
            let (weight, is_wanted) = (quote.weight, quote.elsewhere.is_some());
            self.foreign.insert((weight, id));
            if !is_wanted {
                self.forget(weight, id);
            }
        }
    }

    /// Forgets a symbol without subscriptions.
    fn forget(&mut self, weight: u64, id: SymbolId) {
        self.foreign.remove(&(weight, id));
        if let Some(quote) = self.quotes[id as usize].take() {
            self.ids.remove(&quote.symbol);
            self.free.push(id);
        }
    }

    /// Notes that another process asked for a symbol. Returns false if there is no room for it.
    pub fn hear(&mut self, symbol: &str, weight: u64, now: u64) -> bool {
        let (known, round) = (self.find(symbol), self.round);
        if known.is_none() && self.room() == 0 {
            return false;
        }
        let id = known.unwrap_or_else(|| self.insert(symbol, start_price(symbol), now));
        let quote = self.quote(id);
        quote.elsewhere = Some(round);
        if quote.is_foreign() {
            let before = std::mem::replace(&mut quote.weight, weight);
            self.foreign.remove(&(before, id));
            self.foreign.insert((weight, id));
        }
        true
    }

    /// Returns the greatest weight of a symbol that only other processes want.
    pub fn heaviest_foreign(&self) -> Option<u64> {
        self.foreign.last().map(|(weight, _)| *weight)
    }

    /// Forgets the symbol of that weight.
    pub fn drop_foreign(&mut self) {
        if let Some((weight, id)) = self.foreign.last().copied() {
            self.forget(weight, id);
        }
    }

    /// Returns whether a symbol is permanent.
    pub fn is_fixed(&self, id: SymbolId) -> bool {
        self.quotes[id as usize].as_ref().is_some_and(|quote| quote.is_fixed)
    }

    /// Moves every price by one step.
    pub fn step(&mut self, now: u64) {
        self.changes += 1;
        for id in self.ids.values() {
            let Some(quote) = &mut self.quotes[*id as usize] else { continue };
            // The sum of four dice is about normally distributed.
            let dice: f64 = (0..4).map(|_| f64::from(self.random.next_u32()) / f64::from(u32::MAX) - 0.5).sum();
            quote.offset = (quote.offset * (1.0 - PULL) + dice * STEP * 1.73).clamp(-FARTHEST, FARTHEST);
            quote.set_price(now, self.changes);
        }
    }

    /// Takes over a price from another process.
    pub fn set(&mut self, change: &Change) {
        let Change { symbol, update_time, price } = change;
        let is_welcome = || check_symbol(symbol).is_ok() && self.room() > 0;
        if !PRICES.contains(price) || self.find(symbol).is_none() && !is_welcome() {
            return;
        }
        if self.find(symbol).is_none() {
            // Until a process that asks for it tells its weight, it is the first to go.
            self.hear(symbol, u64::MAX, *update_time);
        }
        let Some(id) = self.find(symbol) else { return };
        self.changes += 1;
        let changes = self.changes;
        let quote = self.quote(id);
        quote.offset = (price / quote.start).ln();
        if quote.offset.abs() > FARTHEST {
            // The other process began at another price.
            (quote.start, quote.offset) = (*price, 0.0);
        }
        quote.set_price(*update_time, changes);
        if quote.update_time != *update_time {
            (quote.update_time, quote.changed) = (*update_time, changes);
            quote.json.clear();
        }
    }

    /// Returns a symbol's price.
    pub fn get(&self, symbol: &str) -> Option<Change> {
        let quote = self.quotes[self.find(symbol)? as usize].as_ref()?;
        Some(quote.change())
    }

    /// Returns the prices of the symbols after this one, in order.
    pub fn after(&self, symbol: &str) -> impl Iterator<Item = Change> {
        self.quotes_after(symbol).map(Quote::change)
    }

    /// Returns the made-up symbols of this process's subscriptions after this one, and their weights.
    pub fn made_up_after(&self, symbol: &str) -> impl Iterator<Item = (&Rc<str>, u64)> {
        let made_up = self.quotes_after(symbol).filter(|quote| !quote.is_fixed && quote.sets > 0);
        made_up.map(|quote| (&quote.symbol, quote.weight))
    }

    fn quotes_after(&self, symbol: &str) -> impl Iterator<Item = &Quote> {
        let after = (Bound::Excluded(symbol), Bound::Unbounded);
        self.ids.range::<str, _>(after).filter_map(|(_, id)| self.quotes[*id as usize].as_ref())
    }

    /// Returns the number of price changes so far, which [`Market::changed`] takes later to find newer prices.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns as JSON the prices of those of `symbols` that changed since then, each written once for all clients.
    pub fn changed(&mut self, symbols: &[SymbolId], since: u64) -> impl Iterator<Item = &str> {
        for id in symbols {
            let quote = self.quote(*id);
            if quote.changed > since && quote.json.is_empty() {
                quote.json = quote.change().to_json();
            }
        }
        let quotes = symbols.iter().filter_map(|id| self.quotes[*id as usize].as_ref());
        quotes.filter(move |quote| quote.changed > since).map(|quote| quote.json.as_str())
    }
}

/// Returns the first price of a symbol that is not in the table.
fn start_price(symbol: &str) -> f64 {
    let hash = symbol.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    10.0 + f64::from(hash % 49_000) / 100.0
}

/// Checks that a text is a valid symbol.
///
/// # Errors
/// When it is not.
pub fn check_symbol(symbol: &str) -> Result<(), BadSymbol> {
    let is_character = |c: char| c.is_ascii_alphanumeric() || ".-^=_/".contains(c);
    if (1..=MAX_SYMBOL_BYTES).contains(&symbol.len()) && symbol.chars().all(is_character) {
        return Ok(());
    }
    Err(BadSymbol::Form(symbol.chars().take(MAX_SYMBOL_BYTES).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLE;
    use super::*;

    fn market(seed: u64) -> Market {
        Market::new(TABLE.map(|(symbol, price)| (symbol.to_owned(), price)), seed, 7)
    }

    #[test]
    fn prices_move_and_stay_near_their_start() {
        let mut market = market(3);
        let mut moved = 0;
        for now in 0..200_000 {
            market.step(now);
            for (symbol, start) in TABLE {
                let Change { price, update_time, .. } = market.get(symbol).expect("it is there");
                assert!((start * 0.49..start * 2.01).contains(&price), "{symbol} at {price} from {start}");
                moved += u32::from(update_time == now && now != 7);
            }
        }
        assert!(moved > 1_000_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_prices() {
        let (mut one, mut two, mut other) = (market(1), market(1), market(2));
        for now in 0..100 {
            for market in [&mut one, &mut two, &mut other] {
                market.step(now);
            }
            assert!(one.after("").eq(two.after("")));
        }
        assert!(!one.after("").eq(other.after("")));
    }

    #[test]
    fn prices_of_others_are_taken_over() {
        let (mut leader, mut follower) = (market(1), market(2));
        leader.add("NEW", WEIGHT, 0);
        (0..500).for_each(|now| leader.step(now));
        leader.after("").for_each(|change| follower.set(&change));
        assert!(follower.after("").eq(leader.after("")));
        // Arbitrary input from another program.
        for price in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            follower.set(&Change { symbol: "SPY".into(), update_time: 1, price });
            follower.set(&Change { symbol: "no symbol".into(), update_time: 1, price });
        }
        assert!(follower.after("").all(|change| change.price.is_finite() && change.price > 0.0));
        assert_eq!(follower.after("").count(), 9);
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut market = market(1);
        let all: Vec<SymbolId> = TABLE.iter().filter_map(|(symbol, _)| market.find(symbol)).collect();
        assert_eq!(market.changed(&all, 0).count(), 8);
        let seen = market.changes();
        assert_eq!(market.changed(&all, seen).count(), 0);
        let before = market.get("SPY").expect("it is there");
        market.set(&before);
        assert_eq!(market.changed(&all, seen).count(), 0);
        market.set(&Change { price: before.price + 1.0, ..before.clone() });
        let changed: Vec<String> = market.changed(&all, seen).map(str::to_owned).collect();
        assert_eq!(changed, [market.get("SPY").expect("it is there").to_json()]);
        assert_ne!(changed, [before.to_json()]);
        // No client asked for the others: nothing was written.
        let mut market = self::market(1);
        let spy = market.find("SPY").expect("it is there");
        assert_eq!(market.changed(&[spy], 0).count(), 1);
        assert_eq!(market.quotes.iter().flatten().filter(|quote| !quote.json.is_empty()).count(), 1);
        // The price of a cheap symbol often does not change, nor does its time.
        let cheap = market.find("QAN.AX").expect("it is there");
        let mut still = 0;
        for now in 100..200 {
            let (before, seen) = (market.get("QAN.AX"), market.changes());
            market.step(now);
            let is_still = market.changed(&[cheap], seen).next().is_none();
            assert_eq!(is_still, before == market.get("QAN.AX"));
            still += u32::from(is_still);
        }
        assert!(still > 10, "{still}");
    }

    #[test]
    fn symbols_go_when_nobody_wants_them() {
        let mut market = market(1);
        let mine = market.add("MINE", WEIGHT, 0);
        market.hold(mine, 2 * WEIGHT);
        market.release(mine);
        assert!(market.get("MINE").is_some());
        market.release(mine);
        assert!(market.get("MINE").is_none(), "at once");
        // The table stays.
        let spy = market.find("SPY").expect("it is there");
        market.hold(spy, WEIGHT);
        market.release(spy);
        assert!(market.get("SPY").is_some() && market.heaviest_foreign().is_none());
        // A symbol that another process wants as well stays until that process stops asking.
        let both = market.add("BOTH", WEIGHT, 0);
        assert!(market.hear("BOTH", 5, 0));
        market.release(both);
        assert_eq!(market.heaviest_foreign(), Some(WEIGHT));
        for _ in 0..3 {
            market.begin_round(3);
            // A price from another process does not count as asking.
            market.set(&Change { symbol: "BOTH".into(), update_time: 1, price: 5.0 });
        }
        assert!(market.get("BOTH").is_some());
        market.begin_round(3);
        assert!(market.get("BOTH").is_none() && market.heaviest_foreign().is_none());
    }

    #[test]
    fn there_is_an_end_to_symbols() {
        let mut market = market(1);
        for number in TABLE.len()..MAX_SYMBOLS {
            assert!(market.hear(&format!("S{number}"), number as u64, 0));
        }
        assert_eq!(market.room(), 0);
        assert!(!market.hear("MORE", 1, 0) && market.hear("S100", 7, 0));
        market.set(&Change { symbol: "MORE".into(), update_time: 1, price: 5.0 });
        assert_eq!(market.find("MORE"), None);
        assert_eq!(market.heaviest_foreign(), Some(MAX_SYMBOLS as u64 - 1));
        market.drop_foreign();
        assert!(market.room() == 1 && market.find(&format!("S{}", MAX_SYMBOLS - 1)).is_none());
        for bad in ["", &"x".repeat(33), "a,b"] {
            assert!(matches!(check_symbol(bad), Err(BadSymbol::Form(_))));
        }
    }
}
