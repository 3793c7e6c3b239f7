//! Requests about a connection of another node, which are made there, once: whichever node the application asks, it is answered.

use super::deliver::{HOPS, MAX_NODE_CALLS, hops};
use super::{Delivered, Gateway, Shape, answer_one};
use crate::gateway::call::{Call, Callee, Outcome, Returned};
use crate::gateway::codec::Post;
use crate::outbox::Outbox;
use crate::outbox::answers::Ticket;
use crate::protocol::http::{Request, Response};

/// Headers of an answer that are passed on.
const PASSED_ON: [&str; 2] = ["x-amzn-errortype", "allow"];

/// A request that another node is to answer.
pub(in crate::gateway) struct Relay {
    ticket: Ticket,
    shape: Shape,
    address: String,
    bytes: usize,
}

impl Gateway {
    /// Makes a request at the node of an address.
    pub(super) fn relay(
        &mut self,
        address: String,
        shape: Shape,
        request: &Request<'_>,
        out: &mut Outbox,
    ) -> Option<Response> {
        let bytes = request.content().len();
        let may_go = hops(request) == 0 && self.relays.len() < MAX_NODE_CALLS;
        if !may_go || !self.nodes.begin(&address, bytes, out.now()) {
            return Some(answer_one(shape, Delivered::Unreachable));
        }
        let key = self.next_node_call();
        let path = match request.query() {
            Some(query) => format!("{}?{query}", request.path()),
            None => request.path().to_owned(),
        };
        let mut headers = vec![(HOPS.to_owned(), "1".to_owned())];
        let media_type = request.header("content-type");
        headers.extend(media_type.map(|media_type| ("content-type".to_owned(), media_type.to_owned())));
        let post = Post { media_type: "", headers, body: request.content().to_vec() };
        let aim = Some((request.method().to_owned(), path));
        let to = Callee::Node(address.clone());
        (self.call)(Call { key, to, aim, event_id: String::new(), post });
        self.relays.insert(key, Relay { ticket: out.defer(request), shape, address, bytes });
        None
    }

    /// The other node answered, or not. Returns what came if it was not of a relay.
    pub(in crate::gateway) fn relay_returned(&mut self, returned: Returned, out: &mut Outbox) -> Option<Returned> {
        let Some(relay) = self.relays.remove(&returned.key) else { return Some(returned) };
        let Relay { ticket, shape, address, bytes } = relay;
        self.nodes.end(&address, bytes, matches!(returned.outcome, Outcome::Answered(_)), out.now());
        let response = match returned.outcome {
            Outcome::Answered(reply) if (200..600).contains(&reply.status) => {
                let mut response = Response::new(reply.status);
                for name in PASSED_ON {
                    if let Some(value) = reply.header(name) {
                        response = response.header(name, value);
                    }
                }
                match reply.header("content-type").map(str::to_owned) {
                    Some(media_type) => response.content(&media_type, reply.body),
                    None => response,
                }
            }
            _ => answer_one(shape, Delivered::Unreachable),
        };
        out.answer(ticket, response);
        None
    }
}
