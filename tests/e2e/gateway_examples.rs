//! The origins in `examples/origin`, behind the gateway as its documentation has it.

use crate::common::origin::Gateway;
use crate::common::{Client, Killed, eventually, nginx};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

/// A gateway before an example that a program runs.
fn start(program: &str, example: &str) -> (Gateway, Killed) {
    let origin = nginx::free_addr();
    let url = format!("http://{origin}/");
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&args);
    let path = format!("{}/examples/origin/{example}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    command.arg(path).stdin(Stdio::null());
    command.env("HOST", origin.ip().to_string()).env("PORT", origin.port().to_string());
    command.env("GATEWAY", gateway.service.to_string());
    let child = Killed(command.spawn().expect("it is installed"));
    eventually("the origin listens", || TcpStream::connect(origin).is_ok());
    (gateway, child)
}

fn open(addr: SocketAddr) -> Client {
    let mut client = Client::connect(addr);
    client.upgrade("");
    client
}

#[test]
fn echoes() {
    for (program, example) in [("python3", "echo.py"), ("node", "echo.mjs")] {
        let (gateway, _origin) = start(program, example);
        let mut client = open(gateway.server.addr());
        for text in ["hello", "grün & <b>"] {
            assert_eq!(client.echo(text), text, "{example}");
        }
    }
}

#[test]
fn chats() {
    for (program, example) in [("python3", "chat.py"), ("node", "chat.mjs")] {
        let (gateway, _origin) = start(program, example);
        let mut ann = open(gateway.server.addr());
        assert_eq!(ann.text(), "guest 1 is here", "{example}");
        let mut ben = open(gateway.server.addr());
        for client in [&mut ann, &mut ben] {
            assert_eq!(client.text(), "guest 2 is here", "{example}");
        }
        ben.send(crate::common::client::frame(crate::common::client::TEXT, b"hi"));
        for client in [&mut ann, &mut ben] {
            assert_eq!(client.text(), "guest 2: hi", "{example}");
        }
        drop(ben);
        assert_eq!(ann.text(), "guest 2 has gone", "{example}");
    }
}

#[test]
fn they_are_short() {
    let folder = format!("{}/examples/origin", env!("CARGO_MANIFEST_DIR"));
    for file in std::fs::read_dir(folder).expect("it is there") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        assert!(text.lines().count() < 60);
    }
}
