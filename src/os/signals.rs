//! Signals as readable bytes, so that a loop waits on them like on anything else.

use mio::net::UnixStream;
use mio::{Interest, Registry, Token, event::Source};
pub use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// A file would have become longer than it may.
pub const SIGXFSZ: i32 = libc::SIGXFSZ;
use std::io::{self, Read};
use std::sync::Arc;

/// The signals that ask a process to end.
pub const ENDING: [i32; 2] = [SIGTERM, SIGINT];

/// Has a signal do nothing.
///
/// # Errors
/// As `sigaction(2)`.
pub fn ignore(signal: i32) -> io::Result<()> {
    signal_hook::flag::register(signal, Arc::default()).map(|_| ())
}

/// The reading end of a socket pair into which the signal handler writes a byte a signal.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// Takes over these signals.
    ///
    /// # Errors
    /// As `socketpair(2)` and `sigaction(2)`.
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        for &signal in signals {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        reader.set_nonblocking(true)?;
        Ok(Signals(UnixStream::from_std(reader)))
    }

    /// Registers for signals.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.0.register(registry, token, Interest::READABLE)
    }

    /// How many signals came since the last call.
    pub fn take(&mut self) -> usize {
        let mut bytes = [0; 16];
        self.0.read(&mut bytes).unwrap_or(0)
    }
}
