//! Delivery: to connections of this worker at once, to those of other workers of the host by the bus, to those of other nodes by
//! one POST for each node.

use super::record::{Deed, Record, channel};
use super::{Delivered, Gateway, outgoing};
use crate::gateway::call::{Call, Callee, Outcome, Returned};
use crate::gateway::codec::Post;
use crate::gateway::name::{Named, slot_of};
use crate::net::id::Peer;
use crate::outbox::shared::Shared;
use crate::outbox::{Delivery, Outbox};
use crate::protocol::http::Request;
use crate::protocol::message::Kind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tungstenite::protocol::frame::coding::CloseCode;

/// Calls to other nodes under way.
pub const MAX_NODE_CALLS: usize = 10_000;
/// The header that says how many nodes a request has gone through.
pub const HOPS: &str = "percore-hops";

/// Messages for connections of another node, on their way there.
pub(in crate::gateway) struct NodeCall {
    /// Who wants to know what became of them.
    job: Option<u64>,
    /// The places of the results.
    places: Vec<u32>,
    address: String,
    bytes: usize,
}

/// Messages for one node, put together for one POST.
#[derive(Default)]
struct Parcel {
    /// For each message, by its number, the names of connections.
    messages: Vec<(usize, Vec<String>)>,
    /// The places of the results.
    places: Vec<u32>,
}

/// Connections of one worker, each with the place of its result, and the number of the message for them.
type Share = (usize, Vec<(u32, u64)>);

/// What a request has for whom.
#[derive(Default)]
pub struct Sorted {
    /// Results that are known at once, by place.
    pub known: Vec<Option<Delivered>>,
    /// The number of the message sent last, and where it lies.
    shared: (usize, Shared),
    /// For workers of this host, by slot: for each message the places and connections.
    workers: BTreeMap<u32, Vec<Share>>,
    /// For other nodes, by address, and whether their names are proven.
    nodes: BTreeMap<(String, bool), Parcel>,
}

impl Sorted {
    /// Results that are still to come.
    pub fn missing(&self) -> usize {
        self.known.iter().filter(|result| result.is_none()).count()
    }
}

impl Gateway {
    /// Does something to a connection of this worker.
    pub(super) fn act_here(
        &mut self,
        serial: u64,
        deed: &Deed<'_>,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> Delivered {
        let id = self.core.find(serial).and_then(|connection| connection.id);
        if let (Some(_), Deed::Label(label)) = (id, deed) {
            return if self.core.label(serial, label) { Delivered::Queued } else { Delivered::Full };
        }
        let delivery = match (id, deed) {
            (None, _) => Delivery::Closed,
            (Some(id), Deed::Send(kind, payload)) => {
                self.core.touch(serial, out.now());
                out.send_shared(id, *kind, payload, shared)
            }
            (Some(id), Deed::Close(code, reason)) => {
                out.close(id, CloseCode::from(*code), &String::from_utf8_lossy(reason))
            }
            (Some(id), Deed::Join(channel)) => {
                out.subscribe(id, channel);
                Delivery::Queued
            }
            (Some(id), Deed::Leave(channel)) => {
                out.unsubscribe(id, channel);
                Delivery::Queued
            }
            (Some(_), Deed::Unlabel(label)) => {
                self.core.unlabel(serial, label);
                Delivery::Queued
            }
            (Some(_), Deed::Label(_) | Deed::Describe) => Delivery::Queued,
        };
        let delivered = match delivery {
            Delivery::Queued => Delivered::Queued,
            Delivery::Dropped => Delivered::Dropped,
            Delivery::Closed => Delivered::Gone,
        };
        if matches!(deed, Deed::Send(..)) {
            self.count_delivery(delivered, out);
        }
        delivered
    }

    pub(super) fn count_delivery(&mut self, delivered: Delivered, out: &mut Outbox) {
        // Nobody's message ends as a label does, whatever another node says.
        if let Some(count) = out.stats.gateway_deliveries.get_mut(delivered as usize) {
            *count += 1;
        }
    }

    /// Does something to the connection of one name: at once if it is here, else it is sorted for those who have it.
    pub(super) fn sort(
        &mut self,
        (message, id): (usize, &[u8]),
        deed: &Deed<'_>,
        hops: u32,
        sorted: &mut Sorted,
        out: &mut Outbox,
    ) {
        let place = sorted.known.len() as u32;
        let known = match self.core.names().read_bytes(id) {
            Named::Here(serial) if slot_of(serial) == self.slot => {
                if sorted.shared.0 != message {
                    sorted.shared = (message, Shared::default());
                }
                Some(self.act_here(serial, deed, &mut sorted.shared.1, out))
            }
            Named::Here(serial) => {
                let messages = sorted.workers.entry(slot_of(serial)).or_default();
                match messages.last_mut() {
                    Some((last, connections)) if *last == message => connections.push((place, serial)),
                    _ => messages.push((message, vec![(place, serial)])),
                }
                None
            }
            Named::There(address) if hops == 0 => sort_for_node((address, true), (message, id), place, deed, sorted),
            Named::Unproven(address) if hops == 0 && self.is_peer(&address) => {
                sort_for_node((address, false), (message, id), place, deed, sorted)
            }
            Named::There(_) => Some(Delivered::Unreachable),
            Named::Unproven(_) | Named::Nobody => Some(Delivered::Forged),
        };
        if let Some(delivered @ (Delivered::Unreachable | Delivered::Forged)) = known {
            self.count_delivery(delivered, out);
        }
        sorted.known.push(known);
    }

    /// Whether names that are not proven may lead to this address.
    fn is_peer(&self, address: &str) -> bool {
        // Who makes up a name does not choose what is asked.
        let Some((host, "sr")) = address.split_once('/') else { return false };
        let addr = host.parse::<SocketAddr>();
        addr.is_ok_and(|addr| self.peers.iter().any(|network| network.contains(Peer::from(addr))))
    }

    /// Sends on what was sorted; `deeds` are those that the messages were sorted by, and `job` is told the results.
    pub(super) fn send_on(&mut self, sorted: Sorted, deeds: &[Deed<'_>], job: Option<u64>, out: &mut Outbox) {
        for (slot, messages) in sorted.workers {
            let channel = channel(slot);
            let listens = out.listeners(&channel).next().is_some();
            for (message, connections) in messages {
                let places: Vec<u32> = connections.iter().map(|(place, _)| *place).collect();
                let asker = job.map(|job| (self.slot, job));
                let record = Record::Command { asker, deed: deeds[message].clone(), connections }.write();
                let lost = match out.publish(&channel, Kind::Binary, &[&record]) {
                    Ok(_) if listens => continue,
                    // The worker that had them is no more.
                    Ok(_) => Delivered::Gone,
                    Err(_) => Delivered::Unreachable,
                };
                self.settle_places(job, places, lost, out);
            }
        }
        for ((address, is_proven), parcel) in sorted.nodes {
            if self.node_calls.len() >= MAX_NODE_CALLS {
                self.settle_places(job, parcel.places, Delivered::Unreachable, out);
                continue;
            }
            let key = self.next_node_call();
            let headers = vec![(HOPS.to_owned(), "1".to_owned()), ("accept".to_owned(), "application/json".to_owned())];
            let messages = parcel.messages.iter().filter_map(|(message, names)| match &deeds[*message] {
                Deed::Send(kind, payload) => Some((names.as_slice(), *kind, *payload)),
                _ => None,
            });
            let body = outgoing::write(messages);
            let bytes = body.len();
            if !self.nodes.begin(&address, bytes, out.now()) {
                self.settle_places(job, parcel.places, Delivered::Unreachable, out);
                continue;
            }
            let post = Post { media_type: "application/json", headers, body };
            self.node_calls.insert(key, NodeCall { job, places: parcel.places, address: address.clone(), bytes });
            let to = if is_proven { Callee::Node(address) } else { Callee::Peer(address) };
            (self.call)(Call { key, to, aim: None, event_id: String::new(), post });
        }
    }

    fn settle_places(&mut self, job: Option<u64>, places: Vec<u32>, result: Delivered, out: &mut Outbox) {
        for _ in &places {
            self.count_delivery(result, out);
        }
        if let Some(job) = job {
            self.take_results(job, places.into_iter().map(|place| (place, result)).collect(), out);
        }
    }

    /// Another node answered, or not.
    pub(in crate::gateway) fn node_returned(&mut self, returned: Returned, out: &mut Outbox) {
        let Some(call) = self.node_calls.remove(&returned.key) else { return };
        let NodeCall { job, places, address, bytes } = call;
        self.nodes.end(&address, bytes, matches!(returned.outcome, Outcome::Answered(_)), out.now());
        let results = match &returned.outcome {
            Outcome::Answered(reply) if reply.is_success() => super::sr::read_results(&reply.body, places.len()),
            _ => vec![Delivered::Unreachable; places.len()],
        };
        for result in &results {
            self.count_delivery(*result, out);
        }
        if let Some(job) = job {
            self.take_results(job, places.into_iter().zip(results).collect(), out);
        }
    }
}

/// How many nodes a request has gone through.
pub fn hops(request: &Request<'_>) -> u32 {
    request.header(HOPS).and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

/// Of what is sorted, nodes take messages only.
fn sort_for_node(
    address: (String, bool),
    (message, id): (usize, &[u8]),
    place: u32,
    deed: &Deed<'_>,
    sorted: &mut Sorted,
) -> Option<Delivered> {
    if !matches!(deed, Deed::Send(..)) {
        return Some(Delivered::Unreachable);
    }
    let parcel = sorted.nodes.entry(address).or_default();
    let name = outgoing::name_of(id);
    parcel.places.push(place);
    match parcel.messages.last_mut() {
        Some((last, names)) if *last == message => names.push(name),
        _ => parcel.messages.push((message, vec![name])),
    }
    None
}
