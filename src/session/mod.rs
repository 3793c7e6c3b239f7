//! Floor 3, the sessions: everything about connections except their sockets and the clock.
//!
//! Sans-IO: the reactor passes bytes, ends and the time in, and takes bytes, deadlines and ended connections out. So
//! `tests/model/session_simulation.rs` runs thousands of connections through days of made-up time without a socket.
//!
//! One pass: [`Sessions::begin_pass`]; then [`Sessions::accept`], [`Sessions::receive`], [`Sessions::end_of_stream`] as
//! sockets become ready; [`Sessions::expire`]; then the driver writes what is dirty in the queue; and
//! [`Sessions::end_pass`] last.
//!
//! Invariant: `on_close` is called exactly once for each `on_open`, and a key is reused only after the pass in which
//! its connection ended.

mod answers;
mod bus;
mod connecting;
mod content;
mod deadlines;
mod drain;
mod frames;
mod handshake;
mod health;
mod lines;
mod memory;
mod places;
mod preface;
mod refusals;
mod service;
mod settings;
mod turns;

pub use settings::Settings;

use crate::app::{App, ConnectError, Error};
use crate::net::id::{ConnectionId, Peer};
use crate::net::per_client::{NOWHERE, Tally};
use crate::outbox::{Demand, Outbox, Pacing};
use crate::protocol::Role;
use crate::protocol::close::CloseReason;
use crate::protocol::receiver::{Receiver, Rules, Scratch};
use crate::queue::{NOBODY, OutQueue};
use crate::telemetry::log::{AppLog, Log, in_words};
use crate::telemetry::stats::Stats;
use crate::time::wheel::Wheel;
use bus::Losses;
use connecting::Asked;
use content::Awaited;
use drain::Retirement;
use memory::Shortage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use refusals::Refusals;
use slab::Slab;
use std::time::Duration;
use turns::{Rates, Rests};

/// Messages of at least this size are echoed piece by piece, for an app that only echoes them.
const PIECES_FROM_BYTES: usize = 64 * 1024;
/// Silence is counted in milliseconds modulo 2^32; half of that separates the future from the past.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 24 * 3600);

/// The phase of a connection's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Expecting a PROXY protocol header, if connections begin with one.
    Preface,
    /// HTTP requests; perhaps an upgrade.
    Http,
    /// Waiting for an answer that the app has deferred.
    Awaiting,
    /// We are opening the connection: waiting for it, or for the answer to our request.
    Connecting,
    /// Messages both ways.
    Open,
    /// Our Close frame is queued or sent, and we wait for the peer's.
    Closing,
    /// Nothing more to send: once all is written, the sending side is shut down, and input is discarded until the peer
    /// ends or the close deadline passes. So the peer reads our last bytes before it sees a reset.
    Lingering,
    /// The connection ends once all is written.
    Finishing,
    /// Over; its key is free after the pass.
    Ended,
}

/// What the reactor does with a socket at the end of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Shut down the sending side, and keep reading.
    ShutdownWrite,
    /// Close it; its key may be reused.
    Close,
}

struct Session<S> {
    generation: u32,
    /// When bytes last arrived, in milliseconds since the start (wraps after 49 days; comparisons allow for that).
    heard: u32,
    /// When the next Ping is due, likewise.
    next_ping: u32,
    /// Its place in the tally while it is not open.
    place: u32,
    /// When it was opened, in tenths of a second since the start.
    opened: u32,
    /// Messages received since, modulo 2^32, if each gets a log line.
    received: u32,
    peer: Peer,
    phase: Phase,
    /// Whether a request was answered on this connection, so that it may idle.
    served: bool,
    /// Whether a service listener accepted it.
    is_service: bool,
    /// A partly received request, or the head of one that waits for its answer.
    head: Option<Box<Head>>,
    receiver: Receiver,
    /// The app's state; present from `on_open` to `on_close`.
    state: Option<S>,
}

/// A partly received PROXY protocol header, request, or answer to ours; or a request that waits for its answer.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    /// How many bytes are known to contain no end.
    seen: usize,
    /// Our side of an upgrade that we requested.
    asked: Option<Box<Asked>>,
    /// Content that follows the head.
    awaited: Option<Awaited>,
    /// Whether content follows that stays unread.
    has_unread: bool,
}

/// All connections of a process, and its app.
pub struct Sessions<A: App> {
    /// The application.
    pub app: A,
    /// Output to be written.
    pub outbox: Outbox,
    /// Lines to be logged.
    pub log: Log,
    settings: Settings,
    rules: Rules,
    /// For the keys of handshakes that we begin.
    random: StdRng,
    /// Connections by client, and the order of those that are not open.
    tally: Tally,
    slab: Slab<Session<A::State>>,
    scratch: Scratch,
    wheel: Wheel,
    expired: Vec<u32>,
    /// Connections that end, or shut their sending side, once all is written.
    parting: Vec<u32>,
    /// Connections that ended in this pass.
    ended: Vec<u32>,
    next_generation: u32,
    next_tick: Option<Duration>,
    now: Duration,
    /// Input that was read for a later turn.
    rests: Rests,
    rates: Rates,
    is_brief: bool,
    /// Memory of partial requests, and decompressors of connections that keep their windows.
    head_bytes: usize,
    /// Memory of requests with partly received content.
    content_bytes: usize,
    inflaters: usize,
    shortage: Shortage,
    /// When the process last resumed after being held up: input that peers sent meanwhile may not have been read yet.
    awake_since: Option<Duration>,
    /// Records lost on the bus.
    losses: Losses,
    refusals: Refusals,
    draining: bool,
    retirement: Option<Retirement>,
}

/// Milliseconds since the start, modulo 2^32.
fn milliseconds(time: Duration) -> u32 {
    time.as_millis() as u32
}

impl<A: App> Sessions<A> {
    /// No connections yet. `epoch` is the current Unix time, in seconds; `seed` is random. Incoming messages are
    /// masked, as on a server.
    pub fn new(app: A, settings: Settings, log: Log, epoch: u64, seed: [u8; 32]) -> Sessions<A> {
        Sessions::with_role(app, settings, Role::Server, log, epoch, seed)
    }

    /// The same, for connections on which we act as `role`.
    pub fn with_role(app: A, mut settings: Settings, role: Role, log: Log, epoch: u64, seed: [u8; 32]) -> Sessions<A> {
        settings.heartbeat = settings.heartbeat.min(LONGEST_SILENCE / 2);
        settings.heartbeat_timeout = settings.heartbeat_timeout.min(LONGEST_SILENCE);
        // A message that gets a log line is assembled like any other.
        let in_pieces = role == Role::Server && app.echoes_large() && !log.messages;
        let pieces_from = in_pieces.then_some(PIECES_FROM_BYTES);
        let mut outbox = Outbox::new(settings.send, settings.deflate, settings.node, seed);
        outbox.epoch = Duration::from_secs(epoch);
        outbox.pacing = Pacing::new(settings.rates.channel);
        let rates = Rates::new(settings.rates);
        outbox.log = AppLog::like(&log);
        let rules = Rules { role, max_message: settings.max_message, max_frame: settings.max_frame, pieces_from };
        Sessions {
            random: StdRng::from_seed(seed),
            app,
            outbox,
            log,
            tally: Tally::new(settings.max_connections_per_ip),
            settings,
            rules,
            slab: Slab::new(),
            scratch: Scratch::default(),
            wheel: Wheel::new(),
            expired: Vec::new(),
            parting: Vec::new(),
            ended: Vec::new(),
            next_generation: 0,
            next_tick: Some(Duration::ZERO),
            now: Duration::ZERO,
            rests: Rests::default(),
            rates,
            is_brief: false,
            head_bytes: 0,
            content_bytes: 0,
            inflaters: 0,
            shortage: Shortage::default(),
            awake_since: None,
            losses: Losses::default(),
            refusals: Refusals::default(),
            draining: false,
            retirement: None,
        }
    }

    /// Begins a pass of the loop at `now`, the time since the start.
    pub fn begin_pass(&mut self, now: Duration) {
        debug_assert!(now >= self.now, "time goes on");
        self.now = now;
        self.outbox.now = now;
    }

    /// The number of connections, in any phase.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.outbox.stats
    }

    /// The counters, for those that the reactor keeps.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.outbox.stats
    }

    /// The queue to write from, including everything published.
    pub fn queue(&mut self) -> &mut OutQueue {
        self.outbox.end_fanout();
        &mut self.outbox.queue
    }

    fn insert(&mut self, peer: Peer, phase: Phase) -> u32 {
        self.next_generation = (self.next_generation + 1) % NOBODY;
        let generation = self.next_generation;
        let key = self.slab.insert(Session {
            generation,
            heard: milliseconds(self.now),
            next_ping: 0,
            place: NOWHERE,
            opened: 0,
            received: 0,
            peer,
            phase,
            served: false,
            is_service: false,
            head: None,
            receiver: Receiver::new(),
            state: None,
        }) as u32;
        self.outbox.queue.open(key, generation);
        self.rates.begin(key);
        self.wheel.arm(key, self.now + self.settings.handshake_timeout);
        key
    }

    /// The generation of the connection at `key`; `None` if there is none.
    pub fn generation(&self, key: u32) -> Option<u32> {
        self.slab.get(key as usize).filter(|session| session.phase != Phase::Ended).map(|session| session.generation)
    }

    /// The socket takes bytes again. Returns whether any were waiting: they are written before more is read, or each
    /// such event would let in more than went out.
    pub fn writable(&mut self, key: u32) -> bool {
        let waited = self.outbox.queue.unblock(key);
        self.shortage.let_go();
        // A peer that takes what we send is alive, even while we do not read.
        if let Some(session) = self.slab.get_mut(key as usize) {
            session.heard = milliseconds(self.now);
        }
        waited
    }

    /// The peer has ended its stream.
    pub fn end_of_stream(&mut self, key: u32) {
        let Some(session) = self.slab.get_mut(key as usize) else { return };
        let all_written = self.outbox.queue.lane_at(key).queued_bytes() == 0;
        match session.phase {
            Phase::Open | Phase::Closing => self.break_off(key, Error::UnexpectedEof),
            Phase::Connecting => self.connect_failed(key, ConnectError::UnexpectedEof),
            Phase::Awaiting => self.peer_shut(key, false),
            Phase::Http if !all_written => self.enter(key, Phase::Finishing),
            // The deadline stays, however often a socket reports the end of its stream.
            Phase::Lingering | Phase::Finishing if !all_written => session.phase = Phase::Finishing,
            Phase::Preface | Phase::Http | Phase::Lingering | Phase::Finishing => self.end(key),
            Phase::Ended => {}
        }
    }

    /// The socket failed.
    pub fn socket_error(&mut self, key: u32, error: &std::io::Error) {
        if self.slab.get(key as usize).is_some_and(|session| session.phase == Phase::Connecting) {
            return self.connect_failed(key, ConnectError::Io(error.kind(), in_words(error)));
        }
        self.break_off(key, Error::Io(error.kind(), in_words(error)));
    }

    /// Ends the pass, after the dirty connections were written: passes the sockets to shut down or to close to `act`,
    /// and frees ended connections.
    pub fn end_pass(&mut self, mut act: impl FnMut(u32, Fate)) {
        if !self.outbox.awaited.is_empty() {
            self.tell_written();
        }
        if !self.outbox.demands.is_empty() {
            self.settle();
        }
        self.outbox.tell_changes();
        if !self.parting.is_empty() {
            self.part(&mut act);
        }
        self.scratch.trim();
        for key in self.ended.drain(..) {
            self.slab.remove(key as usize);
            self.shortage.let_go();
            act(key, Fate::Close);
        }
    }

    /// Ends connections that have sent everything, or shuts down their sending side.
    fn part(&mut self, act: &mut impl FnMut(u32, Fate)) {
        let mut parting = std::mem::take(&mut self.parting);
        parting.retain(|&key| {
            if self.slab[key as usize].phase == Phase::Ended {
                return false;
            }
            if self.outbox.queue.lane_at(key).queued_bytes() > 0 {
                return true;
            }
            match self.slab[key as usize].phase {
                Phase::Lingering => act(key, Fate::ShutdownWrite),
                _ => self.end(key),
            }
            false
        });
        self.parting = parting;
    }

    fn id(&self, key: u32) -> ConnectionId {
        ConnectionId { node: self.settings.node, generation: self.slab[key as usize].generation, index: key }
    }

    /// Acts on demands of apps through the outbox.
    fn settle(&mut self) {
        while let Some((key, demand)) = self.outbox.demands.pop() {
            match demand {
                Demand::Closing(code) => {
                    let Some(session) = self.slab.get(key as usize) else { continue };
                    if session.phase == Phase::Open {
                        self.enter(key, Phase::Closing);
                        self.log_closing(key, code);
                    }
                }
                Demand::Overflow => {
                    self.outbox.stats.slow_consumers_closed += 1;
                    let backlog_bytes = self.outbox.queue.lane_at(key).queued_bytes();
                    self.break_off(key, Error::SlowConsumer { backlog_bytes });
                }
                Demand::Answered => self.answered(key),
                Demand::News => self.tell_news(),
            }
        }
    }

    /// Enters a phase that the close deadline bounds.
    fn enter(&mut self, key: u32, phase: Phase) {
        let session = &mut self.slab[key as usize];
        session.phase = phase;
        self.wheel.arm(key, self.now + self.settings.close_timeout);
        // The peer's Close frame, or the end of its stream, must be read now.
        let id = self.id(key);
        self.outbox.release_hold(id);
        if matches!(phase, Phase::Lingering | Phase::Finishing) {
            self.parting.push(key);
            self.forget_input(key);
        }
    }

    /// Ends a connection without a closing handshake.
    fn break_off(&mut self, key: u32, error: Error) {
        let Some(session) = self.slab.get(key as usize) else { return };
        if session.phase == Phase::Ended {
            return;
        }
        if session.state.is_some() {
            self.report(key, &error);
            self.closed(key, CloseReason::abnormal(error.to_string()));
        }
        self.end(key);
    }

    fn end(&mut self, key: u32) {
        if self.slab[key as usize].phase == Phase::Awaiting {
            self.cancel_debt(key);
        }
        let session = &mut self.slab[key as usize];
        if session.phase == Phase::Ended {
            return;
        }
        debug_assert!(session.state.is_none(), "on_close comes before the end");
        session.phase = Phase::Ended;
        self.tally.leave(std::mem::replace(&mut session.place, NOWHERE));
        self.forget_input(key);
        self.wheel.cancel(key);
        self.outbox.release(key);
        self.ended.push(key);
    }

    /// Tells the app of connections whose queued output has all been written.
    fn tell_written(&mut self) {
        for id in std::mem::take(&mut self.outbox.awaited) {
            // The callback for another connection may have queued something for this one.
            match self.outbox.queue.lane(id.index, id.generation).map(|lane| lane.queued_bytes()) {
                Some(0) => {
                    if let Some(Session { phase: Phase::Open, state: Some(state), .. }) =
                        self.slab.get_mut(id.index as usize)
                    {
                        self.app.on_written(id, state, &mut self.outbox);
                    }
                }
                Some(_) => self.outbox.awaited.push(id),
                None => {}
            }
        }
    }

    /// Tells the app and the log that a connection is over.
    fn closed(&mut self, key: u32, reason: CloseReason) {
        let id = self.id(key);
        let session = &mut self.slab[key as usize];
        let Some(state) = session.state.take() else { return };
        self.outbox.unsubscribe_all(key);
        self.outbox.queue.lane_at(key).mode = 0;
        self.outbox.stats.open -= 1;
        session.place = self.tally.close(key, session.peer, self.now);
        self.outbox.stats.unclean_closes += u64::from(!reason.clean);
        self.outbox.stats.close(reason.code.into());
        self.log_end(key, &reason);
        self.app.on_close(id, state, &reason, &mut self.outbox);
    }
}
