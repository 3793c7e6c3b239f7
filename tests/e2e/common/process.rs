//! What `/proc` says of processes.

use std::process::Command;

/// The processes that a process started, and that have not been waited for, in the order of their start.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut all: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    all.sort_unstable();
    all
}

/// The fields of `/proc/PID/stat` from the third on, the state; `None` when there is no such process.
fn stat(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second is a name in parentheses, which may hold anything.
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

/// Whether a process is there and has not ended.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with('Z'))
}

/// A line of `/proc/PID/status`.
pub fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("no {name} in\n{status}")).to_owned()
}

/// How often a process has slept.
pub fn context_switches(pid: u32) -> u64 {
    status(pid, "voluntary_ctxt_switches").parse().expect("a number")
}

/// Processor time of a process, in ticks of ten milliseconds.
pub fn ticks(pid: u32) -> u64 {
    let stat = stat(pid).expect("a process");
    stat.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Sends a signal, by its name.
pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "kill -{signal} {pid}");
}

/// How many descriptors a process may have, by its soft limit.
pub fn soft_descriptor_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is there");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}
