//! Broadcast rooms: a text goes to everyone in the room, and the room hears who joins and leaves.
//!
//! The room is the query's `room`, or else the path; a name may be given as well.
//!
//! ```text
//! cargo run --example room                                      # or: cargo run --example room 127.0.0.1:9000
//! websocat 'ws://127.0.0.1:8080/?room=garden&name=ada'          # in a second terminal
//! websocat 'ws://127.0.0.1:8080/?room=garden&name=ben'          # in a third: type a line in either
//! websocat 'ws://127.0.0.1:8080/ws'                             # another room, called /ws
//! ```

use percore::{App, CloseCode, CloseReason, ConnectionId, Message, Outbox, Request, Server};
use std::collections::HashMap;

/// One connection: who it is and where.
struct Member {
    name: String,
    room: String,
}

/// Who is in which room. A room is there as long as someone is in it.
#[derive(Default)]
struct Rooms(HashMap<String, Vec<ConnectionId>>);

impl Rooms {
    fn tell(&self, room: &str, text: &str, out: &mut Outbox) {
        for &member in self.0.get(room).into_iter().flatten() {
            out.send_text(member, text);
        }
    }
}

impl App for Rooms {
    type Connection = Member;

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Member {
        let room = request.query_value("room").unwrap_or(request.path()).to_owned();
        let name = request.query_value("name").map_or_else(|| request.peer().to_string(), str::to_owned);
        self.0.entry(room.clone()).or_default().push(id);
        self.tell(&room, &format!("* {name} joined {room}"), out);
        Member { name, room }
    }

    fn on_message(&mut self, id: ConnectionId, member: &mut Member, mut message: Message<'_>, out: &mut Outbox) {
        match message.text() {
            Some(text) => self.tell(&member.room, &format!("{}: {text}", member.name), out),
            None => {
                out.close(id, CloseCode::Unsupported, "this room takes text only");
            }
        }
    }

    fn on_close(&mut self, id: ConnectionId, member: Member, _: &CloseReason, out: &mut Outbox) {
        if let Some(members) = self.0.get_mut(&member.room) {
            members.retain(|other| *other != id);
            if members.is_empty() {
                self.0.remove(&member.room);
            }
        }
        self.tell(&member.room, &format!("* {} left {}", member.name, member.room), out);
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::new(Rooms::default()).listen(&addr)?;
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
