//! `serve echo`: every message comes back, with the same opcode.

use crate::app::App;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::{Kind, Message};
use crate::telemetry::log::Level;

/// Echoes messages unchanged.
#[derive(Clone, Copy, Default, Debug)]
pub struct Echo;

impl App for Echo {
    type State = ();

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    #[inline(always)]
    fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        out.echo(id, message);
    }

    fn echoes_large(&self) -> bool {
        true
    }
}

/// Greets, and echoes with the prefix `[<hostname>] `, which shows which of several instances answered. Logs each
/// message.
#[derive(Clone, Debug)]
pub struct PrefixedEcho {
    prefix: String,
}

impl PrefixedEcho {
    /// Makes an echo that names `hostname`.
    pub fn new(hostname: &str) -> PrefixedEcho {
        PrefixedEcho { prefix: format!("[{hostname}] ") }
    }
}

impl App for PrefixedEcho {
    type State = ();

    /// `GET /` without an upgrade gets an empty 200.
    fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
        let plain = request.path() == "/" && !request.has_token("upgrade", "websocket");
        (plain && matches!(request.method(), "GET" | "HEAD")).then(|| Response::new(200))
    }

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.send_text(id, &format!("{}hello :) type a message and press ENTER", self.prefix));
    }

    fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        let kind: Kind = message.kind();
        match message.text() {
            Some(text) => {
                let text = text.trim_end_matches(['\r', '\n']);
                out.log(Level::Info, "got", None, format_args!("Got message: {text}"));
            }
            None => {
                let bytes = message.len();
                out.log(Level::Info, "got", None, format_args!("Got message: {bytes} bytes, binary"));
            }
        }
        out.send(id, kind, &[self.prefix.as_bytes(), message.payload()]);
    }
}
