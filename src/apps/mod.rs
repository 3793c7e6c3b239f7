//! Floor 2, the applications that `percore serve` offers. Each knows [`App`](crate::App) and nothing of sockets.

pub mod chat;
pub mod demo;
pub mod echo;
pub(crate) mod fields;
pub mod ticker;
