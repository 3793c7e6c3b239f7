//! `percore client` without tickers: lines in, messages out; its handshake, its end; over TLS; and on a terminal.

use crate::common::nginx::{Rendered, instances};
use crate::common::program::Program;
use crate::common::{PATIENCE, Server, TempDir, percore, process, run, tool};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

fn client(args: &[&str]) -> Program {
    Program::start(percore(&[&["client"], args].concat()))
}

/// What comes of a whole input.
fn talk(args: &[&str], input: &[u8]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let mut client = client(args);
    let (mut writer, input) = (client.take_input(), input.to_vec());
    let types = std::thread::spawn(move || {
        // It may have ended before it has read all.
        let _ = writer.write_all(&input);
    });
    let ended = client.ends();
    types.join().expect("typed");
    ended
}

/// A server of one connection, as a thread has it.
fn serving(serve: impl FnOnce(WebSocket<std::net::TcpStream>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        serve(tungstenite::accept(stream).expect("an upgrade"));
    });
    url
}

#[test]
fn each_line_is_a_message() {
    let server = Server::start(&[]);
    let url = server.url("/");
    let input = "one\n\ntwo\r\nh\u{e9} \u{1f980}\nno newline";
    let (code, out, err) = talk(&[&url, "-E"], input.as_bytes());
    assert_eq!(code, Some(0), "{err:?}");
    assert_eq!(out, ["one", "", "two", "h\u{e9} \u{1f980}", "no newline"]);
    assert_eq!(err, [format!("percore: connected to {url}"), "percore: closed with 1000".to_owned()]);
    // Nothing to say is said well, too.
    assert_eq!(talk(&[&url, "--exit-on-eof"], b"").0, Some(0));
    let (_, out, _) = talk(&[&url, "-E", "--json"], b"say \"hi\"\n\x7f");
    assert_eq!(out, [r#"{"type":"text","data":"say \"hi\""}"#, r#"{"type":"text","data":"\u007f"}"#]);
    let (code, out, _) = talk(&[&url, "-E", "--binary"], b"\x00\xffz\n");
    assert_eq!((code, &out[..]), (Some(0), &["[binary, 3 bytes] 00 ff 7a".to_owned()][..]));
    let (_, out, _) = talk(&[&url, "-E", "--binary", "--json"], b"\x00\xffz\n");
    assert_eq!(out, [r#"{"type":"binary","data":"AP96"}"#]);
    let (code, out, err) = talk(&[&url, "-E"], b"good\n\xff\nbetter\n");
    assert_eq!((code, &out[..]), (Some(1), &["good".to_owned(), "better".to_owned()][..]));
    assert!(err.last().is_some_and(|line| line.contains("not valid UTF-8 and was not sent")), "{err:?}");
    server.assert_alive();
}

#[test]
fn much_comes_back_whole_and_in_order() {
    let lines: Vec<String> = (0..100_000).map(|n| format!("line {n}")).chain([" x".repeat(1 << 20)]).collect();
    let input = lines.join("\n");
    for (serve, talk_as) in [("off", &["--deflate=off"][..]), ("takeover", &["--deflate=takeover"])] {
        let server = Server::start(&["--deflate", serve, "--max-message", "16M"]);
        let (code, out, err) = talk(&[&[server.url("/").as_str(), "-E"], talk_as].concat(), input.as_bytes());
        assert_eq!(code, Some(0), "{err:?}");
        assert!(out == lines, "{} of {} lines", out.len(), lines.len());
    }
}

#[test]
fn what_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let args = ["-H", "X-One: 1", "--header", "X-Two: a:b", "--header", "Host: elsewhere"];
    let more = ["--subprotocol", "a", "--subprotocol", "b", "--origin", "https://page.example", "--deflate"];
    let url = format!("ws://{addr}/path?query");
    let client = client(&[&[url.as_str()], &args[..], &more].concat());
    let (stream, _) = listener.accept().expect("a client");
    let head: Vec<String> =
        BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    assert_eq!(head[0], "GET /path?query HTTP/1.1");
    for line in
        ["Host: elsewhere", "X-One: 1", "X-Two: a:b", "Sec-WebSocket-Protocol: a, b", "Origin: https://page.example"]
    {
        assert_eq!(head.iter().filter(|sent| *sent == line).count(), 1, "{line}: {head:?}");
    }
    assert!(head.iter().any(|line| line.starts_with("Sec-WebSocket-Extensions: permessage-deflate")), "{head:?}");
    drop(stream);
    let (code, _, err) = client.ends();
    assert_eq!(code, Some(1));
    assert!(err[0].contains("stream ended before the handshake's answer"), "{err:?}");
}

#[test]
fn what_a_server_refuses_is_said() {
    let server = Server::start(&["--origin", "https://good.example", "--subprotocol", "echo", "--path", "/ws"]);
    let url = server.url("/ws");
    let (code, _, err) = talk(&[&url, "-E", "--origin", "https://good.example", "--subprotocol", "echo"], b"x");
    assert_eq!((code, &err[0]), (Some(0), &format!("percore: connected to {url}, subprotocol echo")));
    let (code, _, err) = talk(&[&url, "-E", "--origin", "https://bad.example"], b"x");
    assert_eq!(
        (code, &err[..]),
        (
            Some(1),
            &[format!("percore: {url}: the server answered the upgrade with status 403: This Origin may not connect.")]
                [..]
        )
    );
    let (code, _, err) = talk(&[&server.url("/elsewhere"), "-E"], b"x");
    assert!(code == Some(1) && err[0].ends_with("status 404: Nothing is here."), "{err:?}");
    let nobody = crate::common::nginx::free_addr();
    let (code, _, err) = talk(&[&format!("ws://{nobody}"), "-E"], b"x");
    assert_eq!((code, &err[..]), (Some(1), &[format!("percore: ws://{nobody}: Connection refused")][..]));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", silent.local_addr().expect("bound"));
    let (code, _, err) = talk(&[&url, "--connect-timeout", "100ms"], b"x");
    assert!(code == Some(1) && err[0].ends_with("handshake not answered in time"), "{err:?}");
}

#[test]
fn how_a_server_ends_it() {
    let closing = |code: u16, reason: &'static str| {
        let url = serving(move |mut socket| {
            let _ = socket.read();
            let _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
            while socket.read().is_ok() {}
        });
        talk(&[&url], b"hello\n")
    };
    for (code, exit) in [(1000, 0), (1001, 0), (1011, 1), (4000, 1)] {
        let (got, _, err) = closing(code, "enough");
        let last = err.last().expect("a line");
        assert_eq!(got, Some(exit), "{code}: {err:?}");
        assert!(last.ends_with(&format!("closed with {code}: enough")), "{last}");
        assert!(!err.iter().any(|line| line.contains("before all of the input")), "{err:?}");
    }
    // A reason does not tell a terminal what to do.
    let (_, _, err) = closing(4000, "\x1b]0;a title\x07\u{9b}2J");
    assert!(
        err.last().is_some_and(|line| line.ends_with(r": closed with 4000: \u{1b}]0;a title\u{7}\u{9b}2J")),
        "{err:?}"
    );
    // Without a code (1005), and without a Close frame (1006).
    let url = serving(|mut socket| {
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    });
    let (code, _, err) = talk(&[&url], b"");
    assert_eq!((code, err[1].as_str()), (Some(0), "percore: closed with 1005"));
    let url = serving(|mut socket| drop(socket.read()));
    let (code, _, err) = talk(&[&url], b"hello\n");
    assert!(
        code == Some(1) && err.iter().any(|line| line.contains("without a Close frame") || line.contains("reset")),
        "{err:?}"
    );
}

#[test]
fn after_the_input_it_goes_on_until_somebody_closes() {
    let server = Server::start(&[]);
    let mut talker = client(&[&server.url("/")]);
    talker.types("last words\n");
    drop(talker.take_input());
    talker.shows("last words", 1);
    assert_eq!(server.stop().0, Some(0));
    let (code, _, err) = talker.ends();
    assert_eq!(code, Some(0));
    assert_eq!(err.last().map(String::as_str), Some("percore: closed with 1001: server is going away"));
    for signal in ["INT", "TERM"] {
        let server = Server::start(&["--log-format", "json"]);
        let mut talker = client(&[&server.url("/")]);
        talker.types("hello\n");
        talker.shows("hello", 1);
        talker.signal(signal);
        let (code, _, err) = talker.ends();
        assert_eq!((code, err.last().map(String::as_str)), (Some(0), Some("percore: closed with 1000")));
        let line = server.wait_for_log(r#""event":"close""#);
        assert!(line.contains(r#""code":1000,"#), "{line}");
    }
}

#[test]
fn answers_that_come_while_it_closes_are_shown() {
    let url = serving(|mut socket| {
        while let Ok(message) = socket.read() {
            if message.is_close() {
                break;
            }
            // Long after the client has begun to close.
            std::thread::sleep(Duration::from_millis(100));
            for n in 0..3 {
                let _ = socket.send(Message::text(format!("{n}: {message}")));
            }
        }
        while socket.read().is_ok() {}
    });
    let (code, out, err) = talk(&[&url, "-E"], b"ask\n");
    assert_eq!(code, Some(0), "{err:?}");
    assert_eq!(out, ["0: ask", "1: ask", "2: ask"]);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let server = Server::start(&["--heartbeat", "0"]);
    let mut talker = client(&[&server.url("/"), "--ping-interval", "50ms", "--ping-timeout", "300ms"]);
    talker.types("hello\n");
    talker.shows("hello", 1);
    server.signal("STOP");
    let (code, _, err) = talker.ends();
    server.signal("CONT");
    assert_eq!(code, Some(1));
    assert!(err.last().is_some_and(|line| line.contains("nothing came for 0.")), "{err:?}");
}

/// Writes until nothing more is taken for a second: how many bytes.
fn fill(mut writer: impl Write + AsFd, chunk: &[u8], most: usize) -> usize {
    rustix::io::ioctl_fionbio(writer.as_fd(), true).expect("a pipe");
    let mut written = 0;
    while written < most {
        match writer.write(chunk) {
            Ok(bytes) => written += bytes,
            Err(_) => {
                let mut ready = [rustix::event::PollFd::new(&writer, rustix::event::PollFlags::OUT)];
                let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
                if rustix::event::poll(&mut ready, Some(&second)).expect("poll") == 0 {
                    break;
                }
            }
        }
    }
    written
}

#[test]
fn input_waits_for_a_slow_server() {
    let server = Server::start(&["--heartbeat", "0"]);
    let mut talker = client(&[&server.url("/"), "-E", "--ping-interval", "0"]);
    talker.types("hello\n");
    talker.shows("hello", 1);
    server.signal("STOP");
    let line = [&b"0123456789".repeat(99)[..], b"abcdefghi\n"].concat();
    let input = talker.take_input();
    let most = 256 << 20;
    let written = fill(&input, &line, most);
    assert!(written < most / 4, "{written} bytes were taken");
    let memory = process::status(talker.child().id(), "VmRSS");
    let kilobytes: u64 = memory.trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kilobytes < 64 << 10, "{memory}");
    server.signal("CONT");
    drop(input);
    let (code, out, err) = talker.ends();
    assert_eq!(code, Some(0), "{err:?}");
    // The last line may have been cut by the pipe's end.
    let came: usize = out.iter().skip(1).map(|line| line.len() + 1).sum();
    assert_eq!(came - usize::from(written % line.len() != 0), written);
}

#[test]
fn a_line_that_is_too_long_and_input_that_was_not_sent() {
    let server = Server::start(&[]);
    let (code, out, err) =
        talk(&[&server.url("/"), "-E", "--max-message", "1000"], &[b"fine\n", &[b'x'; 2000][..]].concat());
    assert_eq!((code, &out[..]), (Some(1), &["fine".to_owned()][..]));
    assert!(err.last().is_some_and(|line| line.contains("longer than --max-message, 1000 bytes")), "{err:?}");
    let mut talker = client(&[&server.url("/"), "--max-message", "1000"]);
    talker.types("x".repeat(2000));
    let (code, _, err) = talker.ends();
    assert!(code == Some(1) && err.iter().any(|line| line.contains("longer than --max-message")), "{err:?}");
    // The server closes before it has read.
    let (sender, receiver) = mpsc::channel();
    let url = serving(move |mut socket| {
        let () = receiver.recv_timeout(PATIENCE).expect("told to go on");
        let _ = socket.close(None);
        while socket.read().is_ok() {}
    });
    let mut talker = client(&[&url]);
    let mut input = talker.take_input();
    let (line, most) = (b"0123456789abcde\n".repeat(4096), 256 << 20);
    assert!(fill(&input, &line, most) < most);
    sender.send(()).expect("it listens");
    talker.says("the connection ended before all of the input was sent", 1);
    let _ = input.flush();
    assert_eq!(talker.ends().0, Some(0));
}

#[test]
fn what_is_wrong_on_the_command_line() {
    for (args, hint) in [
        (&["http://x/"][..], "'http' is not a scheme"),
        (&["localhost"], "give ws://HOST:PORT/PATH, wss://"),
        (&["ws://me:secret@x/"], "give them as a header"),
        (&["ws://x/", "--header", "no colon"], "Name: value"),
        (&["ws://x/", "--header", "Upgrade: x"], "the handshake sets Upgrade itself"),
        (&["ws://x/", "--header", "Sec-WebSocket-Protocol: x"], "--subprotocol"),
        (&["ws://x/", "--subprotocol", "a b"], "not a token"),
        (&["ws://x/", "--origin", "page.example"], "SCHEME://HOST"),
        (&["ws://x/", "--ca", "/tmp/x"], "wss://"),
        (&["wss://x/", "--ca", "/no/such/file"], "/no/such/file"),
        (&["ws://x/", "--ping-interval", "5s", "--ping-timeout", "5s"], "--ping-timeout"),
        (&["ws://x/", "--connect-timeout", "0"], "--connect-timeout"),
        (&["ws://x/", "--ping", "1s"], "TICKER"),
        (&["ws://x/", "-k"], "--insecure is for TLS"),
        (&["wss://x/", "-k", "--ca", "x"], "cannot be used with"),
        (&["ws://x/", "AAPL", "--ping", "0"], "--ping"),
        (&["ws://x/", "AAPL", "--binary"], "--binary is for a conversation"),
        (&["ws://x/", "AAPL", "-E"], "--exit-on-eof"),
        (&["ws://x/", "AAPL", "--no-history"], "--no-history"),
        (&[], "URL"),
    ] {
        let (code, out, err) = run({
            let mut command = percore(&[&["client"], args].concat());
            command.stderr(Stdio::piped());
            command
        });
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(hint), "{args:?}: {err}");
    }
}

/// Certificates for 127.0.0.1 by an authority, and another authority.
fn certificates(ip: &str) -> TempDir {
    let keys = TempDir::new();
    let script = format!(
        "curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        for name in ca other; do
            openssl req -x509 $curve -days 30 -subj /CN=$name -keyout $name.key -out $name.pem
        done
        printf 'subjectAltName=IP:{ip}\\n' >names
        openssl req $curve -subj /CN=server -keyout privkey.pem -out server.csr
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out fullchain.pem"
    );
    let output = Command::new("sh").args(["-ec", &script]).current_dir(keys.path("")).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    keys
}

#[test]
fn over_tls() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.0/8", "--max-message", "16M"]);
    let ip = crate::common::nginx::own_ips()[0].to_string();
    let keys = certificates(&ip);
    let folder = [("/etc/nginx/tls/", keys.path("").display().to_string())];
    let nginx = Rendered::new("tls.conf", &[&instances(server.addr(), server.addr())[..], &folder].concat()).start();
    let (url, ca) = (format!("wss://{}/ws", nginx.files.tls_addr), keys.path("ca.pem").display().to_string());
    let (code, out, err) = talk(&[&url, "-E", "--ca", &ca], b"secret\n");
    assert_eq!((code, &out[..]), (Some(0), &["secret".to_owned()][..]), "{err:?}");
    assert_eq!(err.last().map(String::as_str), Some("percore: closed with 1000"));

    // More than any buffer on the way takes.
    let lines: Vec<String> = (0..50_000).map(|n| format!("line {n}")).chain(["y".repeat(3 << 20)]).collect();
    let (code, out, err) = talk(&[&url, "-E", "--ca", &ca], lines.join("\n").as_bytes());
    assert_eq!(code, Some(0), "{err:?}");
    assert!(out == lines, "{} of {} lines", out.len(), lines.len());

    let other = keys.path("other.pem").display().to_string();
    let (code, _, err) = talk(&[&url, "-E", "--ca", &other], b"secret\n");
    assert_eq!(code, Some(1));
    assert!(err[0].contains("signed by itself, or by an authority that is not trusted"), "{err:?}");
    // Load over TLS: exactly as many messages as were asked for, and none without trust.
    for (trust, exit, messages) in [(["--ca", &ca], 0, 50), (["--ca", &other], 1, 0)] {
        let mut bench = percore(&["bench", "echo", &url, "-c", "4", "-n", "50", "--json", "-", "--quiet"]);
        bench.args(trust);
        let (code, json, err) = run(bench);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((code, json["messages"].as_u64()), (exit, Some(messages)), "{json:#}{err}");
    }
    let (code, _, err) = run(percore(&["bench", "echo", &url, "-c", "4", "-n", "50", "-k"]));
    assert_eq!(code, 0, "{err}");
    // What the system trusts, by the variable that says so for all programs.
    for (trusted, exit) in [(&ca, 0), (&other, 1)] {
        let mut command = percore(&["client", &url, "-E"]);
        command.env("SSL_CERT_FILE", trusted);
        let mut talker = Program::start(command);
        drop(talker.take_input());
        assert_eq!(talker.ends().0, Some(exit));
    }
    // The same server by a name that is not in its certificate.
    let (wrong, plain) = (certificates("192.0.2.1"), format!("wss://{}/", server.addr()));
    for name in ["privkey.pem", "fullchain.pem", "ca.pem"] {
        std::fs::copy(wrong.path(name), keys.path(name)).expect("copied");
    }
    nginx.reload();
    let (code, _, err) = talk(&[&url, "-E", "--ca", &ca], b"secret\n");
    assert!(code == Some(1) && err[0].contains("the certificate is for another host: for "), "{err:?}");
    // And one that does not speak TLS.
    let (code, _, err) = talk(&[&plain, "-E", "--ca", &ca], b"secret\n");
    assert!(code == Some(1) && err[0].contains("not TLS: the server may speak plain ws:// there"), "{err:?}");
    assert!(!nginx.access_log().is_empty());
}

#[test]
fn on_a_terminal() {
    let (echo, folder) = (Server::start(&[]), TempDir::new());
    let feed = Server::launch(percore(&["serve", "ticker", "--listen", "127.0.0.1:0", "--tick", "100ms"]), 1);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/terminal.py");
    let mut python = Command::new(tool("venv/bin/python"));
    let hostile = || {
        serving(|mut socket| {
            let _ = socket.send(Message::text("\x1b[31mred\r\u{9b}2J"));
            while socket.read().is_ok() {}
        })
    };
    python.arg(script).arg(env!("CARGO_BIN_EXE_percore")).args([echo.url("/"), feed.url("/"), hostile(), hostile()]);
    python.arg(folder.path(""));
    python.stderr(Stdio::piped());
    let (code, out, err) = run(python);
    assert_eq!(code, 0, "{out}{err}");
}
