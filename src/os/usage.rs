//! The resources that a process uses, from `/proc` (proc(5)).

use super::clock::{boot_time, unix_time};
use rustix::param::{clock_ticks_per_second, page_size};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The current resource use of a process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    /// When it started, in Unix seconds.
    pub start_time_seconds: f64,
    /// CPU time of all its threads since then.
    pub cpu_seconds: f64,
    /// Resident memory, including the program's text, which processes share.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub open_descriptors: u64,
    /// The limit on its descriptors; `u64::MAX` for none.
    pub most_descriptors: u64,
}

impl ProcessUsage {
    /// Reads the values.
    ///
    /// # Errors
    /// When the process does not exist, or may not be inspected.
    pub fn read(pid: u32) -> io::Result<ProcessUsage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The program's name, in parentheses, may contain anything. The field after it is the third.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |number: usize| number_in(fields.get(number - 3).copied());
        let ticks = clock_ticks_per_second() as f64;
        Ok(ProcessUsage {
            // `btime` in `/proc/stat` would be simpler, but fluctuates by a second.
            start_time_seconds: unix_time().saturating_sub(boot_time()).as_secs_f64() + field(22)? as f64 / ticks,
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            resident_bytes: field(24)? * page_size() as u64,
            open_descriptors: open_descriptors(pid)?,
            most_descriptors: most_descriptors(pid)?,
        })
    }
}

fn number_in(word: Option<&str>) -> io::Result<u64> {
    let word = word.unwrap_or_default();
    word.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("'{word}' is not a number")))
}

fn open_descriptors(pid: u32) -> io::Result<u64> {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2 their number is the size of the folder; before, it is 0.
    match fs::metadata(&folder)?.size() {
        0 => Ok(fs::read_dir(&folder)?.count() as u64),
        size => Ok(size),
    }
}

fn most_descriptors(pid: u32) -> io::Result<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if soft == Some("unlimited") { Ok(u64::MAX) } else { number_in(soft) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process_and_of_none() {
        let now = unix_time().as_secs_f64();
        let usage = ProcessUsage::read(std::process::id()).expect("it is there");
        assert!((now - 3600.0..now + 1.0).contains(&usage.start_time_seconds), "{usage:?} at {now}");
        assert!(usage.resident_bytes > 100_000 && usage.cpu_seconds >= 0.0, "{usage:?}");
        assert!((3..=usage.most_descriptors).contains(&usage.open_descriptors), "{usage:?}");
        assert!(ProcessUsage::read(u32::MAX).is_err());
    }
}
