//! Hosts with a network each: two with a bus, and one with Redis, in namespaces joined by a switch.

use crate::common::network::Network;
use crate::common::redis::{Host, bridge, ready};
use crate::common::{Killed, eventually};
use percore::RecordKind;
use std::process::Command;

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
    network.cable("two", "down");
    one.until_members("chat-room-1", &[]);
    two.until_members("chat-room-1", &[]);
    two.bridge.wait_for_log("lost Redis at redis://10.77.0.1:6379");
    one.tell(RecordKind::Enter, "chat-room-1", b"eve");
    network.cable("two", "up");
    two.until_members("chat-room-1", &["ann", "eve"]);
    one.until_members("chat-room-1", &["bob"]);
    eventually("both are subscribed again", || cli(&["PUBSUB", "NUMSUB", "chat-room-1"]).ends_with('2'));
    one.tell(RecordKind::Text, "chat-room-1", b"again");
    assert_eq!(two.texts(1), ["again"]);
}
