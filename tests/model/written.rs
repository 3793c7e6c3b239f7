//! An app that uses `on_written` sends a long series without ever queueing more than a part of it.

use percore::internal::session::Sessions;
use percore::{App, ConnectionId, Log, Message, Outbox, Peer, Request, Settings};
use std::io::IoSlice;
use std::time::Duration;

const PARTS: u8 = 50;
const PART_BYTES: usize = 100_000;
const TAKEN_BYTES: usize = 30_000;
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[derive(Default)]
struct Series {
    most_waiting: usize,
}

impl App for Series {
    type State = u8;

    fn on_open(&mut self, id: ConnectionId, _: &Request<'_>, out: &mut Outbox) -> u8 {
        out.when_written(id);
        0
    }

    fn on_written(&mut self, id: ConnectionId, next: &mut u8, out: &mut Outbox) {
        assert_eq!(out.backlog_bytes(id), 0);
        if *next < PARTS {
            out.send_binary(id, &[*next; PART_BYTES]);
            out.when_written(id);
            self.most_waiting = self.most_waiting.max(out.backlog_bytes(id));
            *next += 1;
        }
    }

    fn on_message(&mut self, _: ConnectionId, _: &mut u8, _: Message<'_>, _: &mut Outbox) {}
}

#[test]
fn a_series_goes_part_by_part() {
    let mut sessions = Sessions::new(Series::default(), Settings::default(), Log::new(None), 0, [1; 32]);
    sessions.begin_pass(Duration::ZERO);
    let key = sessions.accept(Peer::UNIX).expect("there is room");
    sessions.receive(key, &mut REQUEST.to_vec());
    let mut got = Vec::new();
    // As long as there is a next pass to be had at once.
    loop {
        let queue = sessions.queue();
        while let Some(key) = queue.next_dirty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.gather(key, &mut slices);
            let offered: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = offered.len().min(TAKEN_BYTES);
            got.extend_from_slice(&offered[..taken]);
            queue.sent(key, taken, taken < offered.len());
        }
        queue.end_flush();
        sessions.end_pass(|_, _| ());
        let waits = sessions.queue().lane_at(key).is_blocked();
        if waits {
            sessions.writable(key);
        } else if sessions.queue().pass_bytes() == 0 {
            break;
        }
    }
    let frames_at = got.windows(4).position(|end| end == b"\r\n\r\n").expect("the answer") + 4;
    let parts: Vec<&[u8]> = got[frames_at..].chunks(10 + PART_BYTES).collect();
    assert_eq!(parts.len(), usize::from(PARTS));
    for (part, number) in parts.iter().zip(0..) {
        assert!(part[..2] == [0x82, 127] && part[10..].iter().all(|byte| *byte == number), "part {number}");
    }
    assert!(sessions.app.most_waiting < 2 * PART_BYTES, "{} bytes waited", sessions.app.most_waiting);
}
