//! The load of benches/channels, which knows no protocol: connections come subscribed, as inherited descriptors, and what is sent
//! comes on standard input. A message has `"m` and nine digits in it, which this program sets and looks for.
//!
//! ```text
//! hub-load lockstep SECONDS PUBLISHER SUBSCRIBER,...      each message is published when all subscribers have the one before
//! hub-load paced SECONDS RATE PUBLISHER SUBSCRIBER,...    so many messages a second, whatever arrives
//! hub-load requests SECONDS DEPTH CONNECTION,...          HTTP requests, so many at a time on each connection
//! hub-load recover PORT CLIENTS MESSAGES                  clients that come back at once; input: a request, 0xFF, a frame
//! ```
//! It prints a line when what is measured begins, and then a line of JSON.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);
/// What is still under way at the end of a paced run has this long to come.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);
const STALLED: Duration = Duration::from_secs(5);
const DIGITS: usize = 9;
const BUFFER_BYTES: usize = 256 * 1024;
/// Room in front of what is read, for the end of what was read before.
const TAIL_BYTES: usize = 16;
/// Clients that come back and have no answer yet.
const MOST_COMING: usize = 500;

/// What to look for.
#[derive(Clone, Copy)]
enum Sought {
    Messages,
    Answers,
}

impl Sought {
    fn start(self) -> &'static [u8] {
        match self {
            Sought::Messages => b"\"m",
            Sought::Answers => b"HTTP/1.1 ",
        }
    }

    fn length(self) -> usize {
        match self {
            Sought::Messages => 2 + DIGITS,
            Sought::Answers => 12,
        }
    }
}

struct Connection {
    stream: TcpStream,
    tail: [u8; TAIL_BYTES],
    tail_bytes: usize,
    unsent: Vec<u8>,
    sent: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection { stream, tail: [0; TAIL_BYTES], tail_bytes: 0, unsent: Vec::new(), sent: 0 }
    }

    fn inherited(descriptor: &str) -> Connection {
        let descriptor = descriptor.parse().expect("a descriptor");
        // SAFETY: whoever starts this program leaves it these descriptors and no other use of them.
        let stream = unsafe { std::net::TcpStream::from_raw_fd(descriptor) };
        stream.set_nonblocking(true).expect("a socket");
        Connection::new(TcpStream::from_std(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.flush();
    }

    fn flush(&mut self) {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server is gone: {error}"),
            }
        }
        self.unsent.clear();
        self.sent = 0;
    }

    /// Reads all there is, and hands over the numbers found. False when the connection is over.
    fn read(&mut self, buffer: &mut [u8], sought: Sought, mut found: impl FnMut(u32)) -> bool {
        loop {
            let bytes = match self.stream.read(&mut buffer[TAIL_BYTES..]) {
                Ok(0) => return false,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            let (begin, end) = (TAIL_BYTES - self.tail_bytes, TAIL_BYTES + bytes);
            buffer[begin..TAIL_BYTES].copy_from_slice(&self.tail[..self.tail_bytes]);
            let text = &buffer[begin..end];
            let (start, length) = (sought.start(), sought.length());
            let mut at = 0;
            while let Some(next) = text[at..].iter().position(|byte| *byte == start[0]) {
                at += next;
                let Some(candidate) = text.get(at..at + length) else { break };
                let number = candidate[start.len()..].iter().try_fold(0, |number, digit| {
                    digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
                });
                match number.filter(|_| candidate.starts_with(start)) {
                    Some(number) => {
                        found(number);
                        at += length;
                    }
                    None => at += 1,
                }
            }
            let rest = &text[at.max(text.len().saturating_sub(length - 1)).min(text.len())..];
            self.tail_bytes = rest.len();
            self.tail[..rest.len()].copy_from_slice(rest);
            if bytes < buffer.len() - TAIL_BYTES {
                return true;
            }
        }
    }
}

/// What is published, and where its number stands.
struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    fn read() -> Template {
        let bytes = input();
        let at = bytes.windows(2).position(|pair| pair == b"\"m").expect("a number in the template") + 2;
        Template { bytes, at }
    }

    fn number(&mut self, number: u32) -> &[u8] {
        self.bytes[self.at..self.at + DIGITS].copy_from_slice(format!("{number:0DIGITS$}").as_bytes());
        &self.bytes
    }
}

fn input() -> Vec<u8> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).expect("standard input");
    bytes
}

/// Connections, all watched.
struct Crowd {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

impl Crowd {
    fn of(connections: Vec<Connection>) -> Crowd {
        let poll = Poll::new().expect("epoll");
        let mut crowd = Crowd { poll, events: Events::with_capacity(4096), connections: Vec::new(), buffer: vec![0; BUFFER_BYTES] };
        connections.into_iter().for_each(|connection| crowd.add(connection));
        crowd
    }

    fn inherited<'a>(descriptors: impl Iterator<Item = &'a str>) -> Crowd {
        Crowd::of(descriptors.map(Connection::inherited).collect())
    }

    fn add(&mut self, mut connection: Connection) {
        let token = Token(self.connections.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, token, interest).expect("epoll");
        self.connections.push(connection);
    }

    /// The connections that are ready, for reading or writing.
    fn ready(&mut self, timeout: Duration) -> Vec<(usize, bool, bool)> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("epoll: {error}"),
            _ => {}
        }
        self.events.iter().map(|event| (event.token().0, event.is_readable(), event.is_writable())).collect()
    }
}

fn begin() -> Instant {
    println!("begin");
    Instant::now()
}

fn arguments() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// The publisher is connection 0.
fn publisher_and_subscribers<'a>(publisher: &'a str, subscribers: &'a str) -> Crowd {
    Crowd::inherited(std::iter::once(publisher).chain(subscribers.split(',')))
}

fn lockstep(seconds: Duration, publisher: &str, subscribers: &str) {
    let (mut template, mut crowd) = (Template::read(), publisher_and_subscribers(publisher, subscribers));
    let count = crowd.connections.len() - 1;
    let (mut number, mut deliveries, mut start) = (0, 0, None);
    let warm = Instant::now() + WARM_UP;
    loop {
        let now = Instant::now();
        if start.is_none() && now >= warm {
            start = Some(begin());
            deliveries = 0;
        }
        if let Some(start) = start.filter(|start| now - *start >= seconds) {
            let took = start.elapsed().as_secs_f64();
            return println!("{{\"deliveries\":{deliveries},\"seconds\":{took}}}");
        }
        number += 1;
        crowd.connections[0].send(template.number(number));
        let mut missing = count;
        while missing > 0 {
            assert!(now.elapsed() < STALLED, "{missing} of {count} never got message {number}");
            for (key, readable, writable) in crowd.ready(STALLED) {
                let Crowd { connections, buffer, .. } = &mut crowd;
                if writable {
                    connections[key].flush();
                }
                let is_open = !readable
                    || connections[key].read(buffer, Sought::Messages, |found| {
                        missing -= usize::from(key > 0 && found == number);
                    });
                assert!(is_open, "connection {key} was closed");
            }
        }
        deliveries += count;
    }
}

fn paced(seconds: Duration, rate: f64, publisher: &str, subscribers: &str) {
    let (mut template, mut crowd) = (Template::read(), publisher_and_subscribers(publisher, subscribers));
    let count = crowd.connections.len() - 1;
    let total = (rate * seconds.as_secs_f64()) as usize;
    let start = begin();
    let due = |number: usize| start + Duration::from_secs_f64(number as f64 / rate);
    let (mut published, mut delivered, mut in_time, mut closed) = (0, 0, 0, 0);
    let mut latencies = Vec::with_capacity(total * count);
    let mut ended = vec![false; count + 1];
    loop {
        let now = Instant::now();
        while published < total && due(published) <= now {
            crowd.connections[0].send(template.number(published as u32));
            published += 1;
        }
        let is_late = now >= start + seconds + LAST_DELIVERIES;
        if is_late || delivered + closed * total >= total * count {
            break;
        }
        let wait = if published < total { due(published).saturating_duration_since(now) } else { Duration::from_millis(10) };
        for (key, readable, writable) in crowd.ready(wait) {
            let Crowd { connections, buffer, .. } = &mut crowd;
            if writable && !ended[key] {
                connections[key].flush();
            }
            let now = Instant::now();
            let is_open = !readable
                || connections[key].read(buffer, Sought::Messages, |number| {
                    if key > 0 {
                        delivered += 1;
                        in_time += usize::from(now < start + seconds);
                        latencies.push((now - due(number as usize)).as_secs_f64() as f32);
                    }
                });
            if !is_open && !std::mem::replace(&mut ended[key], true) {
                closed += 1;
            }
        }
    }
    latencies.sort_unstable_by(f32::total_cmp);
    let at = |share: f64| latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1)));
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or_default());
    println!(
        "{{\"deliveries\":{in_time},\"seconds\":{},\"wanted\":{},\"delivered\":{delivered},\"closed\":{closed},\
         \"p50\":{p50},\"p99\":{p99},\"max\":{most}}}",
        seconds.as_secs_f64(),
        total * count
    );
}

fn requests(seconds: Duration, depth: usize, connections: &str) {
    let batch = input().repeat(depth);
    let mut crowd = Crowd::inherited(connections.split(','));
    let mut waiting = vec![depth; crowd.connections.len()];
    crowd.connections.iter_mut().for_each(|connection| connection.send(&batch));
    let warm = Instant::now() + WARM_UP;
    let (mut start, mut answers, mut bad) = (None, 0u64, 0u64);
    loop {
        if start.is_none() && Instant::now() >= warm {
            start = Some(begin());
            answers = 0;
        }
        if let Some(start) = start.filter(|start| start.elapsed() >= seconds) {
            let took = start.elapsed().as_secs_f64();
            return println!("{{\"answers\":{answers},\"bad\":{bad},\"seconds\":{took}}}");
        }
        for (key, readable, writable) in crowd.ready(STALLED) {
            let Crowd { connections, buffer, .. } = &mut crowd;
            let connection = &mut connections[key];
            if writable {
                connection.flush();
            }
            let is_open = !readable
                || connection.read(buffer, Sought::Answers, |status| {
                    waiting[key] -= 1;
                    answers += 1;
                    bad += u64::from(!(200..300).contains(&status));
                });
            assert!(is_open, "connection {key} was closed");
            if waiting[key] == 0 {
                waiting[key] = depth;
                connection.send(&batch);
            }
        }
    }
}

fn recover(port: &str, clients: usize, messages: usize) {
    let input = input();
    let middle = input.iter().position(|byte| *byte == 0xff).expect("two parts");
    let (request, frame) = (&input[..middle], &input[middle + 1..]);
    let addr = format!("127.0.0.1:{port}").parse().expect("a port");
    let mut crowd = Crowd::of(Vec::new());
    // What each has read so far: nothing, the answer to its request, so many messages.
    let mut got: Vec<Option<usize>> = Vec::new();
    let (mut upgraded, mut done) = (0, 0);
    let start = begin();
    let mut last = start;
    while done < clients {
        while crowd.connections.len() < clients && crowd.connections.len() - done < MOST_COMING {
            let mut connection = Connection::new(TcpStream::connect(addr).expect("a socket"));
            // Goes out once the connection is there.
            connection.unsent = request.to_vec();
            crowd.add(connection);
            got.push(None);
        }
        assert!(last.elapsed() < STALLED, "{done} of {clients} are back, {upgraded} were upgraded");
        for (key, readable, writable) in crowd.ready(STALLED) {
            last = Instant::now();
            let Crowd { connections, buffer, .. } = &mut crowd;
            if writable {
                connections[key].flush();
            }
            if !readable {
                continue;
            }
            if got[key].is_none() {
                let mut head = [0; 2048];
                let Ok(bytes) = connections[key].stream.read(&mut head) else { continue };
                assert!(head.starts_with(b"HTTP/1.1 101 ") && head[..bytes].ends_with(b"\r\n\r\n"), "no upgrade");
                upgraded += 1;
                got[key] = Some(0);
                connections[key].send(frame);
                continue;
            }
            let mut found = 0;
            let is_open = connections[key].read(buffer, Sought::Messages, |_| found += 1);
            assert!(is_open, "client {key} was closed");
            let so_far = got[key].unwrap_or_default();
            if so_far < messages && so_far + found >= messages {
                assert_eq!(so_far + found, messages, "client {key}");
                done += 1;
            }
            got[key] = Some(so_far + found);
        }
    }
    println!("{{\"seconds\":{},\"clients\":{clients}}}", start.elapsed().as_secs_f64());
}

fn main() {
    let arguments = arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let seconds = |text: &str| Duration::from_secs_f64(number(text));
    match words[..] {
        ["lockstep", time, publisher, subscribers] => lockstep(seconds(time), publisher, subscribers),
        ["paced", time, rate, publisher, subscribers] => paced(seconds(time), number(rate), publisher, subscribers),
        ["requests", time, depth, connections] => requests(seconds(time), number(depth) as usize, connections),
        ["recover", port, clients, messages] => recover(port, number(clients) as usize, number(messages) as usize),
        _ => panic!("see the beginning of benches/peers/src/bin/hub-load.rs"),
    }
}
