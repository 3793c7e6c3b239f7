//! An origin for the gateway: an HTTP server of threads that writes down what it hears and answers as the test says; and the
//! gateway in front of it.

use super::{Client, Server, eventually, percore};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What a request is about, in the JSON of websocket-service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// With the subprotocol.
    Opened(String, String),
    Text(String, String),
    /// With the base64 of the bytes.
    Binary(String, String),
    Closed(String),
    KeepAlive(Vec<String>),
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn event(&self) -> Event {
        let json = self.json();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if let Some(list) = json["WebSocketKeepAlives"].as_array() {
            return Event::KeepAlive(list.iter().filter_map(|item| text(&item["ConnectionId"])).collect());
        }
        let event = &json["WebSocketEvent"];
        let id = text(&event["ConnectionId"]).expect("an id");
        let (opened, message) = (&event["ConnectionEstablished"], &event["MessageReceived"]);
        match (text(&opened["Subprotocol"]), text(&message["Text"]), text(&message["Binary"])) {
            (Some(subprotocol), _, _) => Event::Opened(id, subprotocol),
            (_, Some(said), _) => Event::Text(id, said),
            (_, _, Some(said)) => Event::Binary(id, said),
            _ => Event::Closed(id),
        }
    }
}

impl Event {
    pub fn id(&self) -> &str {
        match self {
            Event::Opened(id, _) | Event::Text(id, _) | Event::Binary(id, _) | Event::Closed(id) => id,
            Event::KeepAlive(_) => "",
        }
    }
}

/// What it answers.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new() }
    }
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    streams: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// A running origin. Dropping it ends it, with all its connections.
pub struct Origin {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    /// One on a port of its own, which answers each request so.
    pub fn start<R: Into<Reply>>(answer: impl Fn(&Heard) -> R + Send + Sync + 'static) -> Origin {
        Origin::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// One on this port.
    pub fn start_at<R: Into<Reply>>(addr: SocketAddr, answer: impl Fn(&Heard) -> R + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind(addr).expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (shared, answer) = (Arc::new(Shared::default()), Arc::new(answer));
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.ended.load(Ordering::SeqCst) {
                    return;
                }
                ours.streams.lock().expect("streams").push(stream.try_clone().expect("a stream"));
                let (ours, answer) = (Arc::clone(&ours), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &ours, &*answer));
            }
        });
        Origin { addr, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/events", self.addr)
    }

    /// What it heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().expect("heard").clone()
    }

    /// The events that it heard so far.
    pub fn events(&self) -> Vec<Event> {
        self.heard().iter().map(Heard::event).collect()
    }

    /// Waits for an event.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut found = None;
        eventually(what, || {
            found = self.events().into_iter().find(&is_it);
            found.is_some()
        });
        found.expect("just found")
    }

    /// Waits until so many connections are known to be closed.
    pub fn wait_for_closed(&self, number: usize) {
        eventually("Closed", || {
            self.events().iter().filter(|event| matches!(event, Event::Closed(_))).count() >= number
        });
    }

    /// The id of the connection that opened first.
    pub fn first_id(&self) -> String {
        self.wait_for("a connection", |event| matches!(event, Event::Opened(..))).id().to_owned()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then is closed.
        let _ = TcpStream::connect(self.addr);
        eventually("the end of the listener", || TcpStream::connect(self.addr).is_err());
        for stream in self.shared.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve<R: Into<Reply>>(stream: TcpStream, shared: &Shared, answer: &dyn Fn(&Heard) -> R) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut stream = stream;
    while let Some(heard) = read(&mut reader) {
        shared.heard.lock().expect("heard").push(heard.clone());
        let Reply { status, headers, body } = answer(&heard).into();
        let mut head = format!("HTTP/1.1 {status} Status\r\n");
        if status != 204 {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Heard> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1).expect("a path").to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { path, headers, body })
}

/// The gateway in front of an origin.
pub struct Gateway {
    pub server: Server,
    pub service: SocketAddr,
}

impl Gateway {
    /// `percore serve gateway` on ports of its own, with further flags.
    pub fn start(origin: &Origin, flags: &[&str]) -> Gateway {
        let url = origin.url();
        let mut args = vec!["serve", "gateway", "--origin-url", &url, "--listen", "127.0.0.1:0"];
        args.extend(["--service-listen", "127.0.0.1:0"]);
        args.extend_from_slice(flags);
        Gateway::launch(&args)
    }

    /// The same with all flags given.
    pub fn launch(args: &[&str]) -> Gateway {
        Gateway::launch_by(percore(args))
    }

    /// The same by a command.
    pub fn launch_by(command: Command) -> Gateway {
        let server = Server::launch(command, 1);
        let line = server.wait_for_log("service listener on ");
        let (_, addr) = line.split_once("service listener on ").expect("just found");
        Gateway { service: addr.parse().expect("an address"), server }
    }

    /// A POST on the service listener.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> super::client::Response {
        post(self.service, path, headers, body)
    }

    /// A message by `/sr`.
    pub fn send(&self, id: &str, text: &str) {
        let response = self.post("/sr", "", &outgoing(&[id], text));
        assert_eq!((response.status, response.body.as_str()), (200, ""));
    }
}

/// A POST.
pub fn post(to: SocketAddr, path: &str, headers: &str, body: &str) -> super::client::Response {
    request(to, "POST", path, headers, body)
}

/// A request with content.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> super::client::Response {
    let mut client = Client::connect(to);
    let length = body.len();
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    ));
    if method == "HEAD" { client.head_response() } else { client.response() }
}

/// The content of `/sr`: a text for connections.
pub fn outgoing(ids: &[&str], text: &str) -> String {
    serde_json::json!({
        "OutgoingWebSocketMessages": [{"ConnectionIds": ids, "Message": {"Binary": null, "Text": text}}]
    })
    .to_string()
}

/// Bytes that are resident.
pub fn resident(gateway: &Gateway) -> u64 {
    memory(gateway, "VmRSS")
}

/// The most bytes that were.
pub fn most_resident(gateway: &Gateway) -> u64 {
    memory(gateway, "VmHWM")
}

fn memory(gateway: &Gateway, name: &str) -> u64 {
    let text = super::process::status(gateway.server.child().id(), name);
    1024 * text.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

/// Opens connections, many at a time.
pub fn open_many(addr: SocketAddr, number: usize) -> Vec<Client> {
    let request = super::client::upgrade_request("/", "");
    let mut clients = Vec::new();
    while clients.len() < number {
        let mut some: Vec<Client> = (0..100).map(|_| Client::connect(addr)).collect();
        some.iter_mut().for_each(|client| client.send(&request));
        some.iter_mut().for_each(|client| assert_eq!(client.head_response().status, 101));
        clients.extend(some);
    }
    clients
}
