//! Signals that end the client where its loop alone would not.

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

/// For so long after a second signal the loop may still end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Ends the process some time after a second signal: the loop may be writing to what nobody reads. `terminal` is how a terminal
/// that we changed is left.
///
/// # Errors
/// As `socketpair(2)` and `sigaction(2)`, and when there can be no thread.
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
        // It may be what nobody reads.
        let error = io::stderr();
        if matches!(poll(&mut [PollFd::new(&error, PollFlags::OUT)], Some(&Timespec::default())), Ok(1)) {
            let _ = error.lock().write_all(b"percore: interrupted before the connection was closed\n");
        }
        std::process::exit(1);
    })?;
    Ok(())
}

/// Has SIGHUP and SIGQUIT end us as SIGTERM does, and so leave a terminal as it was.
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

/// Where a byte comes for each of these signals.
fn take(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for &signal in signals {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}
