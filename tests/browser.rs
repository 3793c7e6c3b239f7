//! The pages in `examples/`, in a real browser.

mod common;

use common::browser::Browser;
use common::{Server, TempDir, percore};

fn ticker(flags: &[&str]) -> Server {
    let mut args = vec!["serve", "ticker", "--listen", "127.0.0.1:0", "--tick", "50ms"];
    args.extend_from_slice(flags);
    Server::launch(percore(&args), 1)
}

/// Messages of many sizes, one text that is not ASCII, the browser's own compression, and the code of a close.
#[test]
fn what_a_browser_says_comes_back() {
    let server = Server::start(&["--deflate-min", "0"]);
    let browser = Browser::start();
    // Any page will do: this one's own connection goes to the same server.
    let mut page = browser.open("ticker.html", &[("url", &server.url("/ws"))]);
    let code = r#"new Promise((done, fail) => {
        const socket = new WebSocket('URL');
        socket.binaryType = 'arraybuffer';
        const bytes = (length) => new Uint8Array(length).map((_, at) => at * 7);
        const messages = ['', 'grüße 🦀', 'x'.repeat(100_000), bytes(0), bytes(1), bytes(65_536), bytes(1_000_000)];
        const same = (a, b) => typeof a === 'string' ? a === b : new Uint8Array(b).every((byte, at) => byte === a[at]);
        let right = 0;
        socket.onopen = () => messages.forEach((message) => socket.send(message));
        socket.onmessage = ({ data }) => {
            const sent = messages[right];
            if ((data.length ?? data.byteLength) !== sent.length || !same(sent, data)) fail(`message ${right} is wrong`);
            right += 1;
            if (right === messages.length) socket.close(4321);
        };
        socket.onclose = ({ code, wasClean }) => done([right, code, wasClean, socket.extensions.split(';')[0]].join(' '));
    })"#;
    let said = page.eval(&code.replace("URL", &server.url("/ws")));
    assert_eq!(said, "7 4321 true permessage-deflate");
}

#[test]
fn the_ticker_page_shows_prices_and_comes_back() {
    let server = ticker(&["--ping", "100ms"]);
    let browser = Browser::start();
    let url = server.url("/");
    let mut page =
        browser.open("ticker.html", &[("url", &url), ("tickers", "SPY, NEW.JS"), ("ping", "0.1"), ("retry", "0.1")]);
    let shown = |text: &str| text.lines().count() == 2 && text.starts_with("NEW.JS") && text.contains("SPY");
    let first = page.until("prices", shown);
    page.until("prices", |text| shown(text) && text != first);
    page.until("state", |text| text.starts_with("open, a ping takes "));
    // A server that stalls is noticed; when it goes on, so do the prices.
    server.signal("STOP");
    page.until("state", |text| text.starts_with("the server has stalled; again in "));
    let stopped = page.text("prices");
    server.signal("CONT");
    page.until("state", |text| text.starts_with("open, a ping takes "));
    page.until("prices", |text| shown(text) && text != stopped);
    // And so with one that goes: a code says why, and the next one on its port is found.
    let listen = server.listen[0].clone();
    assert_eq!(server.stop().0, Some(0));
    page.until("state", |text| text.starts_with("closed: 100") && text.contains("; again in "));
    let _next = Server::launch(percore(&["serve", "ticker", "--listen", &listen]), 1);
    page.until("state", |text| text.starts_with("open"));
}

#[test]
fn two_chat_pages_meet_on_two_servers() {
    let folder = TempDir::new();
    let servers = [1, 2].map(|_| common::chat::start_on(&folder.path("bus"), &["--origin", "null"]));
    let browser = Browser::start();
    let [mut ann, mut bob] = [0, 1].map(|at: usize| {
        let mut page = browser.open("chat.html", &[("url", &servers[at].url("/websockets")), ("room", "green & blue")]);
        page.until("state", |text| text.starts_with("open, permessage-deflate"));
        page.until("members", |text| text.lines().count() == at + 1);
        page
    });
    let both = ann.until("members", |text| text.lines().count() == 2);
    bob.eval("element('say').text.value = 'grüße <b>🦀</b>'; element('say').requestSubmit()");
    let said = ann.until("messages", |text| !text.is_empty());
    let bobs_name = said.strip_suffix(": grüße <b>🦀</b>").unwrap_or_else(|| panic!("{said}"));
    assert!(both.lines().any(|name| name == bobs_name), "{said}");
    assert_eq!(bob.until("messages", |text| !text.is_empty()), said);
    bob.close();
    let who = ann.until("members", |text| text.lines().count() == 1);
    assert!(who != bobs_name, "{who} is gone");
}
