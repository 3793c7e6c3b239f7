//! Members of channels between real processes: for processes that join late or were lapped, after deaths, while lists
//! are rewritten, and on a full disk.

use crate::common::{Killed, PATIENCE, TempDir, eventually, percore, process, run};
use percore::internal::os::bus::Folder;
use percore::{Bus, BusEvent, BusOptions, Interest, Participant, Presence, Record, RecordKind};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SMALL: BusOptions = BusOptions { slots: 4, ring_bytes: 64 << 10, mode: 0o600 };
/// Rings that are soon lapped.
const TINY: BusOptions = BusOptions { slots: 4, ring_bytes: 4096, mode: 0o600 };
/// Where the tests find their folder that run as processes of others.
const FOLDER: &str = "PERCORE_TEST_BUS";

/// A participant with a mirror of who is on which channel.
struct Mirror {
    bus: Bus,
    presence: Presence,
    here: BTreeSet<Participant>,
    gaps: u64,
    /// What became of members, as the mirror told: `+name` and `-name`.
    told: Vec<String>,
}

impl Mirror {
    fn join(path: &Path, options: BusOptions) -> Mirror {
        let bus = Bus::join(path, options).expect("a bus");
        Mirror { bus, presence: Presence::default(), here: BTreeSet::new(), gaps: 0, told: Vec::new() }
    }

    /// Takes what is there.
    fn drain(&mut self) {
        let Mirror { bus, presence, here, gaps, told } = self;
        let mut note = |change: percore::Change<'_>| {
            told.push(format!("{}{}", if change.entered { '+' } else { '-' }, change.member));
        };
        let mut take = |event: BusEvent<'_>| match event {
            BusEvent::Joined(who) => assert!(here.insert(who), "{who} joins once"),
            BusEvent::Present { from, list } => {
                assert!(here.contains(&from), "{from} is there");
                presence.replace(from, list, &mut note);
            }
            BusEvent::Record { from, record } => presence.apply(from, record, &mut note),
            BusEvent::Gap { lost, .. } => *gaps += lost,
            BusEvent::Left(who) => {
                assert!(here.remove(&who), "{who} leaves once");
                presence.remove(who, &mut note);
            }
            _ => panic!("{event:?}"),
        };
        while bus.drain(&mut take) {}
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Mirror) -> bool) {
        eventually(what, || {
            self.drain();
            if done(self) {
                return true;
            }
            self.bus.wait(Some(Duration::from_millis(100))).expect("it waits");
            false
        });
    }

    fn members(&self, channel: &str) -> Vec<&str> {
        self.presence.members(channel.as_bytes()).collect()
    }

    fn tell(&mut self, kind: RecordKind, channel: &str, payload: &[u8]) {
        self.bus.publish(Record { kind, channel: channel.as_bytes(), payload }).expect("short enough");
    }

    fn count(&mut self, channel: &str, subscribers: u32) {
        self.tell(RecordKind::Count, channel, &Interest { subscribers, listens: false }.bytes());
    }

    fn enter(&mut self, channel: &str, member: &str) {
        self.tell(RecordKind::Enter, channel, member.as_bytes());
    }

    fn leave(&mut self, channel: &str, member: &str) {
        self.tell(RecordKind::Leave, channel, member.as_bytes());
    }
}

/// A test of this file that is run as a process of its own, on the bus in a folder.
fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args([&format!("bus_presence::{test}"), "--exact", "--ignored", "--nocapture"]).env(FOLDER, folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

fn folder_of_child() -> PathBuf {
    std::env::var_os(FOLDER).expect("a process of another test").into()
}

/// A participant that does what it is told: `count CHANNEL N`, `enter CHANNEL MEMBER`, `leave CHANNEL MEMBER`.
#[test]
#[ignore = "a process of the other tests"]
fn participant() {
    let mut here = Mirror::join(&folder_of_child(), SMALL);
    for line in BufReader::new(std::io::stdin()).lines() {
        let line = line.expect("text");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["count", channel, number] => here.count(channel, number.parse().expect("a number")),
            ["enter", channel, member] => here.enter(channel, member),
            ["leave", channel, member] => here.leave(channel, member),
            _ => panic!("what is {line}"),
        }
        here.bus.flush();
    }
}

fn participant_on(folder: &Path, orders: &str) -> Killed {
    let mut running = Killed(child("participant", folder).spawn().expect("it runs"));
    running.0.stdin.as_mut().expect("piped").write_all(orders.as_bytes()).expect("it reads");
    running
}

#[test]
fn a_late_joiner_knows_all() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut first = Mirror::join(&path, SMALL);
    let orders =
        "count room 2\nenter room ann\nenter room bob\nleave room ann\ncount other 5\ncount other 0\nenter hall cid\n";
    let mut child = participant_on(&path, orders);
    first.enter("room", "dan");
    first.count("room", 7);
    first.bus.flush();
    first.until("all of it", |first| first.members("hall") == ["cid"]);
    assert_eq!(first.members("room"), ["bob"]);
    let mut late = Mirror::join(&path, SMALL);
    assert!(!late.bus.park(), "who is there is still to be told");
    late.drain();
    assert_eq!(late.here.len(), 2);
    assert_eq!(late.members("room"), ["bob", "dan"]);
    assert_eq!(late.members("hall"), ["cid"]);
    assert_eq!((late.presence.subscribers(b"room"), late.presence.is_wanted(b"other")), (9, false));
    // What is told from now on comes as before.
    child.0.stdin.as_mut().expect("piped").write_all(b"leave room bob\n").expect("it reads");
    late.until("a leave", |late| late.members("room") == ["dan"]);
    drop(first);
    late.until("a departure", |late| late.presence.members(b"room").next().is_none());
    assert_eq!(late.presence.channels().count(), 2, "room with two subscribers, and hall");
    assert_eq!(late.told[late.told.len() - 2..], ["-bob", "-dan"]);
}

#[test]
fn who_was_lapped_is_right_again() {
    let folder = TempDir::new();
    let (mut slow, mut fast) = (Mirror::join(&folder.path("bus"), TINY), Mirror::join(&folder.path("bus"), TINY));
    fast.enter("room", "stays");
    fast.enter("room", "goes");
    fast.bus.flush();
    slow.until("both", |slow| slow.members("room") == ["goes", "stays"]);
    fast.leave("room", "goes");
    fast.enter("room", "comes");
    // Neither of these is in the ring any more, whether it was flushed or became full.
    for number in 0..5_000 {
        fast.count("many", number % 7 + 1);
        if number > 2_500 {
            fast.bus.flush();
        }
    }
    fast.bus.flush();
    slow.drain();
    assert!(slow.gaps > 4_000, "{}", slow.gaps);
    assert_eq!(slow.members("room"), ["comes", "stays"]);
    assert_eq!(slow.told, ["+stays", "+goes", "-goes", "+comes"]);
    assert_eq!(slow.presence.subscribers(b"many"), 4_999 % 7 + 1);
}

/// Records are also shown because the ring is full, without a flush: even then the list holds what they tell.
#[test]
fn what_a_full_ring_shows_is_on_the_list() {
    let folder = TempDir::new();
    let mut writer = Mirror::join(&folder.path("bus"), TINY);
    let mut reader = Mirror::join(&folder.path("bus"), TINY);
    reader.drain();
    writer.drain();
    let look = Folder::open(&folder.path("bus"), TINY).expect("a bus");
    for number in 0..1_000 {
        writer.enter("room", &format!("member {number:03}"));
        reader.drain();
        let list: Vec<String> = {
            let mut listed = Presence::default();
            listed.replace(writer.bus.me(), &look.list(writer.bus.me()).expect("a list"), |_| {});
            listed.members(b"room").map(str::to_owned).collect()
        };
        assert_eq!(reader.members("room"), list[..reader.members("room").len()]);
    }
    assert!(reader.members("room").len() > 900);
}

#[test]
fn what_the_killed_had_is_gone() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut here = Mirror::join(&path, SMALL);
    let child = participant_on(&path, "count room 2\nenter room ann\nenter room bob\n");
    here.until("its members", |here| here.members("room").len() == 2);
    let killed = *here.here.first().expect("it joined");
    process::signal(child.0.id(), "KILL");
    here.until("its end", |here| here.here.is_empty());
    assert_eq!(here.told, ["+ann", "+bob", "-ann", "-bob"]);
    assert_eq!(here.presence.channels().count(), 0);
    assert!(path.join("1.presence").exists(), "nobody removed it");
    // A successor has none of it, for those who were there and for those who come.
    let mut next = Mirror::join(&path, SMALL);
    assert_eq!(next.bus.me(), Participant { slot: 1, generation: killed.generation + 1 });
    here.until("the next", |here| here.here.len() == 1);
    let mut late = Mirror::join(&path, SMALL);
    late.drain();
    assert_eq!((late.here.len(), late.presence.channels().count(), here.presence.channels().count()), (2, 0, 0));
    next.enter("room", "dan");
    next.bus.flush();
    let look = Folder::open(&path, SMALL).expect("a bus");
    let list = |of| look.list(of).expect("a list");
    assert!(list(killed).is_empty() && !list(next.bus.me()).is_empty(), "each of its own");
    drop(next);
    assert!(!path.join("1.presence").exists(), "who leaves takes it along");
}

/// One writes its list anew again and again; whoever reads it meanwhile sees a state that was, and never an older one after it.
#[test]
fn lists_are_whole_while_they_are_written_anew() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut writer = Mirror::join(&path, SMALL);
    let (me, file) = (writer.bus.me(), path.join("0.presence"));
    writer.enter("room", "stays");
    // With long names a file is soon full.
    let name = |number: u32| format!("{number:0500}");
    writer.enter("room", &name(0));
    writer.bus.flush();
    let look = Folder::open(&path, SMALL).expect("a bus");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut files, mut last) = (0, 0);
            for number in 1..=20_000 {
                writer.enter("room", &name(number));
                writer.leave("room", &name(number - 1));
                writer.bus.flush();
                // A log only grows: a shorter one is a new file. (Inode numbers do not tell, as they are used again.)
                let length = std::fs::metadata(&file).expect("it is there").len();
                assert!(length < 100_000);
                files += u32::from(std::mem::replace(&mut last, length) > length);
            }
            files
        });
        let (mut reads, mut last) = (0, 0);
        while !writing.is_finished() || reads == 0 {
            let mut listed = Presence::default();
            listed.replace(me, &look.list(me).expect("a list"), |_| {});
            let members: Vec<u32> = listed.members(b"room").filter_map(|name| name.parse().ok()).collect();
            assert_eq!(listed.members(b"room").last(), Some("stays"));
            // The next one enters before the last one leaves, and between them a read may fall.
            assert!(members.len() == 1 || members.len() == 2 && members[0] + 1 == members[1], "{members:?}");
            assert!(members[0] >= last, "{members:?} after {last}");
            last = members[0];
            reads += 1;
        }
        let files = writing.join().expect("it writes");
        assert!(files > 100, "{files} files");
        println!("{reads} reads, {files} files");
    });
    assert!(writer.bus.presence_error().is_none());
}

#[test]
fn its_file_belongs_to_the_user_and_is_not_trusted() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let writer = Mirror::join(&path, BusOptions { mode: 0o660, ..SMALL });
    let (me, file) = (writer.bus.me(), path.join("0.presence"));
    assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o660);
    let look = Folder::open(&path, SMALL).expect("a bus");
    let header = std::fs::read(&file).expect("a file");
    let enter = [&[RecordKind::Enter as u8, 1, 0, 1, 0, 0, 0][..], b"cm"].concat();
    let written = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("written");
        look.list(me).ok()
    };
    let list = written(&[&header[..], &enter].concat()).expect("nothing is damaged");
    assert_eq!(list.iter().count(), 1);
    assert_eq!(written(&[&header[..], &enter[..8]].concat()).map(|list| list.is_empty()), Some(true), "cut off");
    for damaged in [b"", &header[..10], &[&header[1..], &enter].concat()] {
        assert!(written(damaged).is_none(), "what was known of it is not forgotten for that");
    }
    // Longer than any list; no file at all; and something else in its place.
    std::fs::File::create(&file).expect("a file").set_len(1 << 40).expect("sparse");
    assert!(look.list(me).is_err());
    std::fs::remove_file(&file).expect("it is there");
    assert!(look.list(me).expect("nobody is on a channel").is_empty());
    assert!(Command::new("mkfifo").arg(&file).status().expect("it runs").success());
    assert!(look.list(me).is_err());
}

#[test]
fn status_and_tail_tell_who_is_there() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut here = Mirror::join(&path, SMALL);
    let _child = participant_on(&path, "count room 2\nenter room bob\nenter room ann\n");
    here.until("its members", |here| here.members("room").len() == 2);
    here.enter("room", "cid");
    for number in 0..101 {
        here.count(&format!("c{number:03}"), 1);
    }
    here.bus.flush();
    let mut status = percore(&["bus", "status"]);
    status.arg(&path);
    let (code, text, error) = run(status);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, error.as_str(), lines.len()), (0, "", 2 + 2 + 1 + 100 + 1), "{text}");
    assert_eq!(lines[5], ["2", "3", "room:", "ann,", "bob,", "cid"]);
    assert_eq!((&lines[6], &lines[104]), (&vec!["1", "0", "c000"], &vec!["1", "0", "c098"]));
    assert_eq!(lines[105].join(" "), "and 2 more channels");
    let mut tail = percore(&["bus", "tail"]);
    tail.arg(&path).args(["room", "--timeout", "60s"]).stdout(Stdio::piped());
    let mut tail = Killed(tail.spawn().expect("it runs"));
    let mut lines = BufReader::new(tail.0.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut next = |count: usize| lines.by_ref().take(count).collect::<Vec<String>>();
    assert_eq!(next(3), ["# joined as 2.1", "# 0.1 joined", "# cid entered room"]);
    assert_eq!(next(3), ["# 1.1 joined", "# ann entered room", "# bob entered room"]);
    here.leave("room", "cid");
    here.enter("hall", "cid");
    here.tell(RecordKind::Text, "room", b"hello");
    here.bus.flush();
    assert_eq!(next(2), ["# cid left room", "0.1 room hello"]);
    drop(here);
    assert_eq!(next(1), ["# 0.1 left"]);
}

/// In a namespace of its own, on a file system of its own, which is made full.
#[test]
fn a_full_disk_is_said_and_made_good() {
    let folder = TempDir::new();
    let probe = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]);
        command
    };
    std::fs::create_dir(folder.path("disk")).expect("a folder");
    let allowed = probe("mount -t tmpfs none \"$0\"").arg(folder.path("disk")).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("left out: no mounts are allowed here");
        return;
    }
    let test = child("on_a_full_disk", &folder.path("disk"));
    let mut inside = probe("mount -t tmpfs -o size=256k none \"$PERCORE_TEST_BUS\" && exec \"$0\" \"$@\"");
    inside.arg(test.get_program()).args(test.get_args()).env(FOLDER, folder.path("disk"));
    let output = inside.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
#[ignore = "a process of another test"]
fn on_a_full_disk() {
    let disk = folder_of_child();
    let path = disk.join("bus");
    let mut writer = Mirror::join(&path, TINY);
    let mut reader = Mirror::join(&path, TINY);
    reader.drain();
    // Does not look before all is over.
    let mut late = Mirror::join(&path, TINY);
    // A little is left, which the list soon wants.
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut error = None;
    for number in 0..1_000 {
        writer.enter("room", &format!("member {number:03}"));
        writer.bus.flush();
        reader.drain();
        // Who keeps up hears all of it, list or none.
        assert_eq!(reader.members("room").len(), number + 1);
        if let Some(first) = writer.bus.presence_error() {
            assert!(error.replace(first.to_string()).is_none(), "it is said once");
        }
    }
    let text = error.expect("the disk is full");
    assert!(text.contains("cannot write who is on which channel to") && text.contains("0.presence: "), "{text}");
    late.drain();
    assert_eq!((late.gaps > 0, late.members("room").len()), (true, 0), "there is no list");
    std::fs::remove_file(&filler).expect("it is there");
    let start = std::time::Instant::now();
    while late.members("room").len() < 1_000 {
        assert!(start.elapsed() < PATIENCE, "{} of them", late.members("room").len());
        writer.bus.flush();
        late.drain();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(writer.bus.presence_error().is_none());
    reader.drain();
    assert_eq!(reader.told.len(), 1_000, "what was known is no news");
    let mut last = Mirror::join(&path, TINY);
    last.drain();
    assert_eq!(last.members("room").len(), 1_000);
}
