//! Commands of clients and requests of backends that wait for the keeper, and the answers to them once it has settled
//! all that they asked for.

use super::api::describe;
use super::app::Channels;
use super::centrifuge::replies::Replies;
use super::codes::Error;
use super::streams::Position;
use crate::net::id::ConnectionId;
use crate::outbox::Outbox;
use crate::outbox::answers::Ticket;
use crate::protocol::http::Response;
use std::collections::HashMap;

/// A part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    /// A field, which becomes `error` on failure.
    Field {
        name: String,
        value: Later,
    },
}

/// A value that the keeper has yet to announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Later {
    /// The number of the question.
    pub sequence: u64,
    /// Whether it is a position, rather than an empty object.
    pub is_position: bool,
}

/// JSON with parts that may still be missing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Reply(Vec<Piece>);

impl Reply {
    /// Adds text.
    pub fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// Appends another reply.
    pub fn append(&mut self, other: Reply) {
        for piece in other.0 {
            match piece {
                Piece::Text(text) => self.push(&text),
                field => self.0.push(field),
            }
        }
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: Value) {
        match value {
            Value::Later(value) => self.0.push(Piece::Field { name: name.to_owned(), value }),
            Value::Now(text) => {
                self.push(&format!("\"{name}\":"));
                self.push(&text);
            }
            Value::Parts(parts) => {
                self.push(&format!("\"{name}\":"));
                self.append(parts);
            }
        }
    }

    /// Its bytes, estimated for missing parts.
    pub fn bytes(&self) -> usize {
        let bytes = |piece: &Piece| if let Piece::Text(text) = piece { text.len() } else { 100 };
        self.0.iter().map(bytes).sum()
    }

    fn missing(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field { value, .. } => Some(value.sequence),
            Piece::Text(_) => None,
        })
    }

    fn into_text(self, results: &HashMap<u64, Result<Position, Error>>) -> String {
        let text = |piece| match piece {
            Piece::Text(text) => text,
            Piece::Field { name, value } => {
                match results.get(&value.sequence).copied().unwrap_or(Err(Error::Unavailable)) {
                    Ok(position) if value.is_position => format!("\"{name}\":{}", position_of(position)),
                    Ok(_) => format!("\"{name}\":{{}}"),
                    Err(error) => format!("\"error\":{}", describe(error)),
                }
            }
        };
        self.0.into_iter().map(text).collect()
    }
}

/// The outcome of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    /// Complete.
    Now(String),
    /// With parts that may be missing.
    Parts(Reply),
    /// A value from the keeper.
    Later(Later),
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Now(text)
    }
}

/// A position, as a result.
pub(super) fn position_of(position: Position) -> String {
    format!("{{{}}}", super::centrifuge::replies::position(position))
}

/// The recipient of an answer.
enum Asker {
    Client { id: ConnectionId, number: u32 },
    Backend(u64),
}

struct Deferred {
    ticket: Ticket,
    reply: Reply,
    results: HashMap<u64, Result<Position, Error>>,
    missing: usize,
    /// A failure as a whole is returned as a status.
    by_status: bool,
}

/// Everything that waits.
#[derive(Default)]
pub(super) struct Waiting {
    askers: HashMap<u64, Asker>,
    deferred: HashMap<u64, Deferred>,
    serial: u64,
    /// Publications for the other front, once they are numbered.
    pass_on: HashMap<u64, (String, String)>,
}

impl Waiting {
    /// A client waits for the result of a command.
    pub fn client(&mut self, sequence: u64, id: ConnectionId, number: u32) {
        self.askers.insert(sequence, Asker::Client { id, number });
    }

    /// A publication goes to the other front as well.
    pub fn pass_on(&mut self, sequence: u64, channel: &str, data: &str) {
        self.pass_on.insert(sequence, (channel.to_owned(), data.to_owned()));
    }

    /// Returns the answer to a request if it is complete; otherwise `ticket` makes it wait. With `by_status`, a
    /// failure as a whole becomes a status.
    pub fn answer(&mut self, reply: Reply, by_status: bool, ticket: impl FnOnce() -> Ticket) -> Option<Response> {
        let mut missing: Vec<u64> = reply.missing().collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Some(json(200, reply.into_text(&HashMap::new())));
        }
        self.serial += 1;
        for sequence in &missing {
            self.askers.insert(*sequence, Asker::Backend(self.serial));
        }
        let (ticket, results, missing) = (ticket(), HashMap::new(), missing.len());
        self.deferred.insert(self.serial, Deferred { ticket, reply, results, missing, by_status });
        None
    }
}

fn json(status: u16, body: String) -> Response {
    Response::new(status).content("application/json", body)
}

impl Channels {
    /// Delivers the outcomes of what the keeper received.
    pub(super) fn settle(&mut self, out: &mut Outbox) {
        for (sequence, result) in self.engine.take_settled() {
            if let Some((channel, data)) = self.waiting_answers.pass_on.remove(&sequence).filter(|_| result.is_ok()) {
                self.pass_on_to_pusher(&channel, &data, out);
            }
            match self.waiting_answers.askers.remove(&sequence) {
                Some(Asker::Client { id, number }) => {
                    let mut replies = Replies::default();
                    match result {
                        Ok(_) => replies.result(number, "publish", "{}"),
                        Err(error) => {
                            out.stats.channels_errors += 1;
                            replies.error(number, error);
                        }
                    }
                    replies.flush(id, out);
                }
                Some(Asker::Backend(serial)) => self.settle_request(serial, sequence, result, out),
                None => {}
            }
        }
        self.engine.show(out);
    }

    fn settle_request(&mut self, serial: u64, sequence: u64, result: Result<Position, Error>, out: &mut Outbox) {
        let Some(deferred) = self.waiting_answers.deferred.get_mut(&serial) else { return };
        deferred.results.insert(sequence, result);
        if deferred.results.len() < deferred.missing {
            return;
        }
        let Some(Deferred { ticket, reply, results, by_status, .. }) = self.waiting_answers.deferred.remove(&serial)
        else {
            return;
        };
        let status = match result {
            Err(error) if by_status => error.status(),
            _ => 200,
        };
        out.stats.channels_errors += results.values().filter(|result| result.is_err()).count() as u64;
        out.answer(ticket, json(status, reply.into_text(&results)));
    }
}
