//! The command line: help, flags, environment, where it listens, and its errors when it cannot.

use crate::common::client::upgrade_request;
use crate::common::{Client, PATIENCE, Server, TempDir, percore, run};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

const FLAGS: [&str; 47] = [
    "reuse-port",
    "bus",
    "bus-size",
    "bus-mode",
    "busy-poll",
    "unix-mode",
    "workers",
    "pin",
    "admin",
    "ready-fd",
    "listen",
    "backlog",
    "max-connections",
    "trusted-proxy",
    "forwarded-header",
    "proxy-protocol",
    "max-connections-per-ip",
    "max-memory",
    "rate-messages",
    "rate-bytes",
    "rate-channel",
    "path",
    "origin",
    "subprotocol",
    "max-request-line",
    "max-headers",
    "handshake-timeout",
    "http-lifetime",
    "hang-timeout",
    "max-message",
    "max-backlog",
    "slow-consumer",
    "deflate",
    "deflate-max",
    "deflate-min",
    "deflate-level",
    "deflate-window",
    "heartbeat",
    "heartbeat-timeout",
    "close-timeout",
    "drain-timeout",
    "log-level",
    "log-format",
    "log-messages",
    "hostname-prefix",
    "help",
    "version",
];

const CLIENT_FLAGS: [&str; 19] = [
    "insecure",
    "connect-timeout",
    "ca",
    "header",
    "subprotocol",
    "origin",
    "deflate",
    "max-message",
    "ping-interval",
    "ping-timeout",
    "json",
    "ping",
    "retry",
    "id",
    "exit-on-eof",
    "binary",
    "no-history",
    "help",
    "version",
];

/// Asserts that a command fails with this code and one line that says `hint`.
/// Asserts that a command fails with one line, and returns that.
fn assert_refused(command: Command, code: i32, hint: &str) -> String {
    let shown = format!("{command:?}");
    let (got, stdout, stderr) = run(command);
    assert_eq!((got, stdout.as_str()), (code, ""), "{shown}: {stderr}");
    let one_line = stderr.starts_with("percore: ") && stderr.ends_with('\n') && stderr.lines().count() == 1;
    assert!(one_line && stderr.contains(hint), "{shown}: {stderr}");
    stderr
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let (code, help, stderr) = run(percore(&["serve", "echo", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut named: Vec<&str> = help.lines().filter_map(flag_of).collect();
    let mut wanted = FLAGS.to_vec();
    named.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    for flag in wanted.iter().filter(|flag| !["help", "version"].contains(flag)) {
        let variable = format!("[env: PERCORE_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "no {variable}");
    }
    for group in
        ["Listening:", "Workers:", "Proxies:", "Upgrade:", "Messages:", "Liveness:", "Logging:", "Bus:", "Echo:"]
    {
        assert!(help.lines().any(|line| line == group), "no group {group}");
    }
}

#[test]
fn help_of_the_client_does_so_too() {
    let (code, help, stderr) = run(percore(&["client", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut named: Vec<&str> = help.lines().filter_map(flag_of).collect();
    let mut wanted = CLIENT_FLAGS.to_vec();
    named.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    // A header holds commas.
    for flag in wanted.iter().filter(|flag| !["header", "help", "version"].contains(flag)) {
        let variable = format!("[env: PERCORE_CLIENT_{}=", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "no {variable}");
    }
}

/// The flag that a line of the help is about: `  -h, --help`, `      --listen <ADDR>`.
fn flag_of(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("--")?;
    let short = before.trim().trim_end_matches(',');
    let is_entry = before.starts_with("  ") && (short.is_empty() || (short.len() == 2 && short.starts_with('-')));
    is_entry.then(|| rest.split(['[', '=', ' ', '<']).next().unwrap_or(rest))
}

#[test]
fn help_and_version_of_the_command() {
    let (code, help, _) = run(percore(&["--help"]));
    assert!(code == 0 && help.contains("serve"), "{help}");
    let (code, version, _) = run(percore(&["--version"]));
    assert_eq!((code, version), (0, format!("percore {}\n", env!("PERCORE_BUILD_VERSION"))));
    let git = Command::new("git").args(["rev-parse", "HEAD"]).output().ok().filter(|output| output.status.success());
    let built = env!("PERCORE_BUILD_COMMIT");
    if let Some(output) = git.filter(|_| std::env::var_os("PERCORE_COMMIT").is_none()) {
        let commit = String::from_utf8(output.stdout).expect("text");
        assert!(built.len() == 9 && commit.starts_with(built), "{built} is not {commit}");
    }
    let server = Server::start(&["--admin", "0"]);
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let line = format!("percore_build_info{{version=\"{}\",commit=\"{built}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(metrics.lines().any(|metric| metric == line), "{line}\n{metrics}");
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (args, hint) in [
        (&["serve", "echo", "--nonsense"][..], "--nonsense"),
        (&["serve", "nonsense"], "nonsense"),
        (&["serve", "echo", "stray"], "stray"),
        (&["serve", "echo", "--listen", "80a"], "IP:PORT"),
        (&["serve", "echo", "--listen", "example.org:80"], "IP:PORT"),
        (&["serve", "echo", "--listen", "127.0.0.1:99999"], "IP:PORT"),
        (&["serve", "echo", "--listen", "unix:"], "unix:/"),
        (&["serve", "echo", "--listen"], "--listen"),
        (&["serve", "echo", "--heartbeat", "soon"], "30s"),
        (&["serve", "echo", "--max-message", "big"], "16M"),
        (&["serve", "echo", "--max-connections", "0"], "--max-connections"),
        (&["serve", "echo", "--trusted-proxy", "10.0.0.1/8"], "give 10.0.0.0/8"),
        (&["serve", "echo", "--trusted-proxy", "nginx"], "an address, a block such as"),
        (&["serve", "echo", "--forwarded-header", "x-real-ip"], "x-forwarded-for"),
        (&["serve", "echo", "--max-connections-per-ip", "many"], "--max-connections-per-ip"),
        (&["serve", "echo", "--deflate", "gzip"], "no-takeover"),
        (&["serve", "echo", "--deflate-window", "8"], "9..=15"),
        (&["serve", "echo", "--path", "ws"], "begins with /"),
        (&["serve", "echo", "--origin", "good.example"], "SCHEME://HOST"),
        (&["serve", "echo", "--subprotocol", "a b"], "token"),
        (&["serve", "echo", "--heartbeat", "60s", "--heartbeat-timeout", "30s"], "--heartbeat-timeout"),
        (&["serve", "echo", "--close-timeout", "0"], "--close-timeout"),
    ] {
        assert_refused(percore(args), 2, hint);
    }
}

#[test]
fn what_is_wrong_in_the_environment_is_said_too() {
    for (name, value, hint) in [
        ("PORT", "http", "PORT"),
        ("PORT", "70000", "PORT"),
        ("PERCORE_LISTEN", "nowhere", "IP:PORT"),
        ("PERCORE_HEARTBEAT", "soon", "30s"),
        ("PERCORE_LOG_MESSAGES", "perhaps", "--log-messages"),
        ("PERCORE_LOG_LEVEL", "loud", "[possible values: off, error, warn, info, debug]"),
    ] {
        let mut command = percore(&["serve", "echo"]);
        command.env(name, value);
        let error = assert_refused(command, 2, hint);
        if name != "PORT" {
            assert!(error.starts_with(&format!("percore: {name} in the environment: ")), "{error}");
        }
    }
    // What is typed is not from there.
    let mut command = percore(&["serve", "echo", "--heartbeat", "soon"]);
    command.env("PERCORE_HEARTBEAT", "later");
    let error = assert_refused(command, 2, "'soon'");
    assert!(!error.contains("environment"), "{error}");
}

#[test]
fn what_is_empty_in_the_environment_is_not_set() {
    let mut command = percore(&["serve", "echo"]);
    for name in ["PERCORE_HEARTBEAT", "PERCORE_PATH", "PERCORE_LOG_MESSAGES", "PERCORE_WORKERS", "PERCORE_ADMIN"] {
        command.env(name, "");
    }
    command.env("PORT", "").env("PERCORE_LISTEN", "127.0.0.1:0").env("PERCORE_LOG_LEVEL", "INFO");
    let server = Server::launch(command, 1);
    assert_eq!(server.open().echo("served"), "served");
    let mut command = percore(&["healthcheck"]);
    command.env("PERCORE_LISTEN", &server.listen[0]).env("PERCORE_PROXY_PROTOCOL", "").env("PORT", "");
    assert_eq!(run(command).0, 0);
}

#[test]
fn words_of_the_environment_in_any_case() {
    let mut command = percore(&["serve", "echo", "--listen", "0"]);
    command.env("PERCORE_LOG_MESSAGES", "1").env("PERCORE_LOG_FORMAT", "JSON").env("PERCORE_BUSY_POLL", "20us");
    command.env("PERCORE_DEFLATE", "Off").env("PERCORE_HEARTBEAT", "1m10s").env("PERCORE_HOSTNAME_PREFIX", "no");
    let server = Server::launch(command, 1);
    assert_eq!(server.open().echo("as it is"), "as it is");
    server.wait_for_log("\"event\":\"message\"");
}

#[test]
fn what_may_be_meant_is_said() {
    let error = assert_refused(percore(&["serve", "echo", "--lisen", "0"]), 2, "--listen");
    assert!(error.contains("; a similar argument exists: '--listen'"), "{error}");
    assert_refused(percore(&["srve"]), 2, "a similar subcommand exists: 'serve'");
    assert_refused(percore(&["serve", "ecko"]), 2, "'echo'");
    let (code, help, _) = run(percore(&["help"]));
    assert!(code == 0 && help.contains("healthcheck"), "{help}");
}

#[test]
fn an_address_that_cannot_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    assert_refused(percore(&["serve", "echo", "--listen", &addr]), 1, &format!("cannot listen on {addr}: process "));
    assert_refused(percore(&["serve", "echo", "--listen", "192.0.2.1:0"]), 1, "no such address");
    // One bad address among good ones is enough, and nothing is announced.
    let args = ["serve", "echo", "--listen", "127.0.0.1:0", "--listen", &addr];
    assert_refused(percore(&args), 1, "listens there; choose another --listen");
}

#[test]
fn variables_stand_for_flags_and_flags_win() {
    let mut command = percore(&["serve", "echo", "--max-message", "10"]);
    command.env("PERCORE_LISTEN", "127.0.0.1:0,[::1]:0").env("PERCORE_PATH", "/a,/b").env("PORT", "1");
    command.env("PERCORE_HOSTNAME_PREFIX", "true").env("PERCORE_MAX_MESSAGE", "1");
    let server = Server::launch(command, 2);
    assert!(server.listen[1].starts_with("[::1]:"), "{:?}", server.listen);
    for path in ["/a", "/b"] {
        let mut client = server.connect();
        client.send(upgrade_request(path, ""));
        assert_eq!(client.head_response().status, 101, "{path}");
        assert!(client.text().ends_with("press ENTER"));
        assert!(client.echo("0123456789").ends_with("] 0123456789"));
    }
}

#[test]
fn port_in_the_environment_listens_on_all_addresses() {
    let mut command = percore(&["serve", "echo"]);
    command.env("PORT", "0");
    let server = Server::launch(command, 1);
    let port = server.listen[0].strip_prefix("0.0.0.0:").expect("all addresses");
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"));
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn several_addresses_of_all_kinds() {
    let folder = TempDir::new();
    let path = folder.path("s");
    let unix = format!("unix:{}", path.display());
    let args = ["serve", "echo", "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", &unix];
    let server = Server::launch(percore(&args), 3);
    assert_eq!(server.listen[2], unix);
    for addr in &server.listen[..2] {
        let mut client = Client::connect(addr.parse().expect("an address"));
        client.upgrade("");
        assert_eq!(client.echo(addr), *addr);
    }
    let mut client = unix_client(&path);
    client.upgrade("");
    assert_eq!(client.echo("over unix"), "over unix");
    server.wait_for_log("WebSocket connection opened: unix");
}

fn unix_client(path: &Path) -> Client<UnixStream> {
    let stream = UnixStream::connect(path).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    Client::over(stream)
}

fn serve_unix(path: &Path) -> Command {
    percore(&["serve", "echo", "--listen", &format!("unix:{}", path.display())])
}

#[test]
fn a_unix_socket_is_removed_at_the_end() {
    let folder = TempDir::new();
    let path = folder.path("s");
    let server = Server::launch(serve_unix(&path), 1);
    assert_eq!(unix_client(&path).get("/healthz").status, 200);
    assert_eq!(server.stop().0, Some(0));
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_has_the_permissions_asked_for() {
    let folder = TempDir::new();
    let path = folder.path("mode.sock");
    let mut command = serve_unix(&path);
    command.args(["--unix-mode", "606"]);
    let _server = Server::launch(command, 1);
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let folder = TempDir::new();
    let path = folder.path("s");
    drop(UnixListener::bind(&path).expect("a socket that nobody listens on any more"));
    assert!(path.exists());
    let server = Server::launch(serve_unix(&path), 1);
    assert_eq!(unix_client(&path).get("/healthz").status, 200);
    drop(server);
    // Killed, it leaves its own behind, and the next takes the place.
    assert!(path.exists());
    let server = Server::launch(serve_unix(&path), 1);
    assert_eq!(unix_client(&path).get("/healthz").status, 200);
    drop(server);
}

#[test]
fn a_unix_socket_in_use_and_a_file_are_left_alone() {
    let folder = TempDir::new();
    let (path, file) = (folder.path("s"), folder.path("f"));
    let _server = Server::launch(serve_unix(&path), 1);
    assert_refused(serve_unix(&path), 1, "(percore) listens there; choose another --listen");
    assert_eq!(unix_client(&path).get("/healthz").status, 200);
    std::fs::write(&file, "precious").expect("a file");
    assert_refused(serve_unix(&file), 1, "not a socket");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
    assert_refused(serve_unix(&folder.path("no/such/folder")), 1, "cannot listen on unix:");
}

#[test]
fn a_mistyped_bus_leaves_nothing_behind() {
    let folder = TempDir::new();
    let path = folder.path("no/such").display().to_string();
    assert_refused(percore(&["serve", "chat", "--bus", &path]), 1, "no does not exist, and only the last folder");
    assert_refused(percore(&["serve", "chat", "--bus", &path, "--workers", "2"]), 1, "does not exist");
    assert_refused(percore(&["bridge", "--redis", "redis://h", "--bus", &path]), 1, "does not exist");
    assert!(!folder.path("no").exists());
}

#[test]
fn a_bus_on_a_disk_is_warned_of() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let start = |flags: &[&str]| {
        let mut command = percore(&["serve", "chat", "--listen", "0", "--bus"]);
        command.arg(&bus).args(flags);
        Server::launch(command, 1)
    };
    let on_disk = !percore::internal::os::bus::is_in_memory(&folder.path("."));
    for flags in [&[][..], &["--workers", "2", "--admin", "0"]] {
        let server = start(flags);
        assert_eq!(
            server.stop().1.iter().filter(|line| line.contains("is not in memory")).count(),
            usize::from(on_disk)
        );
    }
    assert!(
        percore::internal::os::bus::is_in_memory(Path::new("/dev/shm"))
            && !percore::internal::os::bus::is_in_memory(Path::new("/proc"))
    );
}

#[test]
fn an_app_that_publishes_nothing_takes_part_in_no_bus() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    for flags in [&[][..], &["--workers", "2", "--admin", "0"]] {
        let mut command = percore(&["serve", "echo", "--listen", "0", "--bus"]);
        command.arg(&bus).args(flags);
        let server = Server::launch(command, 1);
        assert_eq!(server.open().echo("a"), "a");
        assert_eq!(server.stop().1.iter().filter(|line| line.contains("has no use for a bus")).count(), 1);
    }
    assert!(!bus.exists());
}
