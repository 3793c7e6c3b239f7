//! Sessions of an app made of closures, and what a socket would have got.

use percore::internal::net::id::Peer;
use percore::internal::queue::MAX_SLICES;
use percore::internal::session::{Fate, Sessions};
use percore::internal::telemetry::log::Log;
use percore::{App, CloseReason, ConnectionId, Message, Outbox, Request, Settings};
use std::io::IoSlice;
use std::time::Duration;

pub const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A client's Close frame with code 1000.
pub const CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

type OnClose = Box<dyn FnMut(ConnectionId, &[ConnectionId], &mut Outbox)>;

/// Echoes, keeps who is open, and does on a close what the case wants.
pub struct Room {
    pub open: Vec<ConnectionId>,
    pub closes: Vec<(ConnectionId, CloseReason)>,
    on_close: OnClose,
}

impl App for Room {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, _: &mut Outbox) {
        self.open.push(id);
    }

    fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        out.echo(id, message);
    }

    fn on_close(&mut self, id: ConnectionId, _: (), reason: &CloseReason, out: &mut Outbox) {
        self.open.retain(|open| *open != id);
        self.closes.push((id, reason.clone()));
        (self.on_close)(id, &self.open, out);
    }
}

pub struct Server {
    pub sessions: Sessions<Room>,
    /// Keys whose sockets take nothing.
    pub full: Vec<u32>,
    pub written: Vec<(u32, Vec<u8>)>,
    pub fates: Vec<(u32, Fate)>,
}

impl Server {
    pub fn new(
        settings: Settings,
        on_close: impl FnMut(ConnectionId, &[ConnectionId], &mut Outbox) + 'static,
    ) -> Server {
        let room = Room { open: Vec::new(), closes: Vec::new(), on_close: Box::new(on_close) };
        let sessions = Sessions::new(room, settings, Log::new(None), 0, [0; 32]);
        Server { sessions, full: Vec::new(), written: Vec::new(), fates: Vec::new() }
    }

    pub fn connect(&mut self) -> u32 {
        self.sessions.accept(Peer::UNIX).expect("room for a connection")
    }

    pub fn receive(&mut self, key: u32, bytes: &[u8]) {
        self.sessions.receive(key, &mut bytes.to_vec());
    }

    /// Connects and upgrades; the answer is not kept.
    pub fn open(&mut self) -> u32 {
        let key = self.connect();
        self.receive(key, UPGRADE);
        self.finish();
        self.written.clear();
        key
    }

    pub fn begin(&mut self, now: Duration) {
        self.sessions.begin_pass(now);
    }

    /// The second half of a pass.
    pub fn finish(&mut self) {
        self.sessions.expire();
        self.write();
        let fates = &mut self.fates;
        self.sessions.end_pass(|key, fate| fates.push((key, fate)));
    }

    fn write(&mut self) {
        let queue = self.sessions.queue();
        while let Some(key) = queue.next_dirty() {
            if self.full.contains(&key) {
                queue.sent(key, 0, true);
                continue;
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = queue.gather(key, &mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            queue.sent(key, bytes.len(), false);
            self.written.push((key, bytes));
        }
        queue.end_flush();
    }

    /// All that was written to `key`.
    pub fn heard(&self, key: u32) -> Vec<u8> {
        self.written.iter().filter(|(to, _)| *to == key).flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}
