//! `percore serve chat` and its clients.

use super::client::{Client, TEXT, frame, upgrade_request};
use super::{Server, percore};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;

/// `percore serve chat` on a port of its own, with further flags.
pub fn start(flags: &[&str]) -> Server {
    let mut command = percore(&["serve", "chat", "--listen", "127.0.0.1:0"]);
    command.args(flags);
    Server::launch(command, 1)
}

/// The same on the bus in a folder.
pub fn start_on(bus: &Path, flags: &[&str]) -> Server {
    let bus = bus.to_str().expect("UTF-8");
    start(&[&["--bus", bus], flags].concat())
}

/// A client of the chat.
pub struct Talker(pub Client);

impl Talker {
    /// Connects and upgrades.
    pub fn to(addr: SocketAddr) -> Talker {
        Talker::with(addr, "")
    }

    /// The same with further header lines, each ended by CR LF.
    pub fn with(addr: SocketAddr, headers: &str) -> Talker {
        let mut client = Client::connect(addr);
        client.send(upgrade_request("/websockets", headers));
        let response = client.head_response();
        assert_eq!(response.status, 101, "{}", response.head);
        Talker(client)
    }

    /// Sends a text.
    pub fn says(&mut self, text: &str) {
        self.0.send(frame(TEXT, text.as_bytes()));
    }

    /// The next text.
    pub fn hears(&mut self) -> String {
        self.0.text()
    }

    /// Asserts that this is what comes next.
    pub fn must_hear(&mut self, want: &str) {
        assert_eq!(self.hears(), want);
    }

    /// Submits a chat message.
    pub fn submits(&mut self, text: &str) {
        self.says(&chat(text));
    }

    /// Asserts that the next that comes is this chat message.
    pub fn must_hear_chat(&mut self, text: &str) {
        let heard = self.hears();
        let start = format!(r#"{{"channel":"chat","message":{{"contents":{{"content":"{text}","postedAt":""#);
        assert!(heard.starts_with(&start) && heard.ends_with(r#"Z"},"type":"NewMessageReceived"}}"#), "{heard}");
    }

    /// Asks to be let into a room.
    pub fn asks_for(&mut self, room: &str) {
        self.says(&in_room("JoinRoom", room));
    }

    /// The list of a room's members, which must come next.
    pub fn hears_members(&mut self, room: &str) -> Vec<String> {
        let heard = self.hears();
        let value: Value = serde_json::from_str(&heard).expect("JSON");
        let users = value["message"]["contents"]["users"].as_array().expect("users").iter();
        let mut users: Vec<String> = users.map(|user| user.as_str().expect("a name").to_owned()).collect();
        let listed = serde_json::to_string(&users).expect("JSON");
        let want = format!(
            r#"{{"channel":"chat-room","message":{{"contents":{{"room":"{room}","users":{listed}}},"type":"MemberList"}}}}"#
        );
        assert_eq!(heard, want);
        users.sort_unstable();
        users
    }

    /// Joins a room: the client's own name there, and the others'.
    pub fn joins(&mut self, room: &str) -> (String, Vec<String>) {
        self.asks_for(room);
        let mut users = self.hears_members(room);
        let me = self.hears_of("JoinedRoom", room);
        let at = users.iter().position(|user| *user == me).expect("whoever joined is listed");
        users.remove(at);
        (me, users)
    }

    /// Of whom it hears next that he joined or left a room.
    pub fn hears_of(&mut self, what: &str, room: &str) -> String {
        let heard = self.hears();
        let value: Value = serde_json::from_str(&heard).expect("JSON");
        let user = value["message"]["contents"]["user"].as_str().unwrap_or_default().to_owned();
        assert_eq!(heard, told(what, room, &user));
        user
    }
}

/// A wish to say something to everyone.
pub fn chat(text: &str) -> String {
    format!(r#"{{"channel":"chat","message":{{"type":"SubmitMessage","contents":"{text}"}}}}"#)
}

/// A wish that names a room.
pub fn in_room(what: &str, room: &str) -> String {
    format!(r#"{{"channel":"chat-room","message":{{"type":"{what}","contents":{{"room":"{room}"}}}}}}"#)
}

/// What a room's members are told of each other.
pub fn told(what: &str, room: &str, user: &str) -> String {
    format!(r#"{{"channel":"chat-room","message":{{"contents":{{"room":"{room}","user":"{user}"}},"type":"{what}"}}}}"#)
}

/// A wish to send something to a room.
pub fn sends(room: &str, message: &str) -> String {
    format!(
        r#"{{"channel":"chat-room","message":{{"type":"SendMessage","contents":{{"room":"{room}","message":"{message}"}}}}}}"#
    )
}

/// A message to a room.
pub fn sent(room: &str, user: &str, message: &str) -> String {
    format!(
        r#"{{"channel":"chat-room","message":{{"contents":{{"message":"{message}","room":"{room}","user":"{user}"}},"type":"NewMessage"}}}}"#
    )
}

/// The answer to what cannot be taken.
pub fn refused(code: &str, error: &str) -> String {
    let error = serde_json::to_string(error).expect("JSON");
    format!(r#"{{"channel":"error","message":{{"contents":{{"code":"{code}","error":{error}}},"type":"Error"}}}}"#)
}
