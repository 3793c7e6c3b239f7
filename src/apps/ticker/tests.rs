//! A feed without a loop: how a tick is divided, and which clients are pinged.

use super::*;
use crate::outbox::SendRules;
use crate::protocol::extension::Deflate;
use crate::queue::MAX_SLICES;
use std::io::IoSlice;

const TICK: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_secs(60);

fn id(index: u32) -> ConnectionId {
    ConnectionId { node: 0, generation: 1, index }
}

/// Makes a feed with this many clients.
fn feed(clients: u32) -> (Ticker, Outbox) {
    let market = Market::new(table::TABLE.map(|(symbol, price)| (symbol.to_owned(), price)), 1, 7);
    let mut ticker = Ticker::new(market, Times { tick: TICK, ping: PING });
    let mut out = Outbox::new(SendRules::default(), Deflate::default(), 0, [5; 32]);
    for index in 0..clients {
        out.open_plain(id(index));
        ticker.clients.insert(id(index), Client { heard: Duration::ZERO, asked: 0, pings: false, set: None });
        ticker.silences.insert((PING, id(index)));
    }
    ticker.on_tick(Duration::ZERO, &mut out);
    (ticker, out)
}

/// Appends the output queued for each client.
fn written(out: &mut Outbox, got: &mut [String]) {
    out.end_fanout();
    while let Some(key) = out.queue.next_dirty() {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = out.queue.gather(key, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        out.queue.sent(key, bytes.len(), false);
        got[key as usize] += &String::from_utf8_lossy(&bytes);
    }
    out.queue.end_flush();
}

/// Runs a pass of the loop. Returns how many bytes it queued, and whether the next must begin at once.
fn pass(ticker: &mut Ticker, out: &mut Outbox, now: Duration, got: &mut [String]) -> (usize, bool) {
    out.now = now;
    let next = ticker.on_tick(now, out);
    out.end_fanout();
    let bytes = out.queue.pass_bytes();
    written(out, got);
    (bytes, next.is_some_and(|next| next <= now))
}

fn prices(got: &str) -> usize {
    got.matches(r#""Symbol""#).count()
}

#[test]
fn a_tick_is_divided_and_neither_overlaps_nor_repeats() {
    const CLIENTS: u32 = 40;
    let (mut ticker, mut out) = feed(CLIENTS);
    for index in 0..CLIENTS {
        let symbols = (index..index + 1000).map(|number| format!("S{number}")).collect();
        ticker.subscribe(id(index), symbols, &mut out).expect("there is room");
    }
    let mut got = vec![String::new(); CLIENTS as usize];
    let (mut passes, mut now) = (0, TICK);
    loop {
        let (bytes, goes_on) = pass(&mut ticker, &mut out, now, &mut got);
        assert!(bytes < 192 << 10, "{bytes} bytes in pass {passes}");
        passes += 1;
        if passes == 5 {
            // The next tick is due, but the first continues, with current prices; clients that have had it wait.
            assert!(goes_on && prices(&got[0]) == 1000 && prices(&got[CLIENTS as usize - 1]) == 0);
            now += TICK;
        }
        if got.iter().all(|got| prices(got) > 0) {
            break;
        }
        assert!(goes_on);
    }
    assert!(passes >= 20, "{passes}");
    assert!(got.iter().all(|got| prices(got) == 1000), "each had one tick");
    let before = got.clone();
    while pass(&mut ticker, &mut out, now, &mut got).1 {}
    let second = got.iter().zip(&before).filter(|(got, before)| prices(got) > prices(before)).count();
    let newest = ticker.market.after("").filter(|change| change.symbol.starts_with('S') && change.symbol != "SPY");
    assert!(newest.take(1000).filter(|change| got[0].contains(&change.to_json())).count() > 900);
    assert!((1..=12).contains(&second), "the second tick is for clients that had the prices before it: {second}");
    assert!(got.iter().all(|got| prices(got) <= 2000));
    // All is sent: the next tick is due next.
    assert_eq!(ticker.on_tick(now, &mut out), Some(3 * TICK));
}

#[test]
fn messages_are_short_enough_for_the_original_client() {
    let (mut ticker, mut out) = feed(1);
    let symbols = (0..1000).map(|number| format!("LONG-NAME-OF-SYMBOL-{number:012}")).collect();
    ticker.subscribe(id(0), symbols, &mut out).expect("there is room");
    let mut got = vec![String::new()];
    while pass(&mut ticker, &mut out, TICK, &mut got).1 {}
    let lengths: Vec<usize> = got[0].split("TickerChange:").skip(1).map(|text| text.len() + 13).collect();
    // A header of four bytes may count as part of the previous message.
    assert!(lengths.iter().all(|length| *length <= sets::MAX_CHANGES_BYTES + 10), "{lengths:?}");
    assert!(lengths.len() == 3 && prices(&got[0]) == 1000, "{lengths:?}");
}

#[test]
fn only_who_is_silent_and_does_not_ping_is_asked() {
    let (mut ticker, mut out) = feed(2);
    if let Some(client) = ticker.clients.get_mut(&id(1)) {
        client.pings = true;
    }
    let mut got = vec![String::new(); 2];
    for (percent, asked, closed) in
        [(100, [0, 0], 0), (149, [0, 0], 0), (150, [1, 0], 0), (199, [1, 0], 0), (200, [1, 0], 2)]
    {
        pass(&mut ticker, &mut out, PING * percent / 100, &mut got);
        assert_eq!([0, 1].map(|at: usize| got[at].matches("Ping:").count()), asked, "{percent}");
        assert_eq!(got.iter().filter(|got| got.contains("silent for too long")).count(), closed, "{percent}");
    }
}

#[test]
fn very_many_newcomers_cost_each_what_one_does() {
    // All share one symbol and each has one of its own: no comparison with everything there is.
    const CLIENTS: u32 = 2000;
    let (mut ticker, mut out) = feed(CLIENTS);
    for index in 0..CLIENTS {
        ticker.subscribe(id(index), vec!["SPY".into(), format!("S{index}")], &mut out).expect("there is room");
    }
    assert_eq!((ticker.market.room(), ticker.sets.heaviest()), (10_000 - 2008, Some((WEIGHT, 2000))));
    // The more clients share a set, the less it weighs for each of them.
    for index in 0..4 {
        ticker.subscribe(id(index), vec!["A1".into(), "A2".into()], &mut out).expect("there is room");
    }
    assert_eq!(ticker.market.room(), 10_000 - 2008 + 4 - 2);
    for index in 0..CLIENTS {
        ticker.unsubscribe(id(index), &mut out);
    }
    assert_eq!((ticker.market.room(), ticker.sets.heaviest(), ticker.sets.next_after(0)), (10_000 - 8, None, None));
}
