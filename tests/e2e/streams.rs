//! No command fails because of its standard streams: each is run with standard output and standard error that are
//! closed or full. None panics, and the exit code is that of the work.

use crate::common::process;
use crate::common::service::Service;
use crate::common::{Killed, Server, TempDir, eventually, exit_code, percore};
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// A stream that is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    /// A pipe that nobody reads.
    Unread,
    /// It takes nothing.
    Full,
    /// It is not open.
    Closed,
}

impl Stream {
    fn open(self) -> Stdio {
        match self {
            Stream::Unread => Stdio::from(OwnedFd::from(pipe().expect("a pipe").1)),
            Stream::Full | Stream::Closed => {
                Stdio::from(File::options().write(true).open("/dev/full").expect("it is there"))
            }
        }
    }
}

/// A command, and what becomes of it as a rule.
struct Case<'a> {
    args: Vec<String>,
    input: &'static str,
    /// None for one that runs until it is told to end.
    code: Option<i32>,
    /// Whether it writes to standard output.
    prints: bool,
    /// Whose client it is; it is told to end once it is connected.
    server: Option<&'a Server>,
}

/// Whether a process takes SIGTERM.
fn takes_term(pid: u32) -> bool {
    u64::from_str_radix(&process::status(pid, "SigCgt"), 16).is_ok_and(|caught| caught >> 14 & 1 == 1)
}

fn upgrades(server: Option<&Server>) -> u64 {
    server.map_or(0, |server| server.metric("percore_upgrades_total"))
}

impl Case<'_> {
    fn command(&self, stream: Stream, number: u8) -> Command {
        if stream != Stream::Closed {
            let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
            return percore(&args);
        }
        let mut command = crate::common::percore_after(&format!("exec {number}>&-"), &[]);
        command.args(&self.args);
        command
    }

    /// Runs it with a useless standard output (1) or standard error (2): the exit code and what the other stream got.
    fn run(&self, stream: Stream, number: u8) -> (Option<i32>, String) {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut command = self.command(stream, number);
        command.stdin(Stdio::piped());
        match number {
            1 => command.stdout(stream.open()).stderr(writer),
            _ => command.stdout(writer).stderr(stream.open()),
        };
        let before = upgrades(self.server);
        let mut child = Killed(command.spawn().expect("it starts"));
        drop(command);
        let mut input = child.0.stdin.take().expect("piped");
        // It may have ended.
        let _ = input.write_all(self.input.as_bytes());
        drop(input);
        if self.code.is_none() {
            let pid = child.0.id();
            eventually("that it takes signals", || !process::is_alive(pid) || takes_term(pid));
            eventually("that it is connected", || self.server.is_none() || upgrades(self.server) > before);
            process::signal(pid, "TERM");
        }
        let code = exit_code(&mut child.0);
        let status = child.0.wait().expect("own child");
        assert_eq!(status.signal(), None, "{:?} with {stream:?} {number}", self.args);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("text");
        (code, said)
    }

    fn check(&self) {
        let code = Some(self.code.unwrap_or(0));
        for stream in [Stream::Unread, Stream::Full, Stream::Closed] {
            for number in [1, 2] {
                let (ended, said) = self.run(stream, number);
                let what = format!("{:?} with {stream:?} {number}: {said}", self.args);
                assert!(
                    !said.contains("panicked") && !said.contains("os error") && !said.contains("Broken pipe"),
                    "{what}"
                );
                if (stream, number, self.prints) == (Stream::Full, 1, true) {
                    assert_eq!(ended, Some(1), "{what}");
                    assert!(said.contains("standard output: No space left on device"), "{what}");
                } else {
                    assert_eq!(ended, code, "{what}");
                }
            }
        }
    }
}

fn case<'a>(args: &[&str], code: Option<i32>, prints: bool) -> Case<'a> {
    Case { args: args.iter().map(|arg| (*arg).to_owned()).collect(), input: "", code, prints, server: None }
}

fn check(cases: &[Case<'_>]) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| case.check());
        }
    });
}

#[test]
fn texts_that_are_asked_for() {
    let mut cases = vec![
        case(&["--version"], Some(0), true),
        case(&["--help"], Some(0), true),
        case(&["help"], Some(0), true),
        case(&["help", "serve", "echo"], Some(0), true),
        case(&[], Some(2), false),
        case(&["serve"], Some(2), false),
        case(&["nonsense"], Some(2), false),
        case(&["serve", "echo", "--nonsense"], Some(2), false),
        case(&["worker", "echo"], Some(1), false),
    ];
    for command in ["serve", "bench", "client", "bus", "bridge", "reload", "healthcheck"] {
        cases.push(case(&[command, "--help"], Some(0), true));
        cases.push(case(&[command, "--version"], Some(0), true));
    }
    for command in
        ["serve echo", "serve chat", "serve ticker", "bench echo", "bench idle", "bench connect", "bench fanout"]
    {
        cases.push(case(&command.split(' ').chain(["--help"]).collect::<Vec<_>>(), Some(0), true));
    }
    check(&cases);
}

#[test]
fn servers() {
    let folder = TempDir::new();
    let bus = folder.path("bus").display().to_string();
    check(&[
        case(&["serve", "echo", "--listen", "0"], None, false),
        case(&["serve", "chat", "--listen", "0"], None, false),
        case(&["serve", "ticker", "--listen", "0", "--log-format", "json"], None, false),
        case(&["serve", "echo", "--listen", "0", "--workers", "2", "--admin", "0"], None, false),
        case(&["bridge", "--bus", &bus, "--redis", "redis://127.0.0.1:1"], None, false),
        case(&["bridge", "--bus", &bus, "--redis", "nowhere"], Some(2), false),
    ]);
}

#[test]
fn load() {
    let server = Server::start(&[]);
    let url = server.url("/");
    let short = ["--connections", "2", "--duration", "20ms", "--warmup", "0"];
    let bench =
        |workload: &str, more: &[&str]| case(&[&["bench", workload, &url], &short[..], more].concat(), Some(0), true);
    check(&[bench("echo", &[]), bench("echo", &["--json", "-"]), bench("idle", &[]), bench("connect", &[])]);
}

#[test]
fn clients() {
    let echo = Server::start(&[]);
    let ticker = Server::launch(percore(&["serve", "ticker", "--listen", "0", "--admin", "0"]), 1);
    let mut prices = case(&["client", &ticker.url("/"), "AAPL", "--json"], None, true);
    prices.server = Some(&ticker);
    let mut said = case(&["client", &echo.url("/"), "-E"], Some(0), true);
    said.input = "hello\n";
    check(&[
        said,
        prices,
        case(&["client", "ws://127.0.0.1:1/"], Some(1), false),
        case(&["client", "nowhere"], Some(2), false),
    ]);
}

#[test]
fn those_that_ask() {
    let folder = TempDir::new();
    let bus = folder.path("bus").display().to_string();
    let mut chat = percore(&["serve", "chat", "--listen", "0", "--bus", &bus]);
    chat.env("PERCORE_LOG_LEVEL", "info");
    let chat = Server::launch(chat, 1);
    let service = Service::start("2", &[]);
    let (health, admin) = (format!("http://{}", chat.listen[0]), service.admin.to_string());
    check(&[
        case(&["bus", "status", &bus], Some(0), true),
        case(&["bus", "publish", &bus, "news", "hello"], Some(0), false),
        case(&["bus", "tail", &bus, "--timeout", "10ms"], Some(0), true),
        case(&["bus", "status", "/no/such/bus"], Some(1), false),
        case(&["healthcheck", &health], Some(0), false),
        case(&["healthcheck", "http://127.0.0.1:1"], Some(1), false),
        case(&["reload", "--admin", "127.0.0.1:1"], Some(1), false),
    ]);
    // What was done was done, whether or not anybody hears of it.
    case(&["reload", "--admin", &admin], Some(0), false).check();
}
