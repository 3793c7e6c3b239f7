//! A worker whose supervisor is gone drains and ends. One that hangs cannot, and would keep its share of the next
//! service's connections: a separate thread ends it.

use super::KILL_AFTER;
use super::worker::passes;
use crate::os::clock::Clock;
use crate::os::control::Control;
use crate::os::log_writer::{self, LogFormat};
use crate::os::shared_words::SharedWords;
use crate::telemetry::log::{Level, Log};
use crate::telemetry::pulse::{Pulse, pass_every};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Ends this worker when its supervisor is gone and it hangs, or does not end within `drain_timeout`. `counters` are
/// those of its loop.
///
/// # Errors
/// As `prctl(2)`, `dup(2)` and `pthread_create(3)`.
pub fn watch_for_orphans(
    control: &Control,
    counters: Arc<SharedWords>,
    (hang_timeout, drain_timeout): (Duration, Duration),
    (mut log, log_format): (Log, LogFormat),
) -> io::Result<()> {
    // A stopped process could not do this. If the supervisor is already gone, the line shows that.
    set_parent_process_death_signal(Some(Signal::CONT))?;
    let line = control.try_clone()?;
    std::thread::Builder::new().name("orphan".into()).spawn(move || {
        line.wait_for_end();
        let (clock, every) = (Clock::start(), pass_every(hang_timeout));
        let mut pulse = Pulse::new(clock.now());
        pulse.look(passes(&counters), clock.now(), hang_timeout);
        while !pulse.hangs(hang_timeout) && clock.now() < drain_timeout + KILL_AFTER {
            std::thread::sleep(every);
            pulse.look(passes(&counters), clock.now(), hang_timeout);
        }
        let text = "the supervisor is gone and this worker hangs: ending it now".to_owned();
        log.push(Level::Error, "orphan", &[], text);
        log_writer::write_log(log_format, &mut log);
        log_writer::finish();
        let _ = kill_process(getpid(), Signal::KILL);
    })?;
    Ok(())
}
