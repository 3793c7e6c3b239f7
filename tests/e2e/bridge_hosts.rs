//! Hosts with a network each: two with a bus, and one with Redis, in namespaces joined by a switch.

use crate::common::redis::{Host, bridge, ready};
use crate::common::{Killed, eventually};
use percore::RecordKind;
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
struct Network(String);

impl Network {
    /// None where this is not permitted.
    fn new() -> Option<Network> {
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
    fn add(&self, host: &str, addr: &str) {
        let (switch, name) = (self.name("switch"), self.name(host));
        ip_must(&format!("netns add {name}"));
        ip_must(&format!("-n {name} link set lo up"));
        ip_must(&format!("-n {name} link add eth0 type veth peer name {host} netns {switch}"));
        ip_must(&format!("-n {switch} link set {host} master switch up"));
        ip_must(&format!("-n {name} addr add {addr}/24 dev eth0"));
        ip_must(&format!("-n {name} link set eth0 up"));
    }

    /// A command, on a host.
    fn on(&self, host: &str, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
        there.args(["netns", "exec", &self.name(host)]).arg(command.get_program()).args(command.get_args());
        there
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ["redis", "one", "two", "switch"] {
            ip(&format!("netns del {}", self.name(host)));
        }
    }
}

#[test]
fn two_hosts_and_a_redis_with_a_network_each() {
    let Some(network) = Network::new() else { return };
    network.add("redis", "10.77.0.1");
    network.add("one", "10.77.0.2");
    network.add("two", "10.77.0.3");
    let mut command = Command::new("redis-server");
    command.args(["--bind", "10.77.0.1", "--protected-mode", "no", "--save", ""]);
    let _redis: Killed = ready(network.on("redis", &command)).expect("Redis starts");
    let flags = ["--redis-timeout", "1s", "--host-timeout", "2s"];
    let begin = |host: &str| Host::begin_with(|folder| network.on(host, &bridge(folder, "redis://10.77.0.1", &flags)));
    let [mut one, mut two] = [begin("one"), begin("two")];
    for (host, name) in [(&mut one, "ann"), (&mut two, "bob")] {
        host.count("chat-room-1", 1);
        host.tell(RecordKind::Enter, "chat-room-1", name.as_bytes());
    }
    one.until_members("chat-room-1", &["bob"]);
    two.until_members("chat-room-1", &["ann"]);
    let cli = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "10.77.0.1"]).args(words);
        let output = network.on("one", &command).output().expect("redis-cli runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    eventually("both are subscribed", || cli(&["PUBSUB", "NUMSUB", "chat-room-1"]).ends_with('2'));
    one.tell(RecordKind::Text, "chat-room-1", b"from one");
    assert_eq!(two.texts(1), ["from one"]);
    two.tell(RecordKind::Text, "chat-room-1", b"from two");
    assert_eq!(one.texts(1), ["from two"]);
    // The cable of a host is cut, and mended.
    let switch = network.name("switch");
    ip_must(&format!("-n {switch} link set two down"));
    one.until_members("chat-room-1", &[]);
    two.until_members("chat-room-1", &[]);
    two.bridge.wait_for_log("lost Redis at redis://10.77.0.1:6379");
    one.tell(RecordKind::Enter, "chat-room-1", b"eve");
    ip_must(&format!("-n {switch} link set two up"));
    two.until_members("chat-room-1", &["ann", "eve"]);
    one.until_members("chat-room-1", &["bob"]);
    eventually("both are subscribed again", || cli(&["PUBSUB", "NUMSUB", "chat-room-1"]).ends_with('2'));
    one.tell(RecordKind::Text, "chat-room-1", b"again");
    assert_eq!(two.texts(1), ["again"]);
}
