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

use percore::os::cpus;
use percore::{Bus, BusEvent, BusOptions, Record};
use redis::{Publisher, Redis, Subscriber};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long each is measured.
const TIME: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["publish", path, cpu, bytes, batch] => publish(path, number(cpu), number(bytes), number(batch)),
        ["answer", path, cpu, spins] => answer(path, number(cpu), spins == "spin"),
        ["redis-publish", socket, cpu, bytes, batch] => {
            redis_publish(socket, number(cpu), number(bytes), number(batch))
        }
        ["redis-answer", socket, cpu] => redis_answer(socket, number(cpu)),
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
    for (bytes, batch) in [(100, 32), (100, 1), (1024, 32), (1024, 1), (65536, 8)] {
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
        let child = this_program(arguments[0], &folder, &arguments[1..]);
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

fn this_program(part: &str, path: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.arg(part).arg(path).args(arguments).stdin(Stdio::null());
    command.spawn().expect("it runs")
}

/// Records a second that come here, and how many were lost.
fn throughput(cpu: usize, bytes: usize, batch: usize) -> (f64, u64) {
    let mut pair = Pair::start(&["publish", &cpu.to_string(), &bytes.to_string(), &batch.to_string()]);
    let (mut records, mut lost, mut start) = (0u64, 0, None);
    loop {
        pair.bus.drain(|event| match event {
            BusEvent::Record { record: Record { payload, .. }, .. } => {
                black_box(payload);
                records += 1;
            }
            BusEvent::Gap { lost: missing, .. } => lost += missing,
            BusEvent::Joined(_) | BusEvent::Present { .. } | BusEvent::Left(_) => {}
        });
        match start {
            None if records > 0 => {
                (start, records, lost) = (Some(Instant::now()), 0, 0);
            }
            None => pair.bus.take_news().expect("it polls"),
            Some(start) if start.elapsed() >= TIME => return (records as f64 / start.elapsed().as_secs_f64(), lost),
            Some(_) => {}
        }
    }
}

/// The child's part: publishes as much as the reader takes.
fn publish(path: &str, cpu: usize, bytes: usize, batch: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let mut bus = Bus::join(path.as_ref(), BusOptions::default()).expect("a bus");
    let folder = percore::os::bus::Folder::open(path.as_ref(), BusOptions::default()).expect("a bus");
    let (head, cursor) =
        (folder.region().ring(bus.me().slot as usize).head, folder.region().cursor(0, bus.me().slot as usize));
    let (payload, room) = (vec![7; bytes], (folder.ring_bytes() / 8 / 2) as u64);
    loop {
        for _ in 0..batch {
            bus.publish(Record::binary("c", &payload)).expect("short enough");
        }
        bus.flush();
        while head.load(Relaxed) > cursor.load(Relaxed) + room {
            std::hint::spin_loop();
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
    let row = |name: &str, unit: &str, measured: Vec<[f64; 2]>| {
        let of = |value: &dyn Fn(&[f64; 2]) -> f64| spread(measured.iter().map(value).collect());
        let ratio = of(&|[bus, redis]| if unit == "M/s" { bus / redis } else { redis / bus });
        println!("| {name} | {} | {} | {ratio} |", of(&|pair| pair[0]), of(&|pair| pair[1]));
    };
    println!("Redis {}, {rounds} rounds in turns; medians (from, to)\n", redis::version());
    println!("| records | bus, M/s | Redis, M/s | times as many |\n|---|---|---|---|");
    for bytes in [100, 1024] {
        let pair = |_| [throughput(theirs, bytes, 32).0 / 1e6, redis_throughput(theirs, ours, bytes, 32) / 1e6];
        row(&format!("{bytes} B, published by 32"), "M/s", (0..rounds).map(pair).collect());
    }
    println!("\n| round trip | bus, µs | Redis, µs | times as long |\n|---|---|---|---|");
    for (name, cpu, spins) in [
        ("parked, one core", ours, false),
        ("parked, two cores", theirs, false),
        ("bus spinning, two cores", theirs, true),
    ] {
        let pair = |_| [round_trip(cpu, spins), redis_round_trip(cpu, ours)];
        row(name, "µs", (0..rounds).map(pair).collect());
    }
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}, {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Ends a child when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages a second that come here by Redis, which has a core to itself.
fn redis_throughput(cpu: usize, ours: usize, bytes: usize, batch: usize) -> f64 {
    let redis = Redis::start(cpu, ours);
    let mut subscriber = Subscriber::new(&redis.socket(), 'c', bytes);
    let arguments = [ours, bytes, batch].map(|number| number.to_string());
    let _child = Ended(this_program("redis-publish", &redis.socket(), &arguments.each_ref().map(String::as_str)));
    subscriber.wait();
    let (start, mut messages) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        messages += subscriber.read();
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

/// The child's part: publishes as much as Redis takes.
fn redis_publish(socket: &str, cpu: usize, bytes: usize, batch: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let window: usize = std::env::var("WINDOW").map_or(32, |w| w.parse().unwrap());
    let mut publisher = Publisher::new(socket.as_ref(), 'c', &vec![7; bytes], batch);
    if window == 0 {
        publisher = publisher.without_replies();
    }
    let mut ahead = 0;
    loop {
        publisher.publish();
        if window > 0 {
            ahead += 1;
            if ahead > window {
                publisher.read_replies(4 * batch);
                ahead -= 1;
            }
        }
    }
}

/// Median of the time until an answer is here by Redis, in microseconds. Redis is on the core of the child.
fn redis_round_trip(cpu: usize, ours: usize) -> f64 {
    let redis = Redis::start(cpu, ours);
    let mut answers = Subscriber::new(&redis.socket(), 'b', 4);
    let mut questions = Publisher::new(&redis.socket(), 'a', b"ping", 1).without_replies();
    // It asks first, so that it is known to listen.
    let _child = Ended(this_program("redis-answer", &redis.socket(), &[&cpu.to_string()]));
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
fn redis_answer(socket: &str, cpu: usize) {
    cpus::pin(cpu).expect("it is allowed");
    let mut questions = Subscriber::new(socket.as_ref(), 'a', 4);
    let mut answers = Publisher::new(socket.as_ref(), 'b', b"pong", 1).without_replies();
    loop {
        answers.publish();
        questions.wait();
    }
}
