//! `serve channels` and browsers: Centrifugo's SDK unchanged in Chromium, and the demo of `examples/channels` as a whole.

use crate::common::browser::{Browser, Page};
use crate::common::channels::{Hub, PATH, SECRET, command};
use crate::common::nginx::{Nginx, free_addr};
use crate::common::relay::Relay;
use crate::common::{Killed, TempDir, eventually, run, tool};
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The SDK for browsers, as npm has it.
fn sdk() -> String {
    std::fs::read_to_string(tool("node_modules/centrifuge/dist/centrifuge.js")).expect("text")
}

/// What a page keeps of what it hears, as `name detail`.
const FOLLOW: &str = r#"
    globalThis.heard = [];
    const note = (...words) => heard.push(words.join(' '));
    globalThis.centrifuge = new Centrifuge('URL', { minReconnectDelay: 50, maxReconnectDelay: 200 });
    globalThis.room = centrifuge.newSubscription('room', { recoverable: true, joinLeave: true });
    centrifuge.on('connected', ({ transport }) => note('connected', transport));
    centrifuge.on('connecting', ({ code }) => note('connecting', code));
    room.on('subscribed', ({ wasRecovering, recovered }) => note('subscribed', wasRecovering, recovered));
    room.on('publication', ({ data, offset }) => note('publication', JSON.stringify(data), offset));
    room.on('join', ({ info }) => note('join', info.client.length));
    room.on('leave', ({ info }) => note('leave', info.client.length));
    room.subscribe();
    centrifuge.connect();
    0"#;

fn follow(page: &mut Page, url: &str) {
    page.eval(&format!("{};0", sdk()));
    page.eval(&FOLLOW.replace("URL", url));
    page.until_true("heard.some((line) => line.startsWith('subscribed'))");
}

#[test]
fn the_sdk_in_a_browser() {
    let hub = Hub::start(&["--history-size", "100", "--presence", "--origin", "any"]);
    let relay = Relay::to(hub.server.addr());
    let browser = Browser::start();
    let [mut ann, mut ben] = [0, 1].map(|_| browser.visit(&format!("http://{}/", hub.server.addr())));
    follow(&mut ann, &format!("ws://{}{PATH}", relay.addr));
    ann.until_true("heard.includes('join 36')");
    follow(&mut ben, &hub.server.url(PATH));
    ann.until_true("heard.filter((line) => line === 'join 36').length === 2");
    ben.eval("room.publish({ text: 'grüße\\n🦀' }).then(() => 0)");
    for page in [&mut ann, &mut ben] {
        page.until_true(r#"heard.includes('publication {"text":"grüße\\n🦀"} 1')"#);
    }
    let clients = "room.presence().then(({ clients }) => Object.keys(clients).length)";
    assert_eq!(ann.eval(clients), 2);
    let stats = "room.presenceStats().then(({ numClients, numUsers }) => `${numClients} ${numUsers}`)";
    assert_eq!(ann.eval(stats), "2 1");
    // The network is gone for a while. What is published meanwhile comes afterwards, in order and once.
    ann.eval("heard.length = 0");
    relay.set_down(true);
    ann.until_true("centrifuge.state === 'connecting'");
    for number in 2..=20 {
        hub.result("publish", &json!({"channel": "room", "data": number}));
    }
    relay.set_down(false);
    ann.until_true("heard.includes('publication 20 20')");
    let heard = ann.eval("heard.filter((line) => line.startsWith('publication')).join()");
    let want: Vec<String> = (2..=20).map(|number| format!("publication {number} {number}")).collect();
    assert_eq!(heard, want.join(","));
    assert_eq!(ann.eval("heard.includes('subscribed true true')"), true);
    assert_eq!(ann.eval(clients), 2);
    // Who goes is told, and what was said stays.
    ben.eval("centrifuge.disconnect()");
    ann.until_true("heard.includes('leave 36')");
    assert_eq!(ann.eval("room.history({ limit: 2, reverse: true }).then(({ publications }) => publications.map((one) => one.data).join())"), "20,19");
}

/// The demo as the profile `channels` of docker-compose.yml has it, without containers.
struct Demo {
    hub: Hub,
    nginx: Nginx,
    _folder: TempDir,
    application: Killed,
    _news: Killed,
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/channels").join(name)
}

fn spawn(mut command: Command, hub: &Hub) -> Killed {
    command.env("SERVICE", hub.service.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    Killed(command.spawn().expect("it is installed"))
}

fn application(hub: &Hub, addr: SocketAddr) -> Killed {
    let mut node = Command::new("node");
    node.arg(example("backend.js")).env("NODE_PATH", tool("node_modules")).env("HUB", "");
    node.env("HOST", addr.ip().to_string()).env("PORT", addr.port().to_string());
    let application = spawn(node, hub);
    eventually("the application listens", || TcpStream::connect(addr).is_ok());
    application
}

impl Demo {
    fn start() -> Demo {
        let folder = TempDir::new();
        let [config, secret] = ["channels.toml", "demo.secret"].map(|name| example(name).display().to_string());
        let flags =
            ["--config", &config, "--jwt-secret-file", &secret, "--origin", "same", "--trusted-proxy", "127.0.0.0/8"];
        let hub = Hub::launch(command(&flags));
        let addr = free_addr();
        let application = application(&hub, addr);
        let mut python = Command::new(tool("venv/bin/python"));
        python.arg(example("news.py")).env("EVERY", "0.3");
        let news = spawn(python, &hub);
        let replacements =
            [("channels-backend:8080", hub.server.addr().to_string()), ("channels-backend:3000", addr.to_string())];
        let nginx = Nginx::start("channels.conf", &replacements);
        Demo { hub, nginx, _folder: folder, application, _news: news }
    }

    fn page(&self, browser: &Browser, name: &str) -> Page {
        let mut page = browser.visit(&format!("http://{}/?name={name}", self.nginx.files.addr));
        page.until("state", |text| text == "Connected");
        page
    }
}

fn say(page: &mut Page, text: &str) {
    page.eval("say.text.focus()");
    page.types(text);
    page.press("Enter");
}

#[test]
fn the_demo_shows_messages_presence_and_recovery() {
    let demo = Demo::start();
    let browser = Browser::start();
    let mut ann = demo.page(&browser, "Ann");
    let mut ben = demo.page(&browser, "Ben");
    for page in [&mut ann, &mut ben] {
        page.until("count", |text| text == "2 people here");
        page.until("people", |text| text.contains("Ann") && text.contains("Ben") && text.contains("you"));
        page.until_true("document.querySelectorAll('#news li:not(.none)').length >= 2");
    }
    say(&mut ben, "grüße <b>🦀</b>");
    ann.until("messages", |text| text.contains("Ben") && text.contains("grüße <b>🦀</b>"));
    // The page's network is cut; what is said meanwhile is there afterwards, and marked.
    ann.eval("element('cut').click()");
    ann.until("state", |text| text.starts_with("Network cut"));
    for text in ["one", "two", "three"] {
        say(&mut ben, text);
        ben.until("messages", |messages| messages.contains(text));
    }
    assert!(!ann.text("messages").contains("three"));
    ann.eval("element('cut').click()");
    ann.until("messages", |text| text.contains("three"));
    assert_eq!(
        ann.eval("[...document.querySelectorAll('.late .text')].map((one) => one.innerText).join()"),
        "one,two,three"
    );
    ann.until("messages", |text| text.contains("You are back: nothing is missing"));
    ann.until("count", |text| text == "2 people here");
    say(&mut ben, "live");
    ann.until("messages", |text| text.contains("live"));
    assert_eq!(ann.eval("document.querySelectorAll('.late .text').length"), 3);
    // A page that comes later sees what was said before, in a small window as well.
    let mut cid = demo.page(&browser, "Cid");
    cid.until("messages", |text| text.contains("grüße <b>🦀</b>") && text.contains("live"));
    for (width, height) in [(360, 640), (1920, 1080)] {
        cid.resize(width, height);
        cid.until_true(
            "document.documentElement.scrollWidth <= innerWidth && say.getBoundingClientRect().bottom <= innerHeight",
        );
    }
    // One publish reaches both fronts: what Centrifugo's API publishes is seen by the page as well.
    demo.hub.result("publish", &json!({"channel": "news", "data": {"number": 0, "text": "by hand", "at": 0}}));
    cid.until("news", |text| text.contains("by hand"));
    // Without the application nothing is said, and the text is kept.
    drop(demo.application);
    say(&mut cid, "unheard");
    cid.until("hint", |text| text.starts_with("Not sent"));
    assert_eq!(cid.eval("say.text.value"), "unheard");
    assert_eq!(ann.complaints(), [""; 0]);
}

/// What the images of the demo install is what the tests run, and percore starts there as here.
#[test]
fn the_demo_is_what_is_tested() {
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = example("channels.toml");
    let (code, _, said) = run(crate::common::percore(&["config", "check", config.to_str().expect("text")]));
    assert_eq!(code, 0, "{said}");
    assert!(read(&example("demo.secret")).trim().len() >= SECRET.len());
    let installed = read(&root.join("tests/run"));
    let package: serde_json::Value = serde_json::from_str(&read(&example("package.json"))).expect("JSON");
    for (name, version) in package["dependencies"].as_object().expect("some") {
        assert!(installed.contains(&format!("{name}@{}", version.as_str().expect("text"))), "{name} {version}");
    }
    let image = read(&example("Dockerfile"));
    let cent = image.split_whitespace().find(|word| word.starts_with("cent==")).expect("it is installed");
    assert!(installed.contains(cent), "{cent}");
    let compose = read(&root.join("docker-compose.yml"));
    let command =
        "[serve, channels, --config, /demo/channels.toml, --jwt-secret-file, /demo/demo.secret, --origin, same]";
    assert!(compose.contains(command) && compose.contains("./examples/channels:/demo:ro"));
    for target in ["application", "news"] {
        assert!(compose.contains(&format!("target: {target}")) && image.contains(&format!("AS {target}")), "{target}");
    }
}
