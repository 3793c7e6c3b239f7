//! Echo: every message comes back as it was sent.
//!
//! ```text
//! cargo run --example echo                # or with another address: cargo run --example echo 127.0.0.1:9000
//! websocat ws://127.0.0.1:8080/           # in a second terminal: type a line, press ENTER
//! ```

use percore::{App, ConnectionId, Message, Outbox, Request, Server};

struct Echo;

impl App for Echo {
    type State = ();

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        out.echo(id, message);
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::new(Echo).listen(&addr)?;
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
