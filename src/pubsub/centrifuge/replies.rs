//! Replies: those to the commands of one message go out as one, a line each.

use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::pubsub::codes::Error;
use crate::pubsub::engine::Subscribed;
use crate::pubsub::streams::Position;
use std::rc::Rc;
use std::time::Duration;

/// The lines so far.
#[derive(Default, Debug)]
pub struct Replies {
    text: String,
    /// The bytes of all lines sent.
    sent: usize,
}

impl Replies {
    /// Answers a command with a result, a JSON object.
    pub fn result(&mut self, id: u32, method: &str, result: &str) {
        self.line(&[&format!("{{\"id\":{id},\"{method}\":"), result, "}"]);
    }

    /// Answers a command with an error.
    pub fn error(&mut self, id: u32, error: Error) {
        let temporary = if error.is_temporary() { ",\"temporary\":true" } else { "" };
        let (code, message) = (error.code(), error.message());
        self.line(&[&format!("{{\"id\":{id},\"error\":{{\"code\":{code},\"message\":\"{message}\"{temporary}}}}}")]);
    }

    fn line(&mut self, parts: &[&str]) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        parts.iter().for_each(|part| self.text.push_str(part));
    }

    /// Counts a reply that is sent separately.
    pub fn add(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// The bytes of all replies to this message so far.
    pub fn bytes(&self) -> usize {
        self.sent + self.text.len()
    }

    /// Sends the lines so far.
    pub fn flush(&mut self, id: ConnectionId, out: &mut Outbox) {
        if !self.text.is_empty() {
            out.send_text(id, &self.text);
            self.sent += self.text.len();
            self.text.clear();
        }
    }
}

/// The time until expiry, as fields of a result.
pub fn expiry(expires: Option<Duration>, now: Duration) -> Option<String> {
    // Some SDKs have 32 bits for it.
    let ttl = expires?.saturating_sub(now).as_secs().clamp(1, u32::MAX.into());
    Some(format!("\"expires\":true,\"ttl\":{ttl}"))
}

/// A position, as fields of a result.
pub fn position(position: Position) -> String {
    format!("\"offset\":{},\"epoch\":\"{}\"", position.offset, position.epoch.as_str())
}

/// The result of a subscription, in two parts; the missed publications stand between them.
pub fn subscribed(subscribed: &Subscribed, recover: Option<u64>, expiry: Option<String>) -> (String, &'static str) {
    let mut fields = Vec::new();
    if let Some(top) = subscribed.top {
        fields.push("\"positioned\":true".to_owned());
        if subscribed.is_recoverable {
            fields.push("\"recoverable\":true".to_owned());
        }
        // The client advances from its own offset through the publications.
        let offset = recover.filter(|_| subscribed.missed.is_some()).unwrap_or(top.offset);
        fields.push(position(Position { offset, ..top }));
    }
    if recover.is_some() {
        fields.push("\"was_recovering\":true".to_owned());
    }
    fields.extend(expiry);
    match subscribed.missed {
        Some(_) => {
            fields.push("\"recovered\":true,\"publications\":[".to_owned());
            (format!("{{{}", fields.join(",")), "]}")
        }
        None => (format!("{{{}", fields.join(",")), "}"),
    }
}

/// A history, as a result.
pub fn history(top: Position, publications: &[Rc<str>]) -> String {
    format!("{{\"publications\":[{}],{}}}", publications.join(","), position(top))
}
