//! Answers that come later: requests that an app puts off, and what becomes of them.

use super::{Demand, Outbox};
use crate::protocol::http::{ReplyTo, Request, Response, is_name};
use std::collections::HashMap;
use std::fmt;

/// A request whose answer the app owes ([`Outbox::defer`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket {
    key: u32,
    /// No two have the same; 0 is nobody's.
    serial: u64,
}

/// How an upgrade is accepted ([`Outbox::accept_upgrade`]).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Upgrade {
    pub(crate) tag: u64,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

/// A header that may not stand in the answer to an upgrade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidHeader(String);

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a header that an upgrade's answer may have with that value", self.0.escape_debug())
    }
}

impl std::error::Error for InvalidHeader {}

impl Upgrade {
    /// As [`UpgradeRules`](crate::UpgradeRules) have it, with tag 0.
    pub fn new() -> Upgrade {
        Upgrade::default()
    }

    /// Sets what [`App::on_open`](crate::App::on_open) finds as [`Request::tag`]: a number of the app's own.
    pub fn tag(self, tag: u64) -> Upgrade {
        Upgrade { tag, ..self }
    }

    /// Sets the subprotocol, in place of what the rules agreed on. One that the client did not offer is not sent, since the
    /// client would have to fail the connection (RFC 6455, section 4.1): then there is none.
    pub fn subprotocol(self, name: &str) -> Upgrade {
        Upgrade { subprotocol: Some(name.to_owned()), ..self }
    }

    /// Adds a header to the answer.
    ///
    /// # Errors
    /// When the name is not a token, or is of one that the upgrade itself is about; or when the value has control characters.
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

/// What the app said.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    Upgrade(Upgrade),
}

/// A request that waits, and its answer, from when it is given until the sessions act on it.
#[derive(Debug)]
struct Debt {
    serial: u64,
    upgrades: bool,
    answer: Option<Answer>,
}

/// What is owed, by connection: one request each, since those behind it wait.
#[derive(Default, Debug)]
pub(crate) struct Debts {
    by_key: HashMap<u32, Debt>,
    last: u64,
}

impl Debts {
    /// Whether the app owes this connection an answer, or has given one that was not acted on yet.
    pub fn is_owed(&self, key: u32) -> bool {
        !self.by_key.is_empty() && self.by_key.contains_key(&key)
    }

    /// Whether what is owed is the answer to an upgrade.
    pub fn is_upgrade(&self, key: u32) -> bool {
        self.by_key.get(&key).is_some_and(|debt| debt.upgrades)
    }

    /// Whether an upgrade was accepted, and that was not acted on yet.
    pub fn is_accepted(&self, key: u32) -> bool {
        matches!(self.by_key.get(&key), Some(Debt { answer: Some(Answer::Upgrade(_)), .. }))
    }

    /// Takes the answer that was given, if there is one: its ticket is dead then.
    pub fn take_answer(&mut self, key: u32) -> Option<Answer> {
        self.by_key.get(&key)?.answer.as_ref()?;
        self.by_key.remove(&key)?.answer
    }

    /// Nothing is owed any more.
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
    /// Puts off the answer to a request: to be called in [`App::on_request`](crate::App::on_request) or
    /// [`App::on_upgrade`](crate::App::on_upgrade), with their request, before they return `None`. The answer comes by
    /// [`Outbox::answer`] or, to an upgrade, by [`Outbox::accept_upgrade`], from any handler.
    ///
    /// Requests that follow on the connection wait for it, and nothing more is read. Without an answer within
    /// [`Settings::answer_timeout`](crate::Settings::answer_timeout) it is 504. A client that resets the connection takes the
    /// ticket along; so does one that ends its stream, if it waits for an upgrade. (To another request it may still hear the
    /// answer.) Called elsewhere, it returns a ticket that nobody waits for.
    ///
    /// ```
    /// # use percore::{App, ConnectionId, Message, Outbox, Request, Response, Ticket};
    /// /// Answers all that wait once somebody says what.
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

    /// Whether an answer is still waited for.
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.debts.by_key.get(&ticket.key).is_some_and(|debt| debt.serial == ticket.serial && debt.answer.is_none())
    }

    /// Answers a request that was put off, or refuses an upgrade. Returns whether somebody waited for it: `false` when the
    /// client is gone, was told 504, or has its answer already.
    pub fn answer(&mut self, ticket: Ticket, response: Response) -> bool {
        let Some(debt) = self.debts.find(ticket) else { return false };
        debt.answer = Some(Answer::Response(response));
        self.demand(ticket.key, Demand::Answered);
        true
    }

    /// Accepts an upgrade that was put off in [`App::on_upgrade`](crate::App::on_upgrade). Returns whether somebody waited for
    /// it. If so, [`App::on_open`](crate::App::on_open) is called once the handler at hand has returned, and
    /// [`App::on_close`](crate::App::on_close) at some time after that, whatever happens to the client meanwhile. `false` also
    /// for a request that was put off before it was known to be a valid upgrade, in `on_request`.
    pub fn accept_upgrade(&mut self, ticket: Ticket, upgrade: Upgrade) -> bool {
        let Some(debt) = self.debts.find(ticket).filter(|debt| debt.upgrades) else { return false };
        debt.answer = Some(Answer::Upgrade(upgrade));
        self.demand(ticket.key, Demand::Answered);
        true
    }
}
