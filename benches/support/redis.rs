//! A Redis of its own, without persistence, on TCP and a unix socket, and clients of its pub/sub that do as little as can be.
//!
//! The subscriber counts messages by their bytes, as all of them have one length; publishers have Redis send no replies
//! where they would only throw them away.

use percore::internal::os::cpus;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A Redis that is up within this time is waited for.
const STARTS_IN: Duration = Duration::from_secs(10);
const SETTINGS: [&str; 10] = [
    "--save",
    "",
    "--appendonly",
    "no",
    "--loglevel",
    "warning",
    // A subscriber may fall behind; Redis would end it.
    "--client-output-buffer-limit",
    "pubsub 0 0 0",
    "--unixsocketperm",
    "700",
];

/// How clients connect to it.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// As in the settings that come with it.
    Tcp,
    /// By a unix socket.
    Unix,
}

/// Ends when dropped.
pub struct Redis {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Redis {
    /// Starts one that runs on one processor. This thread is on another afterwards.
    pub fn start(cpu: usize, own_cpu: usize) -> Redis {
        let folder = std::env::temp_dir().join(format!("percore-bench-redis-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        // It keeps the processors of the thread that starts it.
        cpus::pin(cpu).expect("it is allowed");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|any| any.local_addr()).expect("a port").port();
        let mut command = Command::new("redis-server");
        command.args(SETTINGS).arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1"]);
        command.arg("--dir").arg(&folder).arg("--unixsocket").arg(folder.join("socket"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("redis-server is installed");
        cpus::pin(own_cpu).expect("it is allowed");
        let redis = Redis { child, folder, port };
        let end = Instant::now() + STARTS_IN;
        while UnixStream::connect(redis.folder.join("socket")).is_err() {
            assert!(Instant::now() < end, "redis-server does not listen in {}", redis.folder.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    /// Where it listens: a path, or a host and port.
    pub fn address(&self, way: Way) -> String {
        match way {
            Way::Tcp => format!("127.0.0.1:{}", self.port),
            Way::Unix => self.folder.join("socket").display().to_string(),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Version of the program.
pub fn version() -> String {
    let said = Command::new("redis-server").arg("--version").output().expect("redis-server is installed").stdout;
    let said = String::from_utf8_lossy(&said);
    said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("unknown").to_owned()
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(address: &str) -> Box<dyn Stream> {
    if address.starts_with('/') {
        return Box::new(UnixStream::connect(address).expect("Redis listens"));
    }
    let stream = TcpStream::connect(address).expect("Redis listens");
    stream.set_nodelay(true).expect("it is TCP");
    Box::new(stream)
}

fn exchange(stream: &mut dyn Stream, command: &[u8], answer: &[u8]) {
    stream.write_all(command).expect("it takes it");
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got).expect("it answers");
    assert_eq!(got, answer, "{}", String::from_utf8_lossy(&got));
}

/// The command that publishes a payload on a channel of one letter.
fn command(channel: char, payload: &[u8]) -> Vec<u8> {
    let head = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\n{channel}\r\n${}\r\n", payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

/// Publishes the same message again and again.
pub struct Publisher {
    stream: Box<dyn Stream>,
    commands: Vec<u8>,
}

impl Publisher {
    /// So many messages with each write.
    pub fn new(address: &str, channel: char, payload: &[u8], batch: usize) -> Publisher {
        Publisher { stream: connect(address), commands: command(channel, payload).repeat(batch) }
    }

    /// Has no replies sent from now on.
    pub fn without_replies(mut self) -> Publisher {
        // This one has none itself.
        self.stream.write_all(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n").expect("it takes it");
        self
    }

    /// Sends a batch.
    pub fn publish(&mut self) {
        self.stream.write_all(&self.commands).expect("it takes it");
    }

    /// Reads so many replies.
    pub fn read_replies(&mut self, count: usize) {
        // Each says that one subscriber has got it.
        let mut replies = vec![0; count * b":1\r\n".len()];
        self.stream.read_exact(&mut replies).expect("it replies");
    }
}

/// Counts the messages of one channel, all of one length.
pub struct Subscriber {
    stream: Box<dyn Stream>,
    message_bytes: usize,
    buffer: Vec<u8>,
    /// Bytes of a message that is not whole yet.
    rest: usize,
}

impl Subscriber {
    /// Subscribed when this returns.
    pub fn new(address: &str, channel: char, payload_bytes: usize) -> Subscriber {
        let mut stream = connect(address);
        let subscribe = format!("*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\n{channel}\r\n");
        let answer = format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{channel}\r\n:1\r\n");
        exchange(&mut *stream, subscribe.as_bytes(), answer.as_bytes());
        let head = format!("*3\r\n$7\r\nmessage\r\n$1\r\n{channel}\r\n${payload_bytes}\r\n");
        let message_bytes = head.len() + payload_bytes + 2;
        Subscriber { stream, message_bytes, buffer: vec![0; 256 * 1024], rest: 0 }
    }

    /// Waits for messages, and says how many came.
    pub fn read(&mut self) -> u64 {
        loop {
            match self.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    let read = read.expect("it reads");
                    assert!(read > 0, "Redis ended the connection");
                    self.rest += read;
                    let messages = self.rest / self.message_bytes;
                    self.rest %= self.message_bytes;
                    return messages as u64;
                }
            }
        }
    }

    /// Waits for at least one message.
    pub fn wait(&mut self) {
        while self.read() == 0 {}
    }
}
