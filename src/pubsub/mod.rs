//! Floor 2, channels: any backend publishes, any browser subscribes, and whoever comes back gets what it missed.
//!
//! [`engine`] is what holds it together: who is subscribed to what, and what is published; [`streams`] is the history,
//! [`history`] what several processes do to have one in common, [`rules`] what may be done on which channel, [`clients`] who is connected. Clients speak [`centrifuge`]; backends ask by HTTP
//! (`api`). [`pusher`] is a second front for both. [`app`] ties them to the outbox. None of it knows a socket or a clock.

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
