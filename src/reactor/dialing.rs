//! The connections that the app ordered: looks up their names, and tries their addresses one after another.

use super::event_loop::EventLoop;
use super::sockets::token;
use super::target::Target;
use crate::app::{App, ConnectError};
use crate::net::id::Peer;
use crate::os::listener::ListenAddr;
use crate::os::resolve::Endpoint;
use crate::os::stream::Stream;
use crate::outbox::Order;
use crate::telemetry::log::in_words;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, Sender, channel};

type Found = Result<Vec<ListenAddr>, String>;

/// Orders in progress.
pub(super) struct Dialing {
    /// Results of the threads that look up names.
    sender: Sender<(Order, Found)>,
    receiver: Receiver<(Order, Found)>,
    /// Addresses still to be tried for connections being opened, with the target.
    rest: HashMap<u32, (usize, VecDeque<ListenAddr>)>,
}

impl Default for Dialing {
    fn default() -> Dialing {
        let (sender, receiver) = channel();
        Dialing { sender, receiver, rest: HashMap::new() }
    }
}

impl<A: App> EventLoop<A> {
    /// Opens the connections that the app ordered.
    pub(super) fn connect(&mut self) {
        for order in self.sessions.take_orders() {
            match self.setup.targets.get(order.target).map(|target| &target.addr) {
                None => {}
                Some(Endpoint::Addr(addr)) => {
                    let addr = addr.clone();
                    self.dial(order, [addr].into());
                }
                Some(name) => self.look_up(order, name.clone()),
            }
        }
    }

    /// Looks up a name, on a thread of its own because the system's resolver may be slow.
    fn look_up(&mut self, order: Order, name: Endpoint) {
        let (sender, waker) = (self.dialing.sender.clone(), self.setup.waker.clone());
        let thread = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            // The loop may have ended.
            let _ = sender.send((order, name.addrs()));
            waker.inspect(super::Waker::wake);
        });
        if let Err(error) = thread {
            self.order_failed(order, &error);
        }
    }

    /// Takes the results of finished look-ups.
    pub(super) fn take_lookups(&mut self) {
        while let Ok((order, found)) = self.dialing.receiver.try_recv() {
            match found {
                Ok(addrs) => self.dial(order, addrs.into()),
                Err(error) => self.order_failed(order, &io::Error::new(ErrorKind::NotFound, error)),
            }
        }
    }

    fn order_failed(&mut self, order: Order, error: &io::Error) {
        self.sessions.order_failed(order.tag, &ConnectError::Io(error.kind(), in_words(error)));
    }

    /// Begins to connect to the first address that does not fail at once.
    fn dial(&mut self, order: Order, mut addrs: VecDeque<ListenAddr>) {
        if self.sessions.is_draining() {
            return self.sessions.order_failed(order.tag, &ConnectError::Timeout);
        }
        let Some(target) = self.setup.targets.get(order.target) else { return };
        match next_stream(target, &mut addrs) {
            Ok((stream, peer)) => {
                let key = self.sessions.connect(peer, self.setup.handshake.then_some(&target.offer), order.tag);
                self.attach(key, stream, order.target, addrs);
            }
            Err(error) => self.order_failed(order, &error),
        }
    }

    /// Attaches a connecting stream to an existing session.
    fn attach(&mut self, key: u32, mut stream: Stream, target: usize, rest: VecDeque<ListenAddr>) {
        let generation = self.sessions.generation(key).unwrap_or_default();
        let registered = stream.register(self.poll.registry(), token(key, generation));
        self.sockets.insert(key, stream, true);
        // Replaces the entry of a former owner of the key.
        self.dialing.rest.remove(&key);
        if !rest.is_empty() {
            self.dialing.rest.insert(key, (target, rest));
        }
        if let Err(error) = registered {
            self.sessions.socket_error(key, &error);
        }
    }

    /// Handles an event for a connecting socket. Returns whether it is connected.
    #[cold]
    pub(super) fn is_connected(&mut self, key: u32, writable: bool) -> bool {
        let Some(socket) = self.sockets.get(key) else { return false };
        if let Err(error) = socket.stream.connect_result() {
            self.try_next(key, &error);
            return false;
        }
        socket.connecting = !writable;
        if writable {
            self.dialing.rest.remove(&key);
            self.sessions.connected(key);
        }
        writable
    }

    /// An address failed: tries the next, if there is one.
    fn try_next(&mut self, key: u32, error: &io::Error) {
        let Some((index, mut addrs)) = self.dialing.rest.remove(&key) else {
            return self.sessions.socket_error(key, error);
        };
        match self.setup.targets.get(index).map(|target| next_stream(target, &mut addrs)) {
            Some(Ok((stream, _))) => self.attach(key, stream, index, addrs),
            Some(Err(error)) => self.sessions.socket_error(key, &error),
            None => self.sessions.socket_error(key, error),
        }
    }
}

/// Begins to connect to the first of `addrs` that does not fail at once, and removes it and those before it. Returns
/// the last error if all fail.
fn next_stream(target: &Target, addrs: &mut VecDeque<ListenAddr>) -> io::Result<(Stream, Peer)> {
    let mut result = Err(io::Error::new(ErrorKind::NotFound, "there is no address"));
    while let Some(addr) = addrs.pop_front() {
        result = Stream::connect(&addr, target.source).and_then(|(stream, peer)| match &target.tls {
            None => Ok((stream, peer)),
            Some((client, name)) => Ok((client.secure(stream, name)?, peer)),
        });
        if result.is_ok() {
            break;
        }
    }
    result
}
