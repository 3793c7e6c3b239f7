//! A connection before it is open: requests, routes, and the upgrade (RFC 6455, section 4.2).

use super::{Head, Phase, Sessions, health, milliseconds};
use crate::app::App;
use crate::data::calendar::Utc;
use crate::data::log::{Level, printable};
use crate::data::tally::Tally;
use crate::protocol::Role;
use crate::protocol::deflate::Inflater;
use crate::protocol::extension::Agreement;
use crate::protocol::forwarded;
use crate::protocol::http::{self, BadRequest, MAX_HEADERS, Request, Response};
use crate::protocol::receiver::Receiver;
use crate::protocol::upgrade;

/// What came of a request.
enum Answered {
    /// The connection is open; what follows is frames.
    Upgraded,
    /// A response is queued; the next request may follow.
    KeepAlive,
    /// A response is queued, and it is the last.
    Last,
}

impl<A: App> Sessions<A> {
    /// Who has how many connections open, where [`Settings::max_connections_per_ip`](super::Settings) bounds that.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Bytes of requests, in whatever pieces.
    pub(super) fn receive_requests(&mut self, key: u32, input: &mut [u8]) {
        let mut head = match self.slab[key as usize].head.take() {
            // The way of nearly all: the request is whole, and nothing is kept.
            None => match self.take_requests(key, input, 0) {
                None => return,
                Some(used) => Box::new(Head { bytes: input[used..].to_vec(), ..Head::default() }),
            },
            Some(mut head) => {
                head.bytes.extend_from_slice(input);
                let Some(used) = self.take_requests(key, &mut head.bytes, head.seen) else { return };
                head.bytes.drain(..used);
                head
            }
        };
        head.seen = head.bytes.len();
        self.slab[key as usize].head = Some(head);
    }

    /// Answers the requests in `input`. Says where one begins that is not all there, if there is one.
    fn take_requests(&mut self, key: u32, input: &mut [u8], mut seen: usize) -> Option<usize> {
        let mut start = 0;
        loop {
            // An empty line before a request is passed over (RFC 9112, section 2.2).
            start += input[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let rest = &mut input[start..];
            if rest.is_empty() {
                return None;
            }
            let end = http::head_end(rest, seen.saturating_sub(start));
            if let Err(bad) = http::check_beginning(&rest[..end.unwrap_or(rest.len())], &self.settings.head) {
                self.refuse(key, bad);
                return None;
            }
            let end = match end {
                Some(end) => end,
                None => return Some(start),
            };
            start += end;
            seen = 0;
            match self.answer(key, &rest[..end]) {
                Ok(Answered::KeepAlive) => {
                    self.slab[key as usize].served = true;
                    self.wheel.arm(key, self.now + self.settings.handshake_timeout);
                    if self.outbox.queue.lane_at(key).queued_bytes() > self.settings.send.max_backlog {
                        self.end(key);
                        return None;
                    }
                }
                Ok(Answered::Upgraded) => {
                    self.receive_after_upgrade(key, &mut rest[end..]);
                    return None;
                }
                Ok(Answered::Last) => {
                    self.enter(key, Phase::Lingering);
                    return None;
                }
                Err(bad) => {
                    self.refuse(key, bad);
                    return None;
                }
            }
        }
    }

    /// Frames that came in the same packet as the request, or as the answer to ours.
    pub(super) fn receive_after_upgrade(&mut self, key: u32, rest: &mut [u8]) {
        self.settle();
        if !rest.is_empty() && self.slab.get(key as usize).is_some_and(|session| session.phase != Phase::Ended) {
            self.receive(key, rest);
        }
    }

    fn answer(&mut self, key: u32, head: &[u8]) -> Result<Answered, BadRequest> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let peer = self.slab[key as usize].peer;
        let mut request = http::parse(head, &mut headers, peer)?;
        forwarded::resolve(&mut request, &self.settings.proxies);
        // What follows the head is taken for the next request, so content cannot stay unread.
        let has_content = request.has_content()?;
        let response = match self.route(&request, has_content) {
            Some(response) => response,
            None => match upgrade::accept(&request, &self.settings.upgrade) {
                Err(response) => response,
                Ok(accepted) => {
                    request.subprotocol = accepted.subprotocol;
                    self.open(key, &request, &accepted);
                    return Ok(Answered::Upgraded);
                }
            },
        };
        let keep_alive = request.keeps_alive() && !has_content && self.outbox.stats.draining == 0;
        self.respond(key, &response, keep_alive, &request);
        Ok(if keep_alive { Answered::KeepAlive } else { Answered::Last })
    }

    /// The response to a request that is not to be upgraded; `None` for one that asks for an upgrade on a path for it.
    fn route(&mut self, request: &Request<'_>, has_content: bool) -> Option<Response> {
        if let Some(response) = health::route(request, self.now, self.draining, self.app.is_healthy()) {
            return Some(if has_content && response.status() < 400 { too_large() } else { response });
        }
        let upgrades = self.settings.upgrade.paths.iter().any(|path| path == request.path());
        let asked = upgrade::is_asked(request);
        if has_content && matches!(request.method(), "GET" | "HEAD") {
            return Some(too_large());
        }
        if let Some(response) = self.app.on_request(request, &mut self.outbox) {
            return Some(response);
        }
        if !upgrades {
            return Some(Response::text(404, "Nothing is here."));
        }
        match request.method() {
            "GET" if !asked => Some(upgrade::required()),
            "GET" if self.draining => Some(unavailable("The server is going away.")),
            "GET" if self.outbox.stats.open >= self.settings.max_connections as u64 => {
                Some(unavailable("There are too many connections."))
            }
            "GET" if self.tally.is_full(request.peer()) => {
                self.outbox.stats.limited_per_ip += 1;
                let line = "There are too many connections from this address.";
                Some(Response::text(429, line).header("Retry-After", "5"))
            }
            "GET" => None,
            "HEAD" => Some(upgrade::required()),
            _ => Some(health::wrong_method("GET")),
        }
    }

    fn open(&mut self, key: u32, request: &Request<'_>, accepted: &upgrade::Accepted<'_>) {
        self.outbox.queue.push(key, &accepted.encode());
        self.outbox.stats.upgrades += 1;
        self.begin_frames(key, request, Role::Server, accepted.deflate);
    }

    /// The handshake is done: from here on there are frames, of which our end sends those of `role`.
    pub(super) fn begin_frames(&mut self, key: u32, request: &Request<'_>, role: Role, deflate: Option<Agreement>) {
        let id = self.id(key);
        self.outbox.begin_frames(id, role, deflate);
        self.outbox.stats.open += 1;
        let now = milliseconds(self.now);
        self.tally.enter(request.peer());
        let session = &mut self.slab[key as usize];
        session.peer = request.peer();
        session.phase = Phase::Open;
        session.head = None;
        session.heard = now;
        session.next_ping = now.wrapping_add(milliseconds(self.settings.heartbeat));
        if let Some(agreed) = deflate {
            let peer_keeps_window = match role {
                Role::Server => agreed.client_takeover,
                Role::Client => agreed.server_takeover,
            };
            session.receiver = Receiver::with_deflate(peer_keeps_window.then(|| Box::new(Inflater::new())));
        }
        self.arm_heartbeat(key);
        if self.log.keeps(Level::Info) {
            let (peer, path) = (request.peer(), printable(request.path(), 256));
            let fields: [(_, &dyn std::fmt::Display); 3] = [("peer", &peer), ("id", &id), ("path", &path)];
            self.log.push(Level::Info, "open", &fields, format!("WebSocket connection opened: {peer}"));
        }
        let state = self.app.on_open(id, request, &mut self.outbox);
        self.slab[key as usize].state = Some(state);
    }

    fn respond(&mut self, key: u32, response: &Response, keep_alive: bool, request: &Request<'_>) {
        if response.status() >= 400 {
            self.outbox.stats.reject(response.status());
            let (peer, status, path) = (request.peer(), response.status(), printable(request.path(), 256));
            let fields: [(_, &dyn std::fmt::Display); 3] = [("peer", &peer), ("status", &status), ("path", &path)];
            let text = format!("request for {path} from {peer} answered with {status}");
            self.log.push(Level::Debug, "rejected", &fields, text);
        }
        let bytes = response.encode(keep_alive, request.method() == "HEAD", &self.http_date());
        self.outbox.queue.push(key, &bytes);
    }

    /// The value of a Date header now.
    fn http_date(&self) -> String {
        Utc::from_unix(self.outbox.unix_time().as_secs()).http_date()
    }

    /// Answers what is no request, or not one that can be served, and ends the connection.
    fn refuse(&mut self, key: u32, BadRequest(status, line): BadRequest) {
        let unread = Request { path: "?", ..Request::bare(self.slab[key as usize].peer) };
        self.respond(key, &Response::text(status, line), false, &unread);
        self.enter(key, Phase::Lingering);
    }

    /// A request did not come in time. A connection that only idles between requests just ends.
    pub(super) fn handshake_expired(&mut self, key: u32) {
        let session = &self.slab[key as usize];
        if session.served && session.head.is_none() {
            return self.end(key);
        }
        self.outbox.stats.handshake_timeouts += 1;
        self.refuse(key, BadRequest(408, "The request did not come in time."));
    }
}

fn unavailable(line: &str) -> Response {
    Response::text(503, line).header("Retry-After", "5")
}

fn too_large() -> Response {
    Response::text(413, "This path takes no content.")
}
