//! What the end-to-end tests share: the server's process, raw clients, and where the independent clients are.
//!
//! Each test has its own server on a port that the kernel chose. Tests wait for conditions; [`PATIENCE`] only bounds
//! how long a failing one waits.

// Each test file is a crate of its own and uses a part of this.

pub mod browser;
pub mod channels;
pub mod chat;
pub mod client;
pub mod commands;
pub mod desk;
pub mod documents;
pub mod followers;
pub mod network;
pub mod nginx;
pub mod one;
pub mod origin;
pub mod process;
pub mod program;
pub mod redis;
pub mod relay;
pub mod service;
pub mod stories;

pub use client::Client;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long to wait for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test, with nothing of this process's environment that it would read.
pub fn percore(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_percore"));
    command.args(args);
    bare(command)
}

/// The binary under test, run by a shell after `setup`, a line such as `ulimit -n 40`.
pub fn percore_after(setup: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{setup}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_percore")]).args(args);
    bare(command)
}

/// A script of a shell in which `percore` is the binary under test, with nothing else of this process's environment. It
/// is ended with all that it has started when it takes longer than what must happen may take.
pub fn shell(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_percore")).parent().expect("a folder");
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("timeout");
    command
        .args([&PATIENCE.as_secs().to_string(), "bash", "-c", script])
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::null());
    command
}

fn bare(mut command: Command) -> Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Exit code, standard output and standard error of a command that ends by itself.
pub fn run(mut command: Command) -> (i32, String, String) {
    let output = command.stdout(Stdio::piped()).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a process's life or interrupts it: `signal` is a name such as `TERM`.
pub fn send_signal(child: &Child, signal: &str) {
    process::signal(child.id(), signal);
}

/// Waits for a process to end; its exit code, `None` when a signal ended it.
pub fn exit_code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    eventually("the process's end", || {
        status = child.try_wait().expect("own child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// A process that is killed when dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Default)]
struct LogLines {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Killed,
    /// What `--listen` came to, one for each: `127.0.0.1:1234`, `unix:PATH`.
    pub listen: Vec<String>,
    log: Arc<LogLines>,
}

impl Server {
    /// `percore serve echo` on a port of its own, with further flags.
    pub fn start(flags: &[&str]) -> Server {
        let mut args = vec!["serve", "echo", "--listen", "127.0.0.1:0"];
        args.extend_from_slice(flags);
        Server::launch(percore(&args), 1)
    }

    /// Runs `command` and waits until it listens on so many addresses.
    pub fn launch(mut command: Command, listeners: usize) -> Server {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(LogLines::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.lines.lock().expect("log").0.push(line);
                writer.more.notify_all();
            }
            writer.lines.lock().expect("log").1 = true;
            writer.more.notify_all();
        });
        let mut server = Server { child: Killed(child), listen: Vec::new(), log };
        server.wait_for(&format!("{listeners} addresses"), |lines| {
            lines.iter().filter(|line| line.contains("Starting server on ")).count() == listeners
        });
        server.listen = server.log().iter().filter_map(|line| started_on(line)).collect();
        server
    }

    /// The address of the first listener.
    pub fn addr(&self) -> SocketAddr {
        self.listen[0].parse().expect("a TCP address")
    }

    /// `ws://` and the address, with a path.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.listen[0])
    }

    /// The server's process.
    pub fn child(&self) -> &Child {
        &self.child.0
    }

    /// A connection that has said nothing yet.
    pub fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    /// A connection upgraded on `/ws`.
    pub fn open(&self) -> Client {
        self.open_with("")
    }

    /// As [`Server::open`], with further header lines, each ended by CR LF.
    pub fn open_with(&self, headers: &str) -> Client {
        let mut client = self.connect();
        client.upgrade(headers);
        client
    }

    /// The log so far, a line each.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("log").0.clone()
    }

    /// How many lines of the log contain `text`.
    pub fn count_log(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that contains `text`, and gives it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for(text, |lines| lines.iter().any(|line| line.contains(text)));
        self.log().into_iter().find(|line| line.contains(text)).expect("just seen")
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&[String]) -> bool) {
        let lines = self.log.lines.lock().expect("log");
        let unmet = |(lines, ended): &mut (Vec<String>, bool)| !condition(lines) && !*ended;
        let (lines, _) = self.log.more.wait_timeout_while(lines, PATIENCE, unmet).expect("log");
        assert!(condition(&lines.0), "in vain waited for {what} in the log:\n{}", lines.0.join("\n"));
    }

    /// The address of the admin listener, from a log of either format.
    pub fn admin(&self) -> SocketAddr {
        let line = self.wait_for_log("admin listener on ");
        let (_, admin) = line.split_once("admin listener on ").expect("just found");
        admin.trim_end_matches(['"', '}']).parse().expect("an address")
    }

    /// A metric of a server with an admin listener, the sum over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = Client::connect(self.admin()).get("/metrics").body;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(!lines.is_empty(), "no {name} in\n{text}");
        lines.iter().filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// Sends a signal: `TERM`, `INT`.
    pub fn signal(&self, signal: &str) {
        send_signal(&self.child.0, signal);
    }

    /// Waits for the server to end by itself: its exit code and its whole log.
    pub fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let code = exit_code(&mut self.child.0);
        let lines = self.log.lines.lock().expect("log");
        let (lines, _) = self.log.more.wait_timeout_while(lines, PATIENCE, |(_, ended)| !*ended).expect("log");
        let log = lines.0.clone();
        drop(lines);
        (code, log)
    }

    /// Stops the server by SIGTERM: its exit code and its whole log.
    pub fn stop(self) -> (Option<i32>, Vec<String>) {
        self.signal("TERM");
        self.wait()
    }

    /// Asserts that the server still serves.
    pub fn assert_alive(&self) {
        assert_eq!(self.connect().get("/healthz").status, 200);
        assert_eq!(self.open().echo("alive"), "alive");
    }
}

fn started_on(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Starting server on ")?;
    rest.split_once("...").map(|(addr, _)| addr.to_owned())
}

/// A folder of a test's own, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    /// An empty folder with a short path, as unix sockets need one.
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("percore-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        TempDir(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that `tests/run` installs, by its path in `tests/.tools`.
pub fn tool(path: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools").join(path);
    assert!(tool.exists(), "{} is missing: run tests/run, which installs it", tool.display());
    tool
}
