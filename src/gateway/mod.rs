//! Floor 2, the gateway: WebSockets held apart from the application, which is an HTTP server, the origin.
//!
//! [`core`] decides which event of which connection goes to which origin and when, what follows from the answer,
//! and what to try again. It knows no socket, no clock and no format; [`codec`] turns events into HTTP requests and
//! responses into answers, one file per format.
//!
//! Invariants of the core: a connection has at most one call under way, and its events reach the origin in order;
//! the origin learns once that an accepted connection is closed, unless the core gives up and counts that;
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
