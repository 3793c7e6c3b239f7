//! What the tests of `serve channels` share: a server, a client of the Centrifuge protocol that speaks it by hand, a backend.

use super::client::{TEXT, frame, upgrade_request};
use super::{Client, Server, percore};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

/// Where clients connect.
pub const PATH: &str = "/connection/websocket";
/// A secret for tokens.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server and where it is.
pub struct Hub {
    pub server: Server,
    pub service: SocketAddr,
}

impl Hub {
    /// `percore serve channels` on ports of its own, with further flags.
    pub fn start(flags: &[&str]) -> Hub {
        Hub::launch(command(flags))
    }

    /// The same by a command that has all flags.
    pub fn launch(command: Command) -> Hub {
        let server = Server::launch(command, 1);
        let line = server.wait_for_log("service listener on ");
        let (_, service) = line.split_once("service listener on ").expect("just found");
        Hub { service: service.parse().expect("an address"), server }
    }

    /// A client that has connected, without a token.
    pub fn client(&self) -> Speaker {
        self.client_by("")
    }

    /// The same with a token.
    pub fn client_by(&self, token: &str) -> Speaker {
        let mut speaker = self.speaker();
        let reply = speaker.ask(&json!({"connect": {"token": token}}));
        speaker.name = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        speaker
    }

    /// A client that has said nothing yet.
    pub fn speaker(&self) -> Speaker {
        Speaker::to(self.server.addr(), PATH)
    }

    /// Calls a method of the API: status and answer.
    pub fn call(&self, method: &str, params: &Value) -> (u16, Value) {
        self.call_with(method, params, "")
    }

    /// The same with further header lines.
    pub fn call_with(&self, method: &str, params: &Value, headers: &str) -> (u16, Value) {
        let body = params.to_string();
        let mut client = Client::connect(self.service);
        client.send(format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let response = client.response();
        (response.status, serde_json::from_str(&response.body).unwrap_or(Value::String(response.body)))
    }

    /// The result of a method that is to succeed.
    pub fn result(&self, method: &str, params: &Value) -> Value {
        let (status, answer) = self.call(method, params);
        assert!(status == 200 && answer.get("error").is_none(), "{method}: {status} {answer}");
        answer.get("result").cloned().unwrap_or(answer)
    }
}

/// `percore serve channels`, on ports of its own.
pub fn command(flags: &[&str]) -> Command {
    let own = ["serve", "channels", "--listen", "127.0.0.1:0", "--service-listen", "127.0.0.1:0"];
    percore(&[&own, flags].concat())
}

/// A client that speaks the protocol.
pub struct Speaker {
    pub client: Client,
    /// By which others know it.
    pub name: String,
    id: u32,
    /// Lines that came and were not looked at yet.
    lines: Vec<Value>,
}

impl Speaker {
    /// Upgraded, and no more.
    pub fn to(addr: SocketAddr, path: &str) -> Speaker {
        let mut client = Client::connect(addr);
        // Without tokens it is for its own machine.
        client.send(upgrade_request(path, "").replace("test.example", "localhost"));
        let response = client.head_response();
        assert_eq!(response.status, 101, "{}", response.head);
        Speaker { client, name: String::new(), id: 0, lines: Vec::new() }
    }

    /// Sends a message as it is.
    pub fn say(&mut self, text: &str) {
        self.client.send(frame(TEXT, text.as_bytes()));
    }

    /// Sends a command, which gets a number.
    pub fn order(&mut self, command: &Value) -> u32 {
        self.id += 1;
        let mut command = command.clone();
        command["id"] = self.id.into();
        self.say(&command.to_string());
        self.id
    }

    /// Sends a command and reads its reply, which is to be the next that comes.
    pub fn ask(&mut self, command: &Value) -> Value {
        let id = self.order(command);
        let reply = self.hear();
        assert_eq!(reply["id"], id, "{command}: {reply}");
        reply
    }

    /// Subscribes, with these options: the result.
    pub fn subscribe(&mut self, channel: &str, options: &Value) -> Value {
        let mut subscribe = options.clone();
        subscribe["channel"] = channel.into();
        let reply = self.ask(&json!({"subscribe": subscribe}));
        assert!(reply.get("error").is_none(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The code of the error that a command is answered with.
    pub fn error(&mut self, command: &Value) -> u64 {
        let reply = self.ask(command);
        reply["error"]["code"].as_u64().unwrap_or_else(|| panic!("{command}: {reply}"))
    }

    /// The next line.
    pub fn hear(&mut self) -> Value {
        while self.lines.is_empty() {
            let text = self.client.text();
            self.lines.extend(text.split('\n').map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        self.lines.remove(0)
    }

    /// The next line is a push of this kind on this channel: what it has.
    pub fn push(&mut self, kind: &str, channel: &str) -> Value {
        let line = self.hear();
        assert_eq!(line["push"]["channel"], channel, "{line}");
        line["push"].get(kind).unwrap_or_else(|| panic!("no {kind}: {line}")).clone()
    }

    /// Waits for the end, passing over what comes before: code and reason.
    pub fn ended(&mut self) -> (u16, String) {
        self.client.closed()
    }
}

/// A token with these claims.
pub fn token(claims: &Value) -> String {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let head = format!("{}.{}", encode(json!({"alg": "HS256", "typ": "JWT"}).to_string()), encode(claims.to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{head}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, head.as_bytes())))
}

/// Unix time, so many seconds from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs() as i64 + seconds
}
