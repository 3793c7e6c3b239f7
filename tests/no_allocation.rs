//! An echoed message allocates nothing once the loop is warm, nor does the arming of a timer; and an idle connection
//! holds no buffer. Counted by an allocator that counts, in one thread at a time.

#![allow(unsafe_code)]

use percore::internal::apps::echo::Echo;
use percore::internal::net::id::Peer;
use percore::internal::protocol::receiver::{Receiver, Rules, Scratch};
use percore::internal::queue::pool::Pool;
use percore::internal::queue::{Lane, MAX_SLICES};
use percore::internal::session::Sessions;
use percore::internal::telemetry::log::Log;
use percore::internal::time::wheel::Wheel;
use percore::{Role, Settings};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::time::Duration;

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

thread_local! {
    /// Allocations of this thread, so that tests beside this one do not count. Without a destructor, and so usable here.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes it has allocated and not given back.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches a cell and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: what the trait asks of the caller is what the system's allocator asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as above.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as above.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get().wrapping_add(new_size).wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A client's frame around `length` bytes.
fn frame(first: u8, length: usize) -> Vec<u8> {
    let mask = [7, 77, 177, 11];
    let mut out = vec![first];
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend((0..length).map(|place| b'a' ^ mask[place % 4]));
    out
}

/// An echo server without sockets, with connections that are open.
struct Server {
    sessions: Sessions<Echo>,
    keys: Vec<u32>,
    now: Duration,
    buffer: Vec<u8>,
    written: usize,
}

impl Server {
    fn new(connections: usize) -> Server {
        let sessions = Sessions::new(Echo, Settings::default(), Log::new(None), 0, [0; 32]);
        let mut server =
            Server { sessions, keys: Vec::new(), now: Duration::ZERO, buffer: vec![0; 1 << 20], written: 0 };
        for _ in 0..connections {
            let key = server.sessions.accept(Peer::UNIX).expect("room for a connection");
            server.keys.push(key);
            server.receive(key, UPGRADE);
        }
        server.finish();
        server
    }

    fn receive(&mut self, key: u32, bytes: &[u8]) {
        self.buffer[..bytes.len()].copy_from_slice(bytes);
        self.sessions.receive(key, &mut self.buffer[..bytes.len()]);
    }

    /// One pass, in which every connection receives the same bytes.
    fn pass(&mut self, bytes: &[u8]) {
        self.now += Duration::from_millis(1);
        self.sessions.begin_pass(self.now);
        for place in 0..self.keys.len() {
            self.receive(self.keys[place], bytes);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.sessions.expire();
        let queue = self.sessions.queue();
        while let Some(key) = queue.next_dirty() {
            let bytes = match queue.single(key) {
                Some(bytes) => bytes.len(),
                None => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let count = queue.gather(key, &mut slices);
                    slices[..count].iter().map(|slice| slice.len()).sum()
                }
            };
            queue.sent(key, bytes, false);
            self.written += bytes;
        }
        queue.end_flush();
        self.sessions.end_pass(|_, _| panic!("no connection ends here"));
    }
}

#[test]
fn the_allocator_counts() {
    let mut kept = Vec::new();
    assert_eq!(allocations(|| kept.push(String::from("a"))), 2);
    assert_eq!(allocations(|| kept.reserve_exact(100)), 1);
}

#[test]
fn an_echoed_message_allocates_nothing() {
    for first in [BINARY, TEXT] {
        for length in [20, 125, 1024, 16 * 1024] {
            let mut server = Server::new(10);
            // One message by itself, and several in one piece.
            let (one, many) = (frame(first, length), frame(first, length).repeat(4));
            for _ in 0..20 {
                server.pass(&one);
                server.pass(&many);
            }
            let (before, written) = (server.sessions.stats().messages_out(), server.written);
            let passes = if length < 10_000 { 200 } else { 50 };
            let counted = allocations(|| {
                for _ in 0..passes {
                    server.pass(&one);
                    server.pass(&many);
                }
            });
            let messages = server.sessions.stats().messages_out() - before;
            assert_eq!(messages, passes * 50);
            assert!(server.written - written > messages as usize * length);
            assert_eq!(counted, 0, "{messages} messages of {length} bytes, opcode {:x}", first & 0xf);
        }
    }
}

#[test]
fn heartbeats_allocate_nothing() {
    let mut server = Server::new(100);
    let pong = [0x8a, 0x80, 1, 2, 3, 4];
    let beat = |server: &mut Server| {
        server.now += Duration::from_secs(31);
        server.pass(&pong);
    };
    (0..3).for_each(|_| beat(&mut server));
    let written = server.written;
    let counted = allocations(|| (0..50).for_each(|_| beat(&mut server)));
    assert!(server.written - written >= 50 * 100 * 2, "each was pinged each time");
    assert_eq!(counted, 0);
}

#[test]
fn arming_a_timer_allocates_nothing() {
    let mut wheel = Wheel::new();
    let mut expired = Vec::with_capacity(1000);
    (0..1000).for_each(|key| wheel.arm(key, Duration::from_secs(1)));
    let counted = allocations(|| {
        for round in 1..100 {
            for key in 0..1000 {
                wheel.arm(key, Duration::from_millis(u64::from(round * 100 + key * 7)));
            }
            (0..1000).step_by(3).for_each(|key| wheel.cancel(key));
            wheel.advance(Duration::from_millis(u64::from(round * 100)), &mut expired);
            expired.clear();
            assert!(wheel.next_deadline().is_some());
        }
    });
    assert_eq!(counted, 0);
}

/// Whether anything is held when `bytes` have come in pieces of `piece` bytes.
fn is_idle_after(bytes: &[u8], piece: usize) -> bool {
    let rules = Rules { role: Role::Server, max_message: 1 << 20, max_frame: usize::MAX, pieces_from: None };
    let (mut receiver, mut scratch, mut pool) = (Receiver::new(), Scratch::default(), Pool::default());
    let mut bytes = bytes.to_vec();
    for piece in bytes.chunks_mut(piece) {
        let mut used = 0;
        while used < piece.len() {
            used += receiver.next(&mut piece[used..], &rules, &mut scratch, &mut pool).expect("no violation").0;
        }
    }
    receiver.is_idle()
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let ping = [0x89, 0x81, 0, 0, 0, 0, b'x'];
    for length in [0, 20, 1024, 100_000] {
        let bytes = [&frame(TEXT, length)[..], &ping, &frame(BINARY, length)].concat();
        for piece in [1, 3, 1000, bytes.len()] {
            assert!(is_idle_after(&bytes, piece), "{length} bytes in pieces of {piece}");
            assert!(!is_idle_after(&bytes[..bytes.len() - 1], piece) || bytes.len() < 2);
        }
    }
}

#[test]
fn a_request_under_way_holds_no_more_than_it_may_have() {
    let mut server = Server::new(1);
    server.pass(&frame(BINARY, 20));
    let key = server.sessions.accept(Peer::UNIX).expect("room for a connection");
    // Empty lines before a request are passed over.
    let rest = ["\r\n".repeat(1 << 18).as_bytes(), b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: "].concat();
    let before = HELD.get();
    let held = || HELD.get().wrapping_sub(before) as isize;
    server.receive(key, b"GET /healthz HTTP/1.1\r\nHost: h\r\n");
    server.receive(key, &rest);
    server.finish();
    assert!(held() < 16 << 10, "{} bytes for the beginning of a request", held());
    for _ in 0..16_000 {
        server.receive(key, b"x");
    }
    assert!((16_000..40_000).contains(&held()), "{} bytes for a request of 16,000", held());
    server.receive(key, b"\r\n\r\n");
    server.finish();
    assert!(held() < 16 << 10, "{} bytes after it", held());
}

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Receiver>() <= 24, "{}", size_of::<Receiver>());
    assert!(size_of::<Lane>() <= 40, "{}", size_of::<Lane>());
    // Tables double as they grow, so they are full at powers of two; and what so many answers take is not kept.
    let (few, many) = (bytes_of(32 << 10), bytes_of(64 << 10));
    let each = (many - few) / (32 << 10);
    println!("{each} bytes for a connection");
    assert!(each <= 200, "{each} bytes for a connection");
}

/// What as many echoed-once connections hold, counted by what is given back when they go.
fn bytes_of(connections: usize) -> usize {
    let mut server = Server::new(connections);
    server.pass(&frame(BINARY, 20));
    let before = HELD.get();
    drop(server);
    before.wrapping_sub(HELD.get())
}
