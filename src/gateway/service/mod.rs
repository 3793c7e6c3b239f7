//! The ways in from the application: requests on the service listener. Each protocol is a file of its own; what they have in
//! common is `Job`, a request whose results come from other workers and nodes.

mod aws;
pub(super) mod deliver;
mod describe;
mod list;
pub(super) mod nodes;
mod outgoing;
mod record;
pub(super) mod relay;
mod rest;
mod sr;

pub(super) use aws::is_signed;
pub(super) use list::Listing;
pub(super) use record::channel;

use super::app::Gateway;
use super::name::Named;
use crate::channel::record::Record as BusRecord;
use crate::net::id::Participant;
use crate::outbox::Outbox;
use crate::outbox::answers::Ticket;
use crate::outbox::shared::Shared;
use crate::protocol::http::{Request, Response};
use crate::protocol::percent::{Piece, pieces};
use std::time::Duration;

/// How long other workers and nodes have to tell what became of a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that wait for results at a time.
const MAX_JOBS: usize = 10_000;

/// What became of a message for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Delivered {
    /// It waits for the connection's socket.
    Queued = 0,
    /// There is no such connection, or no more.
    Gone = 1,
    /// The connection reads too slowly, and its backlog is full.
    Dropped = 2,
    /// The node or worker that has the connection cannot be reached.
    Unreachable = 3,
    /// The name was made up.
    Forged = 4,
    /// It has as many labels as it may have.
    Full = 5,
}

impl Delivered {
    const ALL: [Delivered; 6] = [
        Delivered::Queued,
        Delivered::Gone,
        Delivered::Dropped,
        Delivered::Unreachable,
        Delivered::Forged,
        Delivered::Full,
    ];

    fn from_byte(byte: u8) -> Option<Delivered> {
        Delivered::ALL.get(usize::from(byte)).copied()
    }

    /// A word for it.
    pub fn word(self) -> &'static str {
        ["queued", "gone", "dropped", "unreachable", "forged", "full"][self as usize]
    }
}

/// How the answer to a request is written, once the results are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A list of names and results.
    List,
    /// JSON of our own, of one connection.
    Rest,
    /// The same, of what is known of it.
    RestFacts,
    /// As AWS answers a POST.
    AwsPost,
    /// As AWS answers a DELETE.
    AwsDelete,
    /// As AWS describes a connection.
    AwsFacts,
}

/// A request that waits for results.
pub(super) struct Job {
    ticket: Ticket,
    shape: Shape,
    names: Vec<String>,
    results: Vec<Option<Delivered>>,
    left: usize,
    deadline: Duration,
}

impl Job {
    /// What it keeps: names, and a result for each.
    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(String::len).sum();
        names + self.names.len() * size_of::<String>() + self.results.len()
    }
}

impl Gateway {
    /// Answers a request on the service listener; `None` when nothing is there, or the answer comes later.
    pub(super) fn serve(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let path = request.path();
        if path == "/sr" {
            return self.serve_sr(request, out);
        }
        match aws::connection_in(path) {
            Some(name) => self.serve_aws(name, request, out),
            None => self.serve_rest(path, request, out),
        }
    }

    /// Something came over the bus on our channel.
    pub(super) fn take_record(&mut self, _: Participant, record: BusRecord<'_>, out: &mut Outbox) {
        match record::Record::read(record.payload) {
            Some(record::Record::Command { asker: Some((slot, job)), deed: record::Deed::Describe, connections }) => {
                let serial = connections.first().map(|(_, serial)| *serial);
                let facts = serial.and_then(|serial| self.facts(serial, out)).map(|facts| facts.write());
                let facts = facts.unwrap_or_default();
                let bytes = record::Record::Described { job, facts: facts.as_bytes() }.write();
                let _ = out.publish(&channel(slot), crate::Kind::Binary, &[&bytes]);
            }
            Some(record::Record::Described { job, facts }) => {
                let described = self.take_job(job).map(|job| (job.ticket, describe::answer(job.shape, facts)));
                if let Some((ticket, response)) = described {
                    out.answer(ticket, response);
                }
            }
            Some(record::Record::Command { asker, deed, connections }) => {
                let mut shared = Shared::default();
                let act = |(place, serial)| (place, self.act_here(serial, &deed, &mut shared, out));
                let results: Vec<_> = connections.into_iter().map(act).collect();
                if let Some((slot, job)) = asker {
                    let bytes = record::Record::Results { job, results }.write();
                    // Whoever asked waits no longer than for so long.
                    let _ = out.publish(&channel(slot), crate::Kind::Binary, &[&bytes]);
                }
            }
            Some(record::Record::List { asker: (slot, job), after, most, label }) => {
                let serials = self.labelled(label, after, most as usize);
                let bytes = record::Record::Listed { job, serials }.write();
                let _ = out.publish(&channel(slot), crate::Kind::Binary, &[&bytes]);
            }
            Some(record::Record::Listed { job, serials }) => self.listed(job, serials, out),
            Some(record::Record::Results { job, results }) => self.take_results(job, results, out),
            None => {}
        }
    }

    /// Begins to wait for the results that are missing. `None` when there are too many requests that do.
    fn begin_job(&mut self, job: Job) -> Option<u64> {
        if self.jobs.len() >= MAX_JOBS {
            return None;
        }
        let key = self.begin_wait(job.deadline);
        self.job_bytes += job.bytes();
        self.jobs.insert(key, job);
        Some(key)
    }

    /// Names something that waits no longer than until then.
    fn begin_wait(&mut self, deadline: Duration) -> u64 {
        let key = self.next_job;
        self.next_job += 1;
        self.job_deadlines.push_back((deadline, key));
        key
    }

    /// Results came in.
    fn take_results(&mut self, key: u64, results: Vec<(u32, Delivered)>, out: &mut Outbox) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        for (place, result) in results {
            if let Some(missing @ None) = job.results.get_mut(place as usize) {
                *missing = Some(result);
                job.left -= 1;
            }
        }
        if job.left == 0 {
            self.end_job(key, out);
        }
    }

    fn take_job(&mut self, key: u64) -> Option<Job> {
        let job = self.jobs.remove(&key)?;
        self.job_bytes -= job.bytes();
        Some(job)
    }

    /// Answers with what is known.
    fn end_job(&mut self, key: u64, out: &mut Outbox) {
        let Some(job) = self.take_job(key) else { return };
        let mut results = job.results.into_iter().map(|result| result.unwrap_or(Delivered::Unreachable));
        let response = match job.shape {
            Shape::List => sr::list(job.names.iter().map(String::as_str).zip(results)),
            shape => answer_one(shape, results.next().unwrap_or(Delivered::Unreachable)),
        };
        out.answer(job.ticket, response);
    }

    /// Ends the jobs that have waited long enough.
    pub(super) fn expire_jobs(&mut self, now: Duration, out: &mut Outbox) {
        while let Some(&(_, key)) = self.job_deadlines.front().filter(|(deadline, _)| *deadline <= now) {
            self.job_deadlines.pop_front();
            self.end_job(key, out);
            self.end_listing(key, out);
        }
    }

    /// When the next job has waited long enough.
    pub(super) fn next_job_deadline(&self) -> Option<Duration> {
        self.job_deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Does something to the connection of one name, and answers as `shape` has it.
    fn act_on_one(
        &mut self,
        name: &str,
        deed: &record::Deed<'_>,
        shape: Shape,
        request: &Request<'_>,
        out: &mut Outbox,
    ) -> Option<Response> {
        let Some(id) = crate::gateway::name::decode(name) else { return Some(answer_one(shape, Delivered::Forged)) };
        if let Named::There(address) = self.core.names().read_bytes(&id) {
            return self.relay(address, shape, request, out);
        }
        let mut sorted = deliver::Sorted::default();
        self.sort((0, &id), deed, deliver::hops(request), &mut sorted, out);
        if let Some(delivered) = sorted.known[0] {
            return Some(answer_one(shape, delivered));
        }
        let (ticket, deadline) = (out.defer(request), out.now() + PATIENCE);
        let job = Job { ticket, shape, names: Vec::new(), results: vec![None], left: 1, deadline };
        match self.begin_job(job) {
            Some(job) => {
                self.send_on(sorted, std::slice::from_ref(deed), Some(job), out);
                None
            }
            None => Some(too_many()),
        }
    }
}

/// The answer to a request about one connection.
fn answer_one(shape: Shape, delivered: Delivered) -> Response {
    match shape {
        Shape::AwsPost | Shape::AwsDelete | Shape::AwsFacts => aws::answer(shape, delivered),
        Shape::List | Shape::Rest | Shape::RestFacts => rest::answer(delivered),
    }
}

fn too_many() -> Response {
    Response::text(503, "Too many requests wait for results.").header("Retry-After", "1")
}

/// A part of a path, with `%` and two digits as the byte that they stand for; `None` when that is not text.
fn decoded(part: &str) -> Option<String> {
    let byte = |piece| match piece {
        Piece::Plain(byte) | Piece::Escaped(byte) => Some(byte),
        Piece::Broken => None,
    };
    String::from_utf8(pieces(part).map(byte).collect::<Option<_>>()?).ok()
}
