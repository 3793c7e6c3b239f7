//! Where `percore bench` writes its results, and how much it sends.

use crate::common::{Server, TempDir, percore, run};
use serde_json::Value;

#[test]
fn files_are_opened_before_the_run() {
    let (server, folder) = (Server::start(&[]), TempDir::new());
    let url = server.url("/");
    for flag in ["--json", "--plot"] {
        let path = folder.path("no/such/file").display().to_string();
        let (code, out, err) = run(percore(&["bench", "echo", &url, "-d", "1h", flag, &path]));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(&format!("cannot write {path}: No such file or directory")), "{err}");
    }
    assert_eq!(server.count_log("WebSocket connection opened"), 0);
    // What a file has stays until there is something to put in its place.
    let path = folder.path("kept").display().to_string();
    std::fs::write(&path, "of before").expect("a file");
    let (code, _, err) = run(percore(&["bench", "echo", &url, "-d", "1h", "--json", &path, "--plot", "/no/such"]));
    assert_eq!(code, 1, "{err}");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "of before");
    let svg = folder.path("plot.svg").display().to_string();
    std::fs::write(&svg, "x".repeat(1 << 20)).expect("a file");
    let (code, _, err) = run(percore(&["bench", "echo", &url, "-n", "10", "--json", &path, "--plot", &svg]));
    assert_eq!(code, 0, "{err}");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
    assert_eq!(json["messages"], 10);
    let svg = std::fs::read_to_string(&svg).expect("a file");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{} bytes", svg.len());
}

#[test]
fn as_many_messages_as_were_asked_for() {
    let server = Server::start(&["--admin", "0"]);
    let (url, mut sum) = (server.url("/"), 0);
    for flags in [&["-n", "1"][..], &["-n", "1000", "-c", "3", "-i", "7"], &["-n", "200", "--rate", "2000"]] {
        let mut command = percore(&["bench", "echo", &url, "--json", "-", "--quiet"]);
        command.args(flags);
        let (code, json, err) = run(command);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let count: u64 = flags[1].parse().expect("a number");
        assert_eq!((code, json["messages"].as_u64()), (0, Some(count)), "{err}{json:#}");
        sum += count;
    }
    assert_eq!(server.metric("percore_messages_received_total{worker=\"0\",opcode=\"binary\"}"), sum);
}

#[test]
fn the_last_second_has_its_line() {
    let server = Server::start(&[]);
    let (code, _, err) = run(percore(&["bench", "echo", &server.url("/"), "-d", "1s", "--warmup", "0", "-c", "2"]));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = err.lines().filter(|line| line.contains("messages/s")).collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(lines[0].trim_start().starts_with("1 s"), "{err}");
}
