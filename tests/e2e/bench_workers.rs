//! `percore bench --workers`: a load shared by several processes.

use crate::bench::{example, hub, number};
use crate::common::process::{children, is_alive};
use crate::common::{Killed, Server, eventually, exit_code, percore, percore_after, process, run, send_signal};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Stdio};

/// Runs it, and reads its JSON.
fn bench(args: &[&str]) -> (i32, Value, String) {
    let mut command = percore(&["bench"]);
    command.args(args).args(["--json", "-", "--quiet"]);
    let (code, stdout, stderr) = run(command);
    let json = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (code, json, stderr)
}

/// A run that goes on until it is told to end, and what it says meanwhile.
fn running(args: &[&str]) -> (Killed, BufReader<ChildStderr>) {
    let mut command = percore(&["bench"]);
    command.args(args).args(["-d", "1h", "--warmup", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let progress = BufReader::new(child.stderr.take().expect("piped"));
    (Killed(child), progress)
}

fn wait_for(progress: &mut impl BufRead, words: &str) {
    let mut all = String::new();
    while !all.lines().any(|line| line.contains(words)) {
        let read = progress.read_line(&mut all).expect("progress");
        assert!(read > 0, "in vain waited for '{words}' in {all}");
    }
}

fn table(run: &mut Killed) -> (Option<i32>, String) {
    let mut table = String::new();
    run.0.stdout.take().expect("piped").read_to_string(&mut table).expect("the table");
    (exit_code(&mut run.0), table)
}

#[test]
fn what_they_count_adds_up() {
    let server = Server::start(&["--admin", "0"]);
    let (url, mut sum) = (server.url("/"), 0);
    for (workers, flags) in [
        ("3", &["-n", "1000", "-c", "7", "-i", "5"][..]),
        ("2", &["-n", "333", "-c", "2", "--rate", "2000"]),
        // Most of them send nothing.
        ("4", &["-n", "2", "-c", "9"]),
    ] {
        let (code, json, error) = bench(&[&["echo", &url, "--workers", workers], flags].concat());
        let count: u64 = flags[1].parse().expect("a number");
        let connections: u64 = flags[3].parse().expect("a number");
        assert_eq!((code, &json["errors"]), (0, &json!({})), "{error}");
        assert_eq!((&json["messages"], &json["connected"]), (&json!(count), &json!(connections)), "{json:#}");
        assert_eq!((&json["handshakes"], json["workers"].to_string()), (&json!(connections), workers.to_owned()));
        let over_time = json["over_time"].as_array().expect("intervals");
        assert_eq!(over_time.iter().filter_map(|interval| interval["messages"].as_u64()).sum::<u64>(), count);
        let latency = ["min", "p50", "p99", "max"].map(|name| number(&json, &format!("/latency_seconds/{name}")));
        assert!(latency.is_sorted() && latency[0] > 0.0, "{latency:?}");
        sum += count;
    }
    assert_eq!(server.metric("percore_messages_received_total{worker=\"0\",opcode=\"binary\"}"), sum);
}

#[test]
fn every_workload_and_what_it_costs_the_server() {
    let server = Server::start(&[]);
    let (url, pid) = (server.url("/"), server.child().id().to_string());
    let (code, json, error) =
        bench(&["idle", &url, "-c", "2000", "--workers", "2", "-d", "300ms", "--echo", "--pid", &pid]);
    assert_eq!((code, number(&json, "/connected")), (0, 2000.0), "{error}");
    let bytes = number(&json, "/server/memory_bytes_per_connection");
    assert!((50.0..2000.0).contains(&bytes), "{bytes} bytes a connection");
    let (code, json, error) = bench(&["connect", &url, "-c", "8", "-d", "300ms", "--warmup", "0", "--workers", "2"]);
    assert_eq!((code, &json["errors"]), (0, &json!({})), "{error}");
    assert!(number(&json, "/handshakes") > 8.0 && number(&json, "/handshakes_per_second") > 0.0, "{json:#}");
    let (code, json, _) = bench(&["echo", &url, "-c", "10", "-d", "1s", "--rate", "2000", "--workers", "auto"]);
    assert_eq!(code, 0);
    assert!((1900.0..2100.0).contains(&number(&json, "/messages")), "{json:#}");
}

#[test]
fn one_is_as_without_the_flag() {
    let server = Server::start(&[]);
    let url = server.url("/");
    let args = ["echo", &url, "-n", "100", "-c", "3"];
    let (plain, one) = (bench(&args), bench(&[&args[..], &["--workers", "1"]].concat()));
    let keys = |json: &Value| json.as_object().expect("an object").keys().cloned().collect::<Vec<String>>();
    assert_eq!((plain.0, keys(&plain.1), &plain.1["messages"]), (one.0, keys(&one.1), &one.1["messages"]));
    assert_eq!((&plain.1["workers"], &one.1["workers"]), (&json!(1), &json!(1)));
    let (mut run, mut progress) = running(&["idle", &url, "-c", "1", "--workers", "1"]);
    wait_for(&mut progress, "1 of 1 connected");
    assert!(children(run.0.id()).is_empty());
    send_signal(&run.0, "INT");
    assert_eq!(table(&mut run).0, Some(0));
}

#[test]
fn subscribers_of_all_processes_get_what_one_of_them_publishes() {
    let room = example("broadcast", &[]);
    let url = format!("ws://{}/", room.1);
    for flags in [&["-i", "1"][..], &["-i", "16"], &["--rate", "500"]] {
        let (code, json, error) =
            bench(&[&["fanout", &url, "-n", "200", "-c", "10", "--workers", "3", "-s", "100"], flags].concat());
        assert_eq!((code, &json["errors"]), (0, &json!({})), "{flags:?}: {error}");
        let delivered = number(&json, "/messages") + number(&json, "/late");
        assert_eq!((number(&json, "/published"), delivered), (200.0, 200.0 * 9.0), "{flags:?}");
    }
}

#[test]
fn every_subscriber_of_every_process_is_compared_with_what_was_published() {
    for flags in [&["-i", "3"][..], &["--rate", "500"]] {
        let (lossy, twice) =
            (hub(|number, _| usize::from(number != 10)), hub(|number, _| 1 + usize::from(number == 10)));
        let args = |url| [&["fanout", url, "-n", "30", "-c", "9", "--workers", "3", "-s", "100"], flags].concat();
        // One message comes to nobody, one twice, the last ten to nobody.
        let (code, json, error) = bench(&args(&lossy));
        assert_eq!((code, &json["errors"]), (1, &json!({"missing delivery": 8})), "{flags:?}: {error}");
        let (code, json, error) = bench(&args(&twice));
        assert_eq!((code, &json["errors"]), (1, &json!({"delivered twice": 8})), "{flags:?}: {error}");
    }
    let open_loop = |url: &str| {
        bench(&["fanout", url, "-d", "300ms", "--warmup", "0", "--rate", "200", "-c", "9", "--workers", "3"])
    };
    let (code, json, error) = open_loop(&hub(|number, _| usize::from(number < 20)));
    let missing = 8 * (json["published"].as_u64().expect("a number") - 20);
    assert_eq!((code, &json["errors"]), (1, &json!({"missing delivery": missing})), "{error}");
    let (code, json, error) = open_loop(&hub(|_, _| 0));
    assert_eq!((code, &json["errors"]), (1, &json!({"no delivery": 1})), "{error}");
}

#[test]
fn one_that_dies_is_an_error_and_the_others_go_on() {
    let server = Server::start(&[]);
    let (mut run, mut progress) = running(&["echo", &server.url("/"), "-c", "30", "--rate", "300", "--workers", "3"]);
    wait_for(&mut progress, "messages/s");
    let workers = children(run.0.id());
    assert_eq!(workers.len(), 3);
    process::signal(workers[1], "KILL");
    wait_for(&mut progress, "20 of 30 connected");
    send_signal(&run.0, "INT");
    let (code, table) = table(&mut run);
    assert_eq!(code, Some(1), "{table}");
    let died = format!(
        "1 x worker died (first: process {}, number 1, was killed by signal 9, with 10 connections)",
        workers[1]
    );
    assert!(table.contains(&died) && table.contains("interrupted"), "{table}");
    assert!(table.contains("messages/s"), "{table}");
}

#[test]
fn a_run_without_its_publisher_ends() {
    let room = example("broadcast", &[]);
    let url = format!("ws://{}/", room.1);
    let (mut run, mut progress) = running(&["fanout", &url, "-c", "9", "--workers", "3", "--rate", "100"]);
    wait_for(&mut progress, "deliveries/s");
    process::signal(children(run.0.id())[0], "KILL");
    let (code, table) = table(&mut run);
    assert!(code == Some(1) && table.contains("1 x worker died"), "{table}");
}

#[test]
fn a_closed_loop_goes_on_without_the_subscribers_of_one_that_died() {
    let room = example("broadcast", &[]);
    let url = format!("ws://{}/", room.1);
    let (mut run, mut progress) = running(&["fanout", &url, "-c", "9", "--workers", "3"]);
    wait_for(&mut progress, "deliveries/s");
    process::signal(children(run.0.id())[2], "KILL");
    wait_for(&mut progress, "6 of 9 connected");
    // There is a rate still.
    wait_for(&mut progress, "p99");
    send_signal(&run.0, "INT");
    let (code, table) = table(&mut run);
    assert!(code == Some(1) && table.contains("1 x worker died"), "{table}");
}

#[test]
fn they_end_with_the_process_that_started_them() {
    let server = Server::start(&[]);
    let (run, mut progress) = running(&["idle", &server.url("/"), "-c", "6", "--workers", "3"]);
    wait_for(&mut progress, "6 of 6 connected");
    let workers = children(run.0.id());
    send_signal(&run.0, "KILL");
    eventually("no worker is left", || workers.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn addresses_are_taken_in_turn_by_all_of_them() {
    let server = Server::start(&[]);
    let flags = ["-d", "100ms", "--warmup", "0", "--workers", "3", "--source", "127.0.0.5-127.0.0.8"];
    let (code, json, error) = bench(&[&["idle", &server.url("/"), "-c", "8"], &flags[..]].concat());
    assert_eq!((code, number(&json, "/connected")), (0, 8.0), "{error}");
    for last in 5..=8 {
        assert_eq!(server.count_log(&format!("connection opened: 127.0.0.{last}:")), 2, "{:#?}", server.log());
    }
}

#[test]
fn limits_are_told_before_the_load_begins() {
    let server = Server::start(&[]);
    let url = server.url("/");
    let refused = |command, hints: &[&str]| {
        let (code, stdout, stderr) = run(command);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{stderr}");
        assert!(hints.iter().all(|hint| stderr.contains(hint)), "{hints:?}: {stderr}");
    };
    let few = |args: &[&str]| percore_after("ulimit -n 100", &[&["bench", "idle", &url], args].concat());
    refused(few(&["-c", "5000"]), &["5032 file descriptors,", "may have 100", "ulimit -n", "--workers 74"]);
    refused(few(&["-c", "5000", "--workers", "2"]), &["2532 file descriptors in each of 2 processes", "--workers 74"]);
    let args = ["bench", "idle", &url, "-c", "70000", "--workers", "100", "--source", "127.0.0.9"];
    refused(percore(&args), &["70000 needs as many ports", "--source"]);
    refused(percore(&["bench", "idle", &url, "--source", "192.0.2.1"]), &["--source 192.0.2.1", "cannot connect from"]);
    refused(percore(&["bench", "idle", &url, "--source", "127.0.0.2-127.0.0.1"]), &["first and the last"]);
    refused(percore(&["bench", "idle", &url, "-c", "2", "--workers", "3"]), &["--workers 3", "2 connections"]);
    refused(percore(&["bench", "idle", &url, "--workers", "0"]), &["1 to 1024, or auto"]);
    assert_eq!(server.count_log("WebSocket connection opened"), 0);
    // As many as it takes.
    let (code, table, stderr) = run(few(&["-c", "200", "--workers", "auto", "-d", "100ms", "--warmup", "0"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(table.contains("200 of 200") && table.contains("200 connections of "), "{table}");
    let (code, _, stderr) = run(percore(&["bench-worker", "idle", &url]));
    assert!(code == 1 && stderr.contains("bench --workers N"), "{stderr}");
}
