//! Floor 2, the applications that `percore serve` offers. Each is an [`App`](crate::App) and knows no sockets.

#[cfg(feature = "cli")]
pub mod chat;
#[cfg(feature = "cli")]
pub mod demo;
pub mod echo;
#[cfg(feature = "cli")]
pub mod ticker;
