//! A service of your own with all that `percore serve` has: flags, workers, metrics, a bus, reload, drain, health check. Clients
//! give the token, and hear what anyone of them says, whichever worker they are at.
//!
//! ```text
//! cargo run --example service -- serve --workers 2 -- secret
//! websocat 'ws://127.0.0.1:8080/?token=secret'      # in two terminals: type a line in either
//! cargo run --example service -- reload             # new workers take over, the old ones send their clients away
//! ```

use percore::{App, ConnectionId, Message, Outbox, Request, Response};
use std::process::ExitCode;

/// What everyone is subscribed to.
const CHANNEL: &str = "everyone";

struct Room {
    token: String,
}

impl App for Room {
    type State = ();

    // Asked for every path: one that was forgotten here would be open to all.
    fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
        let is_known = request.query_value("token").as_deref() == Some(self.token.as_str());
        (!is_known).then(|| Response::text(401, "Give the token, as in /?token=secret"))
    }

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) {
        out.subscribe(id, CHANNEL);
    }

    fn on_message(&mut self, _: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        let kind = message.kind();
        // A message that is too long for the bus is not sent.
        let _ = out.publish(CHANNEL, kind, &[message.payload()]);
    }
}

fn main() -> ExitCode {
    percore::cli::serve("service", env!("CARGO_PKG_VERSION"), |arguments| match arguments {
        [token] => Ok(Room { token: token.clone() }),
        _ => Err("give one token after --, as in: service serve -- secret"),
    })
}
