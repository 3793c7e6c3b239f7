//! A conversation with a WebSocket server: each line of input is a message, each message received is a line.
//!
//! Memory is bounded: while much waits for the server, no more input is read. Lost input is always reported.

use super::input::{self, Input};
use super::lines::Lines;
use super::screen::{Screen, json_object};
use super::{Dial, Ending, SHOWN_CHARACTERS, is_good, signals};
use crate::app::{App, ConnectError, Error};
use crate::net::id::ConnectionId;
use crate::outbox::{Outbox, SendRules, SlowConsumer};
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::protocol::message::{Kind, Message};
use crate::reactor::{Outcome, Waker};
use crate::telemetry::log::{counted, json_string, printable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// While this many bytes wait for the server, no further line is sent. It is a quarter of the limit at which reading
/// stops, since two peers that only write to each other deadlock.
const BACKLOG_BYTES: usize = 64 * 1024;
/// The loop keeps reading while fewer bytes than this wait to be sent.
const MAX_BACKLOG_BYTES: usize = 256 * 1024;
/// A masked Close frame with a code.
const CLOSE_FRAME_BYTES: usize = 8;

/// Options of a conversation.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Send lines as binary messages.
    pub binary: bool,
    /// Show messages as JSON.
    pub json: bool,
    /// End the conversation with the input.
    pub exit_on_eof: bool,
    /// File with the history of lines typed on a terminal.
    pub history: Option<PathBuf>,
    /// The longest line, in bytes.
    pub max_line: usize,
    /// Wait before reconnecting; `None` to give up.
    pub retry: Option<Duration>,
}

/// The app.
struct Conversation {
    url: String,
    manner: Manner,
    input: Receiver<Input>,
    screen: Screen,
    open: Option<ConnectionId>,
    /// When to connect next.
    next_attempt: Option<Duration>,
    /// The subprotocols offered.
    offered: String,
    /// Whether we have closed the connection.
    closed: bool,
    lines: Lines,
    /// Whether the input has ended.
    ended: bool,
    /// Whether [`App::on_written`] is pending.
    waits: bool,
    /// Whether a line waits for the server.
    unsent: bool,
    /// Whether the end was requested, by a signal or by us.
    over: bool,
    ending: Ending,
}

impl Conversation {
    /// Sends input while the backlog is short.
    fn send(&mut self, out: &mut Outbox) {
        let Some(id) = self.open else { return };
        while out.backlog_bytes(id) < BACKLOG_BYTES {
            if let Some(line) = self.lines.next(self.ended) {
                let kind = if self.manner.binary { Kind::Binary } else { Kind::Text };
                if line.len() > self.manner.max_line {
                    return self.line_too_long(out);
                }
                if kind == Kind::Binary || std::str::from_utf8(line).is_ok() {
                    out.send(id, kind, &[line]);
                    self.unsent = true;
                    self.wait(id, out);
                } else {
                    self.fail("a line is not valid UTF-8 and was not sent (--binary sends any bytes)".to_owned());
                }
                continue;
            }
            if self.ended {
                return self.end(id, out);
            }
            // Its end may never come.
            if self.lines.pending_bytes() > self.manner.max_line {
                return self.line_too_long(out);
            }
            match self.input.try_recv() {
                Ok(Input::Bytes(bytes)) => self.lines.push(&bytes),
                Ok(Input::Message(text)) if text.len() > self.manner.max_line => return self.line_too_long(out),
                Ok(Input::Message(text)) => {
                    let kind = if self.manner.binary { Kind::Binary } else { Kind::Text };
                    out.send(id, kind, &[text.as_bytes()]);
                    self.unsent = true;
                    self.wait(id, out);
                }
                Ok(Input::End) => self.ended = true,
                Ok(Input::Failed(error)) => {
                    self.fail(format!("standard input: {error}"));
                    return self.close(out);
                }
                Err(_) => return,
            }
        }
        self.wait(id, out);
    }

    fn line_too_long(&mut self, out: &mut Outbox) {
        let most = self.manner.max_line;
        self.fail(format!("a line of the input is longer than --max-message, {most} bytes, and was not sent"));
        self.close(out);
    }

    /// Continues once the backlog has been written.
    fn wait(&mut self, id: ConnectionId, out: &mut Outbox) {
        if !std::mem::replace(&mut self.waits, true) {
            out.when_written(id);
        }
    }

    /// The input has ended, and all of it was sent or is queued.
    fn end(&mut self, id: ConnectionId, out: &mut Outbox) {
        if !self.manner.exit_on_eof {
            return;
        }
        // The close timeout starts once everything has been written.
        if out.backlog_bytes(id) == 0 { self.close(out) } else { self.wait(id, out) }
    }

    /// Begins the closing handshake; nothing more is sent.
    fn close(&mut self, out: &mut Outbox) {
        self.closed = true;
        if let Some(id) = self.open.take() {
            out.close(id, CloseCode::Normal, "");
        }
    }

    /// The connection is lost or could not be opened: schedules another attempt if `retry` is set.
    fn lost(&mut self, why: String, out: &mut Outbox) {
        match self.manner.retry.filter(|_| !self.over && !self.closed) {
            Some(wait) => {
                self.screen.say(&format!("{why}; next attempt in {} s", wait.as_secs_f64()));
                let at = out.now() + wait;
                self.next_attempt = Some(at);
                out.tick_by(at);
            }
            None => {
                self.fail(why);
                out.stop();
            }
        }
    }

    /// Returns whether there is input that was not sent.
    fn has_input(&self) -> bool {
        matches!(self.input.try_recv(), Ok(Input::Bytes(_) | Input::Message(_)))
    }

    /// Reports an error, which the exit code will show as well.
    fn fail(&mut self, what: String) {
        if let Err(before) = std::mem::replace(&mut self.ending, Err(what)) {
            self.screen.say(&before);
        }
    }
}

impl App for Conversation {
    /// Why the connection ends, if not by a closing handshake.
    type State = Option<String>;

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if self.next_attempt.is_some_and(|at| at <= now) {
            self.next_attempt = None;
            out.connect(0, 0);
        }
        self.next_attempt
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Option<String> {
        self.open = Some(id);
        let subprotocol = request.subprotocol().map(|name| format!(", subprotocol {name}")).unwrap_or_default();
        self.screen.say(&format!("connected to {}{subprotocol}", self.url));
        if request.subprotocol().is_none() && !self.offered.is_empty() {
            self.screen.say(&format!("the server accepted none of the subprotocols offered: {}", self.offered));
        }
        self.send(out);
        None
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        self.send(out);
    }

    fn on_written(&mut self, _: ConnectionId, _: &mut Option<String>, out: &mut Outbox) {
        (self.waits, self.unsent) = (false, false);
        self.send(out);
    }

    fn on_message(&mut self, _: ConnectionId, _: &mut Option<String>, mut message: Message<'_>, out: &mut Outbox) {
        let json = |kind: &str, data: String| json_object(&[("type", json_string(kind)), ("data", json_string(&data))]);
        let shown = match (message.kind, self.manner.json) {
            (Kind::Text, false) => self.screen.message(message.text().unwrap_or_default()),
            (Kind::Text, true) => self.screen.line(&json("text", message.text().unwrap_or_default().to_owned())),
            (Kind::Binary, false) => self.screen.message(&hex(message.payload())),
            (Kind::Binary, true) => self.screen.line(&json("binary", STANDARD.encode(message.payload()))),
        };
        // Reported once, also for messages that arrive while closing.
        if let (Err(error), true) = (shown, self.ending.is_ok()) {
            // A reader that closed the pipe has read enough.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.fail(format!("standard output: {error}"));
            }
            self.close(out);
        }
    }

    fn on_connect_failed(&mut self, _: u64, error: &ConnectError, out: &mut Outbox) {
        // A signal ends an attempt with a timeout.
        let (url, interrupted) = (&self.url, self.over && *error == ConnectError::Timeout);
        let why =
            if interrupted { format!("{url}: interrupted before it was open") } else { format!("{url}: {error}") };
        self.lost(why, out);
    }

    fn on_error(&mut self, _: ConnectionId, why: &mut Option<String>, error: &Error, _: &mut Outbox) {
        *why = Some(error.to_string());
    }

    fn on_drain(&mut self, out: &mut Outbox) {
        self.over = true;
        if self.next_attempt.take().is_some() {
            self.fail(format!("{}: interrupted before it was open again", self.url));
        }
        self.close(out);
    }

    fn on_close(&mut self, id: ConnectionId, why: Option<String>, reason: &CloseReason, out: &mut Outbox) {
        let because = printable(&reason.reason, SHOWN_CHARACTERS);
        let ended = format!("{}: closed with {}", self.url, u16::from(reason.code));
        // The backlog may be just our answer to the Close frame.
        let waiting = self.unsent && out.backlog_bytes(id) > CLOSE_FRAME_BYTES;
        (self.open, self.waits, self.unsent) = (None, false, false);
        let is_over = self.over || self.closed || self.manner.retry.is_none() || reason.code == CloseCode::Normal;
        if waiting || (is_over && (self.lines.pending_bytes() > 0 || self.has_input())) {
            self.screen.say("the connection ended before all of the input was sent");
        }
        match why {
            Some(why) => self.lost(format!("{}: {why}", self.url), out),
            None if is_over && is_good(reason.code) => {
                let because = if because.is_empty() { because } else { format!(": {because}") };
                self.screen.say(&format!("closed with {}{because}", u16::from(reason.code)));
                out.stop();
            }
            None => self.lost(format!("{ended}: {because}"), out),
        }
    }
}

/// Formats bytes for people.
fn hex(bytes: &[u8]) -> String {
    let mut out = format!("[binary, {}]", counted(bytes.len(), "byte*"));
    for byte in bytes {
        let _ = write!(out, " {byte:02x}");
    }
    out
}

/// Runs the conversation until either side or a signal closes it.
///
/// # Errors
/// When the loop cannot run.
pub fn run(dial: &mut Dial, mut manner: Manner) -> io::Result<Ending> {
    let rules = &mut dial.settings;
    // So that reading never pauses; as sending observes the backlog, nothing is dropped.
    rules.send = SendRules { max_backlog: MAX_BACKLOG_BYTES, slow_consumer: SlowConsumer::Drop };
    rules.hears_out = true;
    let waker = Waker::default();
    let (input, screen, is_typed) = input::begin(manner.history.take(), waker.clone())?;
    manner.exit_on_eof |= is_typed;
    let terminal = match &screen {
        Screen::Terminal(terminal) => Some(terminal.before()),
        Screen::Plain { .. } => None,
    };
    let conversation = Conversation {
        url: dial.url.clone(),
        manner,
        input,
        screen,
        open: None,
        next_attempt: Some(Duration::ZERO),
        offered: dial.target.offer.subprotocols.join(", "),
        closed: false,
        lines: Lines::default(),
        ended: false,
        waits: false,
        unsent: false,
        over: false,
        ending: Ok(()),
    };
    if terminal.is_some() {
        signals::end_by_all()?;
    }
    signals::end_by_the_second(terminal)?;
    let (outcome, mut app) = dial.client(conversation).waker(&waker).run()?;
    if matches!(outcome, Outcome::Interrupted(_)) {
        app.fail("interrupted before the connection was closed".to_owned());
    }
    Ok(app.ending)
}
