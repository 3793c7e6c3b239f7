//! `percore client` and its surroundings: streams without a reader or that do not block, signals, the environment.

use crate::common::program::Program;
use crate::common::{Killed, Server, eventually, exit_code, percore, run, send_signal};
use rustix::io::{ioctl_fionbio, ioctl_fionread};
use std::io::{PipeReader, Read, Write, pipe};
use std::net::TcpListener;
use std::process::Stdio;
use tungstenite::Message;

/// What a pipe holds.
const PIPE_BYTES: u64 = 64 * 1024;

/// A server whose one client gets a message that no pipe holds.
fn flooding() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut socket = tungstenite::accept(stream).expect("an upgrade");
        let _ = socket.send(Message::text("x".repeat(1 << 20)));
        while socket.read().is_ok() {}
    });
    url
}

fn is_full(reader: &PipeReader) -> bool {
    ioctl_fionread(reader).expect("a pipe") == PIPE_BYTES
}

#[test]
fn a_second_signal_ends_it_though_nobody_reads() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = percore(&["client", &flooding()]);
    command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let mut client = Killed(command.spawn().expect("it starts"));
    eventually("a full pipe", || is_full(&reader));
    send_signal(&client.0, "TERM");
    send_signal(&client.0, "INT");
    assert_eq!(exit_code(&mut client.0), Some(1));
    let mut said = String::new();
    client.0.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.ends_with("percore: interrupted before the connection was closed\n"), "{said}");
}

#[test]
fn streams_that_do_not_block() {
    let server = Server::start(&[]);
    let ((input, mut keys), (mut shown, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    ioctl_fionbio(&input, true).expect("a pipe");
    ioctl_fionbio(&output, true).expect("a pipe");
    let mut command = percore(&["client", &server.url("/"), "-E"]);
    let mut client = Killed(command.stdin(input).stdout(output).spawn().expect("it starts"));
    drop(command);
    let line = "x".repeat(1 << 20);
    // It has looked for input in vain by then.
    server.wait_for_log("open");
    keys.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    eventually("a full pipe", || is_full(&shown));
    drop(keys);
    let mut text = String::new();
    shown.read_to_string(&mut text).expect("text");
    assert!(text == format!("{line}\n"), "{} bytes", text.len());
    assert_eq!(exit_code(&mut client.0), Some(0));
}

#[test]
fn nobody_hears_what_went_wrong() {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut command = percore(&["client", "http://no.scheme/"]);
    command.stderr(writer);
    assert_eq!(run(command).0, 2);
}

#[test]
fn an_end_before_anything_was_typed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Program::start(percore(&["client", &format!("ws://{}/", listener.local_addr().expect("bound"))]));
    let mut socket = tungstenite::accept(listener.accept().expect("a client").0).expect("an upgrade");
    // Text that is not UTF-8: our Close frame has a reason, and still waits when the connection is over.
    socket.get_mut().write_all(b"\x81\x01\xff").expect("it reads");
    while socket.read().is_ok() {}
    drop(socket);
    let (code, _, err) = client.ends();
    assert!(code == Some(1) && err.len() == 2 && err[1].contains("UTF-8"), "{err:?}");
}

#[test]
fn a_signal_while_it_connects() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Program::start(percore(&["client", &format!("ws://{}/", silent.local_addr().expect("bound"))]));
    let (_stream, _) = silent.accept().expect("a client");
    client.signal("INT");
    let (code, _, err) = client.ends();
    assert!(code == Some(1) && err[0].ends_with(": interrupted before it was open"), "{err:?}");
}

#[test]
fn the_environment_is_for_all_uses() {
    let nobody = format!("ws://{}/", crate::common::nginx::free_addr());
    for (args, variable, value) in [
        (&["AAPL", "--retry", "0"][..], "NO_HISTORY", "true"),
        (&["AAPL", "--retry", "0"], "BINARY", "true"),
        (&["AAPL", "--retry", "0"], "EXIT_ON_EOF", "true"),
        (&["-E"], "PING", "1s"),
        (&["-E"], "ID", "me"),
        (&["-E"], "CA", "/no/such/file"),
    ] {
        let mut command = percore(&[&["client", &nobody], args].concat());
        command.env(format!("PERCORE_CLIENT_{variable}"), value).stderr(Stdio::piped());
        let (code, _, err) = run(command);
        assert!(code == 1 && err.contains("Connection refused"), "{variable}: {err}");
    }
}
