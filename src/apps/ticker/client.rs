//! The feed's client: asks for symbols, reports what arrives, and reconnects when the server is gone or stalls.
//!
//! Sans-IO like every app: its output goes to a [`Report`]er, and times are arguments.

use super::wire::{Beat, Change, Request as TickerRequest, Wire};
use crate::app::{App, ConnectError, Error};
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::protocol::message::Message;
use std::ops::ControlFlow;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// What a client reports.
#[derive(Clone, PartialEq, Debug)]
pub enum Report<'a> {
    /// It is connected and has sent its request.
    Connected,
    /// A price.
    Price(&'a Change),
    /// The latency of an answer to a Ping.
    Latency(Duration),
    /// The connection is lost or could not be opened.
    Lost {
        /// Why.
        why: &'a str,
        /// The code, if both sides closed.
        code: Option<CloseCode>,
        /// Time until the next attempt, if there is one.
        retry_in: Option<Duration>,
    },
    /// A message that it does not understand, or an error from the server.
    Odd(&'a str),
}

/// Options of a client.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Its name for itself.
    pub id: String,
    /// Symbols.
    pub tickers: Vec<String>,
    /// Time between Pings; a server silent for twice this time has stalled.
    pub ping: Duration,
    /// Wait before reconnecting, constant as in the original client; `None` to give up.
    pub retry: Option<Duration>,
}

/// Its state.
enum State {
    /// Waiting for the next attempt, at this time.
    Waiting(Duration),
    Connecting,
    Open(Open),
    /// It must end.
    Over,
}

struct Open {
    id: ConnectionId,
    heard: Duration,
    next_ping: Duration,
}

/// See the module.
pub struct TickerClient<R> {
    wishes: Wishes,
    report: R,
    state: State,
    /// Pings sent.
    sequence: u64,
}

impl<R: FnMut(Report<'_>) -> ControlFlow<()>> TickerClient<R> {
    /// Makes a client that connects when its loop starts, and stops it when `report` breaks off or no attempt is left.
    pub fn new(wishes: Wishes, report: R) -> TickerClient<R> {
        TickerClient { wishes, report, state: State::Waiting(Duration::ZERO), sequence: 0 }
    }

    fn tell(&mut self, report: Report<'_>, out: &mut Outbox) {
        if (self.report)(report).is_break() {
            out.stop();
        }
    }

    fn lost(&mut self, why: &str, code: Option<CloseCode>, out: &mut Outbox) {
        if matches!(self.state, State::Over) {
            return;
        }
        let retry_in = self.wishes.retry;
        self.tell(Report::Lost { why, code, retry_in }, out);
        match retry_in {
            Some(wait) => {
                self.state = State::Waiting(out.now() + wait);
                out.tick_by(out.now() + wait);
            }
            None => {
                self.state = State::Over;
                out.stop();
            }
        }
    }

    /// Returns the current connection, if it has this id.
    fn open(&mut self, id: ConnectionId) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) if open.id == id => Some(open),
            _ => None,
        }
    }
}

impl<R: FnMut(Report<'_>) -> ControlFlow<()>> App for TickerClient<R> {
    /// Why the connection ends, if not by a closing handshake.
    type State = Option<String>;

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) -> Option<String> {
        let Wishes { id: name, tickers, .. } = &self.wishes;
        out.send_text(id, &Wire::TickerRequest(TickerRequest { id: name.clone(), tickers: tickers.clone() }).write());
        let now = out.now();
        self.state = State::Open(Open { id, heard: now, next_ping: now });
        out.tick_by(now);
        self.tell(Report::Connected, out);
        None
    }

    fn on_message(&mut self, id: ConnectionId, _: &mut Option<String>, mut message: Message<'_>, out: &mut Outbox) {
        let now = out.now();
        let Some(open) = self.open(id) else { return };
        open.heard = now;
        let Some(text) = message.text() else { return self.tell(Report::Odd("a binary message"), out) };
        match Wire::read(text) {
            Ok(Wire::TickerChange(changes)) => {
                changes.0.iter().for_each(|change| self.tell(Report::Price(change), out));
            }
            Ok(Wire::Ping(beat)) => {
                out.send_text(id, &Wire::Pong(beat).write());
            }
            Ok(Wire::Pong(beat)) => self.tell(Report::Latency(now.saturating_sub(beat.at())), out),
            Ok(Wire::Error(complaint)) => self.tell(Report::Odd(&complaint.0), out),
            Ok(Wire::TickerRequest(_)) => self.tell(Report::Odd("a message that only clients send"), out),
            Err(error) => self.tell(Report::Odd(&error.to_string()), out),
        }
    }

    fn on_error(&mut self, _: ConnectionId, why: &mut Option<String>, error: &Error, _: &mut Outbox) {
        *why = Some(error.to_string());
    }

    fn on_close(&mut self, id: ConnectionId, why: Option<String>, reason: &CloseReason, out: &mut Outbox) {
        if self.open(id).is_some() {
            let code = why.is_none().then_some(reason.code);
            let why = why.unwrap_or_else(|| format!("closed with {}: {}", u16::from(reason.code), reason.reason));
            self.lost(&why, code, out);
        }
    }

    fn on_connect_failed(&mut self, _: u64, error: &ConnectError, out: &mut Outbox) {
        self.lost(&error.to_string(), None, out);
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        if let State::Open(open) = &self.state {
            out.close(open.id, CloseCode::Normal, "");
        }
        self.state = State::Over;
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if let State::Open(Open { id, heard, .. }) = self.state
            && now >= heard + self.wishes.ping * 2
        {
            // It will not answer a Close frame soon; reconnect meanwhile.
            out.close(id, CloseCode::Policy, "silent for too long");
            self.lost(&format!("no data from the server for {:.1} s", (now - heard).as_secs_f64()), None, out);
        }
        match &mut self.state {
            State::Waiting(at) if now >= *at => {
                self.state = State::Connecting;
                out.connect(0, 0);
            }
            State::Open(open) if now >= open.next_ping => {
                self.sequence += 1;
                out.send_text(open.id, &Wire::Ping(Beat::new(self.sequence, now)).write());
                open.next_ping = now + self.wishes.ping;
            }
            State::Waiting(_) | State::Connecting | State::Open(_) | State::Over => {}
        }
        match &self.state {
            State::Waiting(at) => Some(*at),
            State::Open(open) => Some(open.next_ping.min(open.heard + self.wishes.ping * 2)),
            State::Connecting | State::Over => None,
        }
    }
}
