//! Channels as an [`App`]: messages of sessions go to the conversation with the client or to the API, and time drives
//! pings and expiry.

use super::centrifuge::LongAnswers;
use super::codes::{Disconnect, Unsubscribe};
use super::engine::{Engine, channel_of};
use super::history::replica::Outside;
use super::history::word::WORDS;
use super::pusher::Pusher;
use super::rules::Rules;
use super::tokens::Tokens;
use super::waiting::Waiting;
use crate::app::App;
use crate::channel::presence::Change;
use crate::channel::record::{Record, RecordKind};
use crate::gateway::call::{Call, Returns};
use crate::net::id::{ConnectionId, Participant, Peer};
use crate::net::rate::RateRules;
use crate::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Message;
use crate::protocol::own_name::is_own_name;
use crate::telemetry::log::Level;
use crate::time::wheel::Wheel;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The path for clients of the Centrifuge protocol.
pub const PATH: &str = "/connection/websocket";
/// The subprotocol that asks for JSON, which clients get in any case.
pub const SUBPROTOCOL: &str = "centrifuge-json";

/// A connection whose client has not identified itself yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub(super) id: ConnectionId,
    /// The client protocol pings it, not only WebSocket.
    takes_pings: bool,
}

/// The protocol of a connection's client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Front {
    /// Centrifugo's.
    Centrifuge,
    /// Pusher's.
    Pusher,
}

/// The app.
pub struct Channels {
    pub(super) engine: Engine,
    tokens: Tokens,
    pub(super) command_rates: RateRules,
    pub(super) random: StdRng,
    pub(super) answers: LongAnswers,
    /// By index.
    pub(super) waiting: HashMap<u32, Newcomer>,
    /// The key that backends must give; `None` if everyone who reaches the service has access.
    pub(super) api_key: Option<String>,
    /// The name of this process among others.
    pub(super) name: String,
    /// The name of all anonymous users.
    pub(super) nobody: Rc<str>,
    /// The second front, if there is one.
    pub(super) pusher: Option<Pusher>,
    /// Whether this worker hears what backends ask other workers.
    pub(super) listens: bool,
    /// Finished webhook calls.
    returns: Arc<Returns>,
    pub(super) waiting_answers: Waiting,
    wheel: Wheel,
}

impl Channels {
    /// Channels with these rules and tokens. All randomness derives from the seed.
    pub fn new(rules: Rules, tokens: Tokens, seed: [u8; 32]) -> Channels {
        let mut random = StdRng::from_seed(seed);
        let (mut of_epochs, mut name) = ([0; 32], [0; 16]);
        random.fill_bytes(&mut of_epochs);
        random.fill_bytes(&mut name);
        let pusher = rules.pusher.clone().map(Pusher::new);
        Channels {
            engine: Engine::new(rules, of_epochs),
            tokens,
            command_rates: RateRules::default(),
            random,
            answers: LongAnswers::default(),
            waiting: HashMap::new(),
            api_key: None,
            name: uuid::Builder::from_random_bytes(name).into_uuid().to_string(),
            nobody: "".into(),
            pusher,
            listens: false,
            returns: Arc::default(),
            waiting_answers: Waiting::default(),
            wheel: Wheel::new(),
        }
    }

    /// The most commands a client may send in a second; further ones are refused.
    pub fn command_rate(mut self, commands: u32) -> Channels {
        self.command_rates = RateRules { messages: commands, ..RateRules::default() };
        self
    }

    /// The key that backends must give.
    pub fn api_key(self, key: Option<String>) -> Channels {
        Channels { api_key: key, ..self }
    }

    /// Shares histories with other processes through a keeper.
    pub fn share_history(mut self, outside: Outside) -> Channels {
        self.engine.share_history(outside);
        self
    }

    /// Reads what the keeper has written, before any client connects. Returns whether there is anything.
    pub fn load_history(&mut self) -> bool {
        self.engine.load_history()
    }

    /// Reports the events of the second front's app to its backend, by calls that come back in `returns`.
    pub fn webhooks(mut self, call: impl FnMut(Call) + 'static, returns: Arc<Returns>) -> Channels {
        if let Some(pusher) = &mut self.pusher {
            pusher.set_webhooks(call);
        }
        Channels { returns, ..self }
    }

    /// The current keys for tokens.
    pub(super) fn current_tokens(&mut self, out: &mut Outbox) -> &Tokens {
        if let Err(error) = self.tokens.refresh(out.now()) {
            out.log(Level::Error, "keys", None, format_args!("keys stay as they were: {error}"));
        }
        &self.tokens
    }

    /// Announces joins and leaves so far, before anything else is announced.
    pub(super) fn tell_news(&mut self, out: &mut Outbox) {
        for record in std::mem::take(&mut out.broadcast.news).iter() {
            if let (Ok(channel), Ok(member)) =
                (std::str::from_utf8(record.channel), std::str::from_utf8(record.payload))
            {
                self.on_presence(Change { channel, member, entered: record.kind == RecordKind::Enter }, out);
            }
        }
    }

    pub(super) fn takes_pings(&self, id: ConnectionId) -> bool {
        self.waiting.get(&id.index).is_some_and(|newcomer| newcomer.takes_pings)
    }

    /// Handles the answer to a ping.
    pub(super) fn take_pong(&mut self, id: ConnectionId) -> Result<(), Disconnect> {
        let client = self.engine.clients.get_mut(id.index).ok_or(Disconnect::BadRequest)?;
        client.pong_by.take().map(|_| ()).ok_or(Disconnect::BadRequest)
    }

    /// Sets a timer for the client's next deadline.
    pub(super) fn arm(&mut self, id: ConnectionId, out: &mut Outbox) {
        let Some(client) = self.engine.clients.get(id.index) else { return };
        match [client.next_ping, client.pong_by, client.next_expiry()].into_iter().flatten().min() {
            Some(deadline) => self.arm_at(id.index, deadline, out),
            None => self.wheel.cancel(id.index),
        }
    }

    fn arm_at(&mut self, index: u32, deadline: Duration, out: &mut Outbox) {
        self.wheel.arm(index, deadline);
        out.tick_by(deadline);
    }

    /// Handles a connection's timer.
    fn look_at(&mut self, index: u32, out: &mut Outbox) {
        let now = out.now();
        if let Some(Newcomer { id, .. }) = self.waiting.remove(&index) {
            return self.end(id, Disconnect::Stale, out);
        }
        let times = self.engine.rules.times;
        let Some(client) = self.engine.clients.get_mut(index) else { return };
        let id = client.id;
        let is_past = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if is_past(client.expires) {
            return self.end(id, Disconnect::Expired, out);
        }
        if is_past(client.pong_by) {
            return self.end(id, Disconnect::NoPong, out);
        }
        if is_past(client.next_ping) {
            client.next_ping = Some(now + times.ping);
            client.pong_by = Some(now + times.pong.min(times.ping));
            out.send_text(id, "{}");
        }
        let expired = client.subscriptions().iter().filter(|subscription| is_past(subscription.expires));
        let expired: Vec<_> = expired.map(|subscription| subscription.channel.clone()).collect();
        for channel in expired {
            let why = Unsubscribe::Expired;
            self.engine.unsubscribe_for(index, &channel, (why.code().into(), why.reason()), out);
        }
        self.arm(id, out);
    }
}

impl App for Channels {
    type State = Front;

    fn takes_content(&self, request: &Request<'_>) -> usize {
        if request.is_service() && self.may_send_content(request) { usize::MAX } else { 0 }
    }

    // The key may be given in other ways than as the listener's token.
    fn authenticates(&self, _: &Request<'_>) -> bool {
        self.api_key.is_some()
    }

    fn memory(&self) -> usize {
        self.answers.memory() + self.engine.waiting_bytes()
    }

    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        if request.is_service() {
            return self.serve(request, out).or_else(|| self.serve_pusher(request, out));
        }
        if self.engine.rules.is_local && request.peer() != Peer::UNIX && !is_own_name(request.host()) {
            let line = "Without tokens this server is for its own machine, by address or localhost: see --insecure.";
            return Some(Response::text(403, line));
        }
        let is_protobuf = |name| request.query_value(name).as_deref() == Some("protobuf");
        let wants_other = is_protobuf("format")
            || is_protobuf("cf_protocol")
            || request.subprotocols().any(|name| name == "centrifuge-protobuf");
        let line = "Only JSON is spoken here: build the client without Protobuf.";
        (request.path() == PATH && wants_other).then(|| Response::text(400, line))
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Front {
        if self.pusher.as_ref().is_some_and(|pusher| pusher.is_path(request.path())) {
            self.open_pusher(id, out);
            return Front::Pusher;
        }
        let takes_pings = request.query_value("cf_ws_frame_ping_pong").as_deref() != Some("true");
        self.waiting.insert(id.index, Newcomer { id, takes_pings });
        self.arm_at(id.index, out.now() + self.engine.rules.times.connect, out);
        Front::Centrifuge
    }

    fn on_message(&mut self, id: ConnectionId, front: &mut Front, mut message: Message<'_>, out: &mut Outbox) {
        // A binary frame is accepted as well.
        match (simdutf8::basic::from_utf8(message.payload()), front) {
            (Ok(text), Front::Centrifuge) => self.hear(id, text, out),
            (Ok(text), Front::Pusher) => self.hear_pusher(id, text, out),
            (Err(_), _) => self.end(id, Disconnect::BadRequest, out),
        }
        self.settle(out);
        self.engine.show(out);
    }

    fn on_close(&mut self, id: ConnectionId, front: Front, _: &CloseReason, out: &mut Outbox) {
        if let (Front::Pusher, Some(pusher)) = (front, &mut self.pusher) {
            return pusher.closed(id.index, out);
        }
        self.waiting.remove(&id.index);
        self.wheel.cancel(id.index);
        self.engine.closed(id);
        self.engine.show(out);
    }

    fn on_bus(&mut self, _: Participant, record: Record<'_>, out: &mut Outbox) {
        if record.channel == WORDS.as_bytes() {
            self.engine.hear_keeper(record.payload, out);
            return self.settle(out);
        }
        self.take_record(record, out);
    }

    fn on_gap(&mut self, _: Participant, _: u64, out: &mut Outbox) {
        self.engine.missed_words(out);
        self.settle(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        for returned in self.returns.take() {
            let dice = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
            if let Some(pusher) = &mut self.pusher {
                pusher.returned(returned, dice, out);
            }
        }
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        if let Some(pusher) = &mut self.pusher {
            pusher.drain(out);
        }
    }

    fn is_finished(&self) -> bool {
        !self.engine.is_waiting() && self.pusher.as_ref().is_none_or(Pusher::is_finished)
    }

    fn on_abandon(&mut self, out: &mut Outbox) {
        if let Some(pusher) = &mut self.pusher {
            pusher.abandon(out);
        }
    }

    fn on_presence(&mut self, change: Change<'_>, out: &mut Outbox) {
        match channel_of(change.channel) {
            Some(channel) => self.engine.tell_others(channel, change.member, change.entered, out),
            None => self.pusher_presence(change.channel, change.member, change.entered, out),
        }
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        self.listen_to_others(out);
        let mut expired = Vec::new();
        self.wheel.advance(now, &mut expired);
        for index in expired {
            self.look_at(index, out);
        }
        self.engine.expire(now, out);
        self.settle(out);
        self.expire_pusher(now, out);
        self.give_answers(out);
        self.engine.show(out);
        let held = self.pusher.as_ref().and_then(Pusher::next_deadline);
        [self.wheel.next_deadline(), self.engine.next_deadline(), held].into_iter().flatten().min()
    }
}
