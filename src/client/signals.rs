//! Signals that end the client even if its loop hangs.

use super::terminal::PASTES_UNTOLD;
use crate::os::patient::Patient;
use crate::os::signals::ENDING;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGQUIT};
use signal_hook::low_level::pipe;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::Builder;
use std::time::Duration;

/// After a second signal, the loop has this long to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Ends the process soon after a second signal: the loop may be blocked on output without a reader. `terminal` is the
/// state to restore on a terminal that we changed.
///
/// # Errors
/// As `socketpair(2)` and `sigaction(2)`, and when the thread cannot be started.
pub fn end_by_the_second(terminal: Option<Termios>) -> io::Result<()> {
    let mut signals = take(&ENDING)?;
    Builder::new().name("signals".into()).spawn(move || {
        if signals.read_exact(&mut [0; 2]).is_err() {
            return;
        }
        std::thread::sleep(GRACE);
        if let Some(before) = terminal {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
            let out = io::stdout();
            if matches!(poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&Timespec::default())), Ok(1)) {
                let _ = Patient(&out).write_all(PASTES_UNTOLD);
            }
        }
        // Standard error may be without a reader, too.
        let error = io::stderr();
        if matches!(poll(&mut [PollFd::new(&error, PollFlags::OUT)], Some(&Timespec::default())), Ok(1)) {
            let _ = error.lock().write_all(b"percore: interrupted before the connection was closed\n");
        }
        std::process::exit(1);
    })?;
    Ok(())
}

/// Makes SIGHUP and SIGQUIT end the process as SIGTERM does, so that the terminal is restored.
///
/// # Errors
/// As [`end_by_the_second`].
pub fn end_by_all() -> io::Result<()> {
    let mut signals = take(&[SIGHUP, SIGQUIT])?;
    Builder::new().name("hangup".into()).spawn(move || {
        while signals.read_exact(&mut [0]).is_ok() {
            let _ = kill_process(getpid(), Signal::TERM);
        }
    })?;
    Ok(())
}

/// Returns a socket that receives a byte for each of these signals.
fn take(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for &signal in signals {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}
