//! A service whose workers cannot be started, hang or lose their supervisor: connected clients notice nothing, and new
//! ones are served by the remaining workers. `docs/faults.md` names these tests.

use crate::common::client::upgrade_request;
use crate::common::service::{Service, own_binary};
use crate::common::{Client, Killed, PATIENCE, TempDir, eventually, percore, percore_after, process};
use percore::internal::os::control::Control;
use percore::internal::os::listener::{BindOptions, ListenAddr};
use percore::internal::os::shared_words::SharedWords;
use percore::internal::supervisor::admin::{self, Board, SharedBoard, SlotView};
use percore::internal::supervisor::{Plan, Program, Ready, Supervisor, listen_all, watch_for_orphans};
use percore::internal::telemetry::log::Log;
use percore::{App, ConnectionId, LogFormat, Message, Outbox, Request, Server, ServerOptions, Stats};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Opens connections at once, and has each say something.
fn assert_all_are_served(service: &Service, count: usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| service.server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(upgrade_request("/ws", "")));
    for client in &mut clients {
        assert_eq!(client.head_response().status, 101);
        assert_eq!(client.echo("hello"), "hello");
    }
}

#[test]
fn a_worker_that_cannot_be_started_ends_nobody() {
    let folder = TempDir::new();
    let service = Service::launch(own_binary(&folder), "2", &["--max-connections", "1000"]);
    let mut clients = service.open_on_both();
    std::fs::rename(folder.path("percore"), folder.path("away")).expect("it is there");
    process::signal(service.workers()[0], "KILL");
    eventually("more attempts than once ended the service", || service.server.count_log("worker 0 died") > 5);
    let line = service.server.wait_for_log("cannot run");
    assert!(line.contains(" ERROR worker 0 died: ") && line.contains("another starts "), "{line}");
    for client in &mut clients[1] {
        assert_eq!(client.echo("still here"), "still here");
    }
    assert_eq!(service.metric("percore_worker_up{worker=\"0\"}"), 0);
    assert_eq!(service.metric("percore_worker_up{worker=\"1\"}"), 1);
    assert_eq!(service.get("/readyz").0, 200);
    // The dead one's share of them is accepted by the other.
    assert_all_are_served(&service, 40);
    std::fs::rename(folder.path("away"), folder.path("percore")).expect("it is there");
    eventually("both workers", || service.metric("percore_worker_up{worker=\"0\"}") == 1);
    // From now on each accepts its own again.
    let before = service.metric("percore_upgrades_total{worker=\"0\"}");
    eventually("connections of the new worker", || {
        drop(service.server.open());
        service.metric("percore_upgrades_total{worker=\"0\"}") > before
    });
    assert_all_are_served(&service, 40);
}

#[test]
fn a_service_of_which_nobody_ever_served_gives_up() {
    let patterns = ["127.0.0.1:0".parse().expect("an address")];
    let listeners =
        listen_all(&patterns, &[], 2, BindOptions { backlog: 8, unix_mode: None, reuse_port: false }).expect("ports");
    let plan = Plan {
        program: Program { path: "/bin/false".into(), command: "worker", arguments: Vec::new() },
        keeper: None,
        listeners,
        cpus: vec![None, None],
        drain_timeout: Duration::from_secs(1),
        hang_timeout: Duration::from_secs(10),
        bus: None,
        board: SharedBoard::default(),
        ready: Ready::new(None).expect("nobody is told"),
        log: Log::new(None),
        log_format: LogFormat::Text,
    };
    let error = Supervisor::new(plan).expect("an epoll").run().expect_err("it gives up");
    let said = error.to_string();
    assert!(said.contains("died at once 5 times, at last: process "), "{said}");
    assert!(said.ends_with("ended with exit code 1; the service stops"), "{said}");
}

#[test]
fn a_worker_that_hangs_is_replaced_and_nobody_waits_for_it() {
    let service = Service::start("2", &["--hang-timeout", "6s"]);
    let mut clients = service.open_on_both();
    let hung = service.workers()[0];
    process::signal(hung, "STOP");
    // Long before it is given up, others accept for it.
    service.server.wait_for_log("worker 0, process");
    assert!(process::is_alive(hung));
    assert_eq!(service.metric("percore_worker_up{worker=\"0\"}"), 0);
    assert_eq!(service.get("/readyz"), (503, "not ready\n".to_owned()));
    assert_all_are_served(&service, 40);
    let line = service.server.wait_for_log("it is killed");
    assert!(
        line.contains("ERROR worker 0, process ") && line.contains("hangs: its loop has not gone on for 6"),
        "{line}"
    );
    eventually("its successor", || service.metric("percore_worker_up{worker=\"0\"}") == 1);
    assert!(!process::is_alive(hung));
    assert_eq!(service.metric("percore_worker_restarts_total{worker=\"0\"}"), 1);
    assert_eq!(service.get("/readyz").0, 200);
    for client in &mut clients[1] {
        assert_eq!(client.echo("still here"), "still here");
    }
    clients[0].iter_mut().for_each(Client::ends);
    assert_all_are_served(&service, 40);
}

#[test]
fn a_worker_that_only_paused_goes_on() {
    let service = Service::start("2", &["--hang-timeout", "10s"]);
    let mut clients = service.open_on_both();
    let paused = service.workers()[0];
    process::signal(paused, "STOP");
    service.server.wait_for_log("stalls: its loop has not gone on for ");
    process::signal(paused, "CONT");
    eventually("both workers", || service.metric("percore_worker_up{worker=\"0\"}") == 1);
    for client in clients.iter_mut().flatten() {
        assert_eq!(client.echo("still here"), "still here");
    }
    assert_eq!(service.metric("percore_worker_restarts_total{worker=\"0\"}"), 0);
}

#[test]
fn a_service_that_was_stopped_as_a_whole_goes_on() {
    let service = Service::start("2", &["--hang-timeout", "4s"]);
    let mut clients = service.open_on_both();
    let all: Vec<String> =
        std::iter::once(service.server.child().id()).chain(service.workers()).map(|pid| pid.to_string()).collect();
    let signal = |name: &str| assert!(Command::new("kill").arg(name).args(&all).status().expect("it runs").success());
    signal("-STOP");
    let stopped = Instant::now();
    eventually("more than a hang's time", || stopped.elapsed() > Duration::from_secs(6));
    signal("-CONT");
    for client in clients.iter_mut().flatten() {
        assert_eq!(client.echo("still here"), "still here");
    }
    // Nothing of it is left to be held against the workers: they are looked at again, and go on.
    let passes = || service.metric("percore_loop_pass_seconds_count{worker=\"0\"}");
    let before = passes();
    eventually("passes of the loop", || passes() > before + 3);
    assert_eq!(service.metric("percore_worker_restarts_total{worker=\"0\"}"), 0);
    assert_eq!(service.server.count_log("hangs"), 0, "{:?}", service.server.log());
}

#[test]
fn a_stopped_worker_goes_when_its_supervisor_is_killed() {
    let service = Service::start("2", &["--hang-timeout", "0"]);
    let mut clients = service.open_on_both();
    let workers = service.workers();
    process::signal(workers[0], "STOP");
    eventually("the stop", || process::status(workers[0], "State").starts_with('T'));
    service.server.signal("KILL");
    for mut client in clients.iter_mut().flat_map(std::mem::take) {
        assert_eq!(client.closed().0, 1001);
    }
    eventually("the end of all workers", || workers.iter().all(|pid| !process::is_alive(*pid)));
}

/// The process of the next test that is watched, and never comes to its loop.
fn hang_as_an_orphan() {
    let control = Control::of_standard_input().expect("a line");
    let counters = Arc::new(SharedWords::create("percore-test", Stats::WORDS).expect("memory"));
    let times = (Duration::from_millis(200), Duration::from_millis(200));
    watch_for_orphans(&control, counters, times, (Log::new(None), LogFormat::Text)).expect("watched");
    control.send("watched", &[]).expect("somebody is there");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_worker_that_hangs_ends_when_its_supervisor_is_gone() {
    const ROLE: &str = "PERCORE_TEST_ORPHAN";
    if std::env::var_os(ROLE).is_some() {
        hang_as_an_orphan();
    }
    let (ours, theirs) = Control::pair().expect("a line");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "supervisor_faults::a_worker_that_hangs_ends_when_its_supervisor_is_gone", "--nocapture"]);
    let orphan = command.env(ROLE, "1").stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn().expect("it runs");
    let mut orphan = Killed(orphan);
    assert_eq!(ours.receive().expect("a line").expect("a message").text, "watched");
    drop(ours);
    let mut status = None;
    eventually("its end", || {
        status = orphan.0.try_wait().expect("own child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.signal()), Some(9));
}

/// An app that does not come back from a message until it is let to.
struct Blocks(Receiver<()>);

impl App for Blocks {
    type State = ();

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, id: ConnectionId, _: &mut (), message: Message<'_>, out: &mut Outbox) {
        let _ = self.0.recv_timeout(PATIENCE);
        out.echo(id, message);
    }
}

/// The probes of Kubernetes ask a thread that is not the loop.
#[test]
fn a_plain_process_that_hangs_is_not_healthy() {
    let (goes_on, blocks) = channel();
    let hang_timeout = Duration::from_secs(3);
    let counters = Arc::new(SharedWords::create("percore-test", Stats::WORDS).expect("memory"));
    let only = SlotView { live: vec![Arc::clone(&counters)], up: true, ..SlotView::default() };
    let board = SharedBoard::default();
    *board.lock().unwrap_or_else(PoisonError::into_inner) =
        Board { slots: vec![only], ready: true, ..Board::default() };
    let folder = TempDir::new();
    let path = folder.path("admin");
    let addr = ListenAddr::Unix(path.clone());
    admin::serve(&addr, board, hang_timeout, &mut Log::new(None)).expect("an admin listener");
    let get = |what: &str| {
        let mut client = Client::over(std::os::unix::net::UnixStream::connect(&path).expect("it listens"));
        let response = client.get(what);
        (response.status, response.body)
    };
    let up = || get("/metrics").1.lines().any(|line| line == "percore_worker_up{worker=\"0\"} 1");
    let server = Server::new(Blocks(blocks))
        .options(ServerOptions { hang_timeout, signals: false, ..ServerOptions::default() })
        .counters(counters)
        .listen("127.0.0.1:0")
        .expect("a port");
    let addr = server.local_addrs().expect("bound")[0].to_string();
    std::thread::spawn(move || server.run());
    // It idles for longer than a hang lasts.
    let began = Instant::now();
    eventually("idling", || {
        assert_eq!(get("/healthz").0, 200);
        began.elapsed() > hang_timeout + Duration::from_secs(1)
    });
    eventually("readiness", || get("/readyz").0 == 200 && up());
    let mut client = Client::over(TcpStream::connect(addr).expect("it listens"));
    client.upgrade("");
    client.send(crate::common::client::frame(crate::common::client::TEXT, b"hello"));
    eventually("a loop that stands", || get("/readyz").0 == 503 && !up());
    eventually("a loop that hangs", || get("/healthz") == (503, "unhealthy\n".to_owned()));
    goes_on.send(()).expect("it waits");
    assert_eq!(client.text(), "hello");
    eventually("a loop that goes on", || get("/healthz").0 == 200 && get("/readyz").0 == 200 && up());
}

#[test]
fn the_admin_listener_cannot_use_up_the_descriptors() {
    let command = percore_after("ulimit -n 200", &[]);
    let service = Service::launch(command, "1", &["--handshake-timeout", "1m"]);
    let mut clients: Vec<Client> = (0..50).map(|_| service.server.open()).collect();
    let idle: Vec<TcpStream> = (0..400)
        .map(|_| {
            // With its first bytes the kernel shows it at once.
            let mut stream = TcpStream::connect(service.admin).expect("it listens");
            let _ = stream.write_all(b"G");
            stream
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.echo("still here"), "still here");
    }
    // More of them, for which there are descriptors; and a scrape, for which an idle one makes place.
    let more: Vec<Client> = (0..30).map(|_| service.server.open()).collect();
    eventually("all of them", || {
        service.metric("percore_connections_open{worker=\"0\"}") == (clients.len() + more.len()) as u64
    });
    assert_eq!(service.metric("percore_accept_errors_total{worker=\"0\"}"), 0);
    drop(idle);
}

#[test]
fn participants_of_the_bus_are_shown() {
    let mut command = percore(&["serve", "chat", "--workers", "2", "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]);
    let server = crate::common::Server::launch(command, 1);
    let service = Service { admin: server.admin(), server };
    for worker in 0..2 {
        eventually("the other worker", || {
            service.metric(&format!("percore_bus_participants{{worker=\"{worker}\"}}")) == 1
        });
    }
}
