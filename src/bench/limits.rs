//! The limits of this machine; checked before the load begins, as a run may exceed them.

use super::plan::Plan;
use crate::os::descriptors::raise_descriptor_limit;
use crate::os::listener::ListenAddr;
use crate::os::memory;
use std::fs;

/// Descriptors that a process needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 32;
/// Maximum number of processes in a run.
pub const MOST_WORKERS: u64 = 1024;
/// Memory of one end of an idle connection: 4.3 KB in the kernel plus the process's own (`benches/million`).
const BYTES_OF_CONNECTION: u64 = 4600;

/// What is available; `None` if unlimited or unknown.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Descriptors that a process may have.
    descriptors: Option<u64>,
    /// Descriptors that the machine has left.
    free_descriptors: Option<u64>,
    /// Ports available to connections from one address.
    ports: Option<u64>,
    /// Free memory, in bytes.
    memory: Option<u64>,
}

impl Limits {
    /// Reads the limits of this machine, after raising those that this process may raise.
    pub fn read() -> Limits {
        let usable = memory::usable() as u64;
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let numbers =
            |text: &str| -> Vec<u64> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
        let free_descriptors = match numbers(&text("/proc/sys/fs/file-nr"))[..] {
            [used, _, most] => Some(most.saturating_sub(used)),
            _ => None,
        };
        let ports = match numbers(&text("/proc/sys/net/ipv4/ip_local_port_range"))[..] {
            [first, last] => Some((last + 1).saturating_sub(first)),
            _ => None,
        };
        let information = text("/proc/meminfo");
        let available = information.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let memory = available.and_then(|rest| numbers(rest).first().map(|kilobytes| kilobytes * 1024));
        Limits {
            descriptors: raise_descriptor_limit(),
            free_descriptors,
            ports,
            memory: memory.map(|bytes| bytes.min(usable)),
        }
    }

    /// The number of processes that this many connections need.
    fn workers_for(&self, connections: usize) -> u64 {
        let each = self.descriptors.map_or(u64::MAX, |limit| limit.saturating_sub(OTHER_DESCRIPTORS).max(1));
        (connections as u64).div_ceil(each)
    }

    /// The default number of processes: one for each of `cores`, or as many as descriptors demand, but not more than
    /// connections.
    pub fn workers(&self, connections: usize, cores: usize) -> usize {
        let wanted = self.workers_for(connections).max(cores as u64);
        wanted.min(MOST_WORKERS).min(connections as u64) as usize
    }

    /// Checks that the limits suffice for a plan shared by `workers` processes.
    ///
    /// # Errors
    /// A sentence that names the limit that is too low, and the remedy.
    pub fn check(&self, plan: &Plan, workers: usize) -> Result<(), String> {
        let connections = plan.connections as u64;
        let needed = connections.div_ceil(workers as u64) + OTHER_DESCRIPTORS;
        if let Some(limit) = self.descriptors.filter(|limit| *limit < needed) {
            let of = if workers > 1 { format!(" in each of {workers} processes") } else { String::new() };
            let more = self.workers_for(plan.connections);
            let or = if more <= MOST_WORKERS { format!(", or give --workers {more}") } else { String::new() };
            return Err(format!(
                "--connections {connections} needs {needed} file descriptors{of}, and a process may have {limit}: \
                raise ulimit -n{or}"
            ));
        }
        let ends = if is_here(plan) { 2 } else { 1 };
        let sources = plan.sources().len() as u64;
        let is_tcp = matches!(plan.url.addr, ListenAddr::Tcp(_));
        if let Some(ports) = self.ports.filter(|ports| is_tcp && ports * sources < connections) {
            let addresses = if sources == 1 { "one address has".into() } else { format!("{sources} addresses have") };
            return Err(format!(
                "--connections {connections} needs as many ports, and {addresses} {}: add addresses with --source, \
                or widen net.ipv4.ip_local_port_range",
                ports * sources
            ));
        }
        let bytes = connections * ends * BYTES_OF_CONNECTION;
        if let Some(free) = self.memory.filter(|free| *free < bytes) {
            let of = if ends > 1 { ", those of the server on this machine included" } else { "" };
            return Err(format!(
                "--connections {connections} needs about {} MB of memory{of}, and {} MB are free: open fewer or add memory",
                bytes / 1_000_000,
                free / 1_000_000
            ));
        }
        if let Some(free) = self.free_descriptors.filter(|free| *free < connections * ends) {
            return Err(format!(
                "--connections {connections} needs {} file descriptors on this machine, and {free} are left: raise \
                fs.file-max with sysctl",
                connections * ends
            ));
        }
        Ok(())
    }
}

/// Returns whether the server is on this machine, so that the other ends of the connections count as well.
fn is_here(plan: &Plan) -> bool {
    plan.url.ip().is_none_or(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::tests::plan;

    const ENOUGH: Limits = Limits {
        descriptors: Some(20_000),
        free_descriptors: Some(2_400_000),
        ports: Some(28_232),
        memory: Some(20_000_000_000),
    };

    #[test]
    fn what_is_too_little_is_told_with_what_to_do() {
        let here = |connections| Plan { connections, ..plan() };
        let away = |connections| Plan { connections, url: "ws://10.0.0.1/".parse().expect("an address"), ..plan() };
        assert_eq!(ENOUGH.check(&here(1_000_000), 54), Ok(()));
        assert_eq!(ENOUGH.check(&away(28_232), 2), Ok(()));
        for (limits, plan, workers, hint) in [
            (
                ENOUGH,
                here(30_000),
                1,
                "30032 file descriptors, and a process may have 20000: raise ulimit -n, or give --workers 2",
            ),
            (ENOUGH, here(90_000), 3, "30032 file descriptors in each of 3 processes"),
            (ENOUGH, away(28_233), 2, "one address has 28232: add addresses with --source"),
            (
                ENOUGH,
                here(2_450_000),
                200,
                "22540 MB of memory, those of the server on this machine included, and 20000 MB",
            ),
            (Limits { memory: None, ..ENOUGH }, here(1_300_000), 90, "2600000 file descriptors on this machine"),
            (Limits { descriptors: Some(33), ..ENOUGH }, here(1_000_000), 1, "raise ulimit -n"),
        ] {
            let said = limits.check(&plan, workers).expect_err("it is too little");
            assert!(said.contains(hint), "{said}");
        }
        let unknown = Limits { descriptors: None, free_descriptors: None, ports: None, memory: None };
        assert_eq!(unknown.check(&away(4_000_000), 1), Ok(()));
    }

    #[test]
    fn as_many_processes_as_it_takes() {
        for (connections, cores, wanted) in [(1, 2, 1), (100, 2, 2), (19_968, 1, 1), (19_969, 1, 2), (999_000, 2, 51)] {
            assert_eq!(ENOUGH.workers(connections, cores), wanted, "{connections} {cores}");
        }
        assert!(Limits::read().workers(usize::MAX, 2) as u64 <= MOST_WORKERS);
    }
}
