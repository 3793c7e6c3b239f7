//! SIGTERM and SIGINT as readable bytes, so that the loop waits on them like on anything else.

use mio::net::UnixStream;
use mio::{Interest, Registry, Token, event::Source};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Read};

/// The reading end of a socket pair into which the signal handler writes a byte a signal.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// As `socketpair(2)` and `sigaction(2)`.
    pub fn new() -> io::Result<Signals> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
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
