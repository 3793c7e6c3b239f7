//! The bus from process to process: records a second, and the time of a round trip. Each is measured between this process
//! and a child on another core, over a bus in /dev/shm.
//!
//! cargo bench --bench bus
//!
//! The same beside the pub/sub of a Redis, in turns, which `benches/bus-redis` runs:
//!
//! cargo bench --bench bus -- redis [ROUNDS]

#[path = "support/redis.rs"]
mod redis;

use percore::internal::os::cpus;
use percore::{Bus, BusEvent, BusOptions, Record};
use redis::{Publisher, Redis, Subscriber, Way};
use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long each is measured.
const TIME: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
/// Records that are written to Redis at a time, and so many times before the replies to the first are read. With fewer, or
/// without replies, it is slower.
const BATCH: usize = 32;
const PIPELINED: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["publish", path, cpu, bytes, batch] => publish(path, number(cpu), number(bytes), number(batch)),
        ["answer", path, cpu, spins] => answer(path, number(cpu), spins == "spin"),
        ["redis-publish", address, cpu, bytes] => redis_publish(address, number(cpu), number(bytes)),
        ["redis-answer", address, cpu] => redis_answer(address, number(cpu)),
        ["redis"] => beside_redis(ROUNDS),
        ["redis", rounds] => beside_redis(number(rounds)),
        _ => measure(),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn measure() {
    let cpus = cpus::allowed().expect("a mask");
    let (ours, theirs) = (cpus[cpus.len() - 1], cpus[0]);
    cpus::pin(ours).expect("it is allowed");
    println!("| records | a second | GB/s | lost |\n|---|---|---|---|");
    for (bytes, batch) in [(100, 1), (100, 32), (100, 256), (1024, 1), (1024, 32), (65536, 8)] {
        let mut rounds: Vec<(f64, u64)> = (0..ROUNDS).map(|_| throughput(theirs, bytes, batch)).collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, lost) = rounds[ROUNDS / 2];
        println!("| {bytes} B, published by {batch} | {rate:.0} | {:.1} | {lost} |", rate * bytes as f64 / 1e9);
    }
    println!("\n| round trip | median |\n|---|---|");
    for (name, cpu, spins) in
        [("parked, one core", ours, false), ("parked, two cores", theirs, false), ("spinning, two cores", theirs, true)]
    {
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round_trip(cpu, spins)).collect();
        rounds.sort_by(f64::total_cmp);
        println!("| {name} | {:.2} µs |", rounds[ROUNDS / 2]);
    }
}

/// A folder, removed when dropped, with a child on it.
struct Pair {
    folder: PathBuf,
    child: Child,
    bus: Bus,
}

impl Pair {
    fn start(arguments: &[&str]) -> Pair {
        let folder = PathBuf::from(format!("/dev/shm/percore-bench-{}", std::process::id()));
        let bus = Bus::join(&folder, BusOptions::default()).expect("a bus");
        let child = this_program(arguments[0], folder.to_str().expect("plain"), &arguments[1..]);
        Pair { child, folder, bus }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn this_program(part: &str, path: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.arg(part).arg(path).args(arguments).stdin(Stdio::null());
    command.spawn().expect("it runs")
}

/// Records a second that come here, and how many were lost.
fn throughput(cpu: usize, bytes: usize, batch: usize) -> (f64, u64) {
    let mut pair = Pair::start(&["publish", &cpu.to_string(), &bytes.to_string(), &batch.to_string()]);
    let (mut records, mut lost, mut start, mut passes) = (0u64, 0, None, 0u32);
    loop {
        pair.bus.drain(|event| match event {
            BusEvent::Record { record: Record { payload, .. }, .. } => {
                black_box(payload);
                records += 1;
            }
            BusEvent::Gap { lost: missing, .. } => lost += missing,
            _ => {}
        });
        passes += 1;
        match start {
            None if records > 0 => {
                (start, records, lost) = (Some(Instant::now()), 0, 0);
            }
            None => pair.bus.take_news().expect("it polls"),
            Some(start) if passes % 64 == 0 && start.elapsed() >= TIME => {
                return (records as f64 / start.elapsed().as_secs_f64(), lost);
            }
            Some(_) => {}
        }
    }
}

/// The child's part: publishes as much as the reader takes.
fn publish(path: &str, cpu: usize, bytes: usize, batch: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let mut bus = Bus::join(path.as_ref(), BusOptions::default()).expect("a bus");
    let folder = percore::internal::os::bus::Folder::open(path.as_ref(), BusOptions::default()).expect("a bus");
    let (head, cursor) =
        (folder.region().ring(bus.me().slot as usize).head, folder.region().cursor(0, bus.me().slot as usize));
    let (payload, room) = (vec![7; bytes], (folder.ring_bytes() / 8 / 2) as u64);
    let (mut limit, parent) = (0, parent_id());
    loop {
        for _ in 0..batch {
            bus.publish(Record::binary("c", &payload)).expect("short enough");
        }
        bus.flush();
        // The reader writes its cursor all the time, so it is looked at only when it has to be.
        while head.load(Relaxed) > limit {
            limit = cursor.load(Relaxed) + room;
            if parent_id() != parent {
                return;
            }
        }
    }
}

/// Median of the time until an answer is here, in microseconds.
fn round_trip(cpu: usize, spins: bool) -> f64 {
    let mut pair = Pair::start(&["answer", &cpu.to_string(), if spins { "spin" } else { "park" }]);
    let (end, mut times) = (Instant::now() + TIME, Vec::new());
    while pair.bus.others().next().is_none() {
        pair.bus.wait(None).expect("it waits");
    }
    pair.bus.drain(|_| {});
    while Instant::now() < end {
        let start = Instant::now();
        pair.bus.publish(Record::binary("c", b"ping")).expect("short");
        pair.bus.flush();
        hear(&mut pair.bus, spins);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Waits for a message.
fn hear(bus: &mut Bus, spins: bool) {
    let mut heard = false;
    loop {
        bus.drain(|event| heard |= matches!(event, BusEvent::Record { .. }));
        if heard {
            return;
        }
        if !spins {
            bus.wait(None).expect("it waits");
        }
    }
}

/// The child's part: answers each message.
fn answer(path: &str, cpu: usize, spins: bool) {
    cpus::pin(cpu).expect("it is allowed");
    let mut bus = Bus::join(path.as_ref(), BusOptions::default()).expect("a bus");
    loop {
        hear(&mut bus, spins);
        bus.publish(Record::binary("c", b"pong")).expect("short");
        bus.flush();
    }
}

/// The bus and Redis in turns; a table of the medians, and of the medians of each round's ratio.
fn beside_redis(rounds: usize) {
    let cpus = cpus::allowed().expect("a mask");
    let (ours, theirs) = (cpus[cpus.len() - 1], cpus[0]);
    cpus::pin(ours).expect("it is allowed");
    println!("Redis {}, {rounds} rounds in turns; medians (least to most)\n", redis::version());
    println!("| records | bus, M/s | Redis by TCP | times as many | Redis by unix socket | times as many |");
    println!("|---|---|---|---|---|---|");
    for (bytes, batch) in [(100, 32), (100, 256), (1024, 32), (1024, 256)] {
        let of_redis = |way| redis_throughput(theirs, ours, way, bytes) / 1e6;
        let round = |_| [throughput(theirs, bytes, batch).0 / 1e6, of_redis(Way::Tcp), of_redis(Way::Unix)];
        row(&format!("{bytes} B, published by {batch}"), (0..rounds).map(round).collect(), |bus, redis| bus / redis);
    }
    println!("\n| round trip | bus, µs | Redis by TCP | times as long | Redis by unix socket | times as long |");
    println!("|---|---|---|---|---|---|");
    let ways = [
        ("parked, one core", ours, false),
        ("parked, two cores", theirs, false),
        ("bus spins, two cores", theirs, true),
    ];
    for (name, cpu, spins) in ways {
        let of_redis = |way| redis_round_trip(cpu, ours, way);
        let round = |_| [round_trip(cpu, spins), of_redis(Way::Tcp), of_redis(Way::Unix)];
        row(name, (0..rounds).map(round).collect(), |bus, redis| redis / bus);
    }
}

/// A row of what was measured in each round: by the bus, by Redis and TCP, by Redis and a unix socket.
fn row(name: &str, measured: Vec<[f64; 3]>, ratio: fn(f64, f64) -> f64) {
    let of = |value: &dyn Fn(&[f64; 3]) -> f64| spread(measured.iter().map(value).collect());
    let ratio_to = |which: usize| of(&|round| ratio(round[0], round[which]));
    let [bus, tcp, unix] = [0, 1, 2].map(|which| of(&|round| round[which]));
    println!("| {name} | {bus} | {tcp} | {} | {unix} | {} |", ratio_to(1), ratio_to(2));
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Ends a child when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages a second that come here by Redis, which has a core to itself; the publisher shares ours.
fn redis_throughput(cpu: usize, ours: usize, way: Way, bytes: usize) -> f64 {
    let redis = Redis::start(cpu, ours);
    let address = redis.address(way);
    let mut subscriber = Subscriber::new(&address, 'c', bytes);
    let _child = Ended(this_program("redis-publish", &address, &[&ours.to_string(), &bytes.to_string()]));
    subscriber.wait();
    let (start, mut messages) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        messages += subscriber.read();
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

/// The child's part: publishes as much as Redis takes.
fn redis_publish(address: &str, cpu: usize, bytes: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let mut publisher = Publisher::new(address, 'c', &vec![7; bytes], BATCH);
    (0..PIPELINED).for_each(|_| publisher.publish());
    loop {
        publisher.publish();
        publisher.read_replies(BATCH);
    }
}

/// Median of the time until an answer is here by Redis, in microseconds. Redis is on the core of the child.
fn redis_round_trip(cpu: usize, ours: usize, way: Way) -> f64 {
    let redis = Redis::start(cpu, ours);
    let address = redis.address(way);
    let mut answers = Subscriber::new(&address, 'b', 4);
    let mut questions = Publisher::new(&address, 'a', b"ping", 1).without_replies();
    // An answer without a question says that it listens.
    let _child = Ended(this_program("redis-answer", &address, &[&cpu.to_string()]));
    answers.wait();
    let (end, mut times) = (Instant::now() + TIME, Vec::new());
    while Instant::now() < end {
        let start = Instant::now();
        questions.publish();
        answers.wait();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The child's part: answers each message.
fn redis_answer(address: &str, cpu: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let mut questions = Subscriber::new(address, 'a', 4);
    let mut answers = Publisher::new(address, 'b', b"pong", 1).without_replies();
    loop {
        answers.publish();
        questions.wait();
    }
}
