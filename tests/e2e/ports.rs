//! A port belongs to one service, unless all that use it agree to share; an error names the process that has it.

use crate::common::process;
use crate::common::service::Service;
use crate::common::{Client, Killed, Server, TempDir, eventually, percore, run};
use percore::internal::apps::echo::Echo;
use percore::{Server as AppServer, ServerOptions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Asserts that a command is refused the address, and that it says who has it.
fn assert_refused(command: Command, addr: &str, holder: u32) {
    let (code, _, err) = run(command);
    assert_eq!(code, 1, "{err}");
    let said = format!("cannot listen on {addr}: process {holder} (percore) listens there; choose another --");
    assert!(err.contains(&said), "{said}: {err}");
    assert!(!err.contains("os error"), "{err}");
}

fn serve(app: &str, addr: &str, flags: &[&str]) -> Command {
    let mut command = percore(&["serve", app, "--listen", addr]);
    command.args(flags);
    command
}

#[test]
fn a_second_service_is_refused_whether_it_has_workers_or_not() {
    let plain = Server::start(&[]);
    let service = Service::start("2", &[]);
    for first in [&plain, &service.server] {
        let (addr, pid) = (&first.listen[0], first.child().id());
        assert_refused(serve("chat", addr, &[]), addr, pid);
        let workers = ["--workers", "2", "--admin", "off"];
        assert_refused(serve("echo", addr, &workers), addr, pid);
        // All addresses are that one as well.
        let everywhere = addr.replace("127.0.0.1", "0.0.0.0");
        assert_refused(serve("echo", &everywhere, &[]), &everywhere, pid);
        let alone = serve("echo", addr, &["--reuse-port"]);
        if first.child().id() == plain.child().id() {
            // One that shares does not make others share.
            assert_refused(alone, addr, pid);
        }
        first.assert_alive();
    }
}

#[test]
fn a_service_does_not_share_with_one_that_shares() {
    let first = Server::start(&["--reuse-port"]);
    let (addr, pid) = (&first.listen[0], first.child().id());
    assert_refused(serve("echo", addr, &[]), addr, pid);
    assert_refused(serve("echo", addr, &["--workers", "2", "--admin", "off"]), addr, pid);
}

#[test]
fn who_says_so_shares_a_port() {
    let first = Server::start(&["--reuse-port", "--admin", "127.0.0.1:0"]);
    let args = ["serve", "echo", "--listen", &first.listen[0], "--reuse-port=yes", "--admin", "127.0.0.1:0"];
    let second = Server::launch(percore(&args), 1);
    let mut clients = Vec::new();
    eventually("connections of both", || {
        clients.push(first.open());
        [&first, &second].iter().all(|server| server.metric("percore_connections_open") > 0)
    });
}

#[test]
fn the_same_address_twice_is_refused() {
    let free = AppServer::new(Echo).listen("127.0.0.1:0").and_then(|server| server.local_addrs()).expect("a port");
    let free = free[0].to_string();
    for flags in [&["--listen", &free][..], &["--admin", &free], &["--admin", &free, "--workers", "2"]] {
        let (code, _, err) = run(serve("echo", &free, flags));
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&format!("cannot listen on {free}: this process listens there already")), "{err}");
    }
}

#[test]
fn two_services_have_two_admin_listeners() {
    let first = Service::start("2", &[]);
    let (admin, pid) = (first.admin.to_string(), first.server.child().id());
    for flags in [&["--admin", &admin][..], &["--workers", "2", "--admin", &admin]] {
        assert_refused(serve("echo", "127.0.0.1:0", flags), &admin, pid);
    }
}

#[test]
fn an_app_takes_its_port_for_itself() {
    let first = AppServer::new(Echo).listen("127.0.0.1:0").expect("a port");
    let addr = first.local_addrs().expect("bound")[0].to_string();
    let error = AppServer::new(Echo).listen(&addr).expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on {addr}: this process listens there already"));
    assert_refused_by_us(&addr);
    drop(first);
    let shares = || {
        let options = ServerOptions { reuse_port: true, ..ServerOptions::default() };
        AppServer::new(Echo).options(options).listen(&addr)
    };
    let _first = shares().expect("it is free again");
    shares().expect("both say that they share");
}

fn assert_refused_by_us(addr: &str) {
    let (code, _, err) = run(serve("echo", addr, &[]));
    let said = format!("cannot listen on {addr}: process {} (", std::process::id());
    assert!(code == 1 && err.contains(&said), "{said}: {err}");
}

#[test]
fn a_unix_socket_names_who_listens() {
    let folder = TempDir::new();
    let addr = format!("unix:{}", folder.path("s").display());
    let first = Server::launch(serve("echo", &addr, &[]), 1);
    assert_refused(serve("echo", &addr, &[]), &addr, first.child().id());
}

#[test]
fn a_restart_finds_the_port_free_with_connections_of_before() {
    let first = Server::start(&["--drain-timeout", "60s"]);
    let addr = first.listen[0].clone();
    // It does not answer the Close frame, so that the old process stays while it drains.
    let mut held = first.open();
    first.signal("TERM");
    assert_eq!(held.closed().0, 1001);
    let second = Server::launch(serve("echo", &addr, &[]), 1);
    second.assert_alive();
    first.signal("TERM");
    assert_eq!(first.wait().0, Some(1));
}

#[test]
fn a_worker_that_hangs_without_its_supervisor_is_waited_for() {
    let folder = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound").to_string();
    // Something that looks like one: it has the listener, and is called as a worker is.
    std::fs::write(folder.path("worker"), "until [ -e end ]; do sleep 0.01; done").expect("a script");
    let mut orphan = Command::new("sh");
    orphan.arg("worker").current_dir(folder.path(".")).stdin(Stdio::from(OwnedFd::from(listener)));
    let _orphan = Killed(orphan.spawn().expect("it runs"));
    drop(orphan);
    let mut next = serve("echo", &addr, &[]);
    let mut next = Killed(next.stderr(Stdio::piped()).spawn().expect("it starts"));
    let pid = next.0.id();
    eventually("that it looks again and again", || process::is_alive(pid) && process::context_switches(pid) > 10);
    std::fs::write(folder.path("end"), "").expect("a file");
    let mut lines = BufReader::new(next.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&format!("Starting server on {addr}..."))));
    let mut client = Client::connect(addr.parse().expect("an address"));
    assert_eq!(client.get("/healthz").status, 200);
    process::signal(pid, "TERM");
    assert_eq!(crate::common::exit_code(&mut next.0), Some(0));
}

#[test]
fn a_service_of_workers_is_on_one_port_and_workers_that_are_replaced_stay_there() {
    let service = Service::start("2", &[]);
    drop(service.open_on_both());
    process::signal(service.workers()[0], "KILL");
    eventually("another worker", || service.metric("percore_worker_restarts_total{worker=\"0\"}") == 1);
    eventually("that it serves", || service.metric("percore_worker_up{worker=\"0\"}") == 1);
    drop(service.open_on_both());
    let reloaded = run(percore(&["reload", "--admin", &service.admin.port().to_string()]));
    assert_eq!(reloaded.0, 0, "{reloaded:?}");
    drop(service.open_on_both());
}

#[test]
fn a_hang_up_is_noted_and_nothing_else() {
    let server = Server::start(&[]);
    let mut client = server.open();
    server.signal("HUP");
    server.wait_for_log("SIGHUP is ignored");
    assert_eq!(client.echo("still here"), "still here");
    server.signal("HUP");
    eventually("the second", || server.count_log("SIGHUP is ignored") == 2);
    drop(client);
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn a_bridge_notes_a_hang_up() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let args = ["bridge", "--bus", &bus.display().to_string(), "--redis", "redis://127.0.0.1:1"];
    let mut command = percore(&args);
    let mut child = Killed(command.stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
    let mut said = |text: &str| lines.by_ref().map_while(Result::ok).any(|line| line.contains(text));
    // By then it takes signals.
    assert!(said("no connection to Redis"));
    process::signal(child.0.id(), "HUP");
    assert!(said("SIGHUP is ignored"));
    process::signal(child.0.id(), "TERM");
    assert_eq!(crate::common::exit_code(&mut child.0), Some(0));
}

#[test]
fn an_address_may_be_a_port_alone() {
    for (addr, listens) in [("0", "127.0.0.1:"), ("localhost:0", "127.0.0.1:"), (":0", "0.0.0.0:")] {
        let server = Server::launch(serve("echo", addr, &[]), 1);
        let port = server.listen[0].strip_prefix(listens).expect(listens);
        let mut client = Client::connect(format!("127.0.0.1:{port}").parse().expect("an address"));
        assert_eq!(client.get("/healthz").status, 200);
    }
}
