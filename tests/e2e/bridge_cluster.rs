//! Hosts joined by a Redis Cluster: sharded pub/sub on the node that has the channels, even as they move.

use crate::common::redis::{Host, Redis, free_port, keys};
use crate::common::{Server, TempDir, eventually};
use percore::RecordKind;
use percore::internal::bridge::dialect::slot_of;
use std::process::Command;

const PASSWORD: &str = "a-word";
/// Three masters share the slots.
const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three masters, and a replica of the one that has the tag's slot.
struct Cluster {
    nodes: Vec<Redis>,
    slot: u16,
    _folder: TempDir,
}

impl Cluster {
    fn start(tag: &str) -> Cluster {
        let folder = TempDir::new();
        let nodes: Vec<Redis> = (0..4).map(|_| node(&folder, &[])).collect();
        let cluster = Cluster { nodes, slot: slot_of(tag.as_bytes()), _folder: folder };
        let [first, others @ ..] = &cluster.nodes[..] else { unreachable!("four nodes") };
        for (node, (from, to)) in cluster.nodes.iter().zip(RANGES) {
            assert_eq!(cli(node, &["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]), "OK");
        }
        for (number, node) in others.iter().enumerate() {
            let bus_port = cli(node, &["CONFIG", "GET", "cluster-port"]).lines().last().expect("a port").to_owned();
            assert_eq!(cli(first, &["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus_port]), "OK");
            // Epochs that differ need not be made to differ.
            cli(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 2).to_string()]);
        }
        let (owner, replica) = (cluster.owner(), &cluster.nodes[3]);
        let id = cli(&cluster.nodes[owner], &["CLUSTER", "MYID"]);
        eventually("the replica's master", || cli(replica, &["CLUSTER", "REPLICATE", &id]) == "OK");
        eventually("a cluster that is well", || {
            cluster.nodes.iter().all(|node| {
                let info = cli(node, &["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            }) && cli(replica, &["INFO", "replication"]).contains("master_link_status:up")
        });
        cluster
    }

    /// Which node has the tag's slot at first.
    fn owner(&self) -> usize {
        RANGES.iter().position(|(from, to)| (*from..=*to).contains(&self.slot)).expect("every slot is somewhere")
    }

    /// Of a node that is not there, and of one that does not have the slot.
    fn url(&self) -> String {
        let other = &self.nodes[(self.owner() + 1) % 3];
        format!("redis+cluster://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{}", other.port)
    }
}

/// A node that knows no others, with its file in `folder`.
fn node(folder: &TempDir, more: &[&str]) -> Redis {
    let file = folder.path("nodes-PORT.conf").display().to_string();
    let bus_port = free_port().to_string();
    let flags = [
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        &file,
        "--cluster-node-timeout",
        "1000",
        "--cluster-port",
        &bus_port,
        "--requirepass",
        PASSWORD,
        "--masterauth",
        PASSWORD,
        "--repl-diskless-sync-delay",
        "0",
    ];
    Redis::start(&[&flags, more].concat())
}

fn cli(node: &Redis, arguments: &[&str]) -> String {
    cli_with(node, &[], arguments)
}

fn cli_with(node: &Redis, flags: &[&str], arguments: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.env("REDISCLI_AUTH", PASSWORD).args(["-p", &node.port.to_string()]).args(flags).args(arguments);
    String::from_utf8(command.output().expect("redis-cli runs").stdout).expect("text").trim().to_owned()
}

/// Says something on one host until it is heard on the other, and returns how often.
fn say_until_heard(one: &mut Host, two: &mut Host, text: &str) -> u64 {
    let mut told = 0;
    two.messages.clear();
    two.until("what is said", |two| {
        told += 1;
        one.tell(RecordKind::Text, "news", text.as_bytes());
        two.messages.iter().any(|(.., payload)| payload == text.as_bytes())
    });
    told
}

/// Asserts that each message was passed on, or counted as lost.
fn assert_accounted(bridge: Server, told: u64) {
    let (code, log) = bridge.stop();
    let last = log.last().expect("a line");
    let count = |name: &str| -> u64 {
        let word = last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {last}"))
    };
    let all = ["passed_on", "not_connected", "unanswered", "refused"].map(count);
    assert!(code == Some(0) && all[0] >= 2, "{last}");
    assert_eq!(all.iter().sum::<u64>(), told, "{last}");
}

#[test]
fn bridges_follow_the_node_that_takes_over() {
    let mut cluster = Cluster::start("percore");
    let url = cluster.url();
    let [mut one, mut two] = [Host::start(&url, &[]), Host::start(&url, &[])];
    two.count("news", 1);
    one.tell(RecordKind::Enter, "room", b"ann");
    two.until_members("room", &["ann"]);
    let owner = cluster.owner();
    let subscribed = |node: &Redis| cli(node, &["PUBSUB", "SHARDNUMSUB", "{percore}news"]).ends_with('1');
    eventually("it is subscribed where the slot is", || subscribed(&cluster.nodes[owner]));
    one.tell(RecordKind::Text, "news", b"before");
    assert_eq!(two.texts(1), ["before"]);
    cluster.nodes[owner].kill();
    one.bridge.wait_for_log("lost Redis at redis+cluster://:***@127.0.0.1:1,127.0.0.1:");
    let told = 1 + say_until_heard(&mut one, &mut two, "after");
    two.until_members("room", &["ann"]);
    assert_accounted(one.bridge, told);
}

#[test]
fn bridges_follow_a_slot_that_moves() {
    let cluster = Cluster::start("percore");
    let url = cluster.url();
    let [mut one, mut two] = [Host::start(&url, &[]), Host::start(&url, &[])];
    two.count("news", 1);
    let mut told = say_until_heard(&mut one, &mut two, "before");
    let (from, to) = (&cluster.nodes[cluster.owner()], &cluster.nodes[(cluster.owner() + 1) % 3]);
    let [from_id, to_id] = [from, to].map(|node| cli(node, &["CLUSTER", "MYID"]));
    let slot = cluster.slot.to_string();
    assert_eq!(cli(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(cli(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    for node in [to, from] {
        assert_eq!(cli(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    one.bridge.wait_for_log("it no longer has our channels");
    told += say_until_heard(&mut one, &mut two, "after");
    assert_accounted(one.bridge, told);
}

#[test]
fn what_a_cluster_does_not_say() {
    // A Redis that is none, and a wrong password.
    let single = Redis::start(&[]);
    let host = Host::begin(&format!("redis+cluster://127.0.0.1:{}", single.port), &[]);
    host.bridge.wait_for_log("error reply: ERR This instance has cluster support disabled");
    let folder = TempDir::new();
    let node = node(&folder, &[]);
    let host = Host::begin(&format!("redis+cluster://:wrong@127.0.0.1:{}", node.port), &[]);
    host.bridge.wait_for_log("login refused: WRONGPASS");
    let host = Host::begin(&format!("redis+cluster://:{PASSWORD}@127.0.0.1:{}", node.port), &[]);
    host.bridge.wait_for_log(&format!("no node of the cluster has slot {}", slot_of(b"percore")));
}

/// The node that is asked speaks TLS too.
#[test]
fn a_cluster_with_tls() {
    let (folder, keys) = (TempDir::new(), keys());
    let path = |name: &str| keys.path(name).display().to_string();
    let (certificate, key, ca) = (path("redis.pem"), path("redis.key"), path("ca.pem"));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let flags = ["--port", "0", "--tls-port", "PORT", "--tls-cluster", "yes", "--tls-auth-clients", "no"];
    let node = node(&folder, &[&flags[..], &files].concat());
    let added = cli_with(&node, &["--tls", "--cacert", &ca], &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert_eq!(added, "OK");
    let url = format!("rediss+cluster://:{PASSWORD}@localhost:{}/chat", node.port);
    let [mut one, mut two] = [(); 2].map(|()| Host::start(&url, &["--redis-ca", &ca]));
    two.count("news", 1);
    let told = say_until_heard(&mut one, &mut two, "in secret");
    let (code, log) = one.bridge.stop();
    let passed_on = format!("passed_on={told} ");
    assert!(code == Some(0) && log.last().is_some_and(|line| line.contains(&passed_on)), "{log:?}");
}
