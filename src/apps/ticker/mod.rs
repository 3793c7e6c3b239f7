//! `serve ticker`: prices to whoever asks for them, with liveness on both sides.
//!
//! Clients with the same symbols are on one channel, so that a tick is written once for each distinct subscription. Of
//! several processes on a bus one makes the prices, and all show the same: [`Leadership`] says who.

pub mod client;
pub mod market;
pub mod wire;

use crate::app::App;
use crate::data::id::{ConnectionId, Participant};
use crate::data::record::Record;
use crate::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::protocol::message::{Kind, Message};
use market::Market;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;
use wire::{Beat, Complaint, Payload, Unreadable, Wire};

/// The bus's channel on which prices are, as a tick's number, a space, and the payload of a `TickerChange`. All of a tick
/// but the last such message have a `+` after the number.
pub const PRICES: &str = "ticker-prices";
/// The bus's channel on which symbols are that clients have asked for.
pub const SYMBOLS: &str = "ticker-symbols";
/// The most symbols of a client.
pub const MAX_TICKERS: usize = 1000;

/// A process says again after so many ticks which symbols its clients want,
const SAY_AGAIN_TICKS: u64 = 10;
/// and one that nobody wants any more is forgotten after so many.
const KEEP_TICKS: u64 = 50;
/// Prices that go over the bus together: far less than the smallest ring takes.
const PRICES_TOGETHER: usize = 8;
/// No message of a client's is longer: a request of [`MAX_TICKERS`] symbols takes half of it.
const MAX_MESSAGE_BYTES: usize = 128 << 10;

/// What a feed goes by.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From one price of a symbol to the next.
    pub tick: Duration,
    /// From one Ping to a client to the next; who is silent for twice as long is released.
    pub ping: Duration,
}

/// The feed.
pub struct Ticker {
    times: Times,
    market: Market,
    clients: HashMap<ConnectionId, Client>,
    /// By the name of their channel.
    sets: BTreeMap<Rc<str>, Set>,
    /// Whom to ping next, and when.
    pings: VecDeque<(Duration, ConnectionId)>,
    /// Who may have been silent for too long, and when.
    silences: BTreeSet<(Duration, ConnectionId)>,
    next_tick: Duration,
    leadership: Leadership,
}

struct Client {
    /// When it said something.
    heard: Duration,
    /// Pings it was sent.
    sequence: u64,
    /// The channel that it is on.
    set: Option<Rc<str>>,
}

/// Clients that want the same.
struct Set {
    symbols: Vec<String>,
    clients: usize,
}

/// Who makes the prices.
///
/// Whoever does says so with each tick. A process takes over when it has heard no tick for longer than one takes, the
/// lowest on the bus first. Should there be two, the one stays that has made more ticks, or that is lower on the bus.
#[derive(Default)]
struct Leadership {
    leads: bool,
    /// Ticks so far, by whomever they were made.
    ticks: u64,
    /// When the last one of another process was heard.
    heard: Duration,
}

impl Ticker {
    /// A feed of a market.
    pub fn new(market: Market, times: Times) -> Ticker {
        Ticker {
            times,
            market,
            clients: HashMap::new(),
            sets: BTreeMap::new(),
            pings: VecDeque::new(),
            silences: BTreeSet::new(),
            next_tick: Duration::ZERO,
            leadership: Leadership::default(),
        }
    }

    /// Puts a client on the channel of what it wants, in place of the one it was on.
    fn subscribe(&mut self, id: ConnectionId, mut symbols: Vec<String>, out: &mut Outbox) -> Result<(), String> {
        if symbols.len() > MAX_TICKERS {
            return Err(format!("{} symbols: ask for {MAX_TICKERS} at most", symbols.len()));
        }
        for symbol in &symbols {
            let is_new = self.market.add(symbol, out.unix_time().as_secs()).map_err(|error| error.to_string())?;
            if is_new {
                tell_others(symbol, out);
            }
        }
        symbols.sort_unstable();
        symbols.dedup();
        self.unsubscribe(id, out);
        let Some(client) = self.clients.get_mut(&id).filter(|_| !symbols.is_empty()) else { return Ok(()) };
        let channel: Rc<str> = format!("ticker:{}", symbols.join(",")).into();
        out.subscribe(id, &channel);
        self.sets.entry(Rc::clone(&channel)).or_insert(Set { symbols, clients: 0 }).clients += 1;
        client.set = Some(channel);
        Ok(())
    }

    fn unsubscribe(&mut self, id: ConnectionId, out: &mut Outbox) {
        let Some(channel) = self.clients.get_mut(&id).and_then(|client| client.set.take()) else { return };
        out.unsubscribe(id, &channel);
        self.give_up(&channel);
    }

    /// One client fewer wants this.
    fn give_up(&mut self, channel: &Rc<str>) {
        if let Some(set) = self.sets.get_mut(channel) {
            set.clients -= 1;
            if set.clients == 0 {
                self.sets.remove(channel);
            }
        }
    }

    /// Sends each client what it wants.
    fn show(&self, out: &mut Outbox) {
        // Each price is written once, however many want it.
        let prices: HashMap<String, String> =
            self.market.all().map(|change| (change.symbol.clone(), change.to_json())).collect();
        for (channel, set) in &self.sets {
            let mut parts: Vec<&[u8]> = vec![br#"TickerChange:{"Changes":["#];
            for symbol in &set.symbols {
                let Some(price) = prices.get(symbol) else { continue };
                if parts.len() > 1 {
                    parts.push(b",");
                }
                parts.push(price.as_bytes());
            }
            parts.push(b"]}");
            out.publish_here(channel, Kind::Text, &parts);
        }
    }

    /// A tick, if it is ours to make.
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
            let all: Vec<wire::Change> = self.market.all().collect();
            let mut parts = all.chunks(PRICES_TOGETHER).peekable();
            while let Some(part) = parts.next() {
                let sign = if parts.peek().is_some() { "+" } else { "" };
                let prices = wire::Changes(part.to_vec()).to_json();
                // Short enough for any bus.
                let _ =
                    out.publish(PRICES, Kind::Text, &[format!("{}{sign} {prices}", self.leadership.ticks).as_bytes()]);
            }
        }
        self.show(out);
    }

    /// Another process made prices.
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
            self.show(out);
        }
    }

    /// Has what clients want stay in the market, here and everywhere.
    fn say_again(&mut self, out: &mut Outbox) {
        let wanted: BTreeSet<&str> = self.sets.values().flat_map(|set| &set.symbols).map(String::as_str).collect();
        for symbol in wanted {
            if self.market.add(symbol, out.unix_time().as_secs()).is_ok() && !self.market.is_fixed(symbol) {
                tell_others(symbol, out);
            }
        }
    }

    /// Releases who was silent for too long.
    fn release(&mut self, now: Duration, out: &mut Outbox) {
        while let Some((_, id)) = self.silences.first().copied().filter(|(due, _)| *due <= now) {
            self.silences.pop_first();
            let Some(client) = self.clients.get(&id) else { continue };
            let due = client.heard + self.times.ping * 2;
            if due <= now {
                out.close(id, CloseCode::Policy, "silent for too long");
            } else {
                self.silences.insert((due, id));
            }
        }
    }

    /// Pings whose turn it is.
    fn ping(&mut self, now: Duration, out: &mut Outbox) {
        while let Some(&(due, id)) = self.pings.front().filter(|(due, _)| *due <= now) {
            self.pings.pop_front();
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.sequence += 1;
            out.send_text(id, &Wire::Ping(Beat::new(client.sequence, out.unix_time())).write());
            self.pings.push_back((due.max(now.saturating_sub(self.times.ping)) + self.times.ping, id));
        }
    }
}

/// Has the other processes, where there are any, take a symbol into their markets.
fn tell_others(symbol: &str, out: &mut Outbox) {
    if out.participant().is_some() {
        // Far shorter than what a bus takes.
        let _ = out.publish(SYMBOLS, Kind::Text, &[symbol.as_bytes()]);
    }
}

impl App for Ticker {
    type Connection = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        self.clients.insert(id, Client { heard: out.now(), sequence: 0, set: None });
        self.pings.push_back((out.now() + self.times.ping, id));
        self.silences.insert((out.now() + self.times.ping * 2, id));
        out.tick_by(out.now() + self.times.ping);
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
        out.send_text(id, &Wire::Error(Complaint(error.clone())).write());
        out.close(id, code, &error);
    }

    fn on_close(&mut self, id: ConnectionId, (): (), _: &CloseReason, _: &mut Outbox) {
        if let Some(channel) = self.clients.remove(&id).and_then(|client| client.set) {
            self.give_up(&channel);
        }
    }

    fn on_bus(&mut self, from: Participant, record: Record<'_>, out: &mut Outbox) {
        let Ok(text) = std::str::from_utf8(record.payload) else { return };
        if record.channel == PRICES.as_bytes() {
            self.follow(from, text, out);
        } else if record.channel == SYMBOLS.as_bytes() {
            // One that is refused here is refused there, too.
            let _ = self.market.add(text, out.unix_time().as_secs());
        }
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if now.is_zero() || self.next_tick.is_zero() {
            out.listen(PRICES, true);
            out.listen(SYMBOLS, true);
            (self.next_tick, self.leadership.heard) = (now + self.times.tick, now);
        }
        if now >= self.next_tick {
            if self.market.begin_round(KEEP_TICKS).is_multiple_of(SAY_AGAIN_TICKS) {
                self.say_again(out);
            }
            self.tick(now, out);
            // A process that was held up does not make up for what it missed.
            self.next_tick = (self.next_tick + self.times.tick).max(now);
        }
        self.release(now, out);
        self.ping(now, out);
        let others = [self.pings.front(), self.silences.first()].into_iter().flatten().map(|(due, _)| *due);
        Some(others.fold(self.next_tick, Duration::min))
    }
}
