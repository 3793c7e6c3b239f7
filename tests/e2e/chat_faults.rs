//! Faults of `percore serve chat`: a server that stalls, clients that do not read, a bus that cannot be used.

use crate::common::chat::{Talker, in_room, start, start_on, told};
use crate::common::client::{CLOSE, TEXT};
use crate::common::{TempDir, eventually, percore, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// Of messages that are to fill sockets.
const TEXT_BYTES: usize = 60_000;

#[test]
fn a_server_that_stood_still_is_right_again() {
    let folder = TempDir::new();
    let flags = ["--bus-size", "16K", "--admin", "127.0.0.1:0"];
    let [still, other] = [(); 2].map(|()| start_on(&folder.path("bus"), &flags));
    let mut watcher = Talker::to(still.addr());
    let (me, _) = watcher.joins("garden");
    let mut talkers: Vec<Talker> = (0..20).map(|_| Talker::to(other.addr())).collect();
    let mut names = vec![me];
    for talker in &mut talkers {
        let (name, _) = talker.joins("garden");
        watcher.must_hear(&told("JoinedRoom", "garden", &name));
        names.push(name);
    }
    still.signal("STOP");
    let stopped = still.child().id();
    eventually("the stop", || crate::common::process::status(stopped, "State").starts_with('T'));
    // Nobody waits for it: some leave, one comes, and much more is said than a ring holds.
    for talker in &mut talkers[..5] {
        talker.says(&in_room("LeaveRoom", "garden"));
    }
    let mut late = Talker::to(other.addr());
    let (new, others) = late.joins("garden");
    assert_eq!(others.len(), 16);
    for number in 0..3000 {
        late.submits(&format!("number {number}"));
    }
    for number in 0..3000 {
        late.must_hear_chat(&format!("number {number}"));
    }
    still.signal("CONT");
    let line = still.wait_for_log("were overwritten before they were read");
    assert!(line.contains("a larger --bus-size"), "{line}");
    // What the watcher heard last of each.
    let mut here: BTreeSet<String> = names.iter().cloned().collect();
    let wanted: BTreeSet<String> = names[6..].iter().chain([&names[0], &new]).cloned().collect();
    while here != wanted {
        let heard = watcher.hears();
        let value: Value = serde_json::from_str(&heard).expect("JSON");
        let user = value["message"]["contents"]["user"].as_str().unwrap_or_default().to_owned();
        match value["message"]["type"].as_str() {
            Some("JoinedRoom") => assert!(here.insert(user), "{heard} is no news"),
            Some("LeftRoom") => assert!(here.remove(&user), "{heard} is no news"),
            _ => assert!(heard.contains("number"), "{heard}"),
        }
    }
    let mut asks = Talker::to(still.addr());
    assert_eq!(asks.joins("garden").1.into_iter().collect::<BTreeSet<_>>(), wanted);
    eventually("the count", || still.metric("percore_bus_records_lost_total") > 1000);
    assert_eq!(other.metric("percore_bus_records_lost_total"), 0);
}

#[test]
fn who_does_not_read_is_closed_and_leaves() {
    let folder = TempDir::new();
    let flags = ["--max-backlog", "256K", "--deflate", "off"];
    let servers = [(); 2].map(|()| start_on(&folder.path("bus"), &flags));
    let [mut near, mut far] = servers.each_ref().map(|server| Talker::to(server.addr()));
    let mut slow = Talker::to(servers[0].addr());
    let (name, _) = slow.joins("garden");
    near.joins("garden");
    far.joins("garden");
    near.hears_of("JoinedRoom", "garden");
    let (text, left) = ("x".repeat(TEXT_BYTES), told("LeftRoom", "garden", &name));
    // Each hears of it in the midst of all that is said, of which it misses nothing.
    let mut heard_of_it = [false; 2];
    for count in 0.. {
        assert!(count < 5000, "nobody is too slow");
        far.submits(&format!("{count} {text}"));
        for (talker, heard_of_it) in [&mut near, &mut far].into_iter().zip(&mut heard_of_it) {
            let mut heard = talker.hears();
            if heard == left {
                assert!(!std::mem::replace(heard_of_it, true), "told twice");
                heard = talker.hears();
            }
            assert!(heard.contains(&format!(r#""content":"{count} x"#)) && heard.contains(&text), "{count}");
        }
        if heard_of_it == [true; 2] {
            break;
        }
    }
    servers[0].wait_for_log("reads too slowly");
    assert_eq!(servers[0].count_log(": reads too slowly"), 1);
}

#[test]
fn who_does_not_read_misses_messages_if_that_is_wanted() {
    let folder = TempDir::new();
    let flags = ["--max-backlog", "256K", "--slow-consumer", "drop", "--admin", "127.0.0.1:0", "--deflate", "off"];
    let servers = [(); 2].map(|()| start_on(&folder.path("bus"), &flags));
    let [mut near, mut far] = servers.each_ref().map(|server| Talker::to(server.addr()));
    let mut slow = Talker::to(servers[0].addr());
    let (text, mut count) = ("x".repeat(TEXT_BYTES), 0);
    while servers[0].metric("percore_messages_dropped_total") < 5 {
        assert!(count < 5000, "nobody is too slow");
        far.submits(&format!("{count} {text}"));
        [&mut near, &mut far].into_iter().for_each(|talker| talker.must_hear_chat(&format!("{count} {text}")));
        count += 1;
    }
    // After this answer the counters of all passes before are shown.
    near.says("nothing that is understood");
    assert!(near.hears().contains("not-json"));
    let dropped = usize::try_from(servers[0].metric("percore_messages_dropped_total")).expect("few");
    assert!(dropped < count);
    // It reads at last: what it gets is whole and in order, and then it misses nothing any more.
    let mut next = 0;
    for _ in dropped..count {
        let heard = slow.hears();
        let value: Value = serde_json::from_str(&heard).expect("JSON");
        let content = value["message"]["contents"]["content"].as_str().expect("a chat message");
        let (number, rest) = content.split_once(' ').expect("a number and a text");
        let number: usize = number.parse().expect("a number");
        assert!((next..count).contains(&number) && rest.len() == TEXT_BYTES, "{number} after {next}");
        next = number + 1;
    }
    near.submits("at last");
    slow.must_hear_chat("at last");
}

/// Asserts that a server does not start, and says why in a line.
fn must_fail(mut command: Command, hint: &str) {
    let (code, _, error) = run({
        command.stderr(Stdio::piped());
        command
    });
    assert_eq!(code, 1, "{error}");
    assert!(error.lines().count() == 1 && error.starts_with("percore: ") && error.contains(hint), "{error}");
}

fn on(bus: &Path, flags: &[&str]) -> Command {
    let mut command = percore(&["serve", "chat", "--listen", "127.0.0.1:0", "--bus"]);
    command.arg(bus).args(flags);
    command
}

#[test]
fn a_bus_that_cannot_be_used_is_said_at_once() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    for workers in ["1", "2"] {
        let flags = ["--workers", workers, "--admin", "off"];
        std::fs::write(folder.path("file"), b"").expect("written");
        must_fail(on(&folder.path("file"), &flags), "/file: it is not a folder, or a link to one");
        must_fail(on(&folder.path("file/below"), &flags), "/file/below: Not a directory");
        // Sockets are found through the folder, so that its own name may be long.
        drop(start_on(&folder.path(&"x".repeat(200)), &flags));
        drop(start_on(&path, &["--bus-size", "4K"]));
        let file = path.join("bus");
        let mut region = std::fs::read(&file).expect("the bus");
        region[8] += 1;
        std::fs::write(&file, &region).expect("written");
        must_fail(on(&path, &flags), "it has layout version");
        std::fs::write(&file, vec![7; region.len()]).expect("written");
        must_fail(on(&path, &flags), "it is no bus of percore");
        std::fs::remove_dir_all(&path).expect("it is there");
    }
}

/// In namespaces of its own, on a file system of its own.
#[test]
fn a_full_disk_is_said_at_once() {
    let folder = TempDir::new();
    let disk = folder.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let probe = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(&disk);
        command
    };
    let allowed = probe("mount -t tmpfs none \"$0\"").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("left out: no mounts are allowed here");
        return;
    }
    for size in ["4k", "1m"] {
        let script = format!("mount -t tmpfs -o size={size} none \"$0\" && exec \"$@\"");
        let mut command = probe(&script);
        let server = on(&disk.join("bus"), &[]);
        command.arg(server.get_program()).args(server.get_args());
        must_fail(command, "/disk/bus: no room for ");
    }
}

/// What is published on a channel is bounded whatever number of clients publish; a client that says little is heard at once, and
/// the end of the process loses nothing that was taken.
#[test]
fn who_says_little_is_heard_beside_many_who_flood() {
    let flags = ["--rate-channel", "40K", "--rate-bytes", "0", "--rate-messages", "0", "--admin", "127.0.0.1:0"];
    let server = start(&flags);
    let mut listener = Talker::to(server.addr());
    let mut floods: Vec<Talker> = (0..5).map(|_| Talker::to(server.addr())).collect();
    let text = "x".repeat(TEXT_BYTES);
    for flood in &mut floods {
        for number in 0..4 {
            flood.submits(&format!("{number}{text}"));
        }
    }
    eventually("floods that wait", || server.metric("percore_publishes_delayed_total") >= 5);
    Talker::to(server.addr()).submits("a word");
    let mut long = 0;
    while !listener.hears().contains("a word") {
        long += 1;
    }
    assert!(long < 4, "{long} long messages, of a second and a half each, came before the word");
    let taken = server.metric("percore_messages_received_total");
    server.signal("TERM");
    let mut heard = long + 1;
    loop {
        let frame = listener.0.frame();
        match frame.first {
            CLOSE => break,
            first => heard += u64::from(first == TEXT),
        }
    }
    assert!(heard >= taken, "{heard} heard of {taken} that were taken");
    assert_eq!(server.wait().0, Some(0));
}
