//! Several workers under a supervisor: deaths, reloads, drains, and the notifications to its parent.

use crate::common::client::CLOSE;
use crate::common::service::{Service, own_binary, replace_binary};
use crate::common::{Client, Server, TempDir, eventually, percore, percore_after, process};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn a_killed_worker_is_replaced_and_the_other_one_notices_nothing() {
    let service = Service::start("2", &[]);
    let [of_first, of_second] = service.open_on_both();
    let workers = service.workers();
    assert_eq!(workers.len(), 2);
    let (stop, echoed, back) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for mut client in of_second {
            let (stop, echoed) = (&stop, &echoed);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.echo("still here"), "still here");
                    echoed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let lost = of_first.len();
        for mut client in of_first {
            let (server, back) = (&service.server, &back);
            scope.spawn(move || {
                client.ends();
                // At the first attempt: nothing is refused or reset.
                assert_eq!(server.open().echo("again"), "again");
                back.fetch_add(1, Ordering::Relaxed);
            });
        }
        eventually("load", || echoed.load(Ordering::Relaxed) >= 100);
        process::signal(workers[0], "KILL");
        let line = service.server.wait_for_log("worker 0 died");
        assert!(line.contains("was ended by signal 9; another starts now"), "{line}");
        eventually("everyone back", || back.load(Ordering::Relaxed) == lost);
        let so_far = echoed.load(Ordering::Relaxed);
        eventually("load", || echoed.load(Ordering::Relaxed) >= so_far + 100);
        stop.store(true, Ordering::Relaxed);
    });
    eventually("the new worker", || service.metric("percore_worker_up{worker=\"0\"}") == 1);
    assert_eq!(service.metric("percore_worker_restarts_total{worker=\"0\"}"), 1);
    assert_eq!(service.metric("percore_worker_restarts_total{worker=\"1\"}"), 0);
    assert!(service.metric("percore_upgrades_total{worker=\"0\"}") >= 2, "what the dead one counted stays");
}

#[test]
fn workers_go_when_their_supervisor_is_killed() {
    let service = Service::start("2", &[]);
    let clients = service.open_on_both();
    let workers = service.workers();
    service.server.signal("KILL");
    for client in clients.into_iter().flatten() {
        let mut client = client;
        assert_eq!(client.closed().0, 1001);
        client.send(crate::common::client::close_frame(1001, ""));
        client.ends();
    }
    eventually("the end of all workers", || workers.iter().all(|pid| !process::is_alive(*pid)));
    assert_eq!(service.server.count_log("the supervisor is gone"), 2);
}

#[test]
fn a_signal_drains_all_workers() {
    let service = Service::start("2", &["--drain-timeout", "60s"]);
    assert_eq!(service.get("/readyz").0, 200);
    let mut clients: Vec<Client> = service.open_on_both().into_iter().flatten().collect();
    service.server.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.closed(), (1001, "server is going away".to_owned()));
    }
    eventually("refusals", || TcpStream::connect(service.server.addr()).is_err());
    assert_eq!((service.get("/readyz").0, service.get("/healthz").0), (503, 200));
    for client in &mut clients {
        client.send(crate::common::client::close_frame(1001, ""));
    }
    let (code, log) = service.server.wait();
    assert_eq!(code, Some(0), "{log:?}");
    assert_eq!(log.iter().filter(|line| line.contains(" stopped; ")).count(), 2, "{log:?}");
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let service = Service::start("2", &["--drain-timeout", "60s"]);
    let _clients = service.open_on_both();
    let workers = service.workers();
    service.server.signal("INT");
    service.server.wait_for_log("stopping 2 workers");
    service.server.signal("INT");
    let (code, log) = service.server.wait();
    assert_eq!(code, Some(1));
    assert!(log.iter().any(|line| line.contains("second signal")), "{log:?}");
    eventually("the end of all workers", || workers.iter().all(|pid| !process::is_alive(*pid)));
}

/// Connections come in all the while; not one of them may be refused, reset or left without an answer.
#[test]
fn ten_reloads_lose_no_connection() {
    let service = Service::start("2", &["--drain-timeout", "2s"]);
    let (stop, connects) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = service.server.open();
                    client.send(crate::common::client::frame(crate::common::client::TEXT, b"hello"));
                    let frame = client.frame();
                    // Who comes just before the old worker's last moment is told so, and properly.
                    assert!(frame.payload == b"hello" || frame.first == CLOSE, "{frame:?}");
                    connects.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for reload in 1..=10 {
            let (before, connected) = (service.workers(), connects.load(Ordering::Relaxed));
            eventually("connections", || connects.load(Ordering::Relaxed) >= connected + 300);
            service.server.signal("HUP");
            eventually("the reload", || service.metric("percore_reloads_total{result=\"success\"}") == reload);
            assert!(service.workers().iter().any(|pid| !before.contains(pid)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(connects.load(Ordering::Relaxed) >= 3000);
}

#[test]
fn a_reload_tells_old_connections_one_after_another() {
    let service = Service::start("2", &["--drain-timeout", "4s"]);
    let mut clients: Vec<Client> = service.open_on_both().into_iter().flatten().collect();
    let half_request = service.server.connect();
    let before: HashSet<u32> = service.workers().into_iter().collect();
    service.server.signal("HUP");
    service.server.wait_for_log("2 new workers took over");
    for client in &mut clients {
        assert_eq!(client.closed().0, 1001);
        client.send(crate::common::client::close_frame(1001, ""));
        client.ends();
    }
    drop(half_request);
    eventually("the end of the old workers", || service.workers().iter().all(|pid| !before.contains(pid)));
    assert_eq!(service.server.open().echo("new"), "new");
    let open = (0..2).map(|worker| service.metric(&format!("percore_connections_open{{worker=\"{worker}\"}}")));
    assert!(open.sum::<u64>() <= 1);
    let upgrades = (0..2).map(|worker| service.metric(&format!("percore_upgrades_total{{worker=\"{worker}\"}}")));
    assert_eq!(upgrades.sum::<u64>(), clients.len() as u64 + 1, "what the old workers counted stays");
}

#[test]
fn a_binary_that_does_not_start_leaves_the_old_workers() {
    let folder = TempDir::new();
    let service = Service::launch(own_binary(&folder), "2", &[]);
    let mut client = service.server.open();
    let workers = service.workers();
    replace_binary(&folder, Path::new("/bin/false"));
    service.server.signal("HUP");
    let line = service.server.wait_for_log("reload failed");
    assert!(line.contains("ended with exit code 1; the old workers go on"), "{line}");
    std::fs::remove_file(folder.path("percore")).expect("it is there");
    service.server.signal("HUP");
    let line = service.server.wait_for_log("reload failed: cannot run");
    assert!(line.contains("No such file"), "{line}");
    assert_eq!(client.echo("still here"), "still here");
    eventually("only the old workers", || service.workers() == workers);
    assert_eq!(service.metric("percore_reloads_total{result=\"failure\"}"), 2);
    replace_binary(&folder, Path::new(env!("CARGO_BIN_EXE_percore")));
    service.server.signal("HUP");
    service.server.wait_for_log("2 new workers took over");
    assert_eq!(client.closed().0, 1001);
}

#[test]
fn what_workers_count_is_shown_without_waking_them() {
    let service = Service::start("2", &["--heartbeat", "0", "--heartbeat-timeout", "0", "--max-message", "100"]);
    let mut clients = service.open_on_both();
    for client in &mut clients[0] {
        assert_eq!(client.echo("hello"), "hello");
        client.send(crate::common::client::frame(crate::common::client::PING, b"abc"));
        client.frame();
    }
    let (mut too_big, worker) = (clients[0].remove(0), service.workers()[0]);
    too_big.send(crate::common::client::frame(crate::common::client::BINARY, &[0; 101]));
    assert_eq!(too_big.closed().0, 1009);
    drop(too_big);
    eventually("what is left open", || {
        service.metric("percore_connections_open{worker=\"0\"}") == clients[0].len() as u64
    });
    let sum = |name: &str| service.metric(&format!("{name}{{worker=\"0\"}}"));
    let echoed = clients[0].len() as u64 + 1;
    assert_eq!(sum("percore_upgrades_total"), echoed);
    assert_eq!(sum("percore_protocol_errors_total"), 1);
    for (name, label, value) in [
        ("percore_messages_received_total", "opcode=\"text\"", echoed),
        ("percore_received_bytes_total", "opcode=\"text\"", 5 * echoed),
        ("percore_messages_sent_total", "opcode=\"text\"", echoed),
        ("percore_sent_bytes_total", "opcode=\"text\"", 5 * echoed),
        ("percore_messages_received_total", "opcode=\"ping\"", echoed),
        ("percore_messages_sent_total", "opcode=\"pong\"", echoed),
        ("percore_closes_total", "code=\"1009\"", 1),
        ("percore_message_latency_seconds_bucket", "le=\"+Inf\"", echoed),
    ] {
        assert_eq!(service.metric(&format!("{name}{{worker=\"0\",{label}}}")), value, "{name}{{{label}}}");
    }
    let passes = sum("percore_loop_pass_seconds_count");
    // It wakes by itself now and then, and the closing handshake of the connection that broke off may still be going on.
    eventually("ten scrapes of a worker that sleeps on", || {
        let before = process::context_switches(worker);
        (0..10).for_each(|_| drop(service.get("/metrics")));
        process::context_switches(worker) == before
    });
    assert!(passes > 0);
}

#[test]
fn reload_says_what_came_of_it() {
    let folder = TempDir::new();
    let service = Service::launch(own_binary(&folder), "2", &[]);
    let (admin, before) = (service.admin.to_string(), service.workers());
    let reload = || crate::common::run(percore(&["reload", "--admin", &admin]));
    let (code, said, error) = reload();
    assert_eq!((code, said.as_str()), (0, "reloaded: new workers serve, the old ones drain\n"), "{error}");
    eventually("the end of the old workers", || service.workers().iter().all(|pid| !before.contains(pid)));
    replace_binary(&folder, Path::new("/bin/false"));
    let (code, _, error) = reload();
    assert_eq!((code, error.contains("the old workers keep serving")), (1, true), "{error}");
    assert_eq!(service.server.open().echo("still here"), "still here");
}

/// Whoever listens there could have any process signalled, such as another one of root's.
#[test]
fn reload_signals_nobody_but_who_answers() {
    let mut other = crate::common::Killed(Command::new("sleep").arg("600").spawn().expect("it runs"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = listener.local_addr().expect("bound").to_string();
    let text = format!("percore_supervisor_pid {}\n", other.0.id());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            open.push(stream);
        }
    });
    let (code, _, error) = crate::common::run(percore(&["reload", "--admin", &admin, "--timeout", "2s"]));
    assert_eq!(
        (code, error.contains("which is not the process that answers there: not signalled")),
        (1, true),
        "{error}"
    );
    assert!(other.0.try_wait().expect("own child").is_none(), "it was not signalled");
}

#[test]
fn reload_works_over_a_unix_socket() {
    let folder = TempDir::new();
    let admin = format!("unix:{}", folder.path("admin").display());
    let server = Server::start(&["--workers", "2", "--admin", &admin]);
    let (code, said, error) = crate::common::run(percore(&["reload", "--admin", &admin]));
    assert_eq!((code, said.as_str()), (0, "reloaded: new workers serve, the old ones drain\n"), "{error}");
    server.wait_for_log("2 new workers took over");
}

#[test]
fn there_is_nothing_to_reload() {
    let service = Service::start("1", &[]);
    let (code, _, error) = crate::common::run(percore(&["reload", "--admin", &service.admin.to_string()]));
    assert_eq!((code, error.contains("a plain process without workers")), (1, true), "{error}");
    let (code, _, error) = crate::common::run(percore(&["reload", "--admin", &service.server.addr().to_string()]));
    assert_eq!((code, error.contains("answered 'HTTP/1.1 404")), (1, true), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let (code, _, error) = crate::common::run(percore(&["reload", "--admin", &free]));
    assert_eq!((code, error.contains("refused")), (1, true), "{error}");
    service.server.assert_alive();
}

#[test]
fn every_descriptor_that_is_permitted_is_used() {
    let service = Service::launch(percore_after("ulimit -S -n 50", &[]), "2", &[]);
    let clients: Vec<Client> = (0..150).map(|_| service.server.open()).collect();
    let limits = process::children(service.server.child().id()).into_iter().map(process::soft_descriptor_limit);
    assert!(limits.into_iter().all(|limit| limit > 150), "of {} connections", clients.len());
}

#[test]
fn a_plain_process_has_an_admin_listener_when_asked() {
    let service = Service::start("1", &[]);
    assert!(service.workers().is_empty());
    assert_eq!(service.server.open().echo("hello"), "hello");
    eventually("the upgrade counts", || service.metric("percore_upgrades_total{worker=\"0\"}") == 1);
    assert_eq!(service.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(service.get("/nothing").0, 404);
    let mut client = Client::connect(service.admin);
    client.send("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response().status, 405);
}

#[test]
fn each_worker_has_its_own_address_and_processor() {
    let folder = TempDir::new();
    let pattern = format!("unix:{}", folder.path("{worker}.sock").display());
    let mut command = percore(&["serve", "echo", "--workers", "2", "--admin", "off", "--pin", "on"]);
    command.args(["--listen", &pattern]);
    let server = Server::launch(command, 2);
    let cpus: HashSet<String> =
        process::children(server.child().id()).iter().map(|pid| process::status(*pid, "Cpus_allowed_list")).collect();
    assert!(cpus.iter().all(|cpus| !cpus.contains(['-', ','])), "{cpus:?}");
    for worker in 0..2 {
        let stream = UnixStream::connect(folder.path(&format!("{worker}.sock"))).expect("a listener");
        let mut client = Client::over(stream);
        client.send(crate::common::client::upgrade_request("/ws", ""));
        assert_eq!(client.head_response().status, 101);
        assert_eq!(client.echo("hello"), "hello");
    }
    assert_eq!(server.stop().0, Some(0));
    assert!(!folder.path("0.sock").exists() && !folder.path("1.sock").exists());
}

#[test]
fn readiness_is_told_over_a_descriptor() {
    for workers in ["1", "2"] {
        // The pipe is the shell's standard output, which it passes on as descriptor 7.
        let mut command = percore_after("exec 7>&1 1>&2", &["serve", "echo", "--listen", "127.0.0.1:0"]);
        command.args(["--admin", "off", "--workers", workers, "--ready-fd", "7"]).stdout(Stdio::piped());
        let mut child = crate::common::Killed(command.stderr(Stdio::piped()).spawn().expect("it starts"));
        let mut said = String::new();
        // It is closed after that, in every process.
        child.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(said, "ready\n");
        let mut log = BufReader::new(child.0.stderr.take().expect("piped")).lines();
        assert!(log.next().expect("a line").expect("text").contains("Starting server on"));
    }
    let (code, _, error) =
        crate::common::run(percore(&["serve", "echo", "--listen", "127.0.0.1:0", "--ready-fd", "99"]));
    assert_eq!((code, error.contains("descriptor 99 was not passed")), (1, true), "{error}");
}

#[test]
fn systemd_is_told_and_passes_sockets() {
    for workers in ["1", "2"] {
        let folder = TempDir::new();
        let path = folder.path("notify");
        let notify = UnixDatagram::bind(&path).expect("a socket");
        notify.set_read_timeout(Some(crate::common::PATIENCE)).expect("an option");
        let told = || {
            let mut bytes = [0; 200];
            let length = notify.recv(&mut bytes).expect("told");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        // As systemd does: the socket is descriptor 3, and the process is named in the environment.
        let setup = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1";
        let mut command = percore_after(setup, &["serve", "echo", "--workers", workers, "--admin", "off"]);
        command.env("NOTIFY_SOCKET", &path).stdin(Stdio::from(OwnedFd::from(listener)));
        let server = Server::launch(command, 1);
        assert_eq!(server.listen, [addr.to_string()]);
        assert_eq!(told(), "READY=1\n");
        assert_eq!(server.open().echo("hello"), "hello");
        if workers == "2" {
            server.signal("HUP");
            let reloading = told();
            assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
            assert_eq!(told(), "READY=1\n");
            server.signal("TERM");
            assert_eq!(told(), "STOPPING=1\n");
        }
    }
}

#[test]
fn a_worker_without_a_supervisor_says_so() {
    let (code, _, error) = crate::common::run(percore(&["worker", "echo"]));
    assert_eq!(code, 1);
    assert!(error.contains("is for 'percore serve --workers N' to run"), "{error}");
}

#[test]
fn flags_that_make_no_sense() {
    for (flags, said) in [
        (["--workers", "0"], "give 1 to 1024, or auto"),
        (["--workers", "many"], "give 1 to 1024, or auto"),
        (["--admin", "9464a"], "is not an address"),
        (["--ready-fd", "2"], "2 is not in 3"),
        (["--listen", "127.0.0.1:{slot}"], "is not an address"),
    ] {
        let (code, _, error) = crate::common::run(percore(&[&["serve", "echo"], &flags[..]].concat()));
        assert_eq!((code, error.contains(said)), (2, true), "{error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let mut command = percore(&["serve", "echo", "--listen", "127.0.0.1:0", "--workers", "2", "--admin"]);
    command.arg(addr);
    let (code, _, error) = crate::common::run(command);
    assert_eq!((code, error.contains("choose another --admin, or 'off' for none")), (1, true), "{error}");
}

/// The log of many workers is still one line each.
#[test]
fn lines_of_workers_do_not_mix() {
    let service = Service::start("2", &["--log-format", "json"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(service.server.open())));
        }
    });
    eventually("all closes", || service.server.count_log("\"event\":\"close\"") == 200);
    for line in service.server.log() {
        assert!(line.starts_with("{\"time\":") && line.ends_with('}'), "{line}");
    }
}
