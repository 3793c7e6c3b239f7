//! Hosts with a network each: namespaces that are joined by a switch.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output};

/// Runs `ip`, as a user of the command line would.
fn ip(arguments: &str) -> Output {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).env("PATH", path).output().expect("ip runs: tests/run installs it")
}

fn ip_must(arguments: &str) {
    let output = ip(arguments);
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Namespaces of a test's own, which are gone when this is dropped: a switch, and hosts on it.
pub struct Network(String);

impl Network {
    /// None where this is not permitted.
    pub fn new() -> Option<Network> {
        let network = Network(format!("percore-{}", std::process::id()));
        let made = ip(&format!("netns add {}", network.name("switch")));
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr);
            println!("network namespaces: left out, as they are not permitted here: {}", why.trim());
            return None;
        }
        let switch = network.name("switch");
        // There are kernels without a switch.
        let bridged = ip(&format!("-n {switch} link add switch type bridge"));
        if !bridged.status.success() {
            let why = String::from_utf8_lossy(&bridged.stderr);
            println!("network namespaces: left out, as there is no bridge device here: {}", why.trim());
            return None;
        }
        ip_must(&format!("-n {switch} link set switch up"));
        Some(network)
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.0)
    }

    /// A host with this address, on the switch.
    pub fn add(&self, host: &str, addr: &str) {
        let (switch, name) = (self.name("switch"), self.name(host));
        ip_must(&format!("netns add {name}"));
        ip_must(&format!("-n {name} link set lo up"));
        ip_must(&format!("-n {name} link add eth0 type veth peer name {host} netns {switch}"));
        ip_must(&format!("-n {switch} link set {host} master switch up"));
        ip_must(&format!("-n {name} addr add {addr}/24 dev eth0"));
        ip_must(&format!("-n {name} link set eth0 up"));
    }

    /// A command, on a host.
    pub fn on(&self, host: &str, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
        there.args(["netns", "exec", &self.name(host)]).arg(command.get_program()).args(command.get_args());
        there
    }

    /// Cuts the cable of a host (`down`), or mends it (`up`).
    pub fn cable(&self, host: &str, state: &str) {
        ip_must(&format!("-n {} link set {host} {state}", self.name("switch")));
    }

    /// Does something on a host, on a thread of its own. Sockets that are made there, and threads, stay there.
    pub fn inside<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name(host))).expect("a namespace");
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("it is permitted");
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("it ends well"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ["redis", "one", "two", "switch"] {
            ip(&format!("netns del {}", self.name(host)));
        }
    }
}
