//! The bus between real processes: participants join and leave in every way, and every loss is counted.

use crate::common::{Killed, TempDir, eventually, percore, process, run};
use percore::{Bus, BusEvent, BusOptions, Participant, PublishError, Record};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SMALL: BusOptions = BusOptions { slots: 8, ring_bytes: 64 << 10, mode: 0o600 };

/// An event that owns what it tells.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Joined(Participant),
    Message(Participant, String, String),
    Gap(Participant, u64),
    Left(Participant),
}

/// None for the list of a participant, which is empty in all these tests.
fn owned(event: BusEvent<'_>) -> Option<Event> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    Some(match event {
        BusEvent::Joined(who) => Event::Joined(who),
        BusEvent::Record { from, record } => Event::Message(from, text(record.channel), text(record.payload)),
        BusEvent::Present { list, .. } => {
            assert!(list.is_empty(), "nobody is on a channel");
            return None;
        }
        BusEvent::Gap { from, lost } => Event::Gap(from, lost),
        BusEvent::Left(who) => Event::Left(who),
        _ => panic!("{event:?}"),
    })
}

/// Waits until `count` events have come.
fn events(bus: &mut Bus, count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    eventually(&format!("{count} events"), || {
        while bus.drain(|event| all.extend(owned(event))) {}
        if all.len() < count {
            bus.wait(Some(Duration::from_millis(100))).expect("it waits");
        }
        all.len() >= count
    });
    all
}

fn message(from: Participant, channel: &str, payload: &str) -> Event {
    Event::Message(from, channel.to_owned(), payload.to_owned())
}

/// `percore bus publish DIR CHANNEL`, which publishes what is written to it.
fn publisher(folder: &Path, channel: &str) -> Killed {
    let mut command = percore(&["bus", "publish"]);
    command.arg(folder).arg(channel).stdin(Stdio::piped());
    Killed(command.spawn().expect("it runs"))
}

#[test]
fn two_hear_each_other_in_order() {
    let folder = TempDir::new();
    let mut first = Bus::join(&folder.path("bus"), SMALL).expect("a bus");
    let mut second = Bus::join(&folder.path("bus"), BusOptions::default()).expect("the same");
    let (one, two) = (first.me(), second.me());
    assert_eq!((one.slot, two.slot), (0, 1));
    assert_eq!(second.others().collect::<Vec<_>>(), [one]);
    assert_eq!(events(&mut first, 1), [Event::Joined(two)]);
    assert!(!second.park(), "it has still to hear who is there");
    assert_eq!(events(&mut second, 1), [Event::Joined(one)]);
    for number in 0..100 {
        first.publish(Record::binary("a", number.to_string().as_bytes())).expect("short");
    }
    assert!(!second.drain(|event| panic!("{event:?} before it was shown")));
    first.flush();
    second.publish(Record::binary("b", b"hello")).expect("short");
    second.flush();
    let wanted: Vec<Event> = (0..100).map(|number| message(one, "a", &number.to_string())).collect();
    assert_eq!(events(&mut second, 100), wanted);
    assert_eq!(events(&mut first, 1), [message(two, "b", "hello")]);
    drop(second);
    assert_eq!(events(&mut first, 1), [Event::Left(two)]);
    assert_eq!(first.others().count(), 0);
    let third = Bus::join(&folder.path("bus"), SMALL).expect("a free slot");
    assert_eq!(third.me(), Participant { slot: 1, generation: two.generation + 1 });
    assert_eq!(events(&mut first, 1), [Event::Joined(third.me())]);
}

#[test]
fn who_reads_too_slowly_is_told_how_much_was_lost() {
    let folder = TempDir::new();
    let mut slow = Bus::join(&folder.path("bus"), SMALL).expect("a bus");
    let mut fast = Bus::join(&folder.path("bus"), SMALL).expect("the same");
    fast.publish(Record::binary("n", b"0")).expect("short");
    fast.flush();
    let from = fast.me();
    assert_eq!(events(&mut slow, 2), [Event::Joined(from), message(from, "n", "0")]);
    for number in 1..=10_000 {
        fast.publish(Record::binary("n", number.to_string().as_bytes())).expect("short");
        fast.flush();
    }
    let (mut next, mut lost) = (1, 0);
    while next <= 10_000 {
        for event in events(&mut slow, 1) {
            match event {
                Event::Gap(_, count) => {
                    (next, lost) = (next + count, lost + count);
                }
                Event::Message(_, _, payload) => {
                    assert_eq!(payload, next.to_string());
                    next += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(lost > 5_000, "the ring holds a part of them");
}

#[test]
fn what_is_too_long_is_an_error_to_its_sender() {
    let folder = TempDir::new();
    let mut bus = Bus::join(&folder.path("bus"), SMALL).expect("a bus");
    let Err(PublishError::TooLong { limit }) = bus.publish(Record::binary("c", &[0; 20_000])) else {
        panic!("it is too long")
    };
    assert!(limit < 16 << 10);
    assert_eq!(bus.publish(Record::binary("c", &vec![0; limit - 1])), Ok(()));
    assert_eq!(bus.publish(Record::binary(&"c".repeat(70_000), b"")), Err(PublishError::ChannelTooLong));
}

#[test]
fn a_killed_participant_is_noticed_at_once() {
    let folder = TempDir::new();
    let mut bus = Bus::join(&folder.path("bus"), SMALL).expect("a bus");
    let mut killed = publisher(&folder.path("bus"), "c");
    let [Event::Joined(who)] = events(&mut bus, 1)[..] else { panic!("someone joins") };
    let mut input = killed.0.stdin.take().expect("piped");
    input.write_all(b"last words\n").expect("it reads");
    assert_eq!(events(&mut bus, 1), [message(who, "c", "last words")]);
    process::signal(killed.0.id(), "KILL");
    // Woken by the end of its connection, not by a timer.
    bus.wait(Some(crate::common::PATIENCE)).expect("it waits");
    assert_eq!(events(&mut bus, 1), [Event::Left(who)]);
}

/// Publishers count, and are killed at any time, hundreds of them: what comes of each is 1, 2, 3 and so on, with gaps that
/// are told; each is noticed, each slot is used again, and nobody passes for someone else.
#[test]
fn hundreds_of_kills_leave_no_trace() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut bus = Bus::join(&path, SMALL).expect("a bus");
    let mut counts: HashMap<Participant, u64> = HashMap::new();
    let (mut left, mut messages, mut lost) = (0, 0, 0);
    for round in 0..70u32 {
        let running: Vec<(Killed, Killed)> = (0..3)
            .map(|_| {
                let mut numbers =
                    Command::new("seq").args(["1", "100000000"]).stdout(Stdio::piped()).spawn().expect("seq runs");
                let input = numbers.stdout.take().expect("piped");
                let mut command = percore(&["bus", "publish"]);
                command.arg(&path).arg("count").stdin(input);
                (Killed(command.spawn().expect("it runs")), Killed(numbers))
            })
            .collect();
        let target = messages + u64::from(round % 7) * 100 + 1;
        let mut here = 0;
        let mut take = |bus: &mut Bus, messages: &mut u64, here: &mut i32| {
            let more = bus.drain(|event| match owned(event) {
                None => {}
                Some(Event::Joined(who)) => {
                    *here += 1;
                    assert!(counts.insert(who, 0).is_none(), "{who} joins once");
                }
                Some(Event::Message(who, _, payload)) => {
                    let count = counts.get_mut(&who).expect("it joined, and has not left");
                    *count += 1;
                    *messages += 1;
                    assert_eq!(payload, count.to_string(), "of {who}");
                }
                Some(Event::Gap(who, missing)) => {
                    lost += missing;
                    *counts.get_mut(&who).expect("it joined, and has not left") += missing;
                }
                Some(Event::Left(who)) => {
                    left += 1;
                    *here -= 1;
                    assert!(counts.remove(&who).is_some(), "{who} leaves once");
                }
            });
            if !more {
                bus.wait(Some(Duration::from_millis(100))).expect("it waits");
            }
        };
        eventually("messages of a round", || {
            take(&mut bus, &mut messages, &mut here);
            messages >= target && here == 3
        });
        for (publisher, _) in &running {
            process::signal(publisher.0.id(), "KILL");
        }
        eventually("the end of a round", || {
            take(&mut bus, &mut messages, &mut here);
            here == 0
        });
        drop(running);
    }
    assert_eq!(left, 210);
    let next = Bus::join(&path, SMALL).expect("slots are free again");
    assert_eq!(next.me().slot, 1);
    println!("{messages} messages, {lost} lost and told");
}

#[test]
fn an_idle_bus_wakes_nobody() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let mut bus = Bus::join(&path, SMALL).expect("a bus");
    let mut command = percore(&["bus", "tail"]);
    let mut tail = Killed(command.arg(&path).arg("seen").stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut lines = BufReader::new(tail.0.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert_eq!(lines.next().expect("a line"), "# joined as 1.1");
    assert_eq!(lines.next().expect("a line"), "# 0.1 joined");
    assert_eq!(events(&mut bus, 1).len(), 1);
    let mut switches = 0;
    eventually("a process at rest", || {
        std::mem::replace(&mut switches, process::context_switches(tail.0.id())) == switches
    });
    // Records that were not shown wake nobody; nor does a second look.
    bus.publish(Record::binary("seen", b"now")).expect("short");
    assert!(bus.park());
    bus.unpark();
    assert_eq!(process::context_switches(tail.0.id()), switches);
    bus.flush();
    assert_eq!(lines.next().expect("a line"), "0.1 seen now");
}

#[test]
fn the_commands() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let bus = |args: &[&str]| {
        let mut command = percore(&["bus", args[0]]);
        command.arg(&path).args(&args[1..]);
        run(command)
    };
    let (code, _, error) = bus(&["status"]);
    assert_eq!((code, error.contains("there is no bus in")), (1, true), "{error}");
    let mut here = Bus::join(&path, SMALL).expect("a bus");
    assert_eq!(bus(&["publish", "news", "hello\nworld"]), (0, String::new(), String::new()));
    let came = events(&mut here, 3);
    assert_eq!(came[1], message(Participant { slot: 1, generation: 1 }, "news", "hello\nworld"));
    let mut command = percore(&["bus", "tail"]);
    command.arg(&path).args(["news", "--count", "2"]).stdout(Stdio::piped());
    let tail = command.spawn().expect("it runs");
    assert_eq!(events(&mut here, 1), [Event::Joined(Participant { slot: 1, generation: 2 })]);
    for (channel, text) in [("news", "one"), ("other", "no"), ("news", "two")] {
        here.publish(Record::text(channel, text)).expect("short");
    }
    here.flush();
    let output = tail.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "# joined as 1.2\n# 0.1 joined\n0.1 news one\n0.1 news two\n");
    let (code, status, _) = bus(&["status"]);
    let words: Vec<Vec<&str>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
    let pid = std::process::id().to_string();
    assert_eq!((code, words[0].join(" ")), (0, "1 of 8 slots taken, rings of 65536 bytes".to_owned()));
    assert_eq!(words[2], ["0.1", &pid, "3", "0", "0"]);
}

#[test]
fn what_is_no_bus_is_said_to_be_none() {
    let folder = TempDir::new();
    let path = folder.path("bus");
    let join = || Bus::join(&path, SMALL).map(|_| ()).expect_err("it is no bus").to_string();
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("bus"), b"something else").expect("written");
    assert!(join().contains("failed to fill whole buffer"), "{}", join());
    std::fs::write(path.join("bus"), [b'x'; 10_000]).expect("written");
    assert!(join().contains("it is no bus of percore"), "{}", join());
    std::fs::remove_file(path.join("bus")).expect("it is there");
    drop(Bus::join(&path, SMALL).expect("a bus"));
    let file = std::fs::File::options().write(true).open(path.join("bus")).expect("it is there");
    file.set_len(100_000).expect("cut");
    assert!(join().contains("it has 100000 bytes, not the"), "{}", join());
    drop(file);
    std::fs::remove_file(path.join("bus")).expect("it is there");
    let all: Vec<Bus> = (0..8).map(|_| Bus::join(&path, SMALL).expect("a slot")).collect();
    assert!(join().contains("all 8 slots of the bus in"), "{}", join());
    drop(all);
    let odd = BusOptions { ring_bytes: 5000, ..SMALL };
    let error = Bus::join(&folder.path("odd"), odd).map(|_| ()).expect_err("no power of two").to_string();
    assert!(error.contains("a ring of 5000 bytes: give a power of two"), "{error}");
    let deep = folder.path(&"x".repeat(120));
    // Longer than the path of a socket may be.
    drop(Bus::join(&deep, SMALL).expect("a bus"));
}

#[test]
fn its_files_belong_to_the_user() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new();
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for (name, options, file, dir) in
        [("own", SMALL, 0o600, 0o700), ("group", BusOptions { mode: 0o660, ..SMALL }, 0o660, 0o770)]
    {
        let path = folder.path(name);
        let _bus = Bus::join(&path, options).expect("a bus");
        assert_eq!((mode(&path.join("bus")), mode(&path.join("0.sock"))), (file, file));
        assert_eq!(mode(&path) & dir, mode(&path), "no more than {dir:o}");
    }
}
