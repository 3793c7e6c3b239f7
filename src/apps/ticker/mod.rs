//! `serve ticker`: prices for clients that ask for them, with liveness checks on both sides.
//!
//! Clients with the same symbols share a channel, so that a tick is written once for each distinct subscription, and
//! only with what changed. Of several processes on a bus one, chosen by `Leadership`, makes the prices for all.
//!
//! Sending a tick, to clients and over the bus, may take longer than other events should wait: it is sent in slices,
//! one in each pass of the loop.

pub mod client;
pub mod market;
mod sets;
pub mod table;
pub mod wire;

use super::demo::Demo;
use crate::app::App;
use crate::channel::record::Record;
use crate::net::id::{ConnectionId, Participant};
use crate::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::{Kind, Message};
use crate::telemetry::log::Level;
use market::{BadSymbol, Market, SymbolId, WEIGHT, check_symbol};
use sets::Sets;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;
use wire::{Beat, Complaint, Payload, Unreadable, Wire};

/// The bus's channel for prices: a tick's number, a space, and the payload of a `TickerChange`. All messages of a tick
/// but the last have a `+` after the number.
pub const PRICES: &str = "ticker-prices";
/// The bus's channel for symbols that clients have asked for, each followed by a space and its weight: see [`WEIGHT`].
pub const SYMBOLS: &str = "ticker-symbols";
/// The most symbols of a client.
pub const MAX_TICKERS: usize = 1000;

/// After this many ticks a process repeats which symbols its clients want,
const SAY_AGAIN_TICKS: u64 = 10;
/// and after this many ticks without a repetition others forget a symbol.
const KEEP_TICKS: u64 = 25;
/// Bytes of a tick to queue in a pass of the loop.
const SLICE_BYTES: usize = 64 << 10;
/// Prices in one message on the bus: far fewer than fit into the smallest ring.
const PRICES_TOGETHER: usize = 8;
/// The longest message from a client: a request of [`MAX_TICKERS`] symbols takes half of it.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// The reason when a client must make room for another; a reason has at most 123 bytes.
const TURNED_OUT: &str = "too many made-up symbols: the market is full, and a client with fewer needs the room";

/// A page to try it, with its own client.
const PAGE: &str = include_str!("../../../examples/ticker.html");

/// The times of a feed.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Time between prices of a symbol.
    pub tick: Duration,
    /// How often clients should send something. A client silent for one and a half times as long gets a Ping, unless it
    /// pings by itself; one silent for twice as long is closed.
    pub ping: Duration,
}

/// The feed.
pub struct Ticker {
    times: Times,
    demo: Option<Demo>,
    market: Market,
    clients: HashMap<ConnectionId, Client>,
    sets: Sets,
    /// The clients whose silence to check next, and when.
    silences: BTreeSet<(Duration, ConnectionId)>,
    next_tick: Duration,
    leadership: Leadership,
    /// Publishing prices on the bus: the last symbol published.
    prices: Work<String>,
    /// Repeating symbols there: the last one repeated.
    symbols: Work<String>,
    /// Showing prices to sets.
    showing: Work<Showing>,
}

struct Client {
    /// When it last sent something.
    heard: Duration,
    /// Pings sent to it.
    asked: u64,
    /// It pings by itself, so it is never pinged: the original client does not know Ping, and ends when it gets one.
    pings: bool,
    /// The number of the set that it is in.
    set: Option<u64>,
}

/// The sets still to be shown prices: those after `after`, up to `until`.
#[derive(Clone, Copy)]
struct Showing {
    after: u64,
    until: u64,
}

/// Work that takes several passes of the loop. If it is due again before it is done, it continues and then starts over.
struct Work<T> {
    at: Option<T>,
    again: bool,
}

impl<T> Default for Work<T> {
    fn default() -> Work<T> {
        Work { at: None, again: false }
    }
}

impl<T> Work<T> {
    fn begin(&mut self, start: T) {
        if self.at.is_some() {
            self.again = true;
        } else {
            self.at = Some(start);
        }
    }

    fn end(&mut self, start: T) {
        self.at = std::mem::take(&mut self.again).then_some(start);
    }
}

/// Decides which process makes the prices.
///
/// The leader announces itself with each tick. A process takes over when it has heard no tick for longer than one
/// takes, the lowest on the bus first. Of two leaders, the one with more ticks stays, or the one lower on the bus.
#[derive(Default)]
struct Leadership {
    leads: bool,
    /// Ticks so far, of all leaders.
    ticks: u64,
    /// When the last one of another process was heard.
    heard: Duration,
}

impl Ticker {
    /// Makes a feed of a market.
    pub fn new(market: Market, times: Times) -> Ticker {
        Ticker {
            times,
            demo: None,
            market,
            clients: HashMap::new(),
            sets: Sets::default(),
            silences: BTreeSet::new(),
            next_tick: Duration::ZERO,
            leadership: Leadership::default(),
            prices: Work::default(),
            symbols: Work::default(),
            showing: Work::default(),
        }
    }

    /// Sets whether it serves a page to try it, at `/`.
    pub fn demo(self, demo: bool) -> Ticker {
        Ticker { demo: demo.then(|| Demo::new(PAGE)), ..self }
    }

    /// Moves a client into the set of these symbols.
    fn subscribe(&mut self, id: ConnectionId, mut symbols: Vec<String>, out: &mut Outbox) -> Result<(), String> {
        if symbols.len() > MAX_TICKERS {
            return Err(format!("{} symbols: ask for at most {MAX_TICKERS}", symbols.len()));
        }
        symbols.iter().try_for_each(|symbol| check_symbol(symbol)).map_err(|error| error.to_string())?;
        symbols.sort_unstable();
        symbols.dedup();
        let known: Vec<Option<SymbolId>> = symbols.iter().map(|symbol| self.market.find(symbol)).collect();
        let is_made_up = |known: &&Option<SymbolId>| known.is_none_or(|symbol| !self.market.is_fixed(symbol));
        let weight = known.iter().filter(is_made_up).count() as u64 * WEIGHT;
        // Symbols that the client keeps keep their prices.
        known.iter().flatten().for_each(|symbol| self.market.hold(*symbol, weight));
        self.unsubscribe(id, out);
        let new = known.iter().filter(|known| known.is_none()).count();
        if !self.make_room(new, weight, out) {
            known.iter().flatten().for_each(|symbol| self.market.release(*symbol));
            return Err(BadSymbol::TooMany.to_string());
        }
        let now = out.unix_time().as_secs();
        let take = |(symbol, known): (&String, Option<SymbolId>)| {
            known.unwrap_or_else(|| {
                tell_others(symbol, weight, out);
                self.market.add(symbol, weight, now)
            })
        };
        let held: Vec<SymbolId> = symbols.iter().zip(known).map(take).collect();
        if let Some(client) = self.clients.get_mut(&id).filter(|_| !held.is_empty()) {
            client.set = Some(self.sets.join(id, held, &mut self.market));
        }
        Ok(())
    }

    fn unsubscribe(&mut self, id: ConnectionId, out: &mut Outbox) {
        let Some(set) = self.clients.get_mut(&id).and_then(|client| client.set.take()) else { return };
        if let Some(channel) = self.sets.channel(set) {
            out.unsubscribe(id, channel);
        }
        self.sets.leave(id, set, &mut self.market);
    }

    /// Makes room in the market for a newcomer's symbols by evicting the heaviest sets, if they are heavier than the
    /// newcomer. At equal weight it is refused: otherwise two equals would evict each other without end.
    fn make_room(&mut self, symbols: usize, weight: u64, out: &mut Outbox) -> bool {
        while self.market.room() < symbols {
            let (set, foreign) = (self.sets.heaviest(), self.market.heaviest_foreign());
            match (set, foreign) {
                (Some((heaviest, set)), foreign) if heaviest > weight && Some(heaviest) >= foreign => {
                    self.turn_out(set, out);
                }
                // Its own process evicts the client.
                (_, Some(heaviest)) if heaviest > weight => self.market.drop_foreign(),
                (_, _) => return false,
            }
        }
        true
    }

    /// Closes the clients of a set that made up more symbols than others.
    fn turn_out(&mut self, set: u64, out: &mut Outbox) {
        for id in self.sets.remove(set, &mut self.market) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.set = None;
            }
            out.log(Level::Warn, "evicted", id, TURNED_OUT);
            refuse(id, CloseCode::Policy, TURNED_OUT, out);
        }
    }

    /// Starts showing all sets their new prices.
    fn show(&mut self) {
        self.showing.begin(Showing { after: 0, until: self.sets.last() });
    }

    /// Sends a slice to other processes and a slice to clients. Returns whether more is left.
    fn say_slices(&mut self, out: &mut Outbox) -> bool {
        let tells = self.say_slice(Ticker::tell_next, out);
        let shows = self.say_slice(Ticker::show_next, out);
        tells || shows
    }

    /// Sends one part after the other until a slice is done. Returns whether more is left.
    fn say_slice(&mut self, next: fn(&mut Ticker, &mut Outbox) -> Option<usize>, out: &mut Outbox) -> bool {
        let mut said = 0;
        while said == 0 || said < SLICE_BYTES && !out.is_full() {
            match next(self, out) {
                Some(cost) => said += cost.max(1),
                None => return false,
            }
        }
        true
    }

    /// Sends the next part to the other processes, if there is any. Returns its cost in bytes.
    fn tell_next(&mut self, out: &mut Outbox) -> Option<usize> {
        // Symbols first, as they are rare; prices may be due again as soon as they were sent.
        if let Some(after) = self.symbols.at.take() {
            return Some(self.say_symbol_again(&after, out));
        }
        let after = self.prices.at.take()?;
        Some(self.publish_prices(&after, out))
    }

    /// Shows the next set its prices, if there is one. Returns the cost in bytes.
    fn show_next(&mut self, out: &mut Outbox) -> Option<usize> {
        let Showing { after, until } = self.showing.at?;
        let Some(set) = self.sets.next_after(after).filter(|set| *set <= until) else {
            self.showing.end(Showing { after: 0, until: self.sets.last() });
            return Some(0);
        };
        let (cost, is_done) = self.sets.show(set, &mut self.market, out);
        if is_done {
            self.showing.at = Some(Showing { after: set, until });
        }
        Some(cost)
    }

    /// Publishes the prices of the next symbols after this one on the bus.
    fn publish_prices(&mut self, after: &str, out: &mut Outbox) -> usize {
        if !self.leadership.leads {
            self.prices.again = false;
            return 0;
        }
        let mut prices: Vec<wire::Change> = self.market.after(after).take(PRICES_TOGETHER + 1).collect();
        let is_last = prices.len() <= PRICES_TOGETHER;
        prices.truncate(PRICES_TOGETHER);
        let last = prices.last().map(|change| change.symbol.clone());
        let sign = if is_last { "" } else { "+" };
        let text = format!("{}{sign} {}", self.leadership.ticks, wire::Changes(prices).to_json());
        // Always short enough for the bus.
        let _ = out.publish(PRICES, Kind::Text, &[text.as_bytes()]);
        match last.filter(|_| !is_last) {
            Some(last) => self.prices.at = Some(last),
            None => {
                self.prices.end(String::new());
                self.show();
            }
        }
        text.len()
    }

    /// Repeats the next made-up symbol after this one, so that it stays in the markets of all processes.
    fn say_symbol_again(&mut self, after: &str, out: &mut Outbox) -> usize {
        match self.market.made_up_after(after).next() {
            Some((symbol, weight)) => {
                tell_others(symbol, weight, out);
                self.symbols.at = Some(symbol.as_ref().to_owned());
                symbol.len()
            }
            None => {
                self.symbols.end(String::new());
                0
            }
        }
    }

    /// Makes a tick, if this process leads.
    fn tick(&mut self, now: Duration, out: &mut Outbox) {
        if !self.leadership.leads {
            let before_us = out.participant().map_or(0, |me| out.listeners(PRICES).filter(|other| *other < me).count());
            let alone = out.listeners(PRICES).next().is_none();
            let patience = self.times.tick.mul_f64(1.5 + before_us as f64 / 2.0);
            self.leadership.leads = alone || now >= self.leadership.heard + patience;
        }
        if !self.leadership.leads {
            return;
        }
        self.leadership.ticks += 1;
        self.market.step(out.unix_time().as_secs());
        if out.participant().is_some() {
            self.prices.begin(String::new());
        } else {
            self.show();
        }
    }

    /// Takes over prices from another process.
    fn follow(&mut self, from: Participant, text: &str, out: &mut Outbox) {
        let Some((number, json)) = text.split_once(' ') else { return };
        let (number, is_last) = number.strip_suffix('+').map_or((number, true), |number| (number, false));
        let (Ok(number), Ok(json)) = (number.parse::<u64>(), serde_json::from_str(json)) else { return };
        let Ok(changes) = wire::Changes::from_json(&json) else { return };
        let theirs_is_lower = out.participant().is_some_and(|me| from < me);
        let Leadership { leads, ticks, heard } = &mut self.leadership;
        if *leads && (number, theirs_is_lower) < (*ticks, true) {
            return;
        }
        (*leads, *ticks, *heard) = (false, number, out.now());
        changes.0.iter().for_each(|change| self.market.set(change));
        if is_last {
            self.show();
            out.tick_by(out.now());
        }
    }

    /// Pings clients that have been silent for long, and closes those that were silent for too long.
    fn mind_silences(&mut self, now: Duration, out: &mut Outbox) {
        let Times { ping, .. } = self.times;
        while let Some((_, id)) = self.silences.first().copied().filter(|(due, _)| *due <= now) {
            self.silences.pop_first();
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let (asks, ends) = (client.heard + ping.mul_f64(1.5), client.heard + ping * 2);
            if ends <= now {
                out.close(id, CloseCode::Policy, "silent for too long");
                continue;
            }
            if asks <= now && !client.pings {
                client.asked += 1;
                out.send_text(id, &Wire::Ping(Beat::new(client.asked, out.unix_time())).write());
            }
            self.silences.insert((if asks <= now { ends } else { asks }, id));
        }
    }
}

/// Makes the other processes, if there are any, add a symbol to their markets.
fn tell_others(symbol: &str, weight: u64, out: &mut Outbox) {
    if out.participant().is_some() {
        // Far shorter than the bus's limit.
        let _ = out.publish(SYMBOLS, Kind::Text, &[format!("{symbol} {weight}").as_bytes()]);
    }
}

/// Closes a connection with a reason.
fn refuse(id: ConnectionId, code: CloseCode, why: &str, out: &mut Outbox) {
    out.send_text(id, &Wire::Error(Complaint(why.to_owned())).write());
    out.close(id, code, why);
}

impl App for Ticker {
    type State = ();

    fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
        self.demo.as_ref()?.answer(request)
    }

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        self.clients.insert(id, Client { heard: out.now(), asked: 0, pings: false, set: None });
        let due = out.now() + self.times.ping.mul_f64(1.5);
        self.silences.insert((due, id));
        out.tick_by(due);
    }

    fn on_message(&mut self, id: ConnectionId, (): &mut (), mut message: Message<'_>, out: &mut Outbox) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.heard = out.now();
        }
        let is_too_long = message.len() > MAX_MESSAGE_BYTES;
        let (code, error) = match message.text().filter(|_| !is_too_long).map(Wire::read) {
            None if is_too_long => (CloseCode::Size, format!("longer than {MAX_MESSAGE_BYTES} bytes")),
            Some(Ok(Wire::TickerRequest(request))) => match self.subscribe(id, request.tickers, out) {
                Ok(()) => return,
                Err(error) => (CloseCode::Policy, error),
            },
            Some(Ok(Wire::Ping(beat))) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.pings = true;
                }
                out.send_text(id, &Wire::Pong(beat).write());
                return;
            }
            Some(Ok(Wire::Pong(_))) => return,
            Some(Ok(Wire::TickerChange(_) | Wire::Error(_))) => {
                (CloseCode::Unsupported, "a message that only servers send".to_owned())
            }
            Some(Err(error @ Unreadable::UnknownName(_))) => (CloseCode::Unsupported, error.to_string()),
            Some(Err(error @ Unreadable::Malformed(_))) => (CloseCode::Invalid, error.to_string()),
            None => (CloseCode::Unsupported, "a binary message: send Name:JSON as text".to_owned()),
        };
        refuse(id, code, &error, out);
    }

    fn on_close(&mut self, id: ConnectionId, (): (), _: &CloseReason, _: &mut Outbox) {
        if let Some(set) = self.clients.remove(&id).and_then(|client| client.set) {
            self.sets.leave(id, set, &mut self.market);
        }
    }

    fn on_bus(&mut self, from: Participant, record: Record<'_>, out: &mut Outbox) {
        let Ok(text) = std::str::from_utf8(record.payload) else { return };
        if record.channel == PRICES.as_bytes() {
            self.follow(from, text, out);
        } else if record.channel == SYMBOLS.as_bytes() {
            let Some((symbol, weight)) = text.split_once(' ') else { return };
            let (Ok(()), Ok(weight)) = (check_symbol(symbol), weight.parse()) else { return };
            let now = out.unix_time().as_secs();
            // A symbol too heavy for this market is too heavy for the other one, too.
            if !self.market.hear(symbol, weight, now) && self.make_room(1, weight, out) {
                self.market.hear(symbol, weight, now);
            }
        }
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if now.is_zero() || self.next_tick.is_zero() {
            out.listen(PRICES, true);
            out.listen(SYMBOLS, true);
            (self.next_tick, self.leadership.heard) = (now + self.times.tick, now);
        }
        if now >= self.next_tick {
            let says_again = self.market.begin_round(KEEP_TICKS).is_multiple_of(SAY_AGAIN_TICKS);
            if says_again && out.participant().is_some() {
                self.symbols.begin(String::new());
            }
            self.tick(now, out);
            // A process that was held up skips the ticks that it missed.
            self.next_tick = (self.next_tick + self.times.tick).max(now);
        }
        self.mind_silences(now, out);
        let goes_on = self.say_slices(out).then_some(now);
        let silence = self.silences.first().map(|(due, _)| *due);
        Some([goes_on, silence].into_iter().flatten().fold(self.next_tick, Duration::min))
    }
}

#[cfg(test)]
mod tests;
