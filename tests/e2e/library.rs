//! percore as a library: small without its command line, and a complete service with it.

use crate::common::client::{TEXT, frame};
use crate::common::{Client, Server, run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Crates of the library without default features, itself included.
const MOST_CRATES: usize = 35;

fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(Path::parent).expect("target/<profile>/deps").join("examples/service")
}

fn service(arguments: &[&str]) -> Command {
    let mut command = Command::new(example());
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[test]
fn it_is_small_without_the_command_line() {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    tree.args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    tree.args(["--no-default-features", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    let (code, tree, error) = run(tree);
    assert_eq!(code, 0, "{error}");
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let crates: std::collections::BTreeSet<String> = tree.lines().map(name).filter(|name| !name.is_empty()).collect();
    assert!((10..=MOST_CRATES).contains(&crates.len()), "{} crates: {crates:?}", crates.len());
}

#[test]
fn an_app_of_ones_own_has_workers_metrics_and_reload() {
    let flags = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2", "--", "secret"];
    let server = Server::launch(service(&flags), 1);
    let admin = server.admin();
    let get = |path: &str| Client::connect(admin).get(path);
    let open = || {
        let mut client = Client::connect(server.addr());
        client.send(crate::common::client::upgrade_request("/?token=secret", ""));
        assert_eq!(client.response().status, 101);
        client
    };
    let mut refused = Client::connect(server.addr());
    refused.send(crate::common::client::upgrade_request("/ws?token=wrong", ""));
    assert_eq!(refused.response().status, 401);

    // What one says all hear, at whichever worker.
    let mut clients: Vec<Client> = (0..8).map(|_| open()).collect();
    clients[0].send(frame(TEXT, b"hello"));
    for client in &mut clients {
        assert_eq!(client.text(), "hello");
    }
    assert_eq!(get("/readyz").status, 200);
    let metrics = get("/metrics").body;
    assert!(metrics.contains("percore_worker_up{worker=\"1\"} 1"), "{metrics}");

    // It reloads itself.
    let (code, _, error) = run(service(&["reload", "--admin", &admin.to_string()]));
    assert_eq!(code, 0, "{error}");
    for mut client in clients {
        assert_eq!(client.closed().0, 1001);
    }
    let mut late = open();
    late.send(frame(TEXT, b"again"));
    assert_eq!(late.text(), "again");
    let url = format!("http://{}/healthz", server.addr());
    assert_eq!(run(service(&["healthcheck", &url])).0, 0);
    server.signal("TERM");
    assert_eq!(late.closed().0, 1001);
    drop(late);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log:?}");
}

#[test]
fn its_own_arguments_are_checked_once() {
    let (code, _, error) = run(service(&["serve", "--listen", "127.0.0.1:0", "--workers", "2"]));
    assert_eq!(code, 2);
    assert_eq!(error, "service: give one token after --, as in: service serve -- secret\n");
    let (code, help, _) = run(service(&["serve", "--help"]));
    assert!(code == 0 && help.contains("--workers") && help.contains("service serve"), "{help}");
    let (code, version, _) = run(service(&["--version"]));
    assert!(code == 0 && version.starts_with("service "), "{version}");
    let mut wrong = service(&["serve", "--", "secret"]);
    wrong.env("PERCORE_WORKERS", "none");
    let (code, _, error) = run(wrong);
    assert!(code == 2 && error.starts_with("service: PERCORE_WORKERS in the environment: "), "{error}");
}
