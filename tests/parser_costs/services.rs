//! Parsers of the gateway and of the files of a history.

use percore::internal::gateway::Rules as GatewayRules;
use percore::internal::gateway::app::{Gateway, Manner};
use percore::internal::gateway::codec::json::Json;
use percore::internal::gateway::core::Core;
use percore::internal::gateway::name::{Names, Serials};
use percore::internal::pubsub::history::entry::{self, Entry};
use percore::internal::session::Sessions;
use percore::{Log, Peer, Settings};
use std::sync::Arc;

/// A request of an application with this content.
pub fn gateway(method: &str, path: &str, bytes: &[u8]) -> usize {
    let mut core = Core::new(GatewayRules::default(), Box::new(Json), 1);
    core.place(Names::new("127.0.0.1:9465/sr", b"key"), Serials::new(0, 1 << 50));
    let manner = Manner { max_message: 1 << 20, ..Manner::default() };
    let app = Gateway::new(core, manner, |_| {}, Arc::default());
    let settings = Settings { max_content: usize::MAX, ..Settings::default() };
    let mut sessions = Sessions::new(app, settings, Log::new(None), 0, [0; 32]);
    let key = sessions.accept_service(Peer::UNIX).expect("room for a connection");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", bytes.len());
    sessions.receive(key, &mut [head.as_bytes(), bytes].concat());
    0
}

/// A file of entries, and the same bytes as one entry, whatever its checksum.
pub fn history(bytes: &[u8], _: usize) -> usize {
    let (mut at, mut entries) = (0, 0);
    while let entry::Found::Whole { payload, .. } = entry::find(&bytes[at..], at as u64) {
        entries += usize::from(Entry::read(payload).is_some());
        at += entry::HEAD_BYTES + payload.len();
    }
    entries += usize::from(Entry::read(bytes).is_some());
    usize::from(entries > bytes.len())
}
