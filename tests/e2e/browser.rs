//! The pages in `examples/`, in a real browser.

use crate::common::browser::{Browser, Page};
use crate::common::client::upgrade_request;
use crate::common::{Server, TempDir, percore};

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

/// Whether nothing reaches beyond the sides of the window or of a list, and the box to type in is in view.
const FITS: &str = "[document.documentElement, ...document.querySelectorAll('ol, ul')].every(
    (part) => part.scrollWidth <= part.clientWidth) && (() => {
    const field = document.querySelector('textarea, [name=symbols]').getBoundingClientRect();
    return field.left >= 0 && field.right <= innerWidth && field.top >= 0 && field.bottom <= innerHeight;
})()";

fn say(page: &mut Page, text: &str) {
    page.eval("box.focus()");
    page.types(text);
    page.press("Enter");
}

#[test]
fn the_ticker_page_shows_prices_and_comes_back() {
    let server = ticker(&["--ping", "100ms"]);
    let browser = Browser::start();
    let url = server.url("/");
    let mut page =
        browser.open("ticker.html", &[("url", &url), ("tickers", "SPY, NEW.JS"), ("ping", "0.1"), ("retry", "0.1")]);
    // Each row has the last price, how it moved, in words that need no colour, and a line of those before.
    let shown = |text: &str| text.matches("since you came").count() == 2 && text.contains(['▲', '▼']);
    let first = page.until("prices", |text| shown(text) && text.contains("SPY") && text.contains("NEW.JS"));
    page.until("prices", |text| shown(text) && text != first);
    page.until_true(
        "[...document.querySelectorAll('#prices .line')].every((line) => line.getAttribute('d').includes('L'))",
    );
    page.until("state", |text| text == "Connected");
    page.until("ping", |text| text.starts_with("ping ") && text.ends_with(" ms"));
    page.resize(360, 640);
    page.until_true(FITS);
    page.resize(1920, 1080);
    page.until_true(FITS);
    // A server that stalls is noticed; when it goes on, so do the prices.
    server.signal("STOP");
    page.until("state", |text| text.starts_with("Reconnecting in ") || text == "Connecting…");
    let stopped = page.text("prices");
    server.signal("CONT");
    page.until("state", |text| text == "Connected");
    page.until("prices", |text| shown(text) && text != stopped);
    // And so with one that goes: the next one on its port is found.
    let listen = server.listen[0].clone();
    assert_eq!(server.stop().0, Some(0));
    page.until("state", |text| text.starts_with("Reconnecting in ") || text == "Connecting…");
    let _next = Server::launch(percore(&["serve", "ticker", "--listen", &listen]), 1);
    page.until("state", |text| text == "Connected");
}

#[test]
fn the_ticker_page_subscribes_and_unsubscribes() {
    let server = ticker(&["--demo", "--origin", "same"]);
    let browser = Browser::start();
    let mut page = browser.visit(&format!("http://{}/?tickers=SPY", server.listen[0]));
    page.until("prices", |text| text.contains("SPY") && text.contains("since you came"));
    page.eval("field.focus()");
    page.types("aapl, new.js");
    page.press("Enter");
    page.until("prices", |text| ["SPY", "AAPL", "NEW.JS"].iter().all(|symbol| text.contains(symbol)));
    page.until_true("[...rows.values()].every((row) => row.prices.length > 1)");
    page.eval("document.querySelector('[aria-label=\"Unsubscribe SPY\"]').click()");
    page.until("prices", |text| !text.contains("SPY") && text.contains("AAPL"));
    // An invalid symbol is reported here and not sent.
    page.types("a:b");
    page.press("Enter");
    page.until("hint", |text| text.starts_with("“A:B” is not a symbol"));
    page.press("Escape");
    page.until("hint", str::is_empty);
    // The list is kept for the next visit; one that the server refuses is taken back.
    let mut page = browser.visit(&format!("http://{}/?retry=0.1", server.listen[0]));
    page.until("prices", |text| text.contains("NEW.JS") && text.contains("AAPL") && text.contains("since you came"));
    page.eval("subscribe([...Array(1001).keys()].map(String))");
    page.until("hint", |text| text.starts_with("The server says: 1001 symbols"));
    page.until("prices", |text| text.matches("since you came").count() == 2);
    page.until_true("tickers.join() === 'AAPL,NEW.JS'");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn two_chat_pages_meet_on_two_servers() {
    let folder = TempDir::new();
    let servers = [1, 2].map(|_| crate::common::chat::start_on(&folder.path("bus"), &["--origin", "null"]));
    let browser = Browser::start();
    let [mut ann, mut bob] = [0, 1].map(|at: usize| {
        let mut page = browser.open("chat.html", &[("url", &servers[at].url("/websockets")), ("room", "green & blue")]);
        page.until("state", |text| text == "Connected");
        page.until_true(&format!("members.size === {} && me !== ''", at + 1));
        page
    });
    ann.until("count", |text| text == "2 people here");
    // Without a name of his own everyone has one that follows from his UUID, the same on all pages.
    let bobs_alias = bob.eval("alias(me)");
    let bobs_alias = bobs_alias.as_str().expect("a name");
    ann.until("members", |text| text.contains("you") && text.contains(bobs_alias));
    let long = "x".repeat(5000);
    say(&mut bob, "grüße <b>🦀</b>");
    say(&mut bob, &long);
    let said = ann.until("messages", |text| text.contains(&long));
    assert!(said.contains("grüße <b>🦀</b>") && said.contains(bobs_alias), "{said}");
    for (width, height) in [(360, 640), (1920, 1080)] {
        ann.resize(width, height);
        ann.until_true(FITS);
    }
    // A name that he gives himself goes with what he says.
    bob.eval("element('name').value = ' Bob <b> '; element('settings').requestSubmit()");
    say(&mut bob, "it is me");
    ann.until("messages", |text| text.contains("Bob b") && text.ends_with("it is me"));
    ann.until("members", |text| text.contains(&format!("Bob b\n{bobs_alias}")));
    let sent = bob.eval("localStorage.getItem('percore.name')");
    assert_eq!(sent, "Bob b");
    bob.close();
    ann.until("count", |text| text == "1 person here");
    ann.until("messages", |text| text.ends_with("Bob b left"));
    assert_eq!(ann.complaints(), [""; 0]);
}

#[test]
fn the_chat_page_keeps_what_is_typed_until_it_is_sent() {
    let server = crate::common::chat::start(&["--demo"]);
    let browser = Browser::start();
    let mut page = browser.visit(&format!("http://{}/?retry=0.1", server.listen[0]));
    page.until_true("isIn");
    let listen = server.listen[0].clone();
    assert_eq!(server.stop().0, Some(0));
    page.until("state", |text| text.starts_with("Reconnecting in ") || text == "Connecting…");
    say(&mut page, "typed meanwhile");
    page.until("kept", |text| text.starts_with("Not connected."));
    page.resize(360, 640);
    page.until_true(&format!("!element('retry').hidden && {FITS}"));
    let next = Server::launch(percore(&["serve", "chat", "--listen", &listen, "--demo"]), 1);
    page.until_true("isIn");
    assert_eq!(page.eval("box.value"), "typed meanwhile");
    assert!(!page.text("messages").contains("typed meanwhile"));
    page.eval("box.focus()");
    page.press("Enter");
    page.until("messages", |text| text.ends_with("typed meanwhile"));
    // What a server has not passed on before it was gone is back in the box.
    next.signal("STOP");
    say(&mut page, "under way");
    assert_eq!(page.eval("box.value"), "");
    drop(next);
    page.until_true("box.value === 'under way'");
    page.until("kept", |text| text.starts_with("Not delivered"));
}

#[test]
fn an_address_that_is_none_is_said_in_place_of_a_blank_page() {
    let browser = Browser::start();
    for page in ["chat.html", "ticker.html"] {
        let mut nonsense = browser.open(page, &[("url", "http://localhost/")]);
        let said = nonsense.until("problem", |text| text.starts_with("“http://localhost/” is not an address"));
        assert!(said.contains("ws://"), "{said}");
        assert_eq!(nonsense.text("state"), "Not connected");
        assert_eq!(nonsense.complaints(), [""; 0]);
        // Nobody listens on port 1.
        let mut nobody = browser.open(page, &[("url", "ws://127.0.0.1:1/")]);
        nobody.until("problem", |text| text.contains("Nobody answers at ws://127.0.0.1:1/"));
        nobody.resize(360, 640);
        nobody.until("state", |text| text.starts_with("Reconnecting in "));
        nobody.until_true(&format!("!element('retry').hidden && {FITS}"));
    }
}

/// The pages of `--demo` need nothing from elsewhere, get at nobody else, and leave upgrades as they were.
#[test]
fn a_page_of_the_demo_is_at_the_root() {
    let browser = Browser::start();
    let chat = crate::common::chat::start(&["--demo", "--origin", "same"]);
    let ticker = ticker(&["--demo", "--origin", "same"]);
    for (server, upgraded) in [(&chat, 404), (&ticker, 101)] {
        let addr = &server.listen[0];
        let mut client = server.connect();
        server.wait_for_log("A page to try it in a browser is on /");
        let page = client.get("/");
        assert_eq!(page.status, 200);
        assert!(page.head.contains("Content-Type: text/html; charset=utf-8\r\n"), "{}", page.head);
        assert!(page.head.contains("Content-Security-Policy: default-src 'none';"), "{}", page.head);
        assert!(page.body.starts_with("<!doctype html>") && page.body.ends_with("</html>\n"));
        client.send(upgrade_request("/", "Origin: http://test.example\r\n"));
        assert_eq!(client.head_response().status, upgraded);

        let mut page = browser.visit(&format!("http://{addr}/"));
        page.until("state", |text| text == "Connected");
        assert_eq!(page.complaints(), [""; 0]);
        assert_eq!(page.eval("performance.getEntriesByType('resource').length"), 0);
        let mut other = browser.visit(&format!("http://{addr}/?url=ws://127.0.0.1:1/"));
        other.until("problem", |text| text.starts_with("This page connects to its own server alone"));
    }
    // Without the flag there is none.
    assert_eq!(crate::common::chat::start(&[]).connect().get("/").status, 404);
    assert_eq!(
        Server::launch(percore(&["serve", "ticker", "--listen", "127.0.0.1:0"]), 1).connect().get("/").status,
        426
    );
}
