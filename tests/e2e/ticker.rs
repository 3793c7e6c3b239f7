//! `serve ticker`: clients get the prices they ask for, the same from every process; silent clients are closed.

use crate::common::client::{BINARY, CLOSE, Client, PING, PONG, TEXT, frame};
use crate::common::{Server, TempDir, eventually, percore, run};
use percore::internal::apps::ticker::wire::{Beat, Change, Changes, Request, Wire};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A feed on a port of its own, with further flags.
fn feed(flags: &[&str]) -> Server {
    let mut args = vec!["serve", "ticker", "--listen", "127.0.0.1:0"];
    if !flags.contains(&"--tick") {
        args.extend(["--tick", "20ms"]);
    }
    args.extend_from_slice(flags);
    Server::launch(percore(&args), 1)
}

fn on_bus(folder: &Path, flags: &[&str]) -> Server {
    feed(&[&["--bus", folder.to_str().expect("text"), "--bus-size", "64K"], flags].concat())
}

fn say(client: &mut Client, message: &Wire) {
    client.send(frame(TEXT, message.write().as_bytes()));
}

fn ask(client: &mut Client, tickers: &[&str]) {
    let tickers = tickers.iter().map(|ticker| (*ticker).to_owned()).collect();
    say(client, &Wire::TickerRequest(Request { id: "test".into(), tickers }));
}

/// The next prices, passing over Pings.
fn changes(client: &mut Client) -> Vec<Change> {
    loop {
        match Wire::read(&client.text()).expect("a message") {
            Wire::TickerChange(Changes(changes)) => return changes,
            Wire::Ping(_) => {}
            other => panic!("{other:?} in place of prices"),
        }
    }
}

fn symbols(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.symbol.as_str()).collect()
}

/// Prices of the symbols asked for, once these are what comes: all that were asked for come first.
fn until(client: &mut Client, want: &[&str]) -> Vec<Change> {
    loop {
        let changes = changes(client);
        if symbols(&changes) == want {
            return changes;
        }
    }
}

#[test]
fn who_asks_gets_what_it_asked_for() {
    let server = feed(&[]);
    let mut client = server.open();
    ask(&mut client, &["SPY", "AAPL", "SPY"]);
    let first = changes(&mut client);
    assert_eq!(symbols(&first), ["AAPL", "SPY"], "one message a tick, each symbol once");
    assert!((60.0..270.0).contains(&first[0].price) && first[0].update_time > 1_700_000_000);
    let moved = (0..50).any(|_| changes(&mut client)[0].price != first[0].price);
    assert!(moved, "prices move");
    // A new request replaces the old one, and an unknown ticker is added.
    ask(&mut client, &["NEW.X"]);
    assert!(until(&mut client, &["NEW.X"])[0].price > 0.0);
    let mut other = server.open();
    ask(&mut other, &["NEW.X", "CMG"]);
    assert_eq!(symbols(&changes(&mut other)), ["CMG", "NEW.X"]);
    ask(&mut client, &[]);
    say(&mut client, &Wire::Ping(Beat { sequence: 7, seconds: 8, nanos: 9 }));
    // What was under way may still come; then nothing but the answer.
    loop {
        match client.text().as_str() {
            r#"Pong:{"Sequence":7,"Seconds":8,"Nanos":9}"# => break,
            change => assert!(change.starts_with("TickerChange:"), "{change}"),
        }
    }
    changes(&mut other);
    assert_eq!(client.frame_within(Duration::from_millis(100)).map(|frame| frame.first), None);
}

#[test]
fn nothing_is_published_where_nobody_could_hear_it() {
    let server = feed(&["--admin", "127.0.0.1:0"]);
    let mut client = server.open();
    ask(&mut client, &["NEW.X"]);
    // Ticks enough for what is wanted to be said again.
    for _ in 0..12 {
        until(&mut client, &["NEW.X"]);
    }
    assert_eq!(server.metric("percore_published_total"), 0);
}

#[test]
fn the_shape_is_that_of_the_document() {
    let server = feed(&["--seed", "1"]);
    let mut client = server.open();
    ask(&mut client, &["AAPL"]);
    let text = client.text();
    let change = changes(&mut client);
    let (head, price) = text.rsplit_once(r#","Price":"#).expect("a price");
    assert!(head.starts_with(r#"TickerChange:{"Changes":[{"Symbol":"AAPL","UpdateTime":"#), "{text}");
    assert!(price.strip_suffix("}]}").is_some_and(|price| price.parse::<f64>().is_ok()), "{text}");
    assert_eq!(change.len(), 1);
}

#[test]
fn what_cannot_be_read_ends_its_connection_alone() {
    let server = feed(&[]);
    let mut witness = server.open();
    ask(&mut witness, &["SPY"]);
    for (first, payload, code, said) in [
        (TEXT, "Weather:{}", 1003, "unknown message 'Weather'"),
        (TEXT, "no name", 1007, "no colon"),
        (TEXT, "TickerRequest:{", 1007, "not followed by JSON"),
        (TEXT, r#"TickerRequest:{"Id":"x","Tickers":"SPY"}"#, 1007, "Tickers must be a list"),
        (TEXT, r#"TickerRequest:{"Id":"x","Tickers":["a b"]}"#, 1008, "is not a symbol"),
        (TEXT, r#"TickerChange:{"Changes":[]}"#, 1003, "only servers"),
        (TEXT, &format!("Ping:[{}0]", r#"{"":0},"#.repeat(100_000)), 1009, "longer than 131072 bytes"),
        (BINARY, "Ping:{}", 1003, "binary"),
    ] {
        let mut client = server.open();
        client.send(frame(first, payload.as_bytes()));
        let error = client.text();
        assert!(error.starts_with(r#"Error:{"Message":"#) && error.contains(said), "{payload}: {error}");
        let (closed, reason) = client.closed();
        assert_eq!(closed, code, "{payload}: {reason}");
    }
    assert_eq!(symbols(&changes(&mut witness)), ["SPY"]);
}

#[test]
fn who_is_silent_is_released_and_who_answers_stays() {
    let server = feed(&["--ping", "300ms"]);
    let (mut silent, mut lively) = (server.open(), server.open());
    let mut pings = 0;
    // The one that answers outlives the other.
    let closed = std::thread::spawn(move || silent.closed());
    while pings < 5 {
        if let Wire::Ping(beat) = Wire::read(&lively.text()).expect("a message") {
            pings += 1;
            assert_eq!(beat.sequence, pings);
            say(&mut lively, &Wire::Pong(beat));
        }
    }
    assert_eq!(closed.join().expect("it was told"), (1008, "silent for too long".to_owned()));
    ask(&mut lively, &["SPY"]);
    changes(&mut lively);
}

#[test]
fn all_processes_show_the_same_and_go_on_when_one_is_killed() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let (one, two) = (on_bus(&bus, &[]), on_bus(&bus, &[]));
    let (mut first, mut second) = (one.open(), two.open());
    // Asked of one process only, and so a symbol that the other has never heard of.
    ask(&mut first, &["AAPL", "ODD"]);
    ask(&mut second, &["AAPL"]);
    until(&mut first, &["AAPL", "ODD"]);
    ask(&mut second, &["AAPL", "ODD"]);
    until(&mut second, &["AAPL", "ODD"]);
    let ours: Vec<_> = (0..100).map(|_| changes(&mut first)).collect();
    let theirs: Vec<_> = (0..100).map(|_| changes(&mut second)).collect();
    let at = theirs.iter().position(|prices| prices == &ours[50]).or_else(|| {
        // The second may have begun later than the first ended.
        ours.iter().position(|prices| prices == &theirs[0])
    });
    assert!(at.is_some(), "no tick was the same: {:?} and {:?}", ours[50], theirs[0]);
    let run: usize = ours.iter().filter(|prices| theirs.contains(prices)).count();
    assert!(run > 10, "{run} of 100 ticks were the same");
    // Whoever made the prices, the other goes on with them.
    let last = changes(&mut first);
    drop((first, one));
    let next = changes(&mut second);
    let before = last.iter().find(|change| change.symbol == next[0].symbol).unwrap_or(&ours[99][0]);
    if before.symbol == next[0].symbol {
        assert!((next[0].price / before.price - 1.0).abs() < 0.2, "{last:?}, then {next:?}");
    }
    for _ in 0..20 {
        changes(&mut second);
    }
    // And one that comes later follows.
    let three = on_bus(&bus, &[]);
    let mut third = three.open();
    ask(&mut third, &["AAPL", "ODD"]);
    until(&mut third, &["AAPL", "ODD"]);
    let ours: Vec<_> = (0..50).map(|_| changes(&mut second)).collect();
    let theirs: Vec<_> = (0..50).map(|_| changes(&mut third)).collect();
    assert!(ours.iter().any(|prices| theirs.contains(prices)));
}

/// More than a ring takes at a time.
#[test]
fn many_symbols_are_shared() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let (one, two) = (on_bus(&bus, &[]), on_bus(&bus, &[]));
    let names: Vec<String> = (0..300).map(|number| format!("LONG-NAME-OF-SYMBOL-{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut clients = [one.open(), two.open()];
    for client in &mut clients {
        ask(client, &names);
        until(client, &names);
    }
    // Each shows the other's ticks, or the other its own.
    let [ours, theirs] = clients.each_mut().map(|client| (0..40).map(|_| changes(client)).collect::<Vec<_>>());
    let same = ours.iter().filter(|prices| theirs.contains(prices)).count();
    assert!(same > 10, "{same} of 40 ticks were the same");
}

/// Symbols that nobody else has.
fn made_up(owner: usize, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("N{owner}-{at}")).collect()
}

/// Waits until everything that a client said was worked on.
fn sync(client: &mut Client) {
    say(client, &Wire::Ping(Beat { sequence: 1, seconds: 2, nanos: 3 }));
    while !client.text().starts_with("Pong:") {}
}

/// A client that made up so many symbols.
fn hoarder(server: &Server, owner: usize, count: usize) -> Client {
    let mut client = server.open();
    ask(&mut client, &made_up(owner, count).iter().map(String::as_str).collect::<Vec<_>>());
    sync(&mut client);
    client
}

/// Clients that fill the market, which has the eight of the table as well.
fn hoarders(server: &Server) -> Vec<Client> {
    (0..10).map(|owner| hoarder(server, owner, if owner == 9 { 992 } else { 1000 })).collect()
}

/// Takes those away from them that were closed for another's sake.
fn turned_out(clients: &mut Vec<Client>) -> usize {
    let before = clients.len();
    clients.retain_mut(|client| {
        let mut is_open = true;
        say(client, &Wire::Ping(Beat { sequence: 1, seconds: 2, nanos: 3 }));
        while is_open {
            let frame = client.frame();
            if frame.first == CLOSE {
                assert_eq!(frame.payload[..2], 1008u16.to_be_bytes());
                assert!(String::from_utf8_lossy(&frame.payload[2..]).starts_with("too many made-up symbols"));
                is_open = false;
            } else if frame.payload.starts_with(b"Pong:") {
                break;
            }
        }
        is_open
    });
    before - clients.len()
}

#[test]
fn a_newcomer_is_taken_at_the_expense_of_who_made_up_most() {
    let server = feed(&["--tick", "1s"]);
    let mut clients = hoarders(&server);
    assert_eq!(turned_out(&mut clients), 0);
    let mut newcomer = server.open();
    ask(&mut newcomer, &["ONE-MORE", "SPY"]);
    assert_eq!(symbols(&changes(&mut newcomer)), ["ONE-MORE", "SPY"]);
    assert_eq!(turned_out(&mut clients), 1);
    // One that would have as many as any other is refused, and closes nobody.
    clients.push(hoarder(&server, 10, 999));
    let names = made_up(11, 1000);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut greedy = server.open();
    ask(&mut greedy, &names);
    assert_eq!(greedy.closed().0, 1008);
    assert_eq!(turned_out(&mut clients), 0);
    // What nobody wants any more is forgotten at once.
    ask(&mut clients[0], &[]);
    sync(&mut clients[0]);
    drop(hoarder(&server, 11, 1000));
    assert_eq!(turned_out(&mut clients), 0);
    server.wait_for_log("too many made-up symbols: the market is full");
}

#[test]
fn a_newcomer_is_taken_whichever_process_it_comes_to() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let (one, two) = (on_bus(&bus, &["--tick", "500ms"]), on_bus(&bus, &["--tick", "500ms"]));
    let mut clients = hoarders(&two);
    let mut newcomer = one.open();
    ask(&mut newcomer, &["ONE-MORE"]);
    assert_eq!(symbols(&changes(&mut newcomer)), ["ONE-MORE"]);
    eventually("room in the other's market as well", || turned_out(&mut clients) > 0);
    assert_eq!(clients.len(), 9);
}

/// A client that behaves as the original program's does: it knows TickerChange and Pong and ends at anything else, reads at
/// most 32 KiB a message, pings by itself, and comes back after a wait that is always the same.
struct Original {
    addr: std::net::SocketAddr,
    tickers: Vec<String>,
    ping: Duration,
    /// How often it connected, and why it ended.
    attempts: usize,
    ends: Vec<String>,
    /// Prices that came, by symbol, and messages that were answered.
    prices: HashMap<String, f64>,
    changes: usize,
    pongs: usize,
    longest: usize,
}

impl Original {
    const WAIT: Duration = Duration::from_millis(50);

    fn new(server: &Server, tickers: &[String], ping: Duration) -> Original {
        let (addr, tickers) = (server.addr(), tickers.to_vec());
        let (ends, prices) = (Vec::new(), HashMap::new());
        Original { addr, tickers, ping, attempts: 0, ends, prices, changes: 0, pongs: 0, longest: 0 }
    }

    /// Goes on, connection after connection, until there is enough.
    fn run(&mut self, is_enough: impl Fn(&Original) -> bool) {
        while !is_enough(self) {
            self.attempts += 1;
            assert!(self.attempts < 10, "it comes back for ever: {:?}", self.ends);
            if let Err(why) = self.connection(&is_enough) {
                self.ends.push(why);
                std::thread::sleep(Original::WAIT);
            }
        }
    }

    fn connection(&mut self, is_enough: &impl Fn(&Original) -> bool) -> Result<(), String> {
        let mut client = Client::connect(self.addr);
        client.upgrade("");
        let tickers = serde_json::to_string(&self.tickers).expect("JSON");
        // As the original's does, its name ends in a space.
        client.send(frame(TEXT, format!(r#"TickerRequest:{{"Id":"original ","Tickers":{tickers}}}"#).as_bytes()));
        let mut next_ping = Instant::now();
        while !is_enough(self) {
            if Instant::now() >= next_ping {
                say(&mut client, &Wire::Ping(Beat { sequence: 1, seconds: 2, nanos: 3 }));
                next_ping = Instant::now() + self.ping;
            }
            let wait = next_ping.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let Some(frame) = client.frame_within(wait) else { continue };
            match frame.first {
                TEXT => self.message(std::str::from_utf8(&frame.payload).expect("UTF-8"))?,
                PING => client.send(self::frame(PONG, &frame.payload)),
                first => return Err(format!("a frame that begins with {first:#x}")),
            }
        }
        Ok(())
    }

    fn message(&mut self, text: &str) -> Result<(), String> {
        self.longest = self.longest.max(text.len());
        if text.len() > 32 << 10 {
            return Err(format!("a message of {} bytes", text.len()));
        }
        match Wire::read(text) {
            Ok(Wire::TickerChange(Changes(changes))) => {
                self.changes += 1;
                for Change { symbol, price, .. } in changes {
                    if self.prices.insert(symbol, price) == Some(price) {
                        return Err("a price that did not change".into());
                    }
                }
            }
            Ok(Wire::Pong(_)) => self.pongs += 1,
            _ => return Err(format!("an unknown message: {text}")),
        }
        Ok(())
    }
}

#[test]
fn the_original_client_stays() {
    let server = feed(&["--ping", "200ms"]);
    let mut original = Original::new(&server, &["QAN.AX".into()], Duration::from_millis(200));
    // Asked for life, it would have ended by now; so it would have by a price that did not change.
    original.run(|original| original.pongs >= 8 && original.changes > 10);
    assert_eq!((original.attempts, original.ends), (1, vec![]));
}

#[test]
fn the_original_client_reads_long_lists() {
    let server = feed(&["--tick", "200ms"]);
    let names: Vec<String> = (0..1000).map(|number| format!("LONG-NAME-OF-SYMBOL-{number:04}")).collect();
    let mut original = Original::new(&server, &names, Duration::from_secs(60));
    original.run(|original| original.prices.len() == 1000 && original.changes > 10);
    assert_eq!((original.attempts, original.ends), (1, vec![]));
    assert!(original.longest > 30_000, "{}", original.longest);
}

#[test]
fn a_client_that_went_is_back_after_the_same_wait() {
    let server = feed(&[]);
    let mut original = Original::new(&server, &["not a symbol".into()], Duration::from_secs(60));
    let began = Instant::now();
    original.run(|original| original.ends.len() == 3);
    assert!(original.ends.iter().all(|why| why.contains("is not a symbol")), "{:?}", original.ends);
    assert!(began.elapsed() >= 3 * Original::WAIT);
}

#[test]
fn nothing_comes_when_nothing_changed() {
    let folder = TempDir::new();
    let file = folder.path("prices.csv");
    // Of a cent, each step is less than half a cent.
    fs::write(&file, "CENT,0.01\nGOLD,2000\n").expect("written");
    let server = feed(&["--prices", file.to_str().expect("text")]);
    let (mut client, mut witness) = (server.open(), server.open());
    ask(&mut client, &["CENT"]);
    ask(&mut witness, &["CENT", "GOLD"]);
    assert_eq!(symbols(&changes(&mut client)), ["CENT"]);
    assert_eq!(symbols(&changes(&mut witness)), ["CENT", "GOLD"]);
    for _ in 0..10 {
        assert_eq!(symbols(&changes(&mut witness)), ["GOLD"]);
    }
    // One that comes later gets all, and the others do not for its sake.
    let mut late = server.open();
    ask(&mut late, &["CENT", "GOLD"]);
    assert_eq!(symbols(&changes(&mut late)), ["CENT", "GOLD"]);
    for _ in 0..10 {
        assert_eq!(symbols(&changes(&mut witness)), ["GOLD"]);
    }
    assert_eq!(client.frame_within(Duration::from_millis(1)), None);
}

#[test]
fn prices_come_from_a_file_and_a_seed() {
    let folder = TempDir::new();
    let file = folder.path("prices.csv");
    fs::write(&file, "symbol,price\nGOLD,2000\n").expect("written");
    let prices = |seed: &str| -> Vec<f64> {
        let server = feed(&["--prices", file.to_str().expect("text"), "--seed", seed]);
        let mut client = server.open();
        ask(&mut client, &["GOLD"]);
        (0..60).map(|_| changes(&mut client)[0].price).collect()
    };
    // The first prices may have gone by before the client asked.
    let (one, again, other) = (prices("1"), prices("1"), prices("2"));
    let has = |all: &[f64], part: &[f64]| all.windows(part.len()).any(|window| window == part);
    assert!(has(&again, &one[30..35]), "{one:?} and {again:?}");
    assert!(!has(&other, &one[30..35]), "{one:?} and {other:?}");
    fs::write(&file, "GOLD,1\nSILVER,few\n").expect("written");
    let (code, _, error) = run(percore(&["serve", "ticker", "--prices", file.to_str().expect("text")]));
    assert_eq!(code, 2);
    assert!(error.contains("line 2") && error.contains("SILVER,few"), "{error}");
    let (code, _, error) = run(percore(&["serve", "ticker", "--prices", "/nonexistent.csv", "--workers", "2"]));
    assert!(code == 2 && error.contains("/nonexistent.csv"), "{error}");
}
