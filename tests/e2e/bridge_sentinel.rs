//! Hosts joined by a Redis under Sentinel: when the master is gone, bridges follow to its successor.

use crate::common::redis::{Host, Redis, free_port};
use crate::common::{Killed, TempDir, eventually};
use percore::RecordKind;
use std::process::{Command, Stdio};

const PASSWORD: &str = "a-word";

/// A Sentinel that looks after a master, and gives it up after half a second.
struct Sentinel {
    port: u16,
    _server: Killed,
    _folder: TempDir,
}

impl Sentinel {
    fn start(master: &Redis, more: &str) -> Sentinel {
        let (folder, port) = (TempDir::new(), free_port());
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor chat 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds chat 500\nsentinel failover-timeout chat 5000\n{more}",
            master.port
        );
        std::fs::write(folder.path("sentinel.conf"), settings).expect("a file");
        let mut command = Command::new("redis-server");
        command.arg(folder.path("sentinel.conf")).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
        let server = Killed(command.spawn().expect("redis-server runs: tests/run installs it"));
        let sentinel = Sentinel { port, _server: server, _folder: folder };
        eventually("a Sentinel that knows the replica", || {
            sentinel.cli(&["SENTINEL", "REPLICAS", "chat"]).contains("slave")
        });
        sentinel
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.env("REDISCLI_AUTH", PASSWORD).arg("--no-auth-warning").args(["-p", &self.port.to_string()]);
        let output = command.args(arguments).output();
        String::from_utf8(output.expect("redis-cli runs").stdout).expect("text").trim().to_owned()
    }
}

#[test]
fn bridges_follow_the_master() {
    let mut master = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    eventually("a replica", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinel = Sentinel::start(&master, "");
    // The first one is not there.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/chat", sentinel.port);
    let [mut one, mut two] = [Host::start(&url, &[]), Host::start(&url, &[])];
    two.count("news", 1);
    one.tell(RecordKind::Enter, "room", b"ann");
    two.until_members("room", &["ann"]);
    eventually("it is subscribed at the master", || master.subscribers("news") == 1);
    one.tell(RecordKind::Text, "news", b"before");
    assert_eq!(two.texts(1), ["before"]);
    master.kill();
    one.bridge.wait_for_log("lost Redis at redis+sentinel://127.0.0.1:1,127.0.0.1:");
    one.tell(RecordKind::Text, "news", b"meanwhile");
    // Sentinel has the new master cut off its clients once more, so that all of them see what it is.
    let mut told = 2;
    two.until("what is said after that", |two| {
        told += 1;
        one.tell(RecordKind::Text, "news", b"after");
        !two.messages.is_empty()
    });
    two.until_members("room", &["ann"]);
    let (code, log) = one.bridge.stop();
    let last = log.last().expect("a line");
    let count = |name: &str| -> u64 {
        let word = last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {last}"))
    };
    let all = ["passed_on", "not_connected", "unanswered", "refused"].map(count);
    assert!(code == Some(0) && all[0] >= 2 && all[1] >= 1, "{last}");
    assert_eq!(all.iter().sum::<u64>(), told, "{last}");
}

#[test]
fn what_sentinel_does_not_know_is_said() {
    let master = Redis::start(&[]);
    let _replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let sentinel = Sentinel::start(&master, "");
    let host = Host::begin(&format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port), &[]);
    host.bridge.wait_for_log("no Sentinel knows this master");
    // A Redis that is no Sentinel.
    let host = Host::begin(&format!("redis+sentinel://127.0.0.1:{}/chat", master.port), &[]);
    host.bridge.wait_for_log("error reply: ERR unknown command");
}

#[test]
fn a_sentinel_with_a_password() {
    let flags = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
    let master = Redis::start(&flags);
    let of = format!("127.0.0.1 {}", master.port);
    let _replica = Redis::start(&[&flags[..], &["--replicaof", &of]].concat());
    let sentinel = Sentinel::start(&master, &format!("requirepass {PASSWORD}\nsentinel auth-pass chat {PASSWORD}\n"));
    let url = |password: &str| format!("redis+sentinel://:{password}@127.0.0.1:{}/chat", sentinel.port);
    Host::start(&url(PASSWORD), &[]);
    let host = Host::begin(&url("wrong"), &[]);
    host.bridge.wait_for_log("login refused: WRONGPASS");
}
