//! Any content of an application's request to the gateway's service: `/sr`, a batch, a message, `@connections`, a channel, and any
//! path.
//!
//! Nothing panics, whatever it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::gateway::Rules;
use percore::internal::gateway::app::{Gateway, Manner};
use percore::internal::gateway::codec::json::Json;
use percore::internal::gateway::core::Core;
use percore::internal::gateway::name::{Names, Serials};
use percore::internal::session::Sessions;
use percore::{Log, Peer, Settings, UpgradeRules};
use std::sync::Arc;

const METHODS: [&str; 4] = ["POST", "PUT", "DELETE", "GET"];
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The number of the first connection.
const FIRST: u64 = 1 << 50;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, method], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let names = Names::new("127.0.0.1:9465/sr", b"key");
    let id = names.name(FIRST).replace('/', "_").replace('+', "-");
    let mut core = Core::new(Rules::default(), Box::new(Json), 1);
    core.place(names, Serials::new(0, FIRST));
    let gateway = Gateway::new(core, Manner { max_message: 1 << 20, ..Manner::default() }, |_| {}, Arc::default());
    let upgrade = UpgradeRules { paths: vec!["*".into()], ..UpgradeRules::default() };
    let mut sessions = Sessions::new(gateway, Settings { upgrade, ..Settings::default() }, Log::new(None), 0, [0; 32]);
    let client = sessions.accept(Peer::UNIX).expect("room");
    sessions.receive(client, &mut UPGRADE.to_vec());
    let (first, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    // Bytes that may stand in a target.
    let part: String = first.iter().map(|byte| format!("%{byte:02x}")).collect();
    let path = match choice % 8 {
        0 => "/sr".to_owned(),
        1 => "/connections:batch".to_owned(),
        2 => format!("/connections/{id}"),
        3 => format!("/{part}/@connections/{id}"),
        4 => format!("/channels/{part}"),
        5 => format!("/connections/{id}/labels/{part}"),
        6 => format!("/connections?label={part}&after={id}"),
        _ => format!("/{part}"),
    };
    // The id of the connection that is there stands for `ID`.
    let content = String::from_utf8_lossy(rest).replace("ID", &id);
    let method = METHODS[usize::from(method) % METHODS.len()];
    let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", content.len());
    let service = sessions.accept_service(Peer::UNIX).expect("room");
    sessions.receive(service, &mut [head.as_bytes(), content.as_bytes()].concat());
});
