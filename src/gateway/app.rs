//! The gateway as an [`App`]: it passes what sessions report to the core, the core's orders to the outbox, and calls to
//! the HTTP client.

use super::call::{Call, Returns};
use super::core::{Core, Order};
use super::event::Opening;
use super::ledger::Ledger;
use super::name::{Names, Serials};
use super::service::deliver::NodeCall;
use super::service::nodes::Nodes;
use super::service::relay::Relay;
use super::service::{self, Job, Listing};
use super::sigv4::AccessKeys;
use super::tokens::Tokens;
use crate::app::App;
use crate::channel::record::Record;
use crate::net::id::{ConnectionId, Participant};
use crate::net::network::Network;
use crate::outbox::Outbox;
use crate::outbox::answers::{Ticket, Upgrade};
use crate::protocol::close::CloseReason;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::{Kind, Message};
use crate::protocol::upgrade;
use crate::telemetry::log::Level;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// After a worker has gone, the app looks for ledgers at this interval, for up to this long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_FOR: Duration = Duration::from_secs(5);
/// Interval of the check for clients that left before their handshake was complete.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Keys of calls that are not the core's.
const NODE_CALLS: u64 = 1 << 63;
/// Tags of upgrades that are smaller name claims of a token; those beyond are numbers of connections, which are microseconds
/// since 1970.
const FIRST_SERIAL: u64 = 1 << 40;
/// Minimum interval between log lines about what the app does by itself.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What the gateway does with clients' requests.
#[derive(Clone, Default, Debug)]
pub struct Manner {
    /// Whether a handshake waits for the origin.
    pub authorizes: bool,
    /// Supported subprotocols. The first of ours that the client offers is chosen; empty if the client's order decides.
    pub subprotocols: Vec<String>,
    /// Headers of the client's request that are passed to the origin, in lower case.
    pub forwarded: Vec<String>,
    /// Whether a request without an upgrade is answered with 400, as in websocket-service.
    pub plain_is_bad: bool,
    /// The longest message that AWS's API accepts, in bytes.
    pub max_message: usize,
    /// Whether to close a client that sends bytes, as AWS does.
    pub text_only: bool,
    /// Whether the service listener requires a token.
    pub has_token: bool,
    /// Keys that sign requests to AWS's API; `None` if signatures are not checked.
    pub access_keys: Option<AccessKeys>,
    /// Nodes that receive messages for their connections even though the names are not proven.
    pub peers: Vec<Network>,
}

/// The app.
pub struct Gateway {
    pub(super) core: Core,
    pub(super) manner: Manner,
    pub(super) peers: Vec<Network>,
    /// Starts a call.
    pub(super) call: Box<dyn Fn(Call) + Send>,
    returns: Arc<Returns>,
    /// Waiting handshakes, by the number of their connection, with the subprotocol chosen by our own order.
    tickets: HashMap<u64, (Ticket, Option<String>)>,
    /// Admits clients, if that takes a token.
    tokens: Option<Tokens>,
    /// Token claims of the upgrades accepted just now, by tag.
    claims: HashMap<u64, Arc<str>>,
    last_tag: u64,
    /// When to check for waiting clients that have left.
    next_sweep: Duration,
    /// Our slot among the workers of the host.
    pub(super) slot: u32,
    /// Whether we listen to our channel.
    listens: bool,
    pub(super) jobs: HashMap<u64, Job>,
    pub(super) listings: HashMap<u64, Listing>,
    pub(super) next_job: u64,
    pub(super) job_deadlines: VecDeque<(Duration, u64)>,
    /// Bytes of the names that jobs keep.
    pub(super) job_bytes: usize,
    /// Messages under way for connections of other nodes.
    pub(super) node_calls: HashMap<u64, NodeCall>,
    /// What is under way to each of these nodes.
    pub(super) nodes: Nodes,
    /// Requests that other nodes will answer.
    pub(super) relays: HashMap<u64, Relay>,
    next_node_call: u64,
    /// Connections closed because of the origin since that was last logged, and when it was.
    unlogged: u64,
    logged: Option<Duration>,
    /// The connections whose end other workers report if we are killed, on a bus.
    ledger: Option<Box<dyn Ledger>>,
    /// When to look for ledgers of workers that have gone, and until when.
    look: Option<(Duration, Duration)>,
}

impl Gateway {
    /// A gateway that makes its calls by `call` and finds results in `returns`; each result must wake it.
    pub fn new(core: Core, manner: Manner, call: impl Fn(Call) + Send + 'static, returns: Arc<Returns>) -> Gateway {
        Gateway {
            core,
            peers: manner.peers.clone(),
            manner,
            call: Box::new(call),
            returns,
            tickets: HashMap::new(),
            tokens: None,
            claims: HashMap::new(),
            last_tag: 0,
            next_sweep: Duration::ZERO,
            slot: 0,
            listens: false,
            jobs: HashMap::new(),
            listings: HashMap::new(),
            next_job: 0,
            job_deadlines: VecDeque::new(),
            job_bytes: 0,
            node_calls: HashMap::new(),
            nodes: Nodes::default(),
            relays: HashMap::new(),
            next_node_call: 0,
            unlogged: 0,
            logged: None,
            ledger: None,
            look: None,
        }
    }

    /// Sets how connections are named and which worker of the host holds them, `microseconds` after 1970.
    pub fn place(&mut self, names: Names, slot: u8, microseconds: u64) {
        self.slot = slot.into();
        self.core.place(names, Serials::new(slot, microseconds));
    }

    /// Admits only clients with a good token.
    pub fn demand(&mut self, tokens: Tokens) {
        self.tokens = Some(tokens);
    }

    /// Gives up the handshakes of clients that have left.
    fn sweep(&mut self, out: &Outbox) {
        let left = self.tickets.iter().filter(|(_, (ticket, _))| !out.awaits(*ticket));
        let left: Vec<u64> = left.map(|(serial, _)| *serial).collect();
        for serial in left {
            self.tickets.remove(&serial);
            self.core.closed(serial, 1006, "the client did not wait for the answer", out.now());
        }
        self.next_sweep = out.now() + SWEEP_EVERY;
    }

    /// Keeps a ledger.
    pub fn keep(&mut self, ledger: impl Ledger + 'static) {
        self.ledger = Some(Box::new(ledger));
    }

    /// Takes over the ends that workers which have gone left unreported.
    fn adopt(&mut self, now: Duration) {
        for entry in self.ledger.iter_mut().flat_map(|ledger| ledger.adopt()) {
            self.core.adopt(entry, now);
        }
        self.look = self.look.map(|(_, until)| (now + LOOK_EVERY, until)).filter(|(next, until)| next <= until);
    }

    pub(super) fn next_node_call(&mut self) -> u64 {
        self.next_node_call += 1;
        NODE_CALLS | self.next_node_call
    }

    /// Describes a request to the origin.
    fn opening(&self, request: &Request<'_>, subprotocol: &str, claims: Option<Arc<str>>) -> Opening {
        let all = self.core.codec().wants_all_headers();
        let is_wanted =
            |name: &str| all || self.manner.forwarded.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        let headers = request.all_headers().filter(|(name, _)| is_wanted(name));
        let text = |(name, value): (&str, &[u8])| Some((name.to_owned(), std::str::from_utf8(value).ok()?.to_owned()));
        Opening {
            path: request.path().to_owned(),
            query: request.query().map(str::to_owned),
            host: request.host().to_owned(),
            headers: headers.filter_map(text).collect(),
            offered: request.subprotocols().map(str::to_owned).collect(),
            subprotocol: subprotocol.to_owned(),
            claims,
        }
    }

    /// The subprotocol by our own order, if that decides.
    fn chosen<'a>(&'a self, request: &Request<'_>) -> Option<&'a str> {
        let is_offered = |ours: &&String| request.subprotocols().any(|offered| offered == *ours);
        self.manner.subprotocols.iter().find(is_offered).map(String::as_str)
    }

    /// Carries out the core's orders and schedules the next tick.
    fn settle(&mut self, out: &mut Outbox) {
        while let Some(order) = self.core.next_order() {
            match order {
                Order::Call(call) => (self.call)(call),
                Order::Enter(entry) => self.ledger.iter_mut().for_each(|ledger| ledger.enter(entry)),
                Order::Strike(serial) => self.ledger.iter_mut().for_each(|ledger| ledger.strike(serial)),
                Order::Send(id, kind, payload) => drop(out.send(id, kind, &[&payload])),
                Order::Subscribe(id, channel) => drop(out.subscribe(id, &channel)),
                Order::Close(id, reason) => {
                    self.log_failure(id, &reason, out);
                    out.close(id, CloseCode::Error, &reason);
                }
                Order::SendAway(id) => drop(out.close(id, CloseCode::Away, "Going away")),
                Order::Pause(id) => drop(out.pause(id)),
                Order::Resume(id) => drop(out.resume(id)),
                Order::Admit(serial, subprotocol) => {
                    let Some((ticket, chosen)) = self.tickets.remove(&serial) else { continue };
                    let accepted = Upgrade::new().tag(serial);
                    let accepted = match subprotocol.or(chosen) {
                        Some(name) => accepted.subprotocol(&name),
                        None => accepted,
                    };
                    if !out.accept_upgrade(ticket, accepted) {
                        self.core.closed(serial, 1006, "the client did not wait for the answer", out.now());
                    }
                }
                Order::Refuse(serial, refusal) => {
                    let Some((ticket, _)) = self.tickets.remove(&serial) else { continue };
                    // The origin answered with a status that does not mean refusal.
                    let status = if (400..600).contains(&refusal.status) { refusal.status } else { 502 };
                    out.answer(ticket, Response::text(status, &refusal.reason));
                }
            }
        }
        if let Some(deadline) = self.next_deadline() {
            out.tick_by(deadline);
        }
        self.show(out);
    }

    fn next_deadline(&self) -> Option<Duration> {
        let look = self.look.map(|(next, _)| next);
        let sweep = (!self.tickets.is_empty()).then_some(self.next_sweep);
        [self.core.next_deadline(), self.next_job_deadline(), look, sweep].into_iter().flatten().min()
    }

    /// Logs that a connection was closed because of the origin, and how many were.
    fn log_failure(&mut self, id: ConnectionId, reason: &str, out: &mut Outbox) {
        self.unlogged += 1;
        if self.logged.is_some_and(|logged| out.now() < logged + LOG_EVERY) {
            return;
        }
        self.logged = Some(out.now());
        let number = std::mem::take(&mut self.unlogged);
        out.log(
            Level::Warn,
            "origin",
            id,
            format_args!("{number} connections closed for the origin, last because {reason}"),
        );
    }

    /// Publishes the core's counters.
    fn show(&self, out: &mut Outbox) {
        let (counts, stats) = (self.core.counts(), &mut out.stats);
        stats.origin_calls = counts.calls;
        stats.origin_retries = counts.retried;
        stats.origin_latency = counts.latency;
        stats.origin_in_flight = self.core.in_flight() as u64;
        stats.origins_out = self.core.origins_out() as u64;
        (stats.gateway_events, stats.gateway_event_bytes) = {
            let (events, bytes) = self.core.waiting();
            (events as u64, bytes as u64)
        };
        stats.gateway_events_dropped = counts.dropped;
        stats.gateway_pauses = counts.pauses;
        stats.gateway_closed_pending = self.core.closed_pending() as u64;
        stats.gateway_closed_given_up = counts.closed_given_up;
        stats.gateway_nodes_out = self.nodes.out() as u64;
    }
}

impl App for Gateway {
    /// The number of the connection.
    type State = u64;

    fn takes_content(&self, request: &Request<'_>) -> usize {
        if request.is_service() { usize::MAX } else { 0 }
    }

    fn authenticates(&self, request: &Request<'_>) -> bool {
        self.manner.access_keys.is_some() && service::is_signed(request)
    }

    fn memory(&self) -> usize {
        self.core.memory() + self.job_bytes + self.nodes.bytes()
    }

    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        if request.is_service() {
            let response = self.serve(request, out);
            self.settle(out);
            return response;
        }
        let is_bad = self.manner.plain_is_bad && !upgrade::is_asked(request);
        is_bad.then(|| Response::text(400, "not a websocket upgrade"))
    }

    fn on_upgrade(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        if self.core.is_full() {
            let line = "The application does not keep up with what it is told.";
            return Some(Response::text(503, line).header("Retry-After", "5"));
        }
        let claims = match self.tokens.as_mut().map(|tokens| tokens.claims(request, out)).transpose() {
            Ok(claims) => claims,
            Err(refusal) => return Some(refusal),
        };
        let chosen = self.chosen(request).map(str::to_owned);
        if self.manner.authorizes {
            let agreed = chosen.as_deref().or(request.subprotocol()).unwrap_or_default();
            let opening = self.opening(request, agreed, claims);
            let ticket = out.defer(request);
            let serial = self.core.connect(opening, request.peer(), request.header("user-agent"), out.now());
            self.tickets.insert(serial, (ticket, chosen));
            self.settle(out);
            return None;
        }
        let chosen = chosen.filter(|chosen| request.subprotocol() != Some(chosen.as_str()));
        if chosen.is_some() || claims.is_some() {
            let upgrade = chosen.iter().fold(Upgrade::new(), |upgrade, chosen| upgrade.subprotocol(chosen));
            let ticket = out.defer(request);
            self.last_tag += u64::from(claims.is_some());
            let tag = claims.as_ref().map_or(0, |_| self.last_tag);
            if out.accept_upgrade(ticket, upgrade.tag(tag)) {
                self.claims.extend(claims.map(|claims| (tag, claims)));
            }
        }
        None
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> u64 {
        let serial = match request.tag() {
            tag if tag < FIRST_SERIAL => {
                let claims = self.claims.remove(&tag);
                let opening = self.opening(request, request.subprotocol().unwrap_or_default(), claims);
                self.core.open(id, opening, request.peer(), request.header("user-agent"), out.now())
            }
            serial => {
                self.core.admitted(serial, id, out.now());
                serial
            }
        };
        self.settle(out);
        serial
    }

    fn on_message(&mut self, id: ConnectionId, serial: &mut u64, mut message: Message<'_>, out: &mut Outbox) {
        if self.manner.text_only && message.kind() == Kind::Binary {
            out.close(id, CloseCode::Unsupported, "binary messages are not supported");
            return;
        }
        let (kind, payload) = (message.kind(), message.payload().to_vec());
        self.core.message(*serial, kind, payload, out.now());
        self.settle(out);
    }

    fn on_close(&mut self, _: ConnectionId, serial: u64, reason: &CloseReason, out: &mut Outbox) {
        self.core.closed(serial, reason.code.into(), &reason.reason, out.now());
        self.settle(out);
    }

    fn on_bus(&mut self, from: Participant, record: Record<'_>, out: &mut Outbox) {
        self.take_record(from, record, out);
        self.settle(out);
    }

    fn on_left(&mut self, _: Participant, out: &mut Outbox) {
        // Its lock may be released a moment later.
        self.look = Some((out.now(), out.now() + LOOK_FOR));
        self.settle(out);
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        for returned in self.returns.take() {
            if returned.key & NODE_CALLS == 0 {
                self.core.returned(returned, out.now());
            } else if let Some(returned) = self.relay_returned(returned, out) {
                self.node_returned(returned, out);
            }
        }
        self.settle(out);
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if !std::mem::replace(&mut self.listens, true) {
            out.listen(&service::channel(self.slot), true);
            self.look = Some((now, now + LOOK_FOR));
        }
        self.core.set_epoch(out.unix_time().saturating_sub(now));
        if self.look.is_some_and(|(next, _)| next <= now) {
            self.adopt(now);
        }
        if self.next_sweep <= now && !self.tickets.is_empty() {
            self.sweep(out);
        }
        self.core.tick(now);
        self.expire_jobs(now, out);
        self.settle(out);
        self.next_deadline()
    }

    /// We will not report to the origin what it has not heard by now.
    fn on_abandon(&mut self, out: &mut Outbox) {
        let pending = self.core.closed_pending();
        if pending == 0 {
            return;
        }
        self.core.give_up();
        self.show(out);
        let left =
            if self.ledger.is_some() { "others on the bus tell it, or whoever starts next" } else { "nobody will" };
        out.log(Level::Warn, "origin", None, format_args!("{pending} ends of connections were not told: {left}"));
    }

    /// Not before the origin knows which connections have gone.
    fn is_finished(&self) -> bool {
        self.core.closed_pending() == 0
    }
}
