//! An app's sessions and one connection of it, without a socket.

use super::desk::Desk;
use percore::internal::session::Sessions;
use percore::internal::telemetry::memory::MemoryKind;
use percore::{Log, Peer, Settings};
use std::time::Duration;

/// Sessions, and one connection.
pub struct One {
    pub sessions: Sessions<Desk>,
    pub key: u32,
    pub heard: Vec<u8>,
    now: Duration,
}

impl One {
    pub fn new(settings: Settings) -> One {
        let mut sessions = Sessions::new(Desk::default(), settings, Log::new(None), 0, [0; 32]);
        let key = sessions.accept(Peer::UNIX).expect("a place");
        One { sessions, key, heard: Vec::new(), now: Duration::ZERO }
    }

    /// A loop's way with what was read: what is not used up when it is not to be read on is kept.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref().to_vec();
        let mut left = &mut bytes[..];
        self.go_on();
        while !left.is_empty() {
            let used = self.sessions.step(self.key, left);
            left = &mut left[used..];
            if !self.sessions.wants_read(self.key) {
                self.sessions.keep(self.key, left);
                break;
            }
        }
        self.write();
    }

    /// Works on what was kept, as long as it may.
    pub fn go_on(&mut self) {
        while self.sessions.has_rest(self.key) && self.sessions.wants_read(self.key) {
            self.sessions.resume(self.key);
        }
    }

    pub fn write(&mut self) {
        while let Some(key) = self.sessions.queue().next_dirty() {
            let queue = self.sessions.queue();
            let bytes = queue.single(key).expect("one piece").to_vec();
            queue.sent(key, bytes.len(), false);
            self.heard.extend(bytes);
        }
        self.sessions.queue().end_flush();
    }

    /// A pass of the loop after so much time.
    pub fn pass(&mut self, later: Duration) {
        self.now += later;
        self.sessions.begin_pass(self.now);
        self.sessions.expire();
        let mut resumed = Vec::new();
        self.sessions.take_resumed(&mut resumed);
        self.go_on();
        self.write();
        self.sessions.end_pass(|_, _| {});
        self.write();
    }

    /// Has the app do something, between two passes.
    pub fn app<T>(&mut self, what: impl FnOnce(&mut Desk, &mut percore::Outbox) -> T) -> T {
        let result = what(&mut self.sessions.app, &mut self.sessions.outbox);
        self.pass(Duration::ZERO);
        result
    }

    pub fn is_there(&self) -> bool {
        self.sessions.generation(self.key).is_some()
    }

    /// The responses so far: status and content.
    pub fn responses(&self) -> Vec<(u16, String)> {
        let text = String::from_utf8_lossy(&self.heard);
        let mut rest = &text[..];
        let mut responses = Vec::new();
        while let Some(after) = rest.strip_prefix("HTTP/1.1 ") {
            let (head, body) = after.split_once("\r\n\r\n").expect("a whole head");
            let status = head[..3].parse().expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length = length.map_or(0, |length| length.parse().expect("a length"));
            responses.push((status, body[..length].to_owned()));
            rest = &body[length..];
            if status == 101 {
                break;
            }
        }
        responses
    }

    pub fn statuses(&self) -> Vec<u16> {
        self.responses().into_iter().map(|(status, _)| status).collect()
    }

    pub fn of(&self, kind: MemoryKind) -> usize {
        self.sessions.memory().of(kind)
    }
}

/// A POST of content, by its length.
pub fn post(path: &str, content: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

/// The same in chunks.
pub fn chunked(path: &str, chunks: &[&str]) -> String {
    let mut text = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks {
        text += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    text + "0\r\n\r\n"
}
