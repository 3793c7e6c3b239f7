//! Floor 2, channels: any backend publishes, any browser subscribes, and a client that comes back gets what it missed.
//!
//! [`engine`] holds it together: subscriptions and publications; [`streams`] is the history, [`history`] shares one
//! among processes, [`rules`] says what each channel allows, [`clients`] holds the connected clients. Clients speak
//! [`centrifuge`]; backends use HTTP (`api`). [`pusher`] is a second front for both. [`app`] ties them to the outbox.
//! None of it knows a socket or a clock.

mod api;
pub mod app;
pub mod centrifuge;
pub mod clients;
pub mod codes;
pub mod engine;
pub mod history;
mod holds;
pub mod idempotency;
pub mod json;
pub mod pusher;
pub mod rules;
pub mod streams;
pub mod tokens;
mod waiting;
