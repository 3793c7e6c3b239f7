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
    complaints: Vec<String>,
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
        self.visit(&format!("file://{}?{}", path.display(), fields.join("&")))
    }

    /// Opens a page at any address.
    pub fn visit(&self, url: &str) -> Page {
        let target = devtools(self.addr, "PUT", &format!("/json/new?{}", escaped(url)));
        let target: Value = serde_json::from_str(&target).expect("JSON");
        let socket = target["webSocketDebuggerUrl"].as_str().expect("a page");
        let stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (devtools, _) = tungstenite::client(socket, stream).expect("an upgrade");
        let id = target["id"].as_str().expect("its id").into();
        let mut page = Page { addr: self.addr, id, devtools, calls: 0, complaints: Vec::new() };
        // At first it shows an empty document, and what is asked just when that goes has no answer.
        eventually("the page", || {
            let is_there = "location.protocol !== 'about:' && document.readyState";
            page.evaluate(is_there).is_ok_and(|state| state == "complete")
        });
        // These tell what there was so far as well.
        page.call("Runtime.enable", json!({})).expect("an answer");
        page.call("Log.enable", json!({})).expect("an answer");
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
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        self.call("Runtime.evaluate", params).map(|result| result["result"]["value"].clone())
    }

    /// A command of the DevTools protocol, and what came of it.
    fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params });
        self.devtools.send(Message::text(call.to_string())).expect("the page is there");
        loop {
            let answer = self.devtools.read().expect("an answer");
            let mut answer: Value = serde_json::from_str(answer.to_text().expect("text")).expect("JSON");
            if answer["id"] == self.calls {
                let failed = !answer["error"].is_null() || !answer["result"]["exceptionDetails"].is_null();
                return if failed { Err(answer) } else { Ok(answer["result"].take()) };
            }
            self.complaints.extend(complaint(&answer));
        }
    }

    /// What the console has of errors and warnings so far.
    pub fn complaints(&mut self) -> &[String] {
        // What was told before this is answered is in by then.
        self.eval("0");
        &self.complaints
    }

    /// Gives the page a window of this size.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).expect("a size");
    }

    /// Waits until an expression is true.
    pub fn until_true(&mut self, expression: &str) {
        eventually(expression, || self.eval(expression) == true);
    }

    /// Presses a key where the focus is.
    pub fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let down = json!({ "type": "keyDown", "key": key, "code": key, "text": text });
        self.call("Input.dispatchKeyEvent", down).expect("a key");
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key })).expect("a key");
    }

    /// Types text where the focus is.
    pub fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).expect("a text");
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

/// What an event has to say of an error or a warning.
fn complaint(event: &Value) -> Option<String> {
    let is_bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning"));
    let params = &event["params"];
    match event["method"].as_str()? {
        "Log.entryAdded" if is_bad(&params["entry"]["level"]) => Some(params["entry"]["text"].to_string()),
        "Runtime.consoleAPICalled" if is_bad(&params["type"]) => Some(params["args"].to_string()),
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        _ => None,
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
