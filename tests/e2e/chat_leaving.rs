//! Members of a room of `percore serve chat` hear of each member that leaves, once, whatever the cause: connections,
//! servers, workers and whole services that end or are killed.

use crate::common::chat::{Talker, in_room, start, start_on, told};
use crate::common::client::close_frame;
use crate::common::{Client, Server, TempDir, eventually, percore, process, run};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Clients that are all in one room, and heard so.
struct Crowd {
    talkers: Vec<Talker>,
    names: Vec<String>,
}

const ROOM: &str = "garden";

impl Crowd {
    /// So many clients of each of these addresses.
    fn gather(addrs: &[SocketAddr], each: usize) -> Crowd {
        let mut crowd = Crowd { talkers: Vec::new(), names: Vec::new() };
        for _ in 0..each {
            addrs.iter().for_each(|addr| crowd.add(*addr));
        }
        crowd
    }

    fn add(&mut self, addr: SocketAddr) {
        let mut talker = Talker::to(addr);
        let (name, others) = talker.joins(ROOM);
        let mut names = self.names.clone();
        names.sort_unstable();
        assert_eq!(others, names);
        for talker in &mut self.talkers {
            talker.must_hear(&told("JoinedRoom", ROOM, &name));
        }
        self.talkers.push(talker);
        self.names.push(name);
    }

    /// Takes out a client that is about to leave, with its name.
    fn take(&mut self, at: usize) -> (Talker, String) {
        (self.talkers.remove(at), self.names.remove(at))
    }

    /// Everyone hears that these left, in any order, and nothing else.
    fn hear_leaving(&mut self, who: &[String]) {
        let who: BTreeSet<&String> = who.iter().collect();
        for talker in &mut self.talkers {
            let heard: Vec<String> = who.iter().map(|_| talker.hears_of("LeftRoom", ROOM)).collect();
            assert_eq!(heard.iter().collect::<BTreeSet<_>>(), who);
        }
        // One after another speaks, so that anything between would be heard.
        for speaker in (0..self.talkers.len()).take(12) {
            let text = format!("{speaker} is here");
            self.talkers[speaker].submits(&text);
            self.talkers.iter_mut().for_each(|talker| talker.must_hear_chat(&text));
        }
    }

    /// Takes out those whose connections were cut; their names.
    fn take_cut_off(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        for at in (0..self.talkers.len()).rev() {
            if is_cut_off(&self.talkers[at].0) {
                gone.push(self.take(at).1);
            }
        }
        gone
    }
}

/// Whether a client that has heard everything is at the end of its stream.
fn is_cut_off(client: &Client) -> bool {
    client.stream.set_nonblocking(true).expect("an option");
    let peeked = client.stream.peek(&mut [0; 1]);
    client.stream.set_nonblocking(false).expect("an option");
    match peeked {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

fn two_servers(folder: &TempDir) -> [Server; 2] {
    [start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[])]
}

#[test]
fn each_way_to_leave_is_told_once() {
    let folder = TempDir::new();
    let servers = two_servers(&folder);
    let addrs = servers.each_ref().map(Server::addr);
    let mut crowd = Crowd::gather(&addrs, 3);
    // By its own wish: it goes on, outside.
    let (mut outside, name) = crowd.take(0);
    outside.says(&in_room("LeaveRoom", ROOM));
    crowd.hear_leaving(&[name]);
    // By a closing handshake.
    let (mut closing, name) = crowd.take(0);
    closing.0.send(close_frame(1000, "bye"));
    assert_eq!(closing.0.closed().0, 1000);
    crowd.hear_leaving(&[name]);
    // Without a word, and by a reset.
    for cut in [false, true] {
        let (gone, name) = crowd.take(0);
        if cut {
            socket2::SockRef::from(&gone.0.stream).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
        }
        drop(gone);
        crowd.hear_leaving(&[name]);
    }
    let mut late = Talker::to(addrs[0]);
    let (_, others) = late.joins(ROOM);
    let mut left = crowd.names.clone();
    left.sort_unstable();
    assert_eq!(others, left);
}

#[test]
fn a_killed_server_s_members_are_told_of_by_all_others() {
    let folder = TempDir::new();
    let killed = start_on(&folder.path("bus"), &[]);
    let servers = two_servers(&folder);
    let mut crowd = Crowd::gather(&[killed.addr(), servers[0].addr(), servers[1].addr()], 4);
    killed.signal("KILL");
    assert_eq!(killed.wait().0, None);
    let gone = crowd.take_cut_off();
    assert_eq!(gone.len(), 4);
    crowd.hear_leaving(&gone);
    // Another takes its place on the bus.
    let again = start_on(&folder.path("bus"), &[]);
    crowd.add(again.addr());
    crowd.hear_leaving(&[]);
}

#[test]
fn a_stopped_server_s_members_are_told_of() {
    let folder = TempDir::new();
    let (stopped, other) = (start_on(&folder.path("bus"), &[]), start_on(&folder.path("bus"), &[]));
    let mut crowd = Crowd::gather(&[stopped.addr(), other.addr()], 4);
    stopped.signal("TERM");
    let mut going = Vec::new();
    for at in (0..8).step_by(2).rev() {
        going.push(crowd.take(at));
    }
    for (talker, _) in &mut going {
        assert_eq!(talker.0.closed().0, 1001);
        talker.0.send(close_frame(1001, ""));
    }
    assert_eq!(stopped.wait().0, Some(0));
    crowd.hear_leaving(&going.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
}

/// A service of two workers, and where its private bus is.
fn start_workers(flags: &[&str]) -> Server {
    start(&[&["--workers", "2", "--admin", "127.0.0.1:0"], flags].concat())
}

fn private_folders(supervisor: u32) -> Vec<PathBuf> {
    let start = format!("percore-private-{supervisor}-");
    let entries = std::fs::read_dir("/dev/shm").expect("shared memory").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start)).map(|entry| entry.path()).collect()
}

fn workers(server: &Server) -> Vec<u32> {
    process::children(server.child().id())
}

/// So many that each of two workers has some.
const MANY: usize = 24;

#[test]
fn a_killed_worker_s_members_are_told_of() {
    let server = start_workers(&[]);
    let mut crowd = Crowd::gather(&[server.addr()], MANY);
    process::signal(workers(&server)[0], "KILL");
    server.wait_for_log("worker 0 died");
    let gone = crowd.take_cut_off();
    assert!(!gone.is_empty() && gone.len() < MANY, "{}", gone.len());
    crowd.hear_leaving(&gone);
    // Who comes now may be with the next worker.
    for _ in 0..8 {
        crowd.add(server.addr());
    }
    crowd.hear_leaving(&[]);
    let id = server.child().id();
    assert_eq!(private_folders(id).len(), 1);
    drop(crowd);
    assert_eq!(server.stop().0, Some(0));
    assert!(private_folders(id).is_empty());
}

#[test]
fn two_services_on_one_bus() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let flags = ["--bus", bus.to_str().expect("UTF-8")];
    let services = [start_workers(&flags), start_workers(&flags)];
    let mut crowd = Crowd::gather(&services.each_ref().map(Server::addr), MANY);
    crowd.hear_leaving(&[]);
    assert!(services.iter().all(|service| private_folders(service.child().id()).is_empty()));
    process::signal(workers(&services[1])[1], "KILL");
    services[1].wait_for_log("worker 1 died");
    let gone = crowd.take_cut_off();
    assert!(!gone.is_empty() && gone.len() < MANY, "{}", gone.len());
    crowd.hear_leaving(&gone);
    let [first, second] = services;
    first.signal("KILL");
    // Its workers drain, and tell their clients to go.
    let id = first.child().id();
    assert_eq!(first.wait().0, None);
    let mut going = Vec::new();
    for at in (0..crowd.talkers.len()).rev() {
        if crowd.talkers[at].0.stream.peer_addr().expect("connected") != second.addr() {
            going.push(crowd.take(at));
        }
    }
    assert_eq!(going.len(), MANY);
    for (talker, _) in &mut going {
        assert_eq!(talker.0.closed().0, 1001);
        talker.0.send(close_frame(1001, ""));
    }
    crowd.hear_leaving(&going.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
    assert!(private_folders(id).is_empty());
    // A folder that somebody chose stays.
    crowd.talkers.clear();
    assert_eq!(second.stop().0, Some(0));
    assert!(bus.join("bus").exists());
}

#[test]
fn a_reload_is_heard_as_leaving() {
    let server = start_workers(&["--drain-timeout", "3s"]);
    let id = server.child().id();
    let mut old = Crowd::gather(&[server.addr()], 8);
    let folder = private_folders(id);
    let (code, _, error) = run(percore(&["reload", "--admin", &server.admin().to_string()]));
    assert_eq!(code, 0, "{error}");
    // Comes to a new worker, and finds whom the old ones have not told to go yet.
    let mut late = Talker::to(server.addr());
    let (me, others) = late.joins(ROOM);
    let all: BTreeSet<&String> = old.names.iter().collect();
    assert!(others.iter().all(|other| all.contains(other)), "{others:?}");
    for talker in &mut old.talkers {
        assert_eq!(talker.0.closed().0, 1001);
        talker.0.send(close_frame(1001, ""));
    }
    let heard: BTreeSet<String> = others.iter().map(|_| late.hears_of("LeftRoom", ROOM)).collect();
    assert_eq!(heard, others.into_iter().collect());
    let mut last = Talker::to(server.addr());
    assert_eq!(last.joins(ROOM).1, [me]);
    assert_eq!(private_folders(id), folder, "the new workers are on the old ones' bus");
    drop((late, last));
    assert_eq!(server.stop().0, Some(0));
    assert!(private_folders(id).is_empty());
}

#[test]
fn what_a_killed_supervisor_leaves_the_next_one_removes() {
    let server = start_workers(&[]);
    let (id, workers) = (server.child().id(), workers(&server));
    let [folder] = &private_folders(id)[..] else { panic!("one folder") };
    assert!(folder.join("bus").exists());
    server.signal("KILL");
    assert_eq!(server.wait().0, None);
    eventually("the end of its workers", || workers.iter().all(|pid| !process::is_alive(*pid)));
    let next = start_workers(&[]);
    assert!(!Path::new(folder).exists());
    assert_eq!(private_folders(next.child().id()).len(), 1);
    assert_eq!(next.stop().0, Some(0));
}
