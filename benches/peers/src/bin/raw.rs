//! The limit: an echo of bytes that knows nothing of WebSocket, on the same kind of loop as percore: edge-triggered,
//! one read and one write for what has arrived, no read only to see `WouldBlock`. What the socket does not take is kept,
//! and nothing more is read from that connection until it is gone: the rest waits in the kernel, not in memory.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, event::Event};
use percore_peers::address;
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 512 * 1024;

struct Connection {
    stream: TcpStream,
    /// What the socket did not take, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
}

/// Buffers of the process: one to read into, and those that connections have given back.
struct Buffers {
    input: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

/// `None` when the socket is not ready.
fn ready(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Connection {
    /// Echoes until the socket is drained, or takes no more. False when the peer is gone.
    fn ready(&mut self, event: &Event, buffers: &mut Buffers) -> io::Result<bool> {
        let mut readable = event.is_readable();
        if !self.unsent.is_empty() {
            self.write_unsent(buffers)?;
            // What arrived meanwhile was left where it is.
            readable = true;
        }
        while readable && self.unsent.is_empty() {
            let Some(bytes) = ready(self.stream.read(&mut buffers.input))? else { break };
            if bytes == 0 {
                return Ok(false);
            }
            self.echo(bytes, buffers)?;
            readable = bytes == READ_BYTES || event.is_read_closed();
        }
        Ok(true)
    }

    fn echo(&mut self, bytes: usize, buffers: &mut Buffers) -> io::Result<()> {
        let bytes = &buffers.input[..bytes];
        let written = ready(self.stream.write(bytes))?.unwrap_or(0);
        if written < bytes.len() {
            self.unsent = buffers.spare.pop().unwrap_or_default();
            self.unsent.extend_from_slice(&bytes[written..]);
        }
        Ok(())
    }

    fn write_unsent(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            match ready(self.stream.write(&self.unsent[self.sent..]))? {
                Some(written) => self.sent += written,
                None => return Ok(()),
            }
        }
        let mut emptied = std::mem::take(&mut self.unsent);
        emptied.clear();
        buffers.spare.push(emptied);
        self.sent = 0;
        Ok(())
    }
}

fn accept(listener: &TcpListener, connections: &mut Slab<Connection>, poll: &Poll) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let entry = connections.vacant_entry();
        poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection { stream, unsent: Vec::new(), sent: 0 });
    }
}

fn main() -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut listener = TcpListener::bind(address())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    let mut buffers = Buffers { input: vec![0; READ_BYTES], spare: Vec::new() };
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &mut connections, &poll)?;
                continue;
            }
            let key = event.token().0;
            let Some(connection) = connections.get_mut(key) else { continue };
            // A reset ends the connection like an end of stream.
            if !connection.ready(event, &mut buffers).unwrap_or(false) {
                connections.remove(key);
            }
        }
    }
}
