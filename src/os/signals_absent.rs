//! Replaces signals if the library is built without them: types without values.

pub use libc::{SIGHUP, SIGINT, SIGTERM};
use mio::{Registry, Token};
use std::io;

/// The signals that ask a process to end.
pub const ENDING: [i32; 2] = [SIGTERM, SIGINT];

/// Handled signals. There are none without the feature `signals`.
#[derive(Debug)]
pub enum Signals {}

impl Signals {
    /// Takes over these signals.
    ///
    /// # Errors
    /// Always: the library was built without the feature `signals`.
    pub fn new(_: &[i32]) -> io::Result<Signals> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "percore was built without the feature `signals`"))
    }

    /// Registers for signals.
    ///
    /// # Errors
    /// None: there are no such signals.
    pub fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        match *self {}
    }

    /// How many signals arrived since the last call.
    pub fn take(&mut self) -> usize {
        match *self {}
    }
}
