//! The only place that reads the clocks.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the process began, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// A clock that started at a moment of [`monotonic`], possibly in another process.
    pub fn since(beginning: Duration) -> Clock {
        // The two clocks are read one after the other; of several tries the fastest is the most exact.
        let tries = (0..10).map(|_| {
            let (before, moment) = (Instant::now(), monotonic());
            (before.elapsed(), before, moment)
        });
        let (_, instant, moment) = tries.min().unwrap_or_else(|| (Duration::ZERO, Instant::now(), monotonic()));
        Clock(instant.checked_sub(moment.saturating_sub(beginning)).unwrap_or(instant))
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Time since the machine booted, including its sleep.
pub fn boot_time() -> Duration {
    time_of(ClockId::Boottime)
}

/// A moment on the monotonic clock, which all processes of a machine share.
pub fn monotonic() -> Duration {
    time_of(ClockId::Monotonic)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Time since 1970; zero if the clock is set before 1970.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_of_one_beginning_agree() {
        let beginning = monotonic();
        let clocks = [Clock::since(beginning), Clock::since(beginning)];
        let [first, second] = clocks.map(|clock| clock.now());
        let past = monotonic() - beginning;
        assert!(first <= past + Duration::from_micros(100) && second >= first, "{first:?} {second:?} {past:?}");
        assert!(Clock::since(Duration::ZERO).now() <= monotonic());
    }
}
