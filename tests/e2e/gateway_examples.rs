//! The origins in `examples/origin`, behind the gateway as documented.

use crate::common::client::{TEXT, frame, upgrade_request};
use crate::common::origin::Gateway;
use crate::common::{Client, Killed, eventually, nginx};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

/// A gateway before an example that a program runs, with further flags; and where the example listens.
fn start(program: &str, example: &str, flags: &[&str]) -> (Gateway, Killed, SocketAddr) {
    let origin = nginx::free_addr();
    let url = format!("http://{origin}/");
    let args = ["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    let gateway = Gateway::launch(&[&args, flags].concat());
    let child = serve(program, example, origin, &gateway);
    (gateway, child, origin)
}

/// The example, when it listens.
fn serve(program: &str, example: &str, origin: SocketAddr, gateway: &Gateway) -> Killed {
    let path = format!("{}/examples/origin/{example}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    command.arg(path).stdin(Stdio::null());
    command.env("HOST", origin.ip().to_string()).env("PORT", origin.port().to_string());
    command.env("GATEWAY", gateway.service.to_string());
    let child = Killed(command.spawn().expect("it is installed"));
    eventually("the origin listens", || TcpStream::connect(origin).is_ok());
    child
}

fn open(addr: SocketAddr) -> Client {
    let mut client = Client::connect(addr);
    client.upgrade("");
    client
}

#[test]
fn echoes() {
    for (program, example) in [("python3", "echo.py"), ("node", "echo.mjs")] {
        let (gateway, _origin, _) = start(program, example, &[]);
        let mut client = open(gateway.server.addr());
        for text in ["hello", "grün & <b>"] {
            assert_eq!(client.echo(text), text, "{example}");
        }
    }
}

#[test]
fn chats() {
    for (program, example) in [("python3", "chat.py"), ("node", "chat.mjs")] {
        let (gateway, _origin, _) = start(program, example, &[]);
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

/// As the profile `gateway` of docker-compose.yml has them, with the real nginx in front: the application is restarted, and no
/// client notices.
#[test]
fn behind_nginx() {
    let flags = ["--origin", "same", "--trusted-proxy", "127.0.0.0/8", "--forward-header", "X-Forwarded-For"];
    let flags = [&flags[..], &["--admin", "127.0.0.1:0"]].concat();
    let (gateway, origin, addr) = start("python3", "chat.py", &flags);
    let nginx = nginx::Nginx::start("gateway.conf", &[("gateway-backend:8080", gateway.server.addr().to_string())]);
    let open = |path: &str, headers: &str| {
        let mut client = nginx.connect();
        client.send(upgrade_request(path, headers));
        let status = client.head_response().status;
        (client, status)
    };
    let (mut ann, status) = open("/any/path?a=b", "");
    assert_eq!((status, ann.text()), (101, "guest 1 is here".to_owned()));
    assert_eq!(open("/", "Origin: https://elsewhere.example\r\n").1, 403);
    for (path, status) in [("/sr", 426), ("/healthz", 200), ("/metrics", 426)] {
        assert_eq!(nginx.connect().get(path).status, status, "{path}");
    }
    // It tells the client before it answers the gateway.
    eventually("the answer", || {
        gateway.server.metric("percore_origin_calls_total{worker=\"0\",outcome=\"taken\"}") == 1
    });
    drop(origin);
    let _origin = serve("python3", "chat.py", addr, &gateway);
    let (mut ben, _) = open("/", "");
    assert_eq!(ben.text(), "guest 1 is here", "the application knows of nobody before");
    ann.send(frame(TEXT, b"still here"));
    assert_eq!(ben.text(), "somebody: still here");
}

#[test]
fn they_are_short() {
    let folder = format!("{}/examples/origin", env!("CARGO_MANIFEST_DIR"));
    for file in std::fs::read_dir(folder).expect("it is there") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        assert!(text.lines().count() < 60);
    }
}
