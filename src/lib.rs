//! percore is a WebSocket server (RFC 6455) that is one epoll loop per core, and one process per loop.
//!
//! The command `percore serve` runs ready applications. This library is for writing one's own: implement [`App`] and
//! hand it to a [`Server`].
//!
//! ```no_run
//! use percore::{App, ConnectionId, Message, Outbox, Request, Server};
//!
//! /// Answers each text in capitals.
//! struct Shout;
//!
//! impl App for Shout {
//!     type Connection = ();
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
//! socket bytes ─> reactor ─> session ─> protocol ─> App ─> Outbox ─> queue ─> reactor ─> socket bytes
//! ```
//!
//! * [`App`] is called with connections and messages, and answers through the [`Outbox`].
//! * [`Server`] takes [`Settings`] for connections and [`ServerOptions`] for the process; [`Client`] connects instead.
//! * [`protocol`] turns bytes into messages and back, for servers and for clients, without sockets and clocks.
//! * [`session`] is all connections of a process without their sockets; [`reactor`] is the loop that owns those.
//!
//! One thread runs it all: a handler may keep its state in plain fields, and must not block.
//!
//! Whole programs are in the folder `examples`: an echo, broadcast rooms, and state kept for each connection.

pub mod app;
pub mod apps;
pub mod bench;
pub mod bridge;
pub mod bus;
pub mod cli;
pub mod client;
pub mod data;
pub mod gateway;
pub mod jwt;
pub mod origin;
pub mod os;
pub mod outbox;
pub mod protocol;
pub mod pubsub;
pub mod reactor;
pub mod session;
pub mod supervisor;

pub use app::{App, ConnectError, Error};
pub use bus::event::BusEvent;
pub use data::id::{ConnectionId, Participant, Peer};
pub use data::log::{Level, Log};
pub use data::network::Network;
pub use data::presence::{Change, Presence};
pub use data::record::{Interest, PublishError, Record, RecordKind, Records};
pub use data::stats::Stats;
pub use os::bus::{Bus, BusOptions};
pub use os::listener::ListenAddr;
pub use os::log_writer::LogFormat;
pub use outbox::answers::{InvalidHeader, Ticket, Upgrade};
pub use outbox::{Delivery, Outbox, SendRules, SlowConsumer};
pub use protocol::close::CloseReason;
pub use protocol::extension::DeflateMode;
pub use protocol::forwarded::{ForwardedHeader, ProxyRules};
pub use protocol::http::{HeadLimits, Request, Response};
pub use protocol::message::{Kind, Message};
pub use protocol::upgrade::UpgradeRules;
pub use protocol::{Role, Violation};
pub use reactor::{Client, Order, Outcome, READY, Server, ServerOptions, Target, Waker};
pub use session::Settings;
pub use tungstenite::protocol::frame::coding::CloseCode;
