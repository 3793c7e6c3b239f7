//! Deferred answers: requests that an app answers later, and what happens to them.

use super::{Demand, Outbox};
use crate::protocol::http::{ReplyTo, Request, Response, is_name};
use std::collections::HashMap;
use std::fmt;

/// A request whose answer the app has deferred ([`Outbox::defer`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket {
    key: u32,
    /// Unique; 0 belongs to no request.
    serial: u64,
}

/// How an upgrade is accepted ([`Outbox::accept_upgrade`]).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Upgrade {
    pub(crate) tag: u64,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

/// A header that must not be in the answer to an upgrade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidHeader(String);

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a header that an upgrade's answer may have with that value", self.0.escape_debug())
    }
}

impl std::error::Error for InvalidHeader {}

impl Upgrade {
    /// Accepts as [`UpgradeRules`](crate::UpgradeRules) decide, with tag 0.
    pub fn new() -> Upgrade {
        Upgrade::default()
    }

    /// Sets the value of [`Request::tag`] in [`App::on_open`](crate::App::on_open): a number of the app's own.
    pub fn tag(self, tag: u64) -> Upgrade {
        Upgrade { tag, ..self }
    }

    /// Sets the subprotocol, instead of the one that the rules chose. A subprotocol that the client did not offer is
    /// left out, since the client would have to fail the connection (RFC 6455, section 4.1).
    pub fn subprotocol(self, name: &str) -> Upgrade {
        Upgrade { subprotocol: Some(name.to_owned()), ..self }
    }

    /// Adds a header to the answer.
    ///
    /// # Errors
    /// When the name is not a token, or is a header of the upgrade itself; or when the value has control characters.
    pub fn header(mut self, name: &str, value: &str) -> Result<Upgrade, InvalidHeader> {
        let lower = name.to_ascii_lowercase();
        let is_ours = ["connection", "upgrade", "content-length", "transfer-encoding"].contains(&lower.as_str());
        if !is_name(name) || is_ours || lower.starts_with("sec-websocket-") || value.chars().any(char::is_control) {
            return Err(InvalidHeader(name.to_owned()));
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }
}

/// The app's answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    Upgrade(Upgrade),
}

/// A waiting request, and its answer until the sessions act on it.
#[derive(Debug)]
struct Debt {
    serial: u64,
    upgrades: bool,
    answer: Option<Answer>,
}

/// Answers owed, by connection: one request each, since those behind it wait.
#[derive(Default, Debug)]
pub(crate) struct Debts {
    by_key: HashMap<u32, Debt>,
    last: u64,
}

impl Debts {
    /// Whether the app owes this connection an answer, or has given one that was not handled yet.
    pub fn is_owed(&self, key: u32) -> bool {
        !self.by_key.is_empty() && self.by_key.contains_key(&key)
    }

    /// Whether the answer owed is to an upgrade.
    pub fn is_upgrade(&self, key: u32) -> bool {
        self.by_key.get(&key).is_some_and(|debt| debt.upgrades)
    }

    /// Whether an upgrade was accepted but not handled yet.
    pub fn is_accepted(&self, key: u32) -> bool {
        matches!(self.by_key.get(&key), Some(Debt { answer: Some(Answer::Upgrade(_)), .. }))
    }

    /// Takes the answer, if it was given; this invalidates the ticket.
    pub fn take_answer(&mut self, key: u32) -> Option<Answer> {
        self.by_key.get(&key)?.answer.as_ref()?;
        self.by_key.remove(&key)?.answer
    }

    /// Drops the debt, if there is one.
    pub fn forget(&mut self, key: u32) {
        if !self.by_key.is_empty() {
            self.by_key.remove(&key);
        }
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Debt> {
        self.by_key.get_mut(&ticket.key).filter(|debt| debt.serial == ticket.serial && debt.answer.is_none())
    }
}

impl Outbox {
    /// Defers the answer to a request. Call it in [`App::on_request`](crate::App::on_request) or
    /// [`App::on_upgrade`](crate::App::on_upgrade), with their request, before they return `None`. Then answer from any
    /// handler, with [`Outbox::answer`] or, for an upgrade, [`Outbox::accept_upgrade`].
    ///
    /// Later requests on the connection wait, and nothing more is read. Without an answer within
    /// [`Settings::answer_timeout`](crate::Settings::answer_timeout) the client gets 504. The ticket is void once the
    /// client resets the connection, or ends its stream while waiting for an upgrade. (Otherwise a client that ended
    /// its stream may still get its answer.) Called elsewhere, this returns a ticket for no request.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request, Response, Ticket};
    /// /// Answers all waiting requests when a message arrives.
    /// #[derive(Default)]
    /// struct News(Vec<Ticket>);
    ///
    /// impl App for News {
    ///     type State = ();
    ///     fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
    ///         if request.path() == "/news" {
    ///             self.0.push(out.defer(request));
    ///         }
    ///         None
    ///     }
    ///     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
    ///     fn on_message(&mut self, _: ConnectionId, _: &mut (), mut news: Message<'_>, out: &mut Outbox) {
    ///         let Some(text) = news.text() else { return };
    ///         for ticket in self.0.drain(..) {
    ///             out.answer(ticket, Response::text(200, text));
    ///         }
    ///     }
    /// }
    /// ```
    pub fn defer(&mut self, request: &Request<'_>) -> Ticket {
        let (key, upgrades) = match request.reply_to {
            ReplyTo::Nobody => return Ticket { key: 0, serial: 0 },
            ReplyTo::Request(key) => (key, false),
            ReplyTo::Upgrade(key) => (key, true),
        };
        self.debts.last += 1;
        let serial = self.debts.last;
        self.debts.by_key.insert(key, Debt { serial, upgrades, answer: None });
        Ticket { key, serial }
    }

    /// Returns whether the request still waits for its answer.
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.debts.by_key.get(&ticket.key).is_some_and(|debt| debt.serial == ticket.serial && debt.answer.is_none())
    }

    /// Answers a deferred request, or refuses an upgrade. Returns whether the request was still waiting: `false` if the
    /// client is gone, got 504, or has its answer already.
    pub fn answer(&mut self, ticket: Ticket, response: Response) -> bool {
        let Some(debt) = self.debts.find(ticket) else { return false };
        debt.answer = Some(Answer::Response(response));
        self.demand(ticket.key, Demand::Answered);
        true
    }

    /// Accepts an upgrade that was deferred in [`App::on_upgrade`](crate::App::on_upgrade). Returns whether the request
    /// was still waiting. If so, [`App::on_open`](crate::App::on_open) is called once the current handler has returned,
    /// and [`App::on_close`](crate::App::on_close) some time later, whatever the client does meanwhile. Also `false`
    /// for a request that was deferred in `on_request`, before it was known to be a valid upgrade.
    pub fn accept_upgrade(&mut self, ticket: Ticket, upgrade: Upgrade) -> bool {
        let Some(debt) = self.debts.find(ticket).filter(|debt| debt.upgrades) else { return false };
        debt.answer = Some(Answer::Upgrade(upgrade));
        self.demand(ticket.key, Demand::Answered);
        true
    }
}
