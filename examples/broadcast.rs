//! Everyone hears everything: each message goes to all who are connected, the sender among them.
//!
//! ```text
//! cargo run --example broadcast                                 # or: cargo run --example broadcast 127.0.0.1:9000
//! websocat ws://127.0.0.1:8080/                                 # in two terminals: type a line in either
//! ```
//!
//! Given the folder of a bus, all processes on that bus are one:
//!
//! ```text
//! cargo run --example broadcast 127.0.0.1:9000 /dev/shm/my-bus
//! cargo run --example broadcast 127.0.0.1:9001 /dev/shm/my-bus
//! ```

use percore::{App, Bus, BusOptions, ConnectionId, Message, Outbox, Request, Server};

/// What everyone is subscribed to.
const CHANNEL: &str = "all";

struct Broadcast;

impl App for Broadcast {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.subscribe(id, CHANNEL);
    }

    fn on_message(&mut self, _: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        let kind = message.kind();
        // A message that is too long for the bus is not sent.
        let _ = out.publish(CHANNEL, kind, &[message.payload()]);
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut server = Server::new(Broadcast).listen(&arguments.next().unwrap_or("127.0.0.1:8080".into()))?;
    if let Some(folder) = arguments.next() {
        server = server.bus(Bus::join(folder.as_ref(), BusOptions::default())?);
    }
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
