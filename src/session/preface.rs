//! Connections that begin with a PROXY protocol header, before their first request: the header names the client that a
//! proxy connects for.

use super::{Head, Phase, Sessions};
use crate::app::App;
use crate::net::id::Peer;
use crate::protocol::proxy_header::{self, Source};
use crate::telemetry::log::{Field, Level};

/// Why a header is rejected.
const NOT_TRUSTED: &str = "it is not a --trusted-proxy";

impl<A: App> Sessions<A> {
    /// The phase in which a connection of `peer` begins; `None` for one that is refused. A health check of this host,
    /// which is not a proxy, may only send a LOCAL header.
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

    /// One step: bytes of the header, in any pieces. Returns how many are used up, excluding what follows it.
    pub(super) fn receive_preface(&mut self, key: u32, input: &mut [u8]) -> usize {
        let (mut head, before) = match self.take_head(key) {
            // The usual case: the header is complete, and nothing is kept.
            None => match self.take_preface(key, input) {
                Some(used) => return used,
                None => (Box::<Head>::default(), 0),
            },
            Some(head) => {
                let before = head.bytes.len();
                (head, before)
            }
        };
        head.bytes.extend_from_slice(input);
        if before > 0
            && let Some(used) = self.take_preface(key, &head.bytes)
        {
            return used - before;
        }
        self.put_head(key, head);
        input.len()
    }

    /// Acts on the header at the start of `input`, and returns its length; `None` if it is incomplete.
    fn take_preface(&mut self, key: u32, input: &[u8]) -> Option<usize> {
        let header = match proxy_header::read(input) {
            Ok(None) => return None,
            Ok(Some(header)) => header,
            Err(proxy_header::Malformed(why)) => {
                self.outbox.stats.proxy_errors += 1;
                self.log_closed(self.slab[key as usize].peer, why);
                self.end(key);
                return Some(input.len());
            }
        };
        let peer = self.slab[key as usize].peer;
        if matches!(header.source, Source::Client(_)) && !self.settings.proxies.trusts_with_header(peer) {
            self.outbox.stats.proxy_errors += 1;
            self.log_closed(peer, NOT_TRUSTED);
            self.end(key);
            return Some(input.len());
        }
        let session = &mut self.slab[key as usize];
        session.phase = Phase::Http;
        if let Source::Client(client) = header.source {
            let proxy = std::mem::replace(&mut session.peer, client);
            if self.log.keeps(Level::Debug) {
                let fields: [(_, &dyn Field); 2] = [("peer", &client), ("proxy", &proxy)];
                self.log.push(Level::Debug, "proxy", &fields, format!("{proxy} connects for {client}"));
            }
        }
        let client = self.counted(self.slab[key as usize].peer);
        self.count_for(key, client);
        Some(header.bytes)
    }

    /// The header did not arrive in time.
    pub(super) fn preface_expired(&mut self, key: u32) {
        self.outbox.stats.handshake_timeouts += 1;
        self.log_closed(self.slab[key as usize].peer, "no PROXY protocol header in time");
        self.end(key);
    }

    /// Such a connection is closed without an answer: a peer that sends no header may not speak HTTP.
    fn log_closed(&mut self, peer: Peer, why: &str) {
        let text = format!("connection from {peer} closed: {why} (--proxy-protocol)");
        self.log.push(Level::Warn, "proxy", &[("peer", &peer)], text);
    }
}
