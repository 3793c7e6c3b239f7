//! Broadcast rooms: a text goes to everyone in the room, and the room hears who joins and leaves.
//!
//! The room is the query's `room`, or else the path; a name may be given as well. Rooms are channels: of who is in which
//! room the library knows, also when a connection breaks. On a bus ([`Server::bus`]) the same app's rooms reach over all
//! processes.
//!
//! ```text
//! cargo run --example room                                      # or: cargo run --example room 127.0.0.1:9000 /dev/shm/rooms
//! websocat 'ws://127.0.0.1:8080/?room=garden&name=ada'          # in a second terminal
//! websocat 'ws://127.0.0.1:8080/?room=garden&name=ben'          # in a third: type a line in either
//! websocat 'ws://127.0.0.1:8080/ws'                             # another room, called /ws
//! ```

use percore::{App, Bus, BusOptions, Change, CloseCode, ConnectionId, Kind, Message, Outbox, Request, Server};

/// One connection: who it is and where.
struct Member {
    name: String,
    room: String,
}

struct Rooms;

impl App for Rooms {
    type State = Member;

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) -> Member {
        let room = request.query_value("room").unwrap_or(request.path().into()).into_owned();
        let name = request.query_value("name").map_or_else(|| request.peer().to_string(), |name| name.into_owned());
        out.subscribe_as(id, &room, &name);
        Member { name, room }
    }

    fn on_message(&mut self, id: ConnectionId, member: &mut Member, mut message: Message<'_>, out: &mut Outbox) {
        let Some(text) = message.text() else {
            out.close(id, CloseCode::Unsupported, "this room takes text only");
            return;
        };
        let parts = [member.name.as_bytes(), b": ", text.as_bytes()];
        if let Err(error) = out.publish(&member.room, Kind::Text, &parts) {
            out.send_text(id, &format!("* {error}"));
        }
    }

    /// Each process tells its own connections.
    fn on_presence(&mut self, change: Change<'_>, out: &mut Outbox) {
        let what = if change.entered { "joined" } else { "left" };
        let text = format!("* {} {what} {}", change.member, change.channel);
        out.publish_here(change.channel, Kind::Text, &[text.as_bytes()]);
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or("127.0.0.1:8080".into());
    let mut server = Server::new(Rooms).listen(&addr)?;
    if let Some(folder) = arguments.next() {
        server = server.bus(Bus::join(folder.as_ref(), BusOptions::default())?);
    }
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
