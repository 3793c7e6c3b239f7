//! CPU time and memory of the server's processes, from `/proc` (proc(5)).

use super::load::Load;
use super::report::Server;
use std::fs;
use std::io;
use std::time::Duration;

/// CPU time and memory of some processes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// CPU time of all threads since they began.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
}

impl Usage {
    /// Reads the sum over all processes.
    ///
    /// # Errors
    /// When one of them does not exist or cannot be read, with a sentence that names it.
    pub fn read(pids: &[u32]) -> io::Result<Usage> {
        let mut sum = Usage::default();
        for pid in pids {
            let one = read_one(*pid).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot read CPU time and memory of process {pid}: {error}"))
            })?;
            sum = Usage { cpu: sum.cpu + one.cpu, memory: sum.memory + one.memory };
        }
        Ok(sum)
    }
}

impl Load {
    /// Returns what the server's processes use now.
    pub(super) fn usage(&mut self) -> Usage {
        Usage::read(&self.plan.pids).unwrap_or_else(|error| {
            self.record.error("server gone", || error.to_string());
            self.at_begin
        })
    }

    /// Returns what the server used.
    pub(super) fn server(&self) -> Option<Server> {
        (!self.plan.pids.is_empty()).then(|| Server {
            cpu: self.at_end.cpu.saturating_sub(self.at_begin.cpu),
            memory_before: self.before.memory,
            memory_after: self.at_end.memory,
        })
    }
}

fn read_one(pid: u32) -> io::Result<Usage> {
    let mut cpu = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended takes its time with it.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        cpu += Duration::from_nanos(first_number(&text)?);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    Ok(Usage { cpu, memory: first_number(resident)? * 1024 })
}

fn first_number(text: &str) -> io::Result<u64> {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("'{word}' is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process_and_of_none() {
        let usage = Usage::read(&[std::process::id()]).expect("it is there");
        assert!(usage.memory > 100_000 && usage.cpu > Duration::ZERO, "{usage:?}");
        let error = Usage::read(&[u32::MAX]).expect_err("there is no such process");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
