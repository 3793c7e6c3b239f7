//! Chromium without a window, driven by its DevTools protocol.

use super::{Client, Killed, PATIENCE, TempDir, eventually, send_signal};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// A browser of a test's own, ended when dropped.
pub struct Browser {
    addr: SocketAddr,
    process: Killed,
    profile: TempDir,
}

/// A page of a browser.
pub struct Page {
    addr: SocketAddr,
    id: String,
    devtools: WebSocket<TcpStream>,
    calls: u64,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = TempDir::new();
        let mut command = Command::new("chromium");
        command.arg(format!("--user-data-dir={}", profile.path("profile").display()));
        // Tests may run as root and in containers, where Chromium's own sandbox cannot be had.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args([
            "--disable-breakpad",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-port=0",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Killed(command.spawn().expect("chromium is on PATH (tests/run installs it)"));
        let said = profile.path("profile/DevToolsActivePort");
        let mut port = None;
        eventually("the browser's port", || {
            port = std::fs::read_to_string(&said).ok().and_then(|text| text.lines().next()?.parse::<u16>().ok());
            port.is_some()
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], port.expect("just seen")));
        Browser { addr, process, profile }
    }

    /// Opens one of the pages in `examples/`, with fields of its form.
    pub fn open(&self, page: &str, fields: &[(&str, &str)]) -> Page {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(page);
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let url = format!("file://{}?{}", path.display(), fields.join("&"));
        let target = devtools(self.addr, "PUT", &format!("/json/new?{}", escaped(&url)));
        let target: Value = serde_json::from_str(&target).expect("JSON");
        let socket = target["webSocketDebuggerUrl"].as_str().expect("a page");
        let stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (devtools, _) = tungstenite::client(socket, stream).expect("an upgrade");
        let mut page = Page { addr: self.addr, id: target["id"].as_str().expect("its id").into(), devtools, calls: 0 };
        // At first it shows an empty document, and what is asked just when that goes has no answer.
        eventually("the page", || {
            page.evaluate("location.protocol + document.readyState").is_ok_and(|state| state == "file:complete")
        });
        page
    }
}

impl Drop for Browser {
    /// Lets it end its own processes, which write to the profile even while that is removed.
    fn drop(&mut self) {
        send_signal(&self.process.0, "TERM");
        let start = Instant::now();
        let is_there = |process: &mut Killed| matches!(process.0.try_wait(), Ok(None));
        while (is_there(&mut self.process) || std::fs::remove_dir_all(self.profile.path("profile")).is_err())
            && start.elapsed() < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Page {
    /// What an expression of JavaScript comes to in the page, waiting for it if it is a promise.
    pub fn eval(&mut self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|answer| panic!("{expression}: {answer}"))
    }

    fn evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        self.calls += 1;
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let call = json!({ "id": self.calls, "method": "Runtime.evaluate", "params": params });
        self.devtools.send(Message::text(call.to_string())).expect("the page is there");
        loop {
            let answer = self.devtools.read().expect("an answer");
            let answer: Value = serde_json::from_str(answer.to_text().expect("text")).expect("JSON");
            if answer["id"] == self.calls {
                let failed = !answer["error"].is_null() || !answer["result"]["exceptionDetails"].is_null();
                return if failed { Err(answer) } else { Ok(answer["result"]["result"]["value"].clone()) };
            }
        }
    }

    /// The text of an element, by its id; nothing as long as there is none.
    pub fn text(&mut self, id: &str) -> String {
        let text = self.eval(&format!("document.getElementById('{id}')?.innerText ?? ''"));
        text.as_str().expect("a string").to_owned()
    }

    /// Waits until the text of an element is as it should be, and gives it.
    pub fn until(&mut self, id: &str, is_right: impl Fn(&str) -> bool) -> String {
        let (start, mut text) = (Instant::now(), self.text(id));
        while !is_right(&text) {
            assert!(start.elapsed() < PATIENCE, "#{id} is still '{text}'");
            std::thread::sleep(Duration::from_millis(5));
            text = self.text(id);
        }
        text
    }

    /// Closes it, as a person closes a tab.
    pub fn close(self) {
        devtools(self.addr, "GET", &format!("/json/close/{}", self.id));
    }
}

/// What the browser answers to a request.
fn devtools(addr: SocketAddr, method: &str, target: &str) -> String {
    let mut client = Client::connect(addr);
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n"));
    let response = client.response();
    assert_eq!(response.status, 200, "{target}: {}", response.body);
    response.body
}

/// A part of a URL, with all that could mean something there escaped.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
