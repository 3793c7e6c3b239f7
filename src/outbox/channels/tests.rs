//! A subscriber gets what is published on a channel while it is there, in order with everything else it is sent.

use super::*;
use crate::net::id::ConnectionId;
use crate::outbox::SlowConsumer;
use crate::outbox::{Delivery, SendRules};
use crate::protocol::Role;
use crate::protocol::deflate::Inflater;
use crate::protocol::extension::{Agreement, Deflate};
use crate::protocol::receiver::{Event, Piece, Receiver, Rules, Scratch};
use crate::queue::MAX_SLICES;
use proptest::prelude::*;
use std::collections::BTreeSet;

const CONNECTIONS: u32 = 5;
/// For an echo whose pieces have other frames between them.
const ECHO: [u8; 100] = [b'e'; 100];

fn id(index: u32) -> ConnectionId {
    ConnectionId { node: 3, generation: 1, index }
}

/// What the connections agreed on: nothing, two windows without context takeover, one with.
fn agreement(index: u32) -> Option<Agreement> {
    let agreed = |server_takeover, server_bits| {
        Some(Agreement { server_takeover, client_takeover: false, server_bits, client_bits: 15 })
    };
    [None, agreed(false, 15), agreed(false, 10), agreed(true, 12), None][index as usize]
}

fn outbox(rules: SendRules) -> Outbox {
    let mut outbox = Outbox::new(rules, Deflate { min_bytes: 50, ..Deflate::default() }, 3, [5; 32]);
    for index in 0..CONNECTIONS {
        outbox.queue.open(index, 1);
        outbox.begin_frames(id(index), Role::Server, agreement(index));
    }
    outbox
}

/// Writes as a reactor would, to sockets that take a given number of bytes each.
fn write(outbox: &mut Outbox, rooms: [usize; CONNECTIONS as usize], got: &mut [Vec<u8>]) {
    outbox.end_fanout();
    while let Some(key) = outbox.queue.next_dirty() {
        let mut slices = [std::io::IoSlice::new(&[]); MAX_SLICES];
        let count = outbox.queue.gather(key, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = bytes.len().min(rooms[key as usize]);
        outbox.queue.sent(key, taken, taken < bytes.len());
        got[key as usize].extend(&bytes[..taken]);
    }
    outbox.queue.end_flush();
    outbox.tell_changes();
}

/// The messages in what a connection got.
fn read(index: u32, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let rules = Rules { role: Role::Client, max_message: 1 << 20, max_frame: usize::MAX, pieces_from: None };
    let (mut scratch, mut pool) = (Scratch::default(), crate::queue::pool::Pool::default());
    let mut receiver = match agreement(index) {
        Some(agreed) => Receiver::with_deflate(agreed.server_takeover.then(|| Box::new(Inflater::new()))),
        None => Receiver::new(),
    };
    let (mut got, mut used) = (Vec::new(), 0);
    while used < bytes.len() {
        let (taken, event) =
            receiver.next(&mut bytes[used..], &rules, &mut scratch, &mut pool).expect("what we send is no violation");
        used += taken;
        match event {
            Some(Event::Message(mut message)) => got.push(message.payload().to_vec()),
            Some(other) => panic!("{other:?} was not sent"),
            None => assert!(taken > 0),
        }
    }
    got
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, u8),
    Unsubscribe(u32, u8),
    Publish(u8, usize),
    Send(u32, usize),
    BeginEcho(u32),
    EndEcho(u32),
    Write([usize; CONNECTIONS as usize]),
    Leave(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (connection, channel) = (0..CONNECTIONS, 0u8..3);
    prop_oneof![
        (connection.clone(), channel.clone()).prop_map(|(c, n)| Step::Subscribe(c, n)),
        (connection.clone(), channel.clone()).prop_map(|(c, n)| Step::Unsubscribe(c, n)),
        (channel.clone(), 0usize..30).prop_map(|(n, length)| Step::Publish(n, length)),
        (channel.clone(), 0usize..30).prop_map(|(n, length)| Step::Publish(n, length)),
        (channel, prop::sample::select(vec![60usize, 300, 2000])).prop_map(|(n, length)| Step::Publish(n, length)),
        (connection.clone(), 0usize..200).prop_map(|(c, length)| Step::Send(c, length)),
        connection.clone().prop_map(Step::BeginEcho),
        connection.clone().prop_map(Step::EndEcho),
        prop::array::uniform5(prop_oneof![Just(0usize), 1usize..400, Just(usize::MAX)]).prop_map(Step::Write),
        connection.prop_map(Step::Leave),
    ]
}

/// A numbered text that does not compress to nothing.
fn text(number: usize, length: usize) -> String {
    let filler = (number * 31..).map(|value| char::from(b'a' + (value * value % 26) as u8));
    format!("{number} ").chars().chain(filler).take(length.max(4)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn everyone_gets_what_was_published_while_it_was_there(steps in prop::collection::vec(step(), 1..60)) {
        let mut outbox = outbox(SendRules { max_backlog: 1 << 30, ..SendRules::default() });
        let mut on: BTreeSet<(u8, u32)> = BTreeSet::new();
        let mut want = vec![Vec::<Vec<u8>>::new(); CONNECTIONS as usize];
        let mut got = vec![Vec::new(); CONNECTIONS as usize];
        let mut echoes = BTreeSet::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Subscribe(c, n) => {
                    prop_assert_eq!(outbox.subscribe(id(c), &n.to_string()), on.insert((n, c)));
                }
                Step::Unsubscribe(c, n) => {
                    prop_assert_eq!(outbox.unsubscribe(id(c), &n.to_string()), on.remove(&(n, c)));
                }
                Step::Publish(n, length) => {
                    let text = text(number, length);
                    let (front, back) = text.as_bytes().split_at(length / 2);
                    let there: Vec<u32> = on.iter().filter(|(channel, _)| *channel == n).map(|(_, c)| *c).collect();
                    let reached = outbox.publish(&n.to_string(), Kind::Text, &[front, back]);
                    prop_assert_eq!(reached, Ok(there.len()));
                    there.iter().for_each(|c| want[*c as usize].push(text.clone().into_bytes()));
                }
                Step::Send(c, length) => {
                    let text = text(number, length);
                    prop_assert_eq!(outbox.send_text(id(c), &text), Delivery::Queued);
                    want[c as usize].push(text.into_bytes());
                }
                Step::BeginEcho(c) => {
                    if echoes.insert(c) {
                        outbox.begin_echo(id(c), ECHO.len());
                        let mut half = ECHO[..40].to_vec();
                        let piece = Piece { begins: None, payload: &mut half, mask: [0; 4], ends: false };
                        outbox.echo_piece(c, piece);
                        want[c as usize].push(ECHO.to_vec());
                    }
                }
                Step::EndEcho(c) => {
                    if echoes.remove(&c) {
                        let mut half = ECHO[40..].to_vec();
                        let piece = Piece { begins: None, payload: &mut half, mask: [0; 4], ends: true };
                        outbox.echo_piece(c, piece);
                        outbox.end_echo(c);
                    }
                }
                Step::Write(rooms) => {
                    write(&mut outbox, rooms, &mut got);
                    (0..CONNECTIONS).for_each(|c| { outbox.queue.unblock(c); });
                }
                Step::Leave(c) => {
                    outbox.unsubscribe_all(c);
                    on.retain(|(_, other)| *other != c);
                }
            }
        }
        for c in echoes {
            outbox.echo_piece(c, Piece { begins: None, payload: &mut ECHO[40..].to_vec(), mask: [0; 4], ends: true });
            outbox.end_echo(c);
        }
        // More bytes may wait than one write takes.
        for _ in 0..100 {
            write(&mut outbox, [usize::MAX; CONNECTIONS as usize], &mut got);
        }
        for (c, (bytes, want)) in (0..).zip(got.into_iter().zip(want)) {
            let got = read(c, bytes);
            prop_assert_eq!(got, want, "connection {}", c);
        }
        prop_assert_eq!(outbox.queue.kept_common_bytes(), 0);
    }
}

/// A connection that does not read has its messages counted and dropped, or is closed; the others are unaffected.
#[test]
fn a_full_backlog_is_its_own_affair() {
    for policy in [SlowConsumer::Drop, SlowConsumer::Close] {
        let rules = SendRules { max_backlog: 100, slow_consumer: policy };
        let mut outbox = outbox(rules);
        let mut got = vec![Vec::new(); CONNECTIONS as usize];
        for index in 0..CONNECTIONS {
            outbox.subscribe(id(index), "all");
        }
        for number in 0..10 {
            // The first pass goes nowhere; from the second on the connection is known not to read.
            assert_eq!(outbox.publish("all", Kind::Text, &[text(number, 40).as_bytes()]), Ok(5));
            outbox.publish("all", Kind::Text, &[text(number, 40).as_bytes()]).expect("no bus");
            write(&mut outbox, [0, usize::MAX, usize::MAX, usize::MAX, usize::MAX], &mut got);
        }
        for index in 1..CONNECTIONS {
            assert_eq!(read(index, std::mem::take(&mut got[index as usize])).len(), 20);
        }
        let backlog = outbox.queue.lane_at(0).queued_bytes();
        assert!((100..200).contains(&backlog), "{backlog} bytes wait");
        match policy {
            SlowConsumer::Drop => {
                assert_eq!(outbox.stats.messages_dropped, 16);
                assert!(outbox.demands.is_empty());
            }
            SlowConsumer::Close => assert_eq!(outbox.demands, [(0, Demand::Overflow)]),
        }
        assert_eq!(outbox.stats.sent[Kind::Text.index()], 4 * 20 + 4);
    }
}

/// What other processes and the app are told: names as they join and leave, and counts once per pass.
#[test]
fn others_are_told_who_is_there() {
    let mut outbox = outbox(SendRules::default());
    outbox.broadcast.place = Some(Place { me: Participant { slot: 1, generation: 1 }, limit: 100 });
    assert!(outbox.subscribe_as(id(0), "room", "ann") && outbox.subscribe_as(id(1), "room", "ann"));
    assert!(!outbox.subscribe_as(id(1), "room", "ann"), "it is there");
    assert!(outbox.subscribe_as(id(1), "room", "ben"));
    outbox.unsubscribe_all(0);
    assert_eq!(outbox.publish("room", Kind::Binary, &[b"hi"]), Ok(1));
    assert_eq!(outbox.publish("room", Kind::Binary, &[&[0; 97]]), Err(PublishError::TooLong { limit: 100 }));
    outbox.tell_changes();
    let told: Vec<_> = outbox.broadcast.outgoing.iter().map(|record| (record.kind, record.payload.to_vec())).collect();
    let interest = crate::channel::record::Interest { subscribers: 1, listens: false };
    assert_eq!(
        told,
        [
            (RecordKind::Enter, b"ann".to_vec()),
            (RecordKind::Enter, b"ben".to_vec()),
            (RecordKind::Leave, b"ann".to_vec()),
            (RecordKind::Binary, b"hi".to_vec()),
            (RecordKind::Count, interest.bytes().to_vec()),
        ]
    );
    assert_eq!(outbox.members("room").collect::<Vec<_>>(), ["ben"]);
    assert_eq!((outbox.subscribers("room"), outbox.subscriptions(id(1)), outbox.subscriptions(id(0))), (1, 1, 0));
    assert_eq!(outbox.broadcast.news.iter().count(), 3);
    // Of another process, or closed: ignored.
    let stranger = ConnectionId { node: 4, ..id(1) };
    assert!(!outbox.subscribe_as(stranger, "room", "cid") && !outbox.unsubscribe(stranger, "room"));
}
