//! Prices: a random walk for each symbol that stays positive and near its start.

use super::wire::Change;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Symbols and start prices where no others are given.
pub const TABLE: [(&str, f64); 8] = [
    ("AAPL", 133.11),
    ("CMG", 1518.75),
    ("CSL.AX", 288.18),
    ("GRMN", 144.37),
    ("MOAT", 74.29),
    ("QAN.AX", 4.55),
    ("SPY", 426.61),
    ("WPL.AX", 22.45),
];
/// The most symbols there can be.
pub const MAX_SYMBOLS: usize = 10_000;
/// The longest symbol, in bytes.
pub const MAX_SYMBOL_BYTES: usize = 32;

/// What can be a price.
const PRICES: RangeInclusive<f64> = 0.01..=1e12;

/// How far a price goes in a step, as a part of itself.
const STEP: f64 = 0.002;
/// How much of the way back to its start it goes in a step.
const PULL: f64 = 0.001;
/// The farthest it is from its start, as a logarithm: half and double.
const FARTHEST: f64 = std::f64::consts::LN_2;

/// A symbol's price.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Quote {
    start: f64,
    /// The logarithm of price over start.
    offset: f64,
    update_time: u64,
    /// In which round somebody asked for it last; none if it is always there.
    wanted: Option<u64>,
}

impl Quote {
    /// To the cent, and never less than one.
    fn price(&self) -> f64 {
        ((self.start * self.offset.exp() * 100.0).round() / 100.0).max(0.01)
    }
}

/// All symbols and their prices.
pub struct Market {
    quotes: BTreeMap<String, Quote>,
    random: StdRng,
    round: u64,
}

/// Why a symbol cannot be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadSymbol {
    /// It is no symbol.
    Form(String),
    /// There are [`MAX_SYMBOLS`] already.
    TooMany,
}

impl fmt::Display for BadSymbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSymbol::Form(symbol) => {
                write!(f, "'{symbol}' is no symbol: give 1 to {MAX_SYMBOL_BYTES} letters, digits and .-^=_/")
            }
            BadSymbol::TooMany => write!(f, "there are {MAX_SYMBOLS} symbols already"),
        }
    }
}

impl std::error::Error for BadSymbol {}

impl Market {
    /// A market of symbols that are always there, whose prices go their way by `seed`: the same for the same seed.
    pub fn new(table: impl IntoIterator<Item = (String, f64)>, seed: u64, now: u64) -> Market {
        let quote = |(symbol, start)| (symbol, Quote { start, offset: 0.0, update_time: now, wanted: None });
        Market { quotes: table.into_iter().map(quote).collect(), random: StdRng::seed_from_u64(seed), round: 0 }
    }

    /// Begins a round: of the symbols that came later, those stay that were asked for in the last `keep` rounds.
    pub fn begin_round(&mut self, keep: u64) -> u64 {
        self.round += 1;
        let round = self.round;
        self.quotes.retain(|_, quote| quote.wanted.is_none_or(|wanted| wanted + keep >= round));
        round
    }

    /// Has a symbol in the market, for the next rounds. A new one begins at a price that follows from its name.
    ///
    /// # Errors
    /// When it is no symbol, or there are too many.
    pub fn add(&mut self, symbol: &str, now: u64) -> Result<bool, BadSymbol> {
        check_symbol(symbol)?;
        if let Some(quote) = self.quotes.get_mut(symbol) {
            quote.wanted = quote.wanted.map(|_| self.round);
            return Ok(false);
        }
        if self.quotes.len() >= MAX_SYMBOLS {
            return Err(BadSymbol::TooMany);
        }
        let hash = symbol.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let start = 10.0 + f64::from(hash % 49_000) / 100.0;
        let quote = Quote { start, offset: 0.0, update_time: now, wanted: Some(self.round) };
        self.quotes.insert(symbol.to_owned(), quote);
        Ok(true)
    }

    /// Whether a symbol is always there.
    pub fn is_fixed(&self, symbol: &str) -> bool {
        self.quotes.get(symbol).is_some_and(|quote| quote.wanted.is_none())
    }

    /// Moves every price a step.
    pub fn step(&mut self, now: u64) {
        for quote in self.quotes.values_mut() {
            // Four dice make a bell.
            let dice: f64 = (0..4).map(|_| f64::from(self.random.next_u32()) / f64::from(u32::MAX) - 0.5).sum();
            quote.offset = (quote.offset * (1.0 - PULL) + dice * STEP * 1.73).clamp(-FARTHEST, FARTHEST);
            quote.update_time = now;
        }
    }

    /// Takes over a price that another process made.
    pub fn set(&mut self, change: &Change) {
        let is_known = self.quotes.contains_key(&change.symbol);
        if !PRICES.contains(&change.price) || !is_known && self.add(&change.symbol, change.update_time).is_err() {
            return;
        }
        if let Some(quote) = self.quotes.get_mut(&change.symbol) {
            quote.offset = (change.price / quote.start).ln();
            if quote.offset.abs() > FARTHEST {
                // The other began at another price.
                (quote.start, quote.offset) = (change.price, 0.0);
            }
            quote.update_time = change.update_time;
        }
    }

    /// A symbol's price.
    pub fn get(&self, symbol: &str) -> Option<Change> {
        let quote = self.quotes.get(symbol)?;
        Some(Change { symbol: symbol.to_owned(), update_time: quote.update_time, price: quote.price() })
    }

    /// All prices.
    pub fn all(&self) -> impl Iterator<Item = Change> {
        self.quotes.keys().filter_map(|symbol| self.get(symbol))
    }
}

/// Whether a text may be a symbol.
///
/// # Errors
/// When it may not.
pub fn check_symbol(symbol: &str) -> Result<(), BadSymbol> {
    let is_character = |c: char| c.is_ascii_alphanumeric() || ".-^=_/".contains(c);
    if (1..=MAX_SYMBOL_BYTES).contains(&symbol.len()) && symbol.chars().all(is_character) {
        return Ok(());
    }
    Err(BadSymbol::Form(symbol.chars().take(MAX_SYMBOL_BYTES).collect()))
}

/// Reads lines `SYMBOL,PRICE`; a first line `Symbol,Price` or the like is a heading, and empty lines are passed over.
///
/// # Errors
/// The line that is wrong, and why.
pub fn read_csv(text: &str) -> Result<Vec<(String, f64)>, String> {
    let mut table = Vec::new();
    // Spreadsheets put a byte order mark before it.
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines()).filter(|(_, line)| !line.trim().is_empty());
    for (index, (number, line)) in lines.enumerate() {
        let bad = |why: &str| format!("line {number}: {why}: '{}'", line.trim());
        let (symbol, price) = line.split_once(',').ok_or_else(|| bad("no comma between symbol and price"))?;
        let [symbol, price] = [symbol, price].map(|field| field.trim().trim_matches('"'));
        if index == 0 && price.to_ascii_lowercase().contains("price") {
            continue;
        }
        let price: f64 = price.parse().map_err(|_| bad("the price is no number"))?;
        check_symbol(symbol).map_err(|error| bad(&error.to_string()))?;
        if !PRICES.contains(&price) {
            return Err(bad("a price is 0.01 to 1e12"));
        }
        table.push((symbol.to_owned(), price));
    }
    if table.is_empty() || table.len() > MAX_SYMBOLS {
        return Err(format!("{} symbols: give 1 to {MAX_SYMBOLS}", table.len()));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
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
                assert_eq!(update_time, now);
                moved += u32::from(price != start);
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
            assert!(one.all().eq(two.all()));
        }
        assert!(!one.all().eq(other.all()));
    }

    #[test]
    fn prices_of_others_are_taken_over() {
        let (mut leader, mut follower) = (market(1), market(2));
        assert_eq!(leader.add("NEW", 0), Ok(true));
        assert_eq!(leader.add("NEW", 0), Ok(false));
        (0..500).for_each(|now| leader.step(now));
        leader.all().for_each(|change| follower.set(&change));
        assert!(follower.all().zip(leader.all()).all(|(a, b)| a == b));
        // Whatever another program may say.
        for price in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            follower.set(&Change { symbol: "SPY".into(), update_time: 1, price });
            follower.set(&Change { symbol: "no symbol".into(), update_time: 1, price });
        }
        assert!(follower.all().all(|change| change.price.is_finite() && change.price > 0.0));
        assert_eq!(follower.all().count(), 9);
    }

    #[test]
    fn there_is_an_end_to_symbols() {
        let mut market = market(1);
        for number in TABLE.len()..MAX_SYMBOLS {
            assert_eq!(market.add(&format!("S{number}"), 0), Ok(true));
        }
        assert_eq!(market.add("ONEMORE", 0), Err(BadSymbol::TooMany));
        assert!(matches!(market.add("", 0), Err(BadSymbol::Form(_))));
        assert!(matches!(market.add(&"x".repeat(33), 0), Err(BadSymbol::Form(_))));
        assert!(matches!(market.add("a,b", 0), Err(BadSymbol::Form(_))));
    }

    #[test]
    fn symbols_that_nobody_asks_for_are_forgotten() {
        let mut market = market(1);
        for number in 0..MAX_SYMBOLS {
            let _ = market.add(&format!("S{number}"), 0);
        }
        assert_eq!(market.add("NEW", 0), Err(BadSymbol::TooMany));
        for _ in 0..3 {
            market.begin_round(3);
            assert_eq!(market.add("S1", 0), Ok(false));
            // That it has a price somewhere else asks for nothing.
            market.set(&Change { symbol: "S2".into(), update_time: 1, price: 5.0 });
        }
        assert_eq!(market.all().count(), MAX_SYMBOLS);
        market.begin_round(3);
        assert_eq!(market.all().count(), TABLE.len() + 1);
        assert!(market.get("S1").is_some() && market.add("NEW", 0) == Ok(true));
    }

    #[test]
    fn tables_of_prices() {
        let table = read_csv("\u{feff}\nSymbol,\"Start price\"\n AAPL , 1.5\n\n\"SPY\",\"2\"\n");
        assert_eq!(table, Ok(vec![("AAPL".to_owned(), 1.5), ("SPY".to_owned(), 2.0)]));
        for (text, said) in [
            ("", "0 symbols"),
            ("a,lots", "line 1: the price is no number"),
            ("SPY,\"1,234.5\"", "line 1: the price is no number"),
            ("AAPL 1", "line 1: no comma"),
            ("a,1\nb,x", "line 2: the price is no number"),
            ("a,1\nb,0", "0.01"),
            ("a,1\nb,inf", "0.01"),
            ("a b,1", "no symbol"),
        ] {
            let error = read_csv(text).expect_err("it is bad");
            assert!(error.contains(said), "{error}");
        }
    }
}
