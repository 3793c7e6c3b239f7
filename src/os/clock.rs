//! The only place that reads the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the process began, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Time since the machine started, its sleep included.
pub fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Time since 1970, zero on a machine that believes to live before.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
