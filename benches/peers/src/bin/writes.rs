//! The limit of a fan-out: a loop that knows nothing of any protocol. A connection that says `s` subscribes; what another says,
//! 32 KiB at most, is written to each subscriber with one `write`, and then answered by `k`. What a socket does not take is lost.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use percore_peers::address;
use slab::Slab;
use std::io::{self, Read, Write};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    subscribes: bool,
}

/// A connection has something to say. False when it is over.
fn hear(key: usize, connections: &mut Slab<Connection>, subscribers: &mut Vec<usize>, buffer: &mut [u8]) -> bool {
    let Ok(bytes @ 1..) = connections[key].stream.read(buffer) else { return false };
    if buffer[..bytes] == *b"s" {
        connections[key].subscribes = true;
        subscribers.push(key);
        return connections[key].stream.write(b"k").is_ok();
    }
    for subscriber in subscribers {
        let _ = connections[*subscriber].stream.write(&buffer[..bytes]);
    }
    connections[key].stream.write(b"k").is_ok()
}

fn main() -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut listener = TcpListener::bind(address())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut connections, mut subscribers) = (Slab::new(), Vec::new());
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let entry = connections.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
                    entry.insert(Connection { stream, subscribes: false });
                }
                continue;
            }
            let key = event.token().0;
            if connections.contains(key) && !hear(key, &mut connections, &mut subscribers, &mut buffer) {
                if connections.remove(key).subscribes {
                    subscribers.retain(|subscriber| *subscriber != key);
                }
            }
        }
    }
}
