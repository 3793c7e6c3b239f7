//! `serve ticker`: who asks gets prices, the same from every process; who is silent is released.

mod common;

use common::client::{BINARY, Client, TEXT, frame};
use common::{Server, TempDir, eventually, percore, run};
use percore::apps::ticker::wire::{Beat, Change, Changes, Request, Wire};
use std::fs;
use std::path::Path;

/// A feed on a port of its own, with further flags.
fn feed(flags: &[&str]) -> Server {
    let mut args = vec!["serve", "ticker", "--listen", "127.0.0.1:0", "--tick", "20ms"];
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

/// Prices of the symbols asked for, and only once these are what comes.
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
    assert_eq!(client.frame_within(std::time::Duration::from_millis(100)).map(|frame| frame.first), None);
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
        (TEXT, r#"TickerRequest:{"Id":"x","Tickers":"SPY"}"#, 1007, "no list Tickers"),
        (TEXT, r#"TickerRequest:{"Id":"x","Tickers":["a b"]}"#, 1008, "no symbol"),
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
    assert!((next[0].price / last[0].price - 1.0).abs() < 0.2, "{last:?}, then {next:?}");
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

/// More than a ring takes at a time, and gone when nobody wants them any more.
#[test]
fn many_symbols_are_shared_and_forgotten() {
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
    // All that there can be.
    for number in 0..10 {
        let names: Vec<String> = (0..1000).map(|at| format!("N{number}-{at}")).collect();
        ask(&mut clients[0], &names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let refused = |code| {
        let mut client = one.open();
        ask(&mut client, &["ONE-MORE"]);
        let first = client.text();
        assert!(first.starts_with("TickerChange:") || first.contains("10000 symbols already"), "{first}");
        first.starts_with("Error:") == code
    };
    eventually("a full market", || refused(true));
    eventually("room in it", || refused(false));
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
