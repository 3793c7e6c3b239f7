//! A connection before it is open: requests, routes, and the upgrade (RFC 6455, section 4.2).

use super::content::{Entry, UNTAKEN};
use super::lines::tenths;
use super::{Head, Phase, Sessions, health, milliseconds};
use crate::app::App;
use crate::net::id::Peer;
use crate::net::per_client::NOWHERE;
use crate::protocol::Role;
use crate::protocol::content::Content;
use crate::protocol::deflate::Inflater;
use crate::protocol::extension::Agreement;
use crate::protocol::forwarded;
use crate::protocol::http::{self, BadRequest, MAX_HEADERS, ReplyTo, Request, Response};
use crate::protocol::receiver::Receiver;
use crate::protocol::upgrade;
use crate::telemetry::log::{Field, Level, printable};
use crate::time::calendar::Utc;
use httparse::Header;

/// Requests answered per step, ...
const STEP_REQUESTS: usize = 16;
/// ... and per brief step.
const BRIEF_REQUESTS: usize = 2;
/// Asks the client to send its content (RFC 9110, section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const NO_UPGRADE: &str = "This listener serves requests only: WebSockets are opened on the public one.";

/// The outcome of a request.
pub(super) enum Answered {
    /// The connection is open; frames follow.
    Upgraded,
    /// A response is queued; the next request may follow.
    KeepAlive,
    /// A response is queued, and it is the last.
    Last,
    /// The app owes the answer.
    Owed,
    /// Part of its content is still to come.
    Awaits(Content),
}

impl<A: App> Sessions<A> {
    /// One step: bytes of requests, in any pieces. Returns how many are used up.
    pub(super) fn receive_requests(&mut self, key: u32, input: &mut [u8]) -> usize {
        let Some(mut head) = self.take_head(key) else {
            // The usual case: the request is complete, and nothing is kept.
            return self.take_requests(key, input, 0);
        };
        if head.awaited.is_some() {
            return self.receive_content(key, head, input);
        }
        let taken = head.take_request(input, self.settings.head.head_bytes);
        if http::head_end(&head.bytes, head.seen).is_some() {
            self.take_requests(key, &head.bytes, head.seen);
        } else if let Err(bad) = http::check_beginning(&head.bytes, head.seen, &self.settings.head) {
            self.refuse(key, bad);
        } else {
            head.seen = head.bytes.len();
            self.put_head(key, head);
        }
        taken
    }

    /// Answers the requests at the start of `input`, and keeps an incomplete one. Returns how many bytes are used up.
    fn take_requests(&mut self, key: u32, input: &[u8], seen: usize) -> usize {
        let mut start = 0;
        for _ in 0..if self.is_brief { BRIEF_REQUESTS } else { STEP_REQUESTS } {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            start += input[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let rest = &input[start..];
            if rest.is_empty() {
                return start;
            }
            let seen_here = seen.saturating_sub(start);
            let end = http::head_end(rest, seen_here);
            if let Err(bad) = http::check_beginning(&rest[..end.unwrap_or(rest.len())], seen_here, &self.settings.head)
            {
                self.refuse(key, bad);
                return input.len();
            }
            let Some(end) = end else {
                self.put_head(key, Box::new(Head { bytes: rest.to_vec(), seen: rest.len(), ..Head::default() }));
                return input.len();
            };
            let (head, after) = rest.split_at(end);
            let (used, answered) = match self.answer(key, head, after) {
                Ok((Answered::Awaits(content), _)) => {
                    let used = self.begin_content(key, head, content, after);
                    return start + end + used;
                }
                Ok((answered, used)) => (used, Ok(answered)),
                Err(bad) => (0, Err(bad)),
            };
            start += end + used;
            if let Some(all) = self.after_answer(key, answered) {
                return if all { input.len() } else { start };
            }
            if self.outbox.is_full() || self.waits_for_channel(key) {
                break;
            }
        }
        start
    }

    /// Acts on the outcome of a request. `None` if the next request may follow at once; else whether the remaining
    /// bytes are used up: bytes that are not requests, or must wait, are not.
    pub(super) fn after_answer(&mut self, key: u32, answered: Result<Answered, BadRequest>) -> Option<bool> {
        match answered {
            Ok(Answered::KeepAlive) => {
                self.slab[key as usize].served = true;
                self.wheel.arm(key, self.now + self.settings.handshake_timeout);
                // One answer may exceed the limit: nothing more is read until it is sent.
                let lane = self.outbox.queue.lane_at(key);
                if lane.is_blocked() && lane.queued_bytes() > self.settings.send.max_backlog {
                    self.end(key);
                    return Some(true);
                }
                None
            }
            // Frames follow, or the rest waits for the answer.
            Ok(Answered::Upgraded | Answered::Owed | Answered::Awaits(_)) => {
                self.settle();
                Some(false)
            }
            Ok(Answered::Last) => {
                self.enter(key, Phase::Lingering);
                Some(true)
            }
            Err(bad) => {
                self.refuse(key, bad);
                Some(true)
            }
        }
    }

    /// Parses a complete head.
    pub(super) fn read_head<'a>(
        &self,
        key: u32,
        head: &'a [u8],
        headers: &'a mut [Header<'a>; MAX_HEADERS],
    ) -> Result<Request<'a>, BadRequest> {
        let session = &self.slab[key as usize];
        let mut request = http::parse(head, headers, session.peer)?;
        request.is_service = session.is_service;
        forwarded::resolve(&mut request, &self.settings.proxies);
        Ok(request)
    }

    /// Answers a request with a complete head, given the part of its content that has arrived (`after`). Returns how
    /// many bytes of `after` are used up.
    fn answer(&mut self, key: u32, head: &[u8], after: &[u8]) -> Result<(Answered, usize), BadRequest> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = self.read_head(key, head, &mut headers)?;
        self.outbox.stats.requests += 1;
        if !request.is_service() {
            self.count_for(key, self.counted(request.peer()));
        }
        let (has_unread, content) = match self.admit_content(&request)? {
            Entry::Empty => (false, &[][..]),
            Entry::Unread => (true, &[][..]),
            Entry::Refused(response) => {
                self.respond(key, &response, false, &request);
                return Ok((Answered::Last, 0));
            }
            Entry::Content(content, expects) => match content.whole(after) {
                Some(content) => (false, content),
                None => {
                    if expects && after.is_empty() {
                        self.outbox.queue.push(key, CONTINUE);
                    }
                    return Ok((Answered::Awaits(content), 0));
                }
            },
        };
        request.content = content;
        Ok((self.answer_whole(key, request, head, has_unread), content.len()))
    }

    /// Answers a request whose content is complete, or stays unread.
    pub(super) fn answer_whole(
        &mut self,
        key: u32,
        mut request: Request<'_>,
        head: &[u8],
        has_unread: bool,
    ) -> Answered {
        request.reply_to = ReplyTo::Request(key);
        let response = match self.route(key, &request, has_unread) {
            Some(response) => response,
            None if self.outbox.debts.is_owed(key) => return self.owe(key, head, has_unread),
            None => match upgrade::accept(&request, &self.settings.upgrade, &self.settings.deflate) {
                Err(response) => response,
                Ok(accepted) => {
                    request.subprotocol = accepted.subprotocol;
                    request.reply_to = ReplyTo::Upgrade(key);
                    match self.app.on_upgrade(&request, &mut self.outbox) {
                        Some(response) => response,
                        None if self.outbox.debts.is_owed(key) => return self.owe(key, head, has_unread),
                        None => {
                            request.reply_to = ReplyTo::Nobody;
                            self.open(key, &request, &accepted.encode(), accepted.deflate);
                            return Answered::Upgraded;
                        }
                    }
                }
            },
        };
        // If an app defers and answers at once, the answer counts.
        self.outbox.debts.forget(key);
        self.finish(key, &response, &request, has_unread)
    }

    /// Queues the response to a request.
    pub(super) fn finish(
        &mut self,
        key: u32,
        response: &Response,
        request: &Request<'_>,
        has_unread: bool,
    ) -> Answered {
        let keep_alive =
            request.keeps_alive() && !has_unread && self.outbox.stats.draining == 0 && !self.has_lived(key);
        self.respond(key, response, keep_alive, request);
        // A proxy's next request may be another client's.
        if keep_alive && request.proxy().is_some() {
            self.count_for(key, Peer::UNKNOWN);
        }
        if keep_alive { Answered::KeepAlive } else { Answered::Last }
    }

    /// Whether a connection has reached the age at which requests end.
    fn has_lived(&self, key: u32) -> bool {
        let lifetime = self.settings.http_lifetime;
        let since = self.tally.since(self.slab[key as usize].place);
        !lifetime.is_zero() && self.now.saturating_sub(since) >= lifetime
    }

    /// The response to a request that is not upgraded. `None` for an upgrade on a valid path, and if the app owes the
    /// answer.
    fn route(&mut self, key: u32, request: &Request<'_>, has_unread: bool) -> Option<Response> {
        if let Some(response) = health::route(request, self.now, self.draining, self.app.is_healthy()) {
            return Some(if has_unread && response.status() < 400 { too_large() } else { response });
        }
        let upgrades = self.settings.upgrade.takes(request.path());
        let asked = upgrade::is_asked(request);
        if request.is_service() && asked {
            return Some(Response::text(400, NO_UPGRADE));
        }
        if has_unread && matches!(request.method(), "GET" | "HEAD") {
            return Some(too_large());
        }
        if let Some(response) = self.app.on_request(request, &mut self.outbox) {
            return Some(response);
        }
        if self.outbox.debts.is_owed(key) {
            return None;
        }
        if !upgrades || request.is_service() {
            return Some(Response::text(404, "Nothing is here."));
        }
        match request.method() {
            "GET" if !asked => Some(upgrade::required()),
            "GET" if self.draining => Some(unavailable("The server is going away.")),
            "GET" if self.outbox.stats.open as usize + self.tally.reserved() >= self.settings.max_connections => {
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

    /// Accepts an upgrade with this answer.
    pub(super) fn open(&mut self, key: u32, request: &Request<'_>, answer: &[u8], deflate: Option<Agreement>) {
        self.outbox.queue.push(key, answer);
        self.outbox.stats.upgrades += 1;
        self.begin_frames(key, request, Role::Server, deflate);
    }

    /// The handshake is complete: from here on there are frames, and we act as `role`.
    pub(super) fn begin_frames(&mut self, key: u32, request: &Request<'_>, role: Role, deflate: Option<Agreement>) {
        let id = self.id(key);
        self.outbox.begin_frames(id, role, deflate);
        self.outbox.stats.open += 1;
        let now = milliseconds(self.now);
        let session = &mut self.slab[key as usize];
        self.tally.open(std::mem::replace(&mut session.place, NOWHERE), request.peer());
        session.peer = request.peer();
        session.phase = Phase::Open;
        session.opened = tenths(self.now);
        session.heard = now;
        session.next_ping = now.wrapping_add(milliseconds(self.settings.heartbeat));
        if let Some(agreed) = deflate {
            let peer_keeps_window = match role {
                Role::Server => agreed.client_takeover,
                Role::Client => agreed.server_takeover,
            };
            self.inflaters += usize::from(peer_keeps_window);
            session.receiver = Receiver::with_deflate(peer_keeps_window.then(|| Box::new(Inflater::new())));
        }
        self.arm_heartbeat(key);
        self.log_opened(id, request);
        let state = self.app.on_open(id, request, &mut self.outbox);
        self.slab[key as usize].state = Some(state);
    }

    fn respond(&mut self, key: u32, response: &Response, keep_alive: bool, request: &Request<'_>) {
        if response.status() >= 400 {
            self.outbox.stats.reject(response.status());
            let (peer, status, path) = (request.peer(), response.status(), printable(request.path(), 256));
            let fields: [(_, &dyn Field); 3] = [("peer", &peer), ("status", &status), ("path", &path)];
            let text = format!("request for {path} from {peer} answered with {status}");
            self.log.push(Level::Debug, "rejected", &fields, text);
            self.refused(peer, status, path);
        }
        let bytes = response.encode(keep_alive, request.method() == "HEAD", &self.http_date());
        self.outbox.queue.push(key, &bytes);
    }

    /// The current time for a Date header.
    fn http_date(&self) -> String {
        Utc::from_unix(self.outbox.unix_time().as_secs()).http_date()
    }

    /// Answers bytes that are not a valid request, or one that cannot be served, and ends the connection.
    pub(super) fn refuse(&mut self, key: u32, BadRequest(status, line): BadRequest) {
        let unread = Request { path: "?", ..Request::bare(self.slab[key as usize].peer) };
        self.respond(key, &Response::text(status, line), false, &unread);
        self.enter(key, Phase::Lingering);
    }

    /// A request did not arrive in time. A connection that only idles between requests just ends.
    pub(super) fn handshake_expired(&mut self, key: u32) {
        let session = &self.slab[key as usize];
        if session.served && session.head.is_none() {
            return self.end(key);
        }
        self.outbox.stats.handshake_timeouts += 1;
        self.refuse(key, BadRequest(408, "The request did not come in time."));
    }
}

impl Head {
    /// Takes input of the current request, at most up to its limit, and returns how much. So the buffer stays small,
    /// whatever follows the request.
    fn take_request(&mut self, input: &[u8], most: usize) -> usize {
        let begun = self.bytes.len();
        let bytes = input.len().min(most.saturating_add(1).saturating_sub(begun));
        self.bytes.extend_from_slice(&input[..bytes]);
        if let Some(end) = http::head_end(&self.bytes, self.seen) {
            self.bytes.truncate(end.max(begun));
        }
        self.bytes.len() - begun
    }
}

fn unavailable(line: &str) -> Response {
    Response::text(503, line).header("Retry-After", "5")
}

fn too_large() -> Response {
    Response::text(413, UNTAKEN)
}
