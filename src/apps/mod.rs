//! Floor 2, the applications that `percore serve` offers. Each knows [`App`](crate::App) and nothing of sockets.

#[cfg(feature = "cli")]
pub mod chat;
#[cfg(feature = "cli")]
pub mod demo;
pub mod echo;
#[cfg(feature = "cli")]
pub mod ticker;
