//! A crowd: text goes to all who are connected, anything else comes back. Processes of one user that are given the folder of a
//! bus share their port, and all of them are one.
//!
//! ```text
//! cargo run --example crowd 127.0.0.1:9000 /dev/shm/my-bus      # as often as there are cores
//! ```
//!
//! `benches/million` has a million connections to it. Nobody is asked whether they are still there, so that an idle
//! connection costs no time.

use percore::{App, Bus, BusOptions, ConnectionId, Kind, Message, Outbox, Request, Server, ServerOptions, Settings};
use std::time::Duration;

/// What everyone is subscribed to.
const CHANNEL: &str = "all";

struct Crowd;

impl App for Crowd {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.subscribe(id, CHANNEL);
    }

    fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        match message.kind() {
            // A message that is too long for the bus is not sent.
            Kind::Text => drop(out.publish(CHANNEL, Kind::Text, &[message.payload()])),
            Kind::Binary => drop(out.echo(id, message)),
        }
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or("127.0.0.1:8080".into());
    let folder = arguments.next();
    let options = ServerOptions { reuse_port: folder.is_some(), ..ServerOptions::default() };
    let settings = Settings { heartbeat: Duration::ZERO, heartbeat_timeout: Duration::ZERO, ..Settings::default() };
    let mut server = Server::new(Crowd).settings(settings).options(options).listen(&addr)?;
    if let Some(folder) = folder {
        server = server.bus(Bus::join(folder.as_ref(), BusOptions::default())?);
    }
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
