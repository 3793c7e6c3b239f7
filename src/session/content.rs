//! The content of requests: whether it is accepted, and reading it piece by piece.

use super::handshake::Answered;
use super::{Head, Sessions, health};
use crate::app::App;
use crate::protocol::content::{Content, Framing};
use crate::protocol::http::{BadRequest, MAX_HEADERS, Request, Response};
use std::time::Duration;

/// Each time this many bytes of content arrive, the client gets another second for the rest.
const BYTES_PER_SECOND: usize = 1024;

pub(super) const UNTAKEN: &str = "This path takes no content.";

/// What happens to a request's content.
pub(super) enum Entry {
    /// There is no content.
    Empty,
    /// Not accepted: it stays unread, and the answer is the last.
    Unread,
    /// The request is answered before its content is read.
    Refused(Response),
    /// The content is read; with it, whether the client waits for a 100.
    Content(Content, bool),
}

/// Partly received content: it follows the head, in the same buffer.
pub(super) struct Awaited {
    content: Content,
    head_bytes: usize,
    /// When the head was complete.
    since: Duration,
}

impl<A: App> Sessions<A> {
    /// Decides on a request's content from its head.
    pub(super) fn admit_content(&self, request: &Request<'_>) -> Result<Entry, BadRequest> {
        let framing = request.framing()?;
        let expects = request.expects_continue()?;
        if let Some(response) = self.demand_token(request) {
            return Ok(Entry::Refused(response));
        }
        // HTTP/1.0 without a length does not tell whether content follows (RFC 1945, section 7.2.2).
        let may_follow = request.minor_version == 0 && matches!(request.method(), "POST" | "PUT" | "PATCH");
        let says_none = framing == Framing::Empty && request.raw_values("content-length").next().is_none();
        let lacks_length = may_follow && says_none;
        if framing == Framing::Empty && !lacks_length {
            return Ok(Entry::Empty);
        }
        let limit = if health::is_path(request) { 0 } else { self.app.takes_content(request) };
        let limit = limit.min(self.settings.max_content);
        Ok(match (limit, lacks_length) {
            (0, true) => Entry::Empty,
            (0, false) => Entry::Unread,
            (_, true) => Entry::Refused(Response::text(411, "Content of HTTP/1.0 needs a Content-Length.")),
            (limit, false) => match Content::new(framing, limit, self.settings.head.head_bytes) {
                Ok(content) => Entry::Content(content, expects),
                Err(BadRequest(status, line)) => Entry::Refused(Response::text(status, line)),
            },
        })
    }

    /// A request's head is complete, and `after` of its content has arrived. Returns how many bytes of `after` are used
    /// up.
    pub(super) fn begin_content(&mut self, key: u32, head: &[u8], content: Content, after: &[u8]) -> usize {
        let awaited = Awaited { content, head_bytes: head.len(), since: self.now };
        let head = Box::new(Head { bytes: head.to_vec(), awaited: Some(awaited), ..Head::default() });
        self.receive_content(key, head, after)
    }

    /// One step: bytes of content. Returns how many are used up.
    pub(super) fn receive_content(&mut self, key: u32, mut head: Box<Head>, input: &[u8]) -> usize {
        let Some(mut awaited) = head.awaited.take() else { return input.len() };
        match awaited.content.take(input, &mut head.bytes) {
            Ok((used, true)) => {
                let answered = self.answer_with_content(key, &head.bytes, awaited.head_bytes);
                if self.after_answer(key, answered) == Some(true) { input.len() } else { used }
            }
            Ok((used, false)) => {
                self.wheel.arm(key, self.content_deadline(&awaited));
                head.awaited = Some(awaited);
                self.put_head(key, head);
                used
            }
            Err(bad) => {
                self.refuse(key, bad);
                input.len()
            }
        }
    }

    fn answer_with_content(&mut self, key: u32, bytes: &[u8], head_bytes: usize) -> Result<Answered, BadRequest> {
        let (head, content) = bytes.split_at(head_bytes);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = self.read_head(key, head, &mut headers)?;
        request.content = content;
        Ok(self.answer_whole(key, request, head, false))
    }

    /// Deadline for the rest. Content that arrives extends it, so that a slow line is not cut off, but only up to a
    /// limit.
    fn content_deadline(&self, awaited: &Awaited) -> Duration {
        let (least, lifetime) = (self.settings.handshake_timeout, self.settings.http_lifetime);
        let granted = least + Duration::from_secs((awaited.content.taken() / BYTES_PER_SECOND) as u64);
        let longest = if lifetime.is_zero() { Duration::MAX } else { lifetime.max(least) };
        awaited.since.saturating_add(granted.min(longest))
    }
}
