//! The bus between real processes that are stopped, killed, starved or damaged, two of these at a time, and under a
//! storm of short-lived publishers: no process stops another, and what each received and counted adds up.

use crate::common::{Killed, PATIENCE, TempDir, eventually, percore, process, run};
use percore::internal::os::bus::Folder;
use percore::{Bus, BusEvent, BusOptions, Participant, Record};
use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const SMALL: BusOptions = BusOptions { slots: 16, ring_bytes: 4096, mode: 0o600 };
/// How long the storm goes on.
const STORM: Duration = Duration::from_secs(20);
const LOOPS: usize = 6;

/// What a participant was told: messages by their text, and losses.
struct Listener {
    bus: Bus,
    heard: HashMap<String, u64>,
    here: HashSet<Participant>,
    lost: u64,
}

impl Listener {
    fn join(path: &Path, options: BusOptions) -> Listener {
        let bus = Bus::join(path, options).expect("a place");
        Listener { bus, heard: HashMap::new(), here: HashSet::new(), lost: 0 }
    }

    fn drain(&mut self) {
        let Listener { bus, heard, here, lost } = self;
        while bus.drain(|event| match event {
            BusEvent::Joined(who) => assert!(here.insert(who), "{who} joins once"),
            BusEvent::Left(who) => assert!(here.remove(&who), "{who} is there, and leaves once"),
            BusEvent::Gap { lost: missing, from } => {
                assert!(here.contains(&from), "{from} is there");
                *lost += missing;
            }
            BusEvent::Record { from, record } => {
                assert!(here.contains(&from), "{from} is there");
                let text = String::from_utf8(record.payload.to_vec()).expect("text");
                *heard.entry(text).or_default() += 1;
            }
            BusEvent::Present { .. } => {}
            _ => panic!("{event:?}"),
        }) {}
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Listener) -> bool) {
        eventually(what, || {
            self.drain();
            if !done(self) {
                self.bus.wait(Some(Duration::from_millis(50))).expect("it waits");
                self.drain();
            }
            done(self)
        });
    }

    fn say(&mut self, text: &str) {
        self.bus.publish(Record::text("c", text)).expect("short enough");
        self.bus.flush();
    }

    fn hears(&mut self, text: &str) {
        self.until(text, |here| here.heard.contains_key(text));
    }
}

fn command(part: &str, path: &Path, rest: &[&str]) -> Command {
    let mut command = percore(&["bus", part]);
    command.arg(path).args(rest);
    command
}

/// `percore bus tail`, once it has joined.
fn tail(path: &Path) -> Killed {
    let mut tail = Killed(command("tail", path, &[]).stdout(Stdio::piped()).spawn().expect("it runs"));
    let line = BufReader::new(tail.0.stdout.as_mut().expect("piped")).lines().next();
    assert!(line.expect("a line").expect("text").starts_with("# joined"));
    tail
}

/// Six loops of short-lived publishers beside two that listen, one of which is held up now and then, and two that publish all the
/// time: slots are used again thousands of times.
#[test]
fn a_storm_of_publishers_adds_up() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let options = BusOptions { slots: 24, ring_bytes: 64 << 10, mode: 0o600 };
    let mut listener = Listener::join(&path, options);
    let mut slow = Listener::join(&path, options);
    let mut chatter = Listener::join(&path, options);
    let end = Instant::now() + STORM;
    let (published, said) = std::thread::scope(|scope| {
        let publish = |index: usize| {
            let mut number = 0;
            while Instant::now() < end {
                let (code, _, error) = run(command("publish", &path, &["c", &format!("{index} {number}")]));
                assert_eq!((code, error.as_str()), (0, ""));
                number += 1;
            }
            number
        };
        let loops: Vec<_> = (0..LOOPS).map(|index| scope.spawn(move || publish(index))).collect();
        let mut said = 0;
        let mut pause = end - STORM;
        while Instant::now() < end {
            listener.drain();
            chatter.say(&format!("chatter {said}"));
            said += 1;
            chatter.drain();
            if Instant::now() > pause {
                slow.bus.take_news().expect("it looks");
                slow.drain();
                pause += Duration::from_millis(300);
            }
            listener.bus.wait(Some(Duration::from_millis(1))).expect("it waits");
        }
        (loops.into_iter().map(|publisher| publisher.join().expect("it published")).collect::<Vec<u64>>(), said)
    });
    let total = published.iter().sum::<u64>() + said;
    for here in [&mut listener, &mut slow] {
        here.until("all of it", |here| here.heard.len() as u64 + here.lost == total && here.here.len() == 2);
        assert!(here.heard.values().all(|times| *times == 1), "nothing is heard twice");
    }
    assert_eq!(listener.lost, 0, "who keeps up loses nothing");
    println!("{} joins and {said} messages beside them; {} lost by the slow one", total - said, slow.lost);
}

/// Each of these is true of one participant, and each pair of them at once; all others go on, and newcomers join.
#[test]
fn no_participant_stops_another() {
    type Fault = fn(&Path, &mut Vec<Killed>);
    let stopped: Fault = |path, all| {
        let one = tail(path);
        process::signal(one.0.id(), "STOP");
        all.push(one);
    };
    let killed: Fault = |path, _| {
        let one = tail(path);
        process::signal(one.0.id(), "KILL");
    };
    let starved: Fault = |path, all| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 14; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_percore"), "bus", "tail"]).arg(path);
        all.push(Killed(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")));
    };
    let damaged: Fault = |path, all| {
        let one = tail(path);
        let folder = Folder::open(path, SMALL).expect("a bus");
        let region = folder.region();
        let slot = (0..16).rev().find(|slot| folder.is_held(*slot).expect("asked")).expect("it is there");
        region.ring(slot).reserved.store(u64::MAX, Relaxed);
        region.slot(slot).generation().store(0, Relaxed);
        region.slot(slot).parked().store(0, Relaxed);
        all.push(one);
    };
    let obstructed: Fault = |path, _| {
        for name in ["5.sock", "6.presence"] {
            let _ = std::fs::create_dir_all(path.join(name).join("x"));
        }
    };
    let faults = [
        ("stopped", stopped),
        ("killed", killed),
        ("starved", starved),
        ("damaged", damaged),
        ("obstructed", obstructed),
    ];
    for (one, first) in &faults {
        for (other, second) in &faults {
            let (folder, mut all) = (TempDir::new(), Vec::new());
            let path = folder.path("bus");
            let (mut here, mut there) = (Listener::join(&path, SMALL), Listener::join(&path, SMALL));
            first(&path, &mut all);
            second(&path, &mut all);
            let what = format!("{one} and {other}");
            here.say(&what);
            there.hears(&what);
            let mut late = Listener::join(&path, SMALL);
            late.say("late");
            here.hears("late");
            there.say("to the late");
            late.hears("to the late");
            let (code, _, error) = run(command("publish", &path, &["c", "short"]));
            assert_eq!((code, error.as_str()), (0, ""), "{what}");
            [&mut here, &mut there, &mut late].into_iter().for_each(|listener| listener.hears("short"));
            let gone = late.bus.me();
            drop(late);
            here.until("an end", |here| !here.here.contains(&gone));
        }
    }
}

#[test]
fn a_thousand_join_beside_one_that_does_not_run() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut here = Listener::join(&path, SMALL);
    let stopped = tail(&path);
    here.until("it is there", |here| here.here.len() == 1);
    process::signal(stopped.0.id(), "STOP");
    // More than its socket lets wait.
    for _ in 0..1_100 {
        drop(Bus::join(&path, SMALL).expect("a place"));
    }
    here.say("hello");
    let mut late = Listener::join(&path, SMALL);
    here.say("hello again");
    late.hears("hello again");
    process::signal(stopped.0.id(), "CONT");
    let mut last = Listener::join(&path, SMALL);
    last.until("all three", |last| last.here.len() == 3);
    let (start, who) = (Instant::now(), stopped.0.id());
    process::signal(who, "KILL");
    last.until("its end", |last| last.here.len() == 2);
    assert!(start.elapsed() < PATIENCE);
}

/// What a maker leaves that was killed is removed by the next one, and hides no bus.
#[test]
fn a_killed_maker_leaves_nothing() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    std::fs::create_dir(&path).expect("a folder");
    let unfinished = path.join("bus-0123456789abcdef.new");
    std::fs::write(&unfinished, b"half").expect("written");
    let bus = Bus::join(&path, SMALL).expect("a bus");
    assert!(!unfinished.exists() && path.join("bus").exists());
    drop(bus);
    std::fs::write(&unfinished, b"of another maker, as it seems").expect("written");
    drop(Bus::join(&path, SMALL).expect("the same bus"));
    assert!(unfinished.exists(), "nothing is looked for where there is a bus");
}

/// In place of a slot's files others have put folders: those slots are left alone.
#[test]
fn what_is_in_the_place_of_a_file_costs_its_slot_alone() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    for name in ["0.sock/x", "1.presence/x", "2.presence.new/x", "3.sock"] {
        std::fs::create_dir_all(path.join(name)).expect("a folder");
    }
    let bus = Bus::join(&path, SMALL).expect("a place");
    assert_eq!(bus.me().slot, 3, "an empty folder is replaced");
    let tiny = BusOptions { slots: 2, ..SMALL };
    let other = folder.path("other");
    for name in ["0.sock/x", "1.sock/x"] {
        std::fs::create_dir_all(other.join(name)).expect("a folder");
    }
    let error = Bus::join(&other, tiny).map(|_| ()).expect_err("no slot can be had").to_string();
    assert!(error.contains("and no other of 2 slots is free"), "{error}");
}

#[test]
fn a_bus_of_others_is_not_joined() {
    let folder = TempDir::new();
    let join = |path: &Path, mode: u32| Bus::join(path, BusOptions { mode, ..SMALL }).map(|_| ());
    let refused = |path: &Path, why: &str| {
        let error = join(path, 0o600).expect_err("it is refused").to_string();
        assert!(error.contains(why), "{error}");
    };
    // A link to a folder, with a slash or without.
    let path = folder.path("bus");
    join(&path, 0o600).expect("a bus");
    std::os::unix::fs::symlink(&path, folder.path("link")).expect("a link");
    refused(&folder.path("link"), "it is not a folder, or a link to one");
    refused(&folder.path("link/"), "it is not a folder, or a link to one");
    // A link in the place of the region.
    std::fs::create_dir(folder.path("linked")).expect("a folder");
    std::os::unix::fs::symlink(path.join("bus"), folder.path("linked/bus")).expect("a link");
    refused(&folder.path("linked"), "bus in");
    assert!(!folder.path("linked/0.sock").exists());
    // A folder that others may write to.
    chmod(&path, Mode::from_raw_mode(0o777)).expect("it is ours");
    refused(&path, "others may put files into the folder, which has mode 777: have it 700");
    join(&path, 0o666).expect("if that is meant");
    chmod(&path, Mode::from_raw_mode(0o700)).expect("it is ours");
    // Only root can give it away.
    let nobody = (Uid::from_raw(65534), Gid::from_raw(65534));
    if chown(path.join("bus"), Some(nobody.0), Some(nobody.1)).is_err() {
        return;
    }
    refused(&path, "its region belongs to user 65534");
    chown(path.join("bus"), Some(Uid::ROOT), None).expect("it is root's");
    chown(&path, Some(nobody.0), Some(nobody.1)).expect("it is root's");
    refused(&path, "the folder belongs to user 65534");
    join(&path, 0o666).expect("if that is meant");
    let mut status = command("status", &path, &[]);
    let (code, _, error) = run(status);
    assert_eq!((code, error.contains("the folder belongs to user 65534")), (1, true), "{error}");
    status = command("status", &path, &["--bus-mode", "666"]);
    assert_eq!(run(status).0, 0);
}

/// Whoever sleeps on a bus whose files are removed says so at once, and once; it goes on with those who were there.
#[test]
fn removed_files_are_said() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let (mut here, mut there) = (Listener::join(&path, SMALL), Listener::join(&path, SMALL));
    let mut tail =
        Killed(command("tail", &path, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs"));
    here.until("all are there", |here| here.here.len() == 2);
    // One that is not done with joining ends by an error of its own.
    eventually("the list of the one that joined last", || path.join("2.presence").exists());
    there.drain();
    assert_eq!((here.bus.warning(), there.bus.warning()), (None, None));
    std::fs::remove_dir_all(&path).expect("it is there");
    let line = BufReader::new(tail.0.stderr.as_mut().expect("piped")).lines().next();
    let line = line.expect("a line").expect("text");
    assert!(line.contains("were removed while it is in use"), "{line}");
    let mut warning = None;
    here.until("a warning", |_| {
        there.bus.take_news().expect("it looks");
        warning = warning.take().or_else(|| there.bus.warning());
        warning.is_some()
    });
    let other = Listener::join(&path, SMALL);
    assert_eq!(other.bus.others().count(), 0, "it is another bus");
    here.say("still together");
    there.hears("still together");
    here.bus.take_news().expect("it looks");
    assert!(here.bus.warning().is_some());
    assert_eq!((here.bus.warning(), there.bus.warning()), (None, None));
}

/// One is killed once it stands in the region, and before it has connected to anyone: nobody sees it for ever.
#[test]
fn one_that_never_connected_is_not_there_for_ever() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut here = Listener::join(&path, SMALL);
    let folder = Folder::open(&path, SMALL).expect("a bus");
    folder.region().announce(1, percore::internal::bus::region::Entry { generation: 1, start: (0, 0) });
    here.drain();
    assert_eq!(here.here.len(), 1, "it seems to be there");
    // Nothing else will wake it.
    here.bus.wait(Some(PATIENCE)).expect("it waits");
    here.until("its end", |here| here.here.is_empty());
}
