//! Clients of `serve channels` that come back whatever happens, and a backend that counts: for tests that kill processes.

use super::channels::PATH;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// What a client makes of a channel.
#[derive(Default, Debug)]
pub struct Heard {
    /// Numbers in the order in which they came; `None` where the client was told that it may have missed some.
    pub numbers: Vec<Option<u64>>,
    pub recovered: u64,
    pub lost: u64,
}

/// A client on a thread of its own, until it hears the last number.
pub struct Follower {
    thread: JoinHandle<Heard>,
    /// Times that it subscribed.
    pub subscribed: Arc<AtomicU64>,
    addr: Arc<Mutex<SocketAddr>>,
}

/// Where a client is.
#[derive(Default)]
struct State {
    heard: Heard,
    position: Option<(String, u64)>,
}

impl Follower {
    /// Follows a channel at an address.
    pub fn of(channel: &str, addr: SocketAddr, last: u64) -> Follower {
        let (subscribed, addr) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(addr)));
        let (channel, count, place) = (channel.to_owned(), Arc::clone(&subscribed), Arc::clone(&addr));
        let thread = std::thread::spawn(move || {
            let mut state = State::default();
            loop {
                let addr = *place.lock().expect("an address");
                // The end of a connection is no reason to end.
                if let Ok(true) = state.follow(&channel, addr, last, &count) {
                    return state.heard;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Follower { thread, subscribed, addr }
    }

    /// The server is elsewhere now.
    pub fn move_to(&self, addr: SocketAddr) {
        *self.addr.lock().expect("an address") = addr;
    }

    /// What it heard, once it has heard the last number.
    pub fn heard(self) -> Heard {
        self.thread.join().expect("it follows the protocol")
    }
}

impl State {
    /// Follows on one connection. Returns whether the last number came.
    fn follow(
        &mut self,
        channel: &str,
        addr: SocketAddr,
        last: u64,
        count: &AtomicU64,
    ) -> Result<bool, tungstenite::Error> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let (mut socket, _) = tungstenite::client(format!("ws://{addr}{PATH}"), stream)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string()))?;
        self.subscribe(channel, &mut socket)?;
        loop {
            let Message::Text(text) = socket.read()? else { continue };
            for line in text.split('\n') {
                if self.hear(channel, &serde_json::from_str(line).expect("JSON"), last, count, &mut socket)? {
                    return Ok(true);
                }
            }
        }
    }

    fn subscribe(&self, channel: &str, socket: &mut WebSocket<TcpStream>) -> Result<(), tungstenite::Error> {
        let subscribe = match &self.position {
            Some((epoch, offset)) => json!({"channel": channel, "recover": true, "epoch": epoch, "offset": offset}),
            None => json!({"channel": channel}),
        };
        socket.send(Message::text(json!({"id": 2, "subscribe": subscribe}).to_string()))
    }

    fn hear(
        &mut self,
        channel: &str,
        line: &Value,
        last: u64,
        count: &AtomicU64,
        socket: &mut WebSocket<TcpStream>,
    ) -> Result<bool, tungstenite::Error> {
        if line == &json!({}) {
            socket.send(Message::text("{}"))?;
        } else if let Some(publication) = line["push"].get("pub") {
            return Ok(self.take(publication) == last);
        } else if let Some(unsubscribed) = line["push"].get("unsubscribe") {
            assert_eq!(unsubscribed["code"], 2500, "{line}");
            self.subscribe(channel, socket)?;
        } else if line["id"] == 2 && line.get("error").is_some() {
            assert_eq!(line["error"]["code"], 100, "{line}");
            std::thread::sleep(Duration::from_millis(20));
            self.subscribe(channel, socket)?;
        } else if let Some(result) = line.get("subscribe") {
            let epoch = result["epoch"].as_str().expect("an epoch").to_owned();
            let offset = result["offset"].as_u64().unwrap_or(0);
            if result["recovered"] == true {
                self.heard.recovered += 1;
                assert_eq!(self.position, Some((epoch, offset)), "{line}");
                for publication in result["publications"].as_array().into_iter().flatten() {
                    if self.take(publication) == last {
                        return Ok(true);
                    }
                }
            } else {
                if result["was_recovering"] == true {
                    self.heard.lost += 1;
                    self.heard.numbers.push(None);
                }
                self.position = Some((epoch, offset));
            }
            count.fetch_add(1, Relaxed);
        }
        Ok(false)
    }

    fn take(&mut self, publication: &Value) -> u64 {
        let (_, offset) = self.position.as_mut().expect("a position first");
        *offset += 1;
        assert_eq!(publication["offset"], *offset, "no hole, nothing twice: {publication}");
        let number = publication["data"].as_u64().expect("a number");
        self.heard.numbers.push(Some(number));
        number
    }
}

/// What a backend was answered.
#[derive(Clone, Default, Debug)]
pub struct Account {
    pub accepted: HashSet<u64>,
    /// Answered as a temporary failure.
    pub failed: HashSet<u64>,
    /// Of what became of these nobody knows: the connection broke.
    pub unknown: HashSet<u64>,
}

impl Account {
    /// Publishes a number on a channel.
    pub fn publish(&mut self, service: SocketAddr, channel: &str, number: u64) -> bool {
        let answer = post(service, "publish", &json!({"channel": channel, "data": number}));
        match answer {
            Ok(answer) if answer.get("result").is_some() => self.accepted.insert(number),
            Ok(answer) => {
                assert_eq!(answer["error"]["code"], 100, "{answer}");
                self.failed.insert(number);
                false
            }
            Err(_) => {
                self.unknown.insert(number);
                false
            }
        }
    }

    /// A follower has heard each number once, in order; all that were accepted, but where it was told that some may be missing; and
    /// none that failed. Numbers begin with 1.
    pub fn check(&self, heard: &Heard) {
        let mut next = None;
        for number in &heard.numbers {
            let Some(number) = number else {
                next = None;
                continue;
            };
            assert!(!self.failed.contains(number), "{number} was answered as failed, and was heard");
            if let Some(next) = next {
                assert!(*number >= next, "{number} comes after {next}");
                let missed: Vec<&u64> = self.accepted.iter().filter(|one| (next..*number).contains(one)).collect();
                assert!(missed.is_empty(), "{missed:?} were accepted and not heard");
            }
            next = Some(number + 1);
        }
    }
}

/// Calls a method of the API on a connection of its own.
pub fn post(service: SocketAddr, method: &str, params: &Value) -> io::Result<Value> {
    let body = params.to_string();
    let mut stream = TcpStream::connect(service)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(
        format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    serde_json::from_str(body).map_err(|_| io::ErrorKind::UnexpectedEof.into())
}
