//! Log lines about a connection's life. Lines of one connection share its id, also if a proxy gives all the same
//! address; their first words are those of an older server, which people search for.

use super::Sessions;
use crate::app::{App, Error};
use crate::net::id::ConnectionId;
use crate::protocol::close::CloseReason;
use crate::protocol::http::Request;
use crate::telemetry::log::{Field, Level, Log, json_string, printable};
use std::time::Duration;
use tungstenite::protocol::frame::coding::CloseCode;

/// Tenths of a second since the start; enough for 13 years.
pub(super) fn tenths(time: Duration) -> u32 {
    (time.as_millis() / 100) as u32
}

impl<A: App> Sessions<A> {
    /// The log, including the app's lines.
    pub fn gather_log(&mut self) -> &mut Log {
        self.outbox.log.move_to(&mut self.log, self.now);
        &mut self.log
    }

    pub(super) fn log_opened(&mut self, id: ConnectionId, request: &Request<'_>) {
        if self.log.keeps(Level::Info) {
            let (peer, path) = (request.peer(), printable(request.path(), 256));
            let text = format!("WebSocket connection opened: {peer} id={id} path={path}");
            let fields: [(_, &dyn Field); 3] = [("peer", &peer), ("id", &id), ("path", &path)];
            self.log.push(Level::Info, "open", &fields, text);
        }
    }

    pub(super) fn log_closing(&mut self, key: u32, code: CloseCode) {
        if self.log.keeps(Level::Debug) {
            let (peer, id) = (self.slab[key as usize].peer, self.id(key));
            let text = format!("closing {peer} with {code} id={id}");
            self.log.push(Level::Debug, "closing", &[("peer", &peer), ("id", &id)], text);
        }
    }

    /// Tells the app and the log of an error.
    pub(super) fn report(&mut self, key: u32, error: &Error) {
        let id = self.id(key);
        let session = &mut self.slab[key as usize];
        // Clients vanish all the time: the network changes, a laptop is closed.
        let vanished = matches!(error, Error::UnexpectedEof | Error::Io(..));
        let level = if vanished { Level::Info } else { Level::Warn };
        if self.log.keeps(level) {
            let (peer, why) = (session.peer, error.to_string());
            let text = format!("WebSocket error from {peer}: {why} id={id}");
            self.log.push(level, "error", &[("peer", &peer), ("id", &id), ("error", &why)], text);
        }
        if let Some(state) = &mut session.state {
            self.app.on_error(id, state, error, &mut self.outbox);
        }
    }

    pub(super) fn log_end(&mut self, key: u32, reason: &CloseReason) {
        if !self.log.keeps(Level::Info) {
            return;
        }
        let (session, id) = (&self.slab[key as usize], self.id(key));
        let (peer, code) = (session.peer, u16::from(reason.code));
        // Counting for each connection costs more than a percent of an echo, so only message logging does it.
        let received = self.log.messages.then_some(session.received);
        let after = Duration::from_millis(u64::from(tenths(self.now).saturating_sub(session.opened)) * 100);
        let mut text = format!(
            "WebSocket connection closed: {peer} id={id} code={code} reason={} after={:.1}s",
            json_string(&reason.reason),
            after.as_secs_f64()
        );
        let mut fields: Vec<(_, &dyn Field)> =
            vec![("peer", &peer), ("id", &id), ("code", &code), ("reason", &reason.reason), ("after", &after)];
        if let Some(received) = &received {
            text += &format!(" in={received}");
            fields.push(("in", received));
        }
        self.log.push(Level::Info, "close", &fields, text);
    }
}
