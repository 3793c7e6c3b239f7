//! A connection before its first request, where connections begin with a PROXY protocol header: for whom a proxy
//! connects.

use super::{Head, Phase, Sessions};
use crate::app::App;
use crate::data::id::Peer;
use crate::data::log::Level;
use crate::protocol::proxy_header::{self, Source};

/// Why a header is not taken.
const NOT_TRUSTED: &str = "it is no --trusted-proxy";

impl<A: App> Sessions<A> {
    /// The phase in which a connection of `peer` begins; `None` for one that is refused. A health check of this host, which is
    /// no proxy, may say that it connects for itself, and nothing else.
    pub(super) fn first_phase(&mut self, peer: Peer) -> Option<Phase> {
        if !self.settings.proxies.proxy_protocol {
            return Some(Phase::Http);
        }
        if !self.settings.proxies.trusts_with_header(peer) && !peer.is_local() {
            self.outbox.stats.proxy_errors += 1;
            self.log_closed(peer, NOT_TRUSTED);
            return None;
        }
        Some(Phase::Preface)
    }

    /// Bytes of the header, in whatever pieces, and perhaps of what follows it.
    pub(super) fn receive_preface(&mut self, key: u32, input: &mut [u8]) {
        let head = match self.slab[key as usize].head.take() {
            // The way of nearly all: the header is whole, and nothing is kept.
            None if self.take_preface(key, input) => return,
            None => Box::new(Head { bytes: input.to_vec(), ..Head::default() }),
            Some(mut head) => {
                head.bytes.extend_from_slice(input);
                if self.take_preface(key, &mut head.bytes) {
                    return;
                }
                head
            }
        };
        self.slab[key as usize].head = Some(head);
    }

    /// Acts on the header that `input` begins with. False while not all of it has come.
    fn take_preface(&mut self, key: u32, input: &mut [u8]) -> bool {
        let header = match proxy_header::read(input) {
            Ok(None) => return false,
            Ok(Some(header)) => header,
            Err(proxy_header::Malformed(why)) => {
                self.outbox.stats.proxy_errors += 1;
                self.log_closed(self.slab[key as usize].peer, why);
                self.end(key);
                return true;
            }
        };
        let peer = self.slab[key as usize].peer;
        if matches!(header.source, Source::Client(_)) && !self.settings.proxies.trusts_with_header(peer) {
            self.outbox.stats.proxy_errors += 1;
            self.log_closed(peer, NOT_TRUSTED);
            self.end(key);
            return true;
        }
        let session = &mut self.slab[key as usize];
        session.phase = Phase::Http;
        if let Source::Client(client) = header.source {
            let proxy = std::mem::replace(&mut session.peer, client);
            if self.log.keeps(Level::Debug) {
                let fields: [(_, &dyn std::fmt::Display); 2] = [("peer", &client), ("proxy", &proxy)];
                self.log.push(Level::Debug, "proxy", &fields, format!("{proxy} connects for {client}"));
            }
        }
        let rest = &mut input[header.bytes..];
        if !rest.is_empty() {
            self.receive_requests(key, rest);
        }
        true
    }

    /// The header did not come in time.
    pub(super) fn preface_expired(&mut self, key: u32) {
        self.outbox.stats.handshake_timeouts += 1;
        self.log_closed(self.slab[key as usize].peer, "no PROXY protocol header in time");
        self.end(key);
    }

    /// Such a connection is closed without an answer: who sends no header need not speak HTTP.
    fn log_closed(&mut self, peer: Peer, why: &str) {
        let text = format!("connection from {peer} closed: {why} (--proxy-protocol)");
        self.log.push(Level::Warn, "proxy", &[("peer", &peer)], text);
    }
}
