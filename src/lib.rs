//! percore is a WebSocket server (RFC 6455) with one epoll loop per core, and one process per loop.
//!
//! The command `percore serve` runs ready-made applications. This library is for writing your own: implement [`App`]
//! and hand it to a [`Server`].
//!
//! ```no_run
//! use percore::{App, ConnectionId, Message, Outbox, Request, Server};
//!
//! /// Answers each text in capitals.
//! struct Shout;
//!
//! impl App for Shout {
//!     type State = ();
//!
//!     fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) {
//!         out.send_text(id, &format!("welcome to {}", request.path()));
//!     }
//!
//!     fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
//!         if let Some(text) = message.text() {
//!             out.send_text(id, &text.to_uppercase());
//!         }
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     Server::new(Shout).listen("127.0.0.1:8080")?.run()?;
//!     Ok(())
//! }
//! ```
//!
//! # In reading order
//!
//! ```text
//! socket bytes ─> loop ─> session ─> protocol ─> App ─> Outbox ─> queue ─> loop ─> socket bytes
//! ```
//!
//! * The loop calls [`App`] with connections and messages; the app answers through the [`Outbox`].
//! * [`Server`] takes [`Settings`] for connections and [`ServerOptions`] for the process; [`Client`] makes connections
//!   instead.
//! * [`Bus`] connects the processes of a host: what one publishes on a channel reaches the subscribers of all.
//!
//! One thread runs everything: a handler may keep its state in plain fields, and must not block.
//!
//! Complete programs are in the folder `examples`: an echo, broadcast rooms, and per-connection state.
//!
//! # Features
//!
//! * `cli` (default): the command `percore` and all that it needs. With `default-features = false` the library is the
//!   loop, the protocol, compression, channels and the bus, with at most 35 crates.
//! * `tls` (default): clients that connect to `wss://`. A server gets TLS from a proxy in front of it.
//! * `signals` (with `cli`): SIGTERM and SIGINT drain a server.
//! * `log`: a server can log to the logger of the crate `log`.

mod app;
mod apps;
#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
mod bridge;
mod bus;
mod channel;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod gateway;
#[cfg(feature = "cli")]
mod jwt;
#[cfg(feature = "cli")]
mod keeper;
mod net;
#[cfg(feature = "cli")]
mod origin;
mod os;
mod outbox;
mod protocol;
#[cfg(feature = "cli")]
mod pubsub;
mod queue;
mod reactor;
mod session;
#[cfg(feature = "cli")]
mod supervisor;
mod telemetry;
#[cfg(feature = "cli")]
mod text;
mod time;

/// Access to internals for the program's own tests, fuzz targets and benches. None of it is stable.
#[doc(hidden)]
pub mod internal {
    pub mod app {
        pub use crate::app::*;
    }
    pub mod apps {
        pub use crate::apps::*;
    }
    #[cfg(feature = "cli")]
    pub mod bench {
        pub use crate::bench::*;
    }
    #[cfg(feature = "cli")]
    pub mod bridge {
        pub use crate::bridge::*;
    }
    pub mod bus {
        pub use crate::bus::*;
    }
    pub mod channel {
        pub use crate::channel::*;
    }
    #[cfg(feature = "cli")]
    pub mod client {
        pub use crate::client::*;
    }
    #[cfg(feature = "cli")]
    pub mod gateway {
        pub use crate::gateway::*;
    }
    #[cfg(feature = "cli")]
    pub mod jwt {
        pub use crate::jwt::*;
    }
    #[cfg(feature = "cli")]
    pub mod keeper {
        pub use crate::keeper::*;
    }
    #[cfg(feature = "cli")]
    pub mod origin {
        pub use crate::origin::*;
    }
    pub mod net {
        pub use crate::net::*;
    }
    pub mod os {
        pub use crate::os::*;
    }
    pub mod outbox {
        pub use crate::outbox::*;
    }
    pub mod protocol {
        pub use crate::protocol::*;
    }
    #[cfg(feature = "cli")]
    pub mod pubsub {
        pub use crate::pubsub::*;
    }
    pub mod queue {
        pub use crate::queue::*;
    }
    pub mod reactor {
        pub use crate::reactor::*;
    }
    pub mod session {
        pub use crate::session::*;
    }
    #[cfg(feature = "cli")]
    pub mod supervisor {
        pub use crate::supervisor::*;
    }
    pub mod telemetry {
        pub use crate::telemetry::*;
    }
    #[cfg(feature = "cli")]
    pub mod text {
        pub use crate::text::*;
    }
    pub mod time {
        pub use crate::time::*;
    }
}

// What an app is, and what it is called with.
pub use app::{App, ConnectError, Error};
pub use net::id::{ConnectionId, Participant, Peer};
pub use protocol::client::{HandshakeError, Refusal};
pub use protocol::close::CloseReason;
pub use protocol::http::{Request, Response};
pub use protocol::message::{Kind, Message};
pub use protocol::{Role, Violation};
pub use tungstenite::protocol::frame::coding::CloseCode;

// What an app uses to send, answer and publish.
pub use outbox::answers::{InvalidHeader, Ticket, Upgrade};
pub use outbox::{Delivery, Outbox};

// What an app runs on.
pub use net::network::Network;
pub use net::rate::RateRules;
pub use os::listener::ListenAddr;
pub use outbox::{SendRules, SlowConsumer};
pub use protocol::extension::{Deflate, DeflateMode};
pub use protocol::forwarded::{ForwardedHeader, ProxyRules};
pub use protocol::http::HeadLimits;
pub use protocol::upgrade::UpgradeRules;
pub use reactor::{Client, InvalidTarget, Outcome, Server, ServerOptions, Target, Waker};
pub use session::Settings;
pub use telemetry::histogram::Histogram;
pub use telemetry::stats::Stats;

// Logging.
pub use os::log_writer::LogFormat;
pub use telemetry::log::{Level, Log};

// What processes exchange.
pub use bus::event::BusEvent;
pub use channel::presence::{Change, Presence};
pub use channel::record::{Interest, PublishError, Record, RecordKind, Records};
pub use os::bus::{Bus, BusOptions};

/// Checks that the programs in the documents compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/bus.md")]
    struct Bus;
    #[doc = include_str!("../docs/library.md")]
    struct Library;
}
