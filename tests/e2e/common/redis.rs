//! A real Redis, and hosts that are joined by it: a bus, its bridge, and a process on the bus.

use super::{Killed, Server, TempDir, eventually, percore, process};
use percore::{Bus, BusEvent, BusOptions, Interest, Participant, Presence, Record, RecordKind};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A `redis-server` of a test's own; killed when dropped.
pub struct Redis {
    server: Killed,
    arguments: Vec<String>,
    /// Where it listens, on the loopback.
    pub port: u16,
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Redis {
    /// Starts one with further arguments, in which `PORT` stands for its port.
    pub fn start(arguments: &[&str]) -> Redis {
        // Another test may have taken the port, but not each time.
        for _ in 0..10 {
            let port = free_port();
            let arguments: Vec<String> =
                arguments.iter().map(|argument| argument.replace("PORT", &port.to_string())).collect();
            if let Some(server) = launch(&arguments, port) {
                return Redis { server, arguments, port };
            }
        }
        panic!("redis-server does not start with {arguments:?}");
    }

    /// Starts it again, where it was.
    pub fn restart(&mut self) {
        eventually("Redis on its port again", || {
            let server = launch(&self.arguments, self.port);
            server.map(|server| self.server = server).is_some()
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        process::signal(self.server.0.id(), signal);
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.server.0.wait().expect("own child");
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        let output = output.expect("redis-cli runs: tests/run installs it");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// How many are subscribed to a channel.
    pub fn subscribers(&self, channel: &str) -> u32 {
        let answer = self.cli(&["PUBSUB", "NUMSUB", channel]);
        answer.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no number: {answer}"))
    }
}

fn launch(arguments: &[String], port: u16) -> Option<Killed> {
    let mut command = Command::new("redis-server");
    if !arguments.iter().any(|argument| argument == "--port") {
        command.args(["--port", &port.to_string()]);
    }
    command.args(["--bind", "127.0.0.1", "--save", ""]).args(arguments).current_dir(std::env::temp_dir());
    ready(command)
}

/// A `redis-server` once it takes connections; none if it ends before.
pub fn ready(mut command: Command) -> Option<Killed> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut server = Killed(child.expect("redis-server runs: tests/run installs it"));
    let mut lines = BufReader::new(server.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    lines.find(|line| line.contains("eady to accept connections"))?;
    // It goes on to write, and must not fail at that.
    std::thread::spawn(move || lines.for_each(drop));
    Some(server)
}

/// Certificates: `redis.pem` with its key for `localhost` and 127.0.0.1 by the authority `ca.pem`, and an authority of others.
pub fn keys() -> TempDir {
    let folder = TempDir::new();
    let script = "
        for name in ca other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=$name \
                -keyout $name.key -out $name.pem
        done
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout redis.key -out redis.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\n' >names
        openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out redis.pem";
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder.path("")).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// This process's place on a bus.
pub struct Place {
    /// The place.
    pub bus: Bus,
    /// Who is on which channel.
    pub presence: Presence,
    /// Messages of others: of whom, on which channel, and what.
    pub messages: Vec<(Participant, String, RecordKind, Vec<u8>)>,
}

/// A host: a bus with its bridge, and this process on it.
pub struct Host {
    /// The bridge.
    pub bridge: Server,
    /// Us.
    pub place: Place,
    folder: TempDir,
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

/// The bridge of a bus in `folder`, with further flags.
pub fn bridge(folder: &TempDir, url: &str, flags: &[&str]) -> Command {
    let mut command = percore(&["bridge", "--redis", url, "--bus"]);
    command.arg(folder.path("bus")).args(flags);
    command
}

impl Host {
    /// With a bridge that is connected.
    pub fn start(url: &str, flags: &[&str]) -> Host {
        let host = Host::begin(url, flags);
        host.bridge.wait_for_log("connected to Redis");
        host
    }

    /// With a bridge that may connect or not.
    pub fn begin(url: &str, flags: &[&str]) -> Host {
        Host::begin_with(|folder| bridge(folder, url, flags))
    }

    /// With a bridge that is run in this way.
    pub fn begin_with(command: impl FnOnce(&TempDir) -> Command) -> Host {
        let folder = TempDir::new();
        let bridge = Server::launch(command(&folder), 0);
        bridge.wait_for_log("Bridge of the bus in");
        Host { bridge, place: Place::join(&folder), folder }
    }

    /// Another process on the bus.
    pub fn join(&self) -> Place {
        Place::join(&self.folder)
    }

    /// The folder in which its bus is.
    pub fn folder(&self) -> &TempDir {
        &self.folder
    }

    /// Kills its bridge.
    pub fn kill_bridge(&self) {
        self.bridge.signal("KILL");
        eventually("the bridge's end", || !process::is_alive(self.bridge.child().id()));
    }

    /// Starts its bridge anew, once it was killed.
    pub fn bridge_again(&mut self, url: &str, flags: &[&str]) {
        self.bridge = Server::launch(bridge(&self.folder, url, flags), 0);
        self.bridge.wait_for_log("connected to Redis");
    }
}

impl Place {
    fn join(folder: &TempDir) -> Place {
        let bus = Bus::join(&folder.path("bus"), BusOptions::default()).expect("a slot");
        Place { bus, presence: Presence::default(), messages: Vec::new() }
    }

    /// Says that so many are subscribed to a channel here.
    pub fn count(&mut self, channel: &str, subscribers: u32) {
        self.tell(RecordKind::Count, channel, &Interest { subscribers, listens: false }.bytes());
    }

    /// Publishes what is to be told of a channel.
    pub fn tell(&mut self, kind: RecordKind, channel: &str, payload: &[u8]) {
        self.bus.publish(Record { kind, channel: channel.as_bytes(), payload }).expect("short enough");
        self.bus.flush();
    }

    /// Waits until a condition holds, and takes meanwhile what the bus tells.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&Place) -> bool) {
        eventually(what, || {
            let Place { bus, presence, messages } = self;
            while bus.drain(|event| note(event, presence, messages)) {}
            if condition(self) {
                return true;
            }
            self.bus.wait(Some(Duration::from_millis(20))).expect("it waits");
            false
        });
    }

    /// Waits for so many messages, and gives their texts.
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        self.until(&format!("{count} messages"), |place| place.messages.len() >= count);
        let texts = self.messages.drain(..).map(|(_, _, _, payload)| payload);
        texts.map(|payload| String::from_utf8(payload).expect("text")).collect()
    }

    /// Waits until these are the members of a channel, of this process and of others.
    pub fn until_members(&mut self, channel: &str, wanted: &[&str]) {
        self.until(&format!("members {wanted:?} of {channel}"), |place| {
            place.presence.members(channel.as_bytes()).eq(wanted.iter().copied())
        });
    }
}

fn note(event: BusEvent<'_>, presence: &mut Presence, messages: &mut Vec<(Participant, String, RecordKind, Vec<u8>)>) {
    match event {
        BusEvent::Joined(_) => {}
        BusEvent::Present { from, list } => presence.replace(from, list, |_| {}),
        BusEvent::Record { from, record } if record.kind.is_presence() => presence.apply(from, record, |_| {}),
        BusEvent::Record { from, record: Record { channel, kind, payload } } => {
            messages.push((from, String::from_utf8_lossy(channel).into_owned(), kind, payload.to_vec()));
        }
        BusEvent::Gap { from, lost } => panic!("{lost} records of {from} were lost"),
        BusEvent::Left(who) => presence.remove(who, |_| {}),
        _ => panic!("{event:?}"),
    }
}
