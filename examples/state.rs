//! State of each connection: a nickname and a counter, a periodic message to everyone, and a look at how each ends.
//!
//! `/nick NAME` names you, `/quit` closes the connection; any other text is counted and comes back with its number.
//! Every second everyone hears how many are here.
//!
//! ```text
//! cargo run --example state               # or with another address: cargo run --example state 127.0.0.1:9000
//! websocat ws://127.0.0.1:8080/           # in a second terminal: type /nick ada, hello, /quit
//! ```

use percore::{App, CloseCode, CloseReason, ConnectionId, Error, Message, Outbox, Request, Server};
use std::collections::HashSet;
use std::time::Duration;

const NEWS_EVERY: Duration = Duration::from_secs(1);

/// Kept for each connection by the server and given to every handler that is called for it.
struct Guest {
    nickname: String,
    messages: u64,
}

/// Kept once. A tick is for no connection in particular, so those to be told are listed here.
#[derive(Default)]
struct Guests {
    here: HashSet<ConnectionId>,
}

impl App for Guests {
    type State = Guest;

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) -> Guest {
        self.here.insert(id);
        out.send_text(id, "welcome; /nick NAME gives you a name, /quit ends");
        Guest { nickname: "nobody".into(), messages: 0 }
    }

    fn on_message(&mut self, id: ConnectionId, guest: &mut Guest, mut message: Message<'_>, out: &mut Outbox) {
        let Some(text) = message.text().map(str::trim) else {
            out.close(id, CloseCode::Unsupported, "text only");
            return;
        };
        if let Some(name) = text.strip_prefix("/nick ") {
            guest.nickname = name.to_owned();
        } else if text == "/quit" {
            out.close(id, CloseCode::Normal, "bye");
        } else {
            guest.messages += 1;
            out.send_text(id, &format!("{} {}: {text}", guest.nickname, guest.messages));
        }
    }

    fn on_error(&mut self, _: ConnectionId, guest: &mut Guest, error: &Error, _: &mut Outbox) {
        println!("{} had an error: {error}", guest.nickname);
    }

    fn on_close(&mut self, id: ConnectionId, guest: Guest, reason: &CloseReason, _: &mut Outbox) {
        self.here.remove(&id);
        let how = if reason.clean { "left" } else { "was lost" };
        println!("{} {how} after {} messages: {reason}", guest.nickname, guest.messages);
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        for &id in &self.here {
            out.send_text(id, &format!("news: {} here", self.here.len()));
        }
        Some(now + NEWS_EVERY)
    }
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::new(Guests::default()).listen(&addr)?;
    for addr in server.local_addrs()? {
        println!("listening on {addr}");
    }
    server.run()?;
    Ok(())
}
