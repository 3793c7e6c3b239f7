//! `GET /connections?label=NAME`: the connections of this host that have a label, page by page. A page is put together worker by
//! worker, in the order of their slots, which is that of the numbers of connections.

use super::record::{Record, channel};
use super::{Delivered, Gateway, PATIENCE, rest, too_many};
use crate::gateway::labels::is_label;
use crate::gateway::name::{Named, first_of, slot_of};
use crate::outbox::Outbox;
use crate::outbox::answers::Ticket;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Kind;
use serde_json::json;

/// Connections on a page, unless the request says otherwise, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;
/// Slots of a bus.
const SLOTS: u32 = 256;

/// A page that is put together.
pub(in crate::gateway) struct Listing {
    ticket: Ticket,
    label: String,
    most: usize,
    /// The number behind which to go on, and whose turn it is.
    after: u64,
    slot: u32,
    found: Vec<u64>,
}

impl Gateway {
    pub(super) fn serve_list(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        let text = |name| request.query_value(name);
        let Some(label) = text("label").filter(|label| is_label(label)) else {
            return Some(rest::error(400, "bad_label", "give label=NAME, of 128 characters at most"));
        };
        let most = text("limit").map_or(Some(PAGE), |limit| limit.parse().ok());
        let Some(most) = most.filter(|most| (1..=LONGEST_PAGE).contains(most)) else {
            return Some(rest::error(400, "bad_request", "limit is a number from 1 to 1000"));
        };
        let after = match text("after") {
            None => 0,
            Some(id) => match self.core.read_name(&id) {
                Named::Here(serial) => serial,
                _ => return Some(rest::answer(Delivered::Forged)),
            },
        };
        if self.listings.len() >= super::MAX_JOBS {
            return Some(too_many());
        }
        let ticket = out.defer(request);
        let key = self.begin_wait(out.now() + PATIENCE);
        let listing =
            Listing { ticket, label: label.into_owned(), most, after, slot: slot_of(after), found: Vec::new() };
        self.go_on_listing(key, listing, out);
        None
    }

    /// Connections of this worker with a label.
    pub(super) fn labelled(&self, label: &str, after: u64, most: usize) -> Vec<u64> {
        self.core.labels().page(label, after, most.min(LONGEST_PAGE)).collect()
    }

    /// Asks the next worker, or answers when the page is full or all were asked.
    fn go_on_listing(&mut self, key: u64, mut listing: Listing, out: &mut Outbox) {
        while listing.slot < SLOTS && listing.found.len() < listing.most {
            let (slot, most) = (listing.slot, listing.most - listing.found.len());
            let channel = channel(slot);
            if slot == self.slot {
                let more = self.labelled(&listing.label, listing.after, most);
                listing.take(more);
            } else if out.listeners(&channel).next().is_some() {
                let asker = (self.slot, key);
                let (after, label) = (listing.after, listing.label.as_str());
                let record = Record::List { asker, after, most: most as u32, label }.write();
                // Without an answer it ends by its deadline.
                let _ = out.publish(&channel, Kind::Binary, &[&record]);
                self.listings.insert(key, listing);
                return;
            } else {
                listing.pass();
            }
        }
        let names = listing.found.iter().map(|serial| self.core.names().name(*serial)).collect::<Vec<_>>();
        let next = names.last().filter(|_| names.len() >= listing.most);
        let body = match next {
            Some(next) => json!({"ids": names, "next": next}),
            None => json!({"ids": names}),
        };
        out.answer(listing.ticket, rest::json_of(200, &body));
    }

    /// A worker told what it has.
    pub(super) fn listed(&mut self, key: u64, serials: Vec<u64>, out: &mut Outbox) {
        let Some(mut listing) = self.listings.remove(&key) else { return };
        listing.take(serials);
        self.go_on_listing(key, listing, out);
    }

    /// A worker did not answer in time.
    pub(super) fn end_listing(&mut self, key: u64, out: &mut Outbox) {
        if let Some(listing) = self.listings.remove(&key) {
            let line = "a worker that has connections does not answer";
            out.answer(listing.ticket, rest::error(503, "unreachable", line));
        }
    }
}

impl Listing {
    /// Takes what the worker has whose turn it is. One that has filled the page may have more.
    fn take(&mut self, serials: Vec<u64>) {
        let slot = self.slot;
        self.found.extend(serials.into_iter().filter(|serial| slot_of(*serial) == slot));
        self.found.truncate(self.most);
        if self.found.len() < self.most {
            self.pass();
        }
    }

    /// It is the next worker's turn.
    fn pass(&mut self) {
        self.slot += 1;
        // Numbers begin at the first one of their slot, which none has.
        self.after = u8::try_from(self.slot).map_or(0, first_of);
    }
}
