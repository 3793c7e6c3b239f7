//! A ticker feed under many clients: `percore serve ticker` on one core, its clients on another.
//!
//! cargo build --release && cargo bench --bench ticker

use percore::internal::apps::ticker::wire::{Request as TickerRequest, Wire};
use percore::internal::os::cpus;
use percore::{App, Client, ConnectionId, Message, Outbox, Request, Target};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CLIENTS: u64 = 10_000;
const SYMBOLS: usize = 8;
const TICK: Duration = Duration::from_millis(100);
/// Connections that are being opened at a time.
const OPENING: u64 = 200;
/// Left out at the beginning, and then counted.
const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(10);

fn main() {
    let cpus = cpus::allowed().expect("a mask");
    let (ours, theirs) = (cpus[cpus.len() - 1], cpus[0]);
    cpus::pin(ours).expect("it is allowed");
    println!("{CLIENTS} clients x {SYMBOLS} symbols, a tick each {TICK:?}");
    println!(
        "| subscriptions | prices a second | messages a second | of those due | server's core |\n|---|---|---|---|---|"
    );
    for distinct in [1, 100, CLIENTS] {
        measure(theirs, distinct);
    }
}

/// The server; killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it on a core; and where it listens.
    fn start(cpu: usize) -> (Server, String) {
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string(), concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/percore")]);
        command.args(["serve", "ticker", "--listen", "127.0.0.1:0", "--tick", &format!("{}ms", TICK.as_millis())]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("cargo build --release comes first");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let addr = lines.find_map(|line| {
            let (_, rest) = line.split_once("Starting server on ")?;
            Some(rest.trim_end_matches('.').to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        (Server(child), addr.expect("it listens"))
    }

    /// Processor time so far.
    fn busy(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        // Behind the name come the state and others; utime and stime are in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let time = |at: usize| fields[at].parse::<u64>().expect("a number");
        Duration::from_millis((time(12) + time(13)) * 10)
    }
}

/// Clients of which each wants one of so many sets of symbols.
struct Clients {
    distinct: u64,
    opened: u64,
    messages: u64,
    bytes: u64,
    /// From when on it counts, and the messages then.
    from: Option<Duration>,
    server: Server,
    busy: Duration,
}

impl App for Clients {
    type State = ();

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) {
        let set = request.tag() % self.distinct;
        let tickers = (0..SYMBOLS as u64).map(|number| format!("S{}", (set * 7 + number * (1 + set / 97)) % 5_000));
        let wish = TickerRequest { id: String::new(), tickers: tickers.collect() };
        out.send_text(id, &Wire::TickerRequest(wish).write());
        if self.opened < CLIENTS {
            out.connect(0, self.opened);
            self.opened += 1;
        }
    }

    fn on_message(&mut self, _: ConnectionId, _: &mut (), message: Message<'_>, _: &mut Outbox) {
        self.messages += 1;
        self.bytes += message.len() as u64;
    }

    fn on_tick(&mut self, now: Duration, out: &mut Outbox) -> Option<Duration> {
        if self.opened == 0 {
            self.opened = OPENING;
            (0..OPENING).for_each(|tag| out.connect(0, tag));
        } else if self.from.is_none() && out.stats().open == CLIENTS {
            self.from = Some(now + WARM_UP);
        } else if let Some(from) = self.from.filter(|from| now >= *from) {
            if self.busy.is_zero() {
                (self.messages, self.busy) = (0, self.server.busy());
            } else if now >= from + TIME {
                let (busy, rate) = (self.server.busy() - self.busy, self.messages as f64 / TIME.as_secs_f64());
                println!(
                    "| {} | {:.0} | {rate:.0} | {:.3} | {:.0} % |",
                    self.distinct,
                    rate * SYMBOLS as f64,
                    rate * TICK.as_secs_f64() / CLIENTS as f64,
                    busy.as_secs_f64() * 100.0 / TIME.as_secs_f64()
                );
                out.stop();
                return None;
            }
        }
        Some(now + Duration::from_millis(10))
    }
}

fn measure(cpu: usize, distinct: u64) {
    let (server, addr) = Server::start(cpu);
    let clients = Clients { distinct, opened: 0, messages: 0, bytes: 0, from: None, server, busy: Duration::ZERO };
    let target = Target::parse(&format!("ws://{addr}/")).expect("a URL");
    Client::new(clients).target(target).drain_timeout(Duration::from_millis(500)).run().expect("it runs");
}
