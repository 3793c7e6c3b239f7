//! The ways in from the application: requests on the service listener. Each protocol is a file of its own; what they have in
//! common is [`Job`], a request whose results come from other workers and nodes.

mod deliver;
mod outgoing;
mod record;
mod sr;

pub(super) use record::channel;

use super::app::Gateway;
use crate::data::id::Participant;
use crate::data::record::Record as BusRecord;
use crate::outbox::Outbox;
use crate::outbox::answers::Ticket;
use crate::protocol::http::{Request, Response};
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
}

impl Delivered {
    const ALL: [Delivered; 5] =
        [Delivered::Queued, Delivered::Gone, Delivered::Dropped, Delivered::Unreachable, Delivered::Forged];

    fn from_byte(byte: u8) -> Option<Delivered> {
        Delivered::ALL.get(usize::from(byte)).copied()
    }

    /// A word for it.
    pub fn word(self) -> &'static str {
        ["queued", "gone", "dropped", "unreachable", "forged"][self as usize]
    }
}

/// How the answer to a request is written, once the results are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// A list of names and results.
    List,
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

impl Gateway {
    /// Answers a request on the service listener; `None` when nothing is there, or the answer comes later.
    pub(super) fn serve(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        match request.path() {
            "/sr" => self.serve_sr(request, out),
            _ => None,
        }
    }

    /// Something came over the bus on our channel.
    pub(super) fn take_record(&mut self, _: Participant, record: BusRecord<'_>, out: &mut Outbox) {
        match record::Record::read(record.payload) {
            Some(record::Record::Command { asker, deed, connections }) => {
                let results = connections.into_iter().map(|(place, serial)| (place, self.act_here(serial, &deed, out)));
                let results: Vec<_> = results.collect();
                if let Some((slot, job)) = asker {
                    let bytes = record::Record::Results { job, results }.write();
                    // Whoever asked waits no longer than for so long.
                    let _ = out.publish(&channel(slot), crate::Kind::Binary, &[&bytes]);
                }
            }
            Some(record::Record::Results { job, results }) => self.take_results(job, results, out),
            None => {}
        }
    }

    /// Begins to wait for the results that are missing. `None` when there are too many requests that do.
    fn begin_job(&mut self, job: Job) -> Option<u64> {
        if self.jobs.len() >= MAX_JOBS {
            return None;
        }
        let key = self.next_job;
        self.next_job += 1;
        self.job_deadlines.push_back((job.deadline, key));
        self.jobs.insert(key, job);
        Some(key)
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

    /// Answers with what is known.
    fn end_job(&mut self, key: u64, out: &mut Outbox) {
        let Some(job) = self.jobs.remove(&key) else { return };
        let results = job.results.into_iter().map(|result| result.unwrap_or(Delivered::Unreachable));
        let response = match job.shape {
            Shape::List => sr::list(job.names.iter().map(String::as_str).zip(results)),
        };
        out.answer(job.ticket, response);
    }

    /// Ends the jobs that have waited long enough.
    pub(super) fn expire_jobs(&mut self, now: Duration, out: &mut Outbox) {
        while let Some(&(_, key)) = self.job_deadlines.front().filter(|(deadline, _)| *deadline <= now) {
            self.job_deadlines.pop_front();
            self.end_job(key, out);
        }
    }

    /// When the next job has waited long enough.
    pub(super) fn next_job_deadline(&self) -> Option<Duration> {
        self.job_deadlines.front().map(|(deadline, _)| *deadline)
    }
}
