//! A bus that is misused or damaged, or short of descriptors: participants that keep to the rules go on.

use crate::common::{Killed, TempDir, eventually, percore, process, run};
use percore::internal::os::bus::Folder;
use percore::{Bus, BusEvent, BusOptions, Record};
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, send, socket_with,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const SMALL: BusOptions = BusOptions { slots: 4, ring_bytes: 4096, mode: 0o600 };

fn region_of(path: &Path) -> Folder {
    Folder::open(path, SMALL).expect("a bus")
}

/// Waits for a message of that text.
fn hears(bus: &mut Bus, text: &str) {
    eventually(text, || {
        let mut heard = false;
        while bus.drain(|event| {
            if let BusEvent::Record { record, .. } = event {
                heard |= record.payload == text.as_bytes();
            }
        }) {}
        if !heard {
            bus.wait(Some(Duration::from_millis(100))).expect("it waits");
        }
        heard
    });
}

fn say(bus: &mut Bus, text: &str) {
    bus.publish(Record::text("c", text)).expect("short enough");
    bus.flush();
}

fn socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).expect("a socket")
}

fn address(path: &Path) -> SocketAddrUnix {
    SocketAddrUnix::new(path).expect("a short path")
}

#[test]
fn who_joins_has_the_permissions_of_the_bus() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let _first = Bus::join(&path, BusOptions { mode: 0o660, ..SMALL }).expect("a bus");
    let _second = Bus::join(&path, SMALL).expect("a place");
    for file in ["bus", "1.sock", "1.presence"] {
        let mode = std::fs::metadata(path.join(file)).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o660, "{file}");
    }
}

#[test]
fn a_damaged_ring_costs_its_slot_alone() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut first = Bus::join(&path, SMALL).expect("a bus");
    let damaged = region_of(&path);
    damaged.region().ring(1).checkpoint.store(100, Relaxed);
    let mut second = Bus::join(&path, SMALL).expect("the next slot");
    assert_eq!((second.me().slot, second.me().generation), (2, 1));
    assert!(!damaged.is_held(1).expect("asked"), "nobody keeps the damaged one");
    say(&mut first, "hello");
    hears(&mut second, "hello");
    // A record that is longer than can be.
    let ring = damaged.region().ring(0);
    ring.words[0].store(u64::from(u32::MAX), Relaxed);
    let mut third = Bus::join(&path, SMALL).expect("a place");
    assert_eq!(third.others().collect::<Vec<_>>(), [first.me(), second.me()]);
    say(&mut first, "still here");
    hears(&mut third, "still here");
    say(&mut second, "here, too");
    hears(&mut third, "here, too");
    for slot in [1, 2, 3] {
        damaged.region().ring(slot).checkpoint.store((1 << 50) + 100, Relaxed);
    }
    drop((second, third));
    let error = Bus::join(&path, SMALL).map(|_| ()).expect_err("none is left").to_string();
    assert!(error.contains("slot 3 of the bus in") && error.contains("is damaged: a checkpoint beyond"), "{error}");
}

#[test]
fn a_new_owner_counts_from_0() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut former = Bus::join(&path, SMALL).expect("a bus");
    say(&mut former, "one");
    let region = region_of(&path);
    let counts = || [region.region().slot(0).published().load(Relaxed), region.region().slot(0).lost().load(Relaxed)];
    region.region().slot(0).lost().store(7, Relaxed);
    assert_eq!(counts(), [1, 7]);
    drop(former);
    let _bus = Bus::join(&path, SMALL).expect("the same slot");
    assert_eq!(counts(), [0, 0]);
}

#[test]
fn lines_before_one_that_is_too_long_are_published() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut bus = Bus::join(&path, SMALL).expect("a bus");
    let lines = folder.path("lines");
    std::fs::write(&lines, format!("good\n{}\n", "x".repeat(2000))).expect("written");
    let mut command = percore(&["bus", "publish"]);
    command.arg(&path).arg("c").stdin(std::fs::File::open(lines).expect("it is there"));
    let (code, _, error) = run(command);
    assert_eq!((code, error.contains("message longer than")), (1, true), "{error}");
    hears(&mut bus, "good");
}

#[test]
fn who_passes_for_someone_else_is_not_heard() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut bus = Bus::join(&path, SMALL).expect("a bus");
    let mut other = Bus::join(&path, SMALL).expect("a place");
    say(&mut other, "before");
    hears(&mut bus, "before");
    let head = region_of(&path).region().ring(1).head.load(Relaxed);
    // Slot, generation, position and number: of one with a start that its ring does not reach, of a later owner that there
    // is not yet, of an owner of a slot that never had any, and of the bus itself.
    let false_ones = [[1, 1, 1 << 40, 1], [1, 2, head, 1], [3, 1, 0, 0], [3, 0, 0, 0], [0, 1, 0, 0], [9, 1, 0, 0]];
    for words in false_ones {
        let stranger = socket();
        connect(&stranger, &address(&path.join("0.sock"))).expect("it listens");
        let hello: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        send(&stranger, &hello, SendFlags::NOSIGNAL).expect("there is room");
        bus.take_news().expect("it looks");
        while bus.drain(|event| panic!("{event:?} of {words:?}")) {}
        assert!(bus.park(), "there is nothing to do for {words:?}");
        bus.unpark();
    }
    say(&mut other, "after");
    hears(&mut bus, "after");
    assert_eq!(bus.others().collect::<Vec<_>>(), [other.me()]);
}

#[test]
fn one_that_does_not_run_keeps_nobody_from_joining() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut first = Bus::join(&path, SMALL).expect("a bus");
    // In place of its socket one that nobody accepts from, and whose queue is full.
    let place = path.join("0.sock");
    std::fs::rename(&place, path.join("aside")).expect("it is there");
    let (listener, waiting) = (socket(), socket());
    bind(&listener, &address(&place)).expect("free");
    listen(&listener, 0).expect("it listens");
    connect(&waiting, &address(&place)).expect("the first waits");
    let mut second = Bus::join(&path, SMALL).expect("a place");
    assert_eq!(second.others().collect::<Vec<_>>(), [first.me()]);
    // Without a connection they hear each other all the same.
    say(&mut first, "hello");
    hears(&mut second, "hello");
    say(&mut second, "hello to you");
    hears(&mut first, "hello to you");
    // And are connected once that can be.
    std::fs::rename(path.join("aside"), &place).expect("it is there");
    eventually("a connection", || {
        second.wait(Some(Duration::from_millis(10))).expect("it waits");
        first.take_news().expect("it looks");
        is_settled(&mut second)
    });
    drop(first);
    eventually("its end", || {
        second.wait(Some(Duration::from_millis(10))).expect("it waits");
        second.others().count() == 0
    });
}

/// Whether a participant has nothing to look for by the clock.
fn is_settled(bus: &mut Bus) -> bool {
    while bus.drain(|_| {}) {}
    let (start, time) = (Instant::now(), Duration::from_millis(250));
    bus.wait(Some(time)).expect("it waits");
    start.elapsed() >= time
}

#[test]
fn who_is_out_of_descriptors_hears_newcomers_later() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    drop(Bus::join(&path, SMALL).expect("a bus"));
    let mut command = percore(&["bus", "tail"]);
    // Ends the lines of one that stays deaf.
    command.arg(&path).args(["--timeout", "60s"]).stdout(Stdio::piped());
    let mut tail = Killed(command.spawn().expect("it runs"));
    let mut lines = BufReader::new(tail.0.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert_eq!(lines.next().expect("a line"), "# joined as 0.2");
    let pid = Pid::from_child(&tail.0);
    let limit = |descriptors: u64, former: Option<Rlimit>| {
        let maximum = former.and_then(|former| former.maximum);
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).expect("it is ours")
    };
    let mut at_rest = 0;
    eventually("a process at rest", || {
        std::mem::replace(&mut at_rest, process::context_switches(tail.0.id())) == at_rest
    });
    let current = rustix::process::getrlimit(Resource::Nofile);
    let former = limit(3, Some(current));
    let mut bus = Bus::join(&path, SMALL).expect("a place");
    eventually("it looked, in vain", || process::context_switches(tail.0.id()) > at_rest);
    limit(former.current.unwrap_or(1024), Some(former));
    assert_eq!(lines.next().expect("a line"), "# 1.1 joined");
    say(&mut bus, "heard");
    assert_eq!(lines.next().expect("a line"), "1.1 c heard");
}

#[test]
fn a_bus_too_small_for_its_workers_is_said_to_be() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let serve = |workers: &str, flags: &[&str]| {
        let mut command =
            percore(&["serve", "chat", "--listen", "127.0.0.1:0", "--admin", "off", "--workers", workers]);
        command.args(flags);
        run(command)
    };
    let (code, _, error) = serve("128", &[]);
    assert_eq!((code, error.contains("--workers 128: a bus takes 126 at most")), (2, true), "{error}");
    drop(Bus::join(&path, SMALL).expect("a bus"));
    let (code, _, error) = serve("3", &["--bus", path.to_str().expect("UTF-8")]);
    assert_eq!((code, error.contains("has 4 slots, and 3 workers take 6")), (1, true), "{error}");
}
