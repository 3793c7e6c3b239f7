//! The processors this process may run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Their numbers, in order.
///
/// # Errors
/// As `sched_getaffinity(2)`.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// How many CPUs may be used at a time: fewer than [`allowed`] has if a control group limits the CPU time.
pub fn usable() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pins this thread to one processor.
///
/// # Errors
/// As `sched_setaffinity(2)`; `InvalidInput` for a processor that is not allowed.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_is_pinned() {
        let last = *super::allowed().expect("a mask").last().expect("a processor");
        std::thread::spawn(move || {
            super::pin(last).expect("it is allowed");
            assert_eq!(super::allowed().expect("a mask"), [last]);
            assert!(super::pin(1_000_000).is_err());
        })
        .join()
        .expect("no panic");
        assert!(super::usable() >= 1);
    }
}
