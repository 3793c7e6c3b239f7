//! What is known of a connection, for whoever asks, also when another worker of the host has it.

use super::record::{Deed, Record, channel};
use super::{Delivered, Gateway, Job, PATIENCE, Shape, answer_one, aws, rest};
use crate::gateway::name::{Named, slot_of};
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;
use serde_json::{Value, json};
use std::time::Duration;

/// What is known of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// When it was opened, and when its client last sent a message, since 1970-01-01 00:00 UTC.
    pub opened: Duration,
    pub heard: Duration,
    /// The client's address and port, where there is one.
    pub client: String,
    /// What the client calls itself, where that is kept.
    pub agent: String,
    /// Its labels.
    pub labels: Vec<String>,
}

impl Facts {
    /// The client's address without the port.
    pub fn ip(&self) -> &str {
        let ip = self.client.rsplit_once(':').map_or(self.client.as_str(), |(ip, _)| ip);
        ip.trim_start_matches('[').trim_end_matches(']')
    }

    /// As it goes over the bus.
    pub fn write(&self) -> String {
        let milliseconds = |time: Duration| time.as_millis() as u64;
        let (opened, heard) = (milliseconds(self.opened), milliseconds(self.heard));
        json!({"opened": opened, "heard": heard, "client": self.client, "agent": self.agent, "labels": self.labels})
            .to_string()
    }

    fn read(bytes: &[u8]) -> Option<Facts> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let time = |name: &str| value.get(name)?.as_u64().map(Duration::from_millis);
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        let labels = value.get("labels")?.as_array()?.iter().map(|label| label.as_str().map(str::to_owned));
        Some(Facts {
            opened: time("opened")?,
            heard: time("heard")?,
            client: text("client")?,
            agent: text("agent")?,
            labels: labels.collect::<Option<_>>()?,
        })
    }
}

impl Gateway {
    /// What is known of a connection of this worker.
    pub(super) fn facts(&self, serial: u64, out: &Outbox) -> Option<Facts> {
        let connection = self.core.find(serial).filter(|connection| connection.id.is_some())?;
        let epoch = out.unix_time().saturating_sub(out.now());
        Some(Facts {
            opened: epoch + connection.opened,
            heard: epoch + connection.heard,
            client: connection.peer.addr().map(|addr| addr.to_string()).unwrap_or_default(),
            agent: connection.agent.as_deref().unwrap_or_default().to_owned(),
            labels: self.core.labels().of(serial).map(str::to_owned).collect(),
        })
    }

    /// Tells what is known of the connection of a name.
    pub(super) fn describe(
        &mut self,
        name: &str,
        shape: Shape,
        request: &Request<'_>,
        out: &mut Outbox,
    ) -> Option<Response> {
        let serial = match self.core.read_name(name) {
            Named::Here(serial) => serial,
            Named::There(address) => return self.relay(address, shape, request, out),
            Named::Unproven(_) | Named::Nobody => return Some(answer_one(shape, Delivered::Forged)),
        };
        let slot = slot_of(serial);
        if slot == self.slot {
            return Some(
                self.facts(serial, out).map_or_else(|| answer_one(shape, Delivered::Gone), |facts| told(shape, &facts)),
            );
        }
        let channel = channel(slot);
        if out.listeners(&channel).next().is_none() {
            return Some(answer_one(shape, Delivered::Gone));
        }
        let (ticket, deadline) = (out.defer(request), out.now() + PATIENCE);
        let job = Job { ticket, shape, names: Vec::new(), results: vec![None], left: 1, deadline };
        let Some(job) = self.begin_job(job) else { return Some(super::too_many()) };
        let asker = Some((self.slot, job));
        let record = Record::Command { asker, deed: Deed::Describe, connections: vec![(0, serial)] }.write();
        // Without an answer the job ends by its deadline.
        let _ = out.publish(&channel, Kind::Binary, &[&record]);
        None
    }
}

/// The answer, from what another worker told.
pub(super) fn answer(shape: Shape, facts: &[u8]) -> Response {
    Facts::read(facts).map_or_else(|| answer_one(shape, Delivered::Gone), |facts| told(shape, &facts))
}

fn told(shape: Shape, facts: &Facts) -> Response {
    match shape {
        Shape::AwsFacts => aws::describe(facts),
        _ => rest::describe(facts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_back() {
        let facts = Facts {
            opened: Duration::from_millis(1),
            heard: Duration::from_secs(2),
            client: "[::1]:80".into(),
            agent: "a".into(),
            labels: vec!["l".into(), "m".into()],
        };
        assert_eq!(Facts::read(facts.write().as_bytes()), Some(facts.clone()));
        assert_eq!(facts.ip(), "::1");
        assert_eq!(Facts { client: "127.0.0.1:9".into(), ..facts }.ip(), "127.0.0.1");
        assert_eq!(Facts::read(b""), None);
    }
}
