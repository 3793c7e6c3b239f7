//! Floor 2, the gateway: WebSockets held apart from the application, which is an HTTP server, the origin.
//!
//! [`core`] is what decides: which event of which connection goes to which origin and when, what follows from the answer,
//! and what is tried again. It knows no socket, no clock and no format; [`codec`] turns events into HTTP requests and
//! responses into answers, one file a format.
//!
//! Invariants of the core: of one connection one call is under way at a time, and its events reach the origin in their order;
//! for each connection that was accepted the origin is told once that it is closed, unless that is given up and counted;
//! what waits is bounded, and a client beyond its bound is not read from.

pub mod app;
pub mod call;
pub mod codec;
pub mod core;
pub mod event;
mod keep_alive;
pub mod labels;
pub mod ledger;
mod lines;
pub mod name;
mod origins;
pub mod rules;
pub mod service;
mod sigv4;
mod text;
pub mod tokens;

pub use rules::Rules;
pub use sigv4::AccessKeys;
