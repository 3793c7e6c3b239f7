//! Connections that we open, up to their first frame: the client side of the handshake (RFC 6455, section 4.1).

use super::{Head, Phase, Sessions};
use crate::app::{App, ConnectError};
use crate::net::id::Peer;
use crate::outbox::Order;
use crate::protocol::Role;
use crate::protocol::client::{ClientHandshake, HandshakeError, Offer};
use crate::protocol::http::{self, MAX_HEADERS, Request};
use rand::Rng;
use std::sync::Arc;

/// The order behind a connection being opened.
pub(super) struct Asked {
    tag: u64,
    /// None if frames begin at once.
    handshake: Option<ClientHandshake>,
}

impl<A: App> Sessions<A> {
    /// Takes the connections that the app ordered since the last call. Each must get a call of [`Sessions::connect`] or
    /// [`Sessions::order_failed`].
    pub(crate) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.outbox.orders)
    }

    /// Registers a socket that is connecting to `peer`. Once connected ([`Sessions::connected`]), it requests an
    /// upgrade; without an `offer` it is a WebSocket at once.
    pub fn connect(&mut self, peer: Peer, offer: Option<&Arc<Offer>>, tag: u64) -> u32 {
        let key = self.insert(peer, Phase::Connecting);
        let handshake = offer.map(|offer| {
            let mut nonce = [0; 16];
            self.random.fill_bytes(&mut nonce);
            ClientHandshake::new(Arc::clone(offer), nonce)
        });
        let asked = Some(Box::new(Asked { tag, handshake }));
        self.put_head(key, Box::new(Head { asked, ..Head::default() }));
        key
    }

    /// The socket is connected: sends the request.
    pub fn connected(&mut self, key: u32) {
        let Some(asked) = self.asked(key) else { return };
        match &asked.handshake {
            Some(handshake) => {
                let request = handshake.request();
                self.outbox.queue.push(key, &request);
            }
            None => {
                let request = Request { tag: asked.tag, ..Request::bare(self.slab[key as usize].peer) };
                self.take_head(key);
                self.begin_frames(key, &request, Role::Client, None);
                self.settle();
            }
        }
    }

    /// No socket could be opened for an order.
    pub fn order_failed(&mut self, tag: u64, error: &ConnectError) {
        self.app.on_connect_failed(tag, error, &mut self.outbox);
        self.settle();
    }

    /// One step: bytes of the server's answer, in any pieces. Returns how many are used up, excluding the frames after
    /// it.
    pub(super) fn receive_answer(&mut self, key: u32, input: &mut [u8]) -> usize {
        let all = input.len();
        let Some(mut head) = self.take_head(key) else { return all };
        let before = head.bytes.len();
        head.bytes.extend_from_slice(input);
        let Some(asked) = &head.asked else { return all };
        let Some(handshake) = &asked.handshake else { return all };
        let opened = match handshake.read(&head.bytes, head.seen) {
            Ok(None) if head.bytes.len() <= self.settings.head.head_bytes => {
                head.seen = head.bytes.len();
                self.put_head(key, head);
                return all;
            }
            Ok(None) => Err(HandshakeError::Invalid("headers too long")),
            Ok(Some(opened)) => Ok(opened),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => {
                let (request_bytes, mut headers) = (handshake.request(), [httparse::EMPTY_HEADER; MAX_HEADERS]);
                let peer = self.slab[key as usize].peer;
                // An app's offer may not form a valid request, although the server accepted it.
                let mut request =
                    http::parse(&request_bytes, &mut headers, peer).unwrap_or_else(|_| Request::bare(peer));
                (request.tag, request.subprotocol) = (asked.tag, opened.subprotocol.as_deref());
                self.begin_frames(key, &request, Role::Client, opened.deflate);
                self.settle();
                opened.head_bytes - before
            }
            Err(error) => {
                self.put_head(key, head);
                self.connect_failed(key, ConnectError::Handshake(error));
                all
            }
        }
    }

    /// A connection failed to open.
    pub(super) fn connect_failed(&mut self, key: u32, error: ConnectError) {
        if let Some(tag) = self.asked(key).map(|asked| asked.tag) {
            self.app.on_connect_failed(tag, &error, &mut self.outbox);
        }
        self.end(key);
    }

    fn asked(&self, key: u32) -> Option<&Asked> {
        let session = self.slab.get(key as usize).filter(|session| session.phase == Phase::Connecting)?;
        session.head.as_ref()?.asked.as_deref()
    }
}
