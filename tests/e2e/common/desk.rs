//! An app for tests of requests: it takes content, puts answers off, and does what it is told from outside.

use percore::{
    App, CloseReason, ConnectionId, Message, Outbox, Request, Response, Server, Settings, Ticket, Upgrade, Waker,
};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Something to be done in the app's own thread.
type Work = Box<dyn FnOnce(&mut Desk, &mut Outbox) + Send>;

#[derive(Default)]
pub struct Desk {
    work: Option<Receiver<Work>>,
    /// Of requests to `/later`, and of upgrades with `?later`, in the order in which they came.
    pub tickets: Vec<Ticket>,
    /// Upgrades that were asked for.
    pub upgrades: usize,
    pub open: Vec<ConnectionId>,
    pub messages: Vec<String>,
    /// Tags of the connections that opened, and subprotocols.
    pub opened: Vec<(u64, Option<String>)>,
    pub closed: Vec<CloseReason>,
    /// Whether what came is to be answered at once.
    pub at_once: bool,
    /// An upgrade that is accepted once any connection closes.
    pub heir: Option<Ticket>,
}

impl App for Desk {
    type State = ();

    fn takes_content(&self, request: &Request<'_>) -> usize {
        match request.path() {
            "/echo" | "/later" => usize::MAX,
            "/short" => 10,
            _ => 0,
        }
    }

    fn on_request(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        match request.path() {
            "/echo" | "/short" => {
                Some(Response::new(200).content("application/octet-stream", request.content().to_vec()))
            }
            "/later" => {
                let ticket = out.defer(request);
                self.tickets.push(ticket);
                if self.at_once {
                    assert!(out.answer(ticket, Response::text(200, "at once")));
                }
                None
            }
            "/api" if request.is_service() => Some(Response::text(200, "the API")),
            _ => None,
        }
    }

    fn on_upgrade(&mut self, request: &Request<'_>, out: &mut Outbox) -> Option<Response> {
        self.upgrades += 1;
        match request.query() {
            Some("later") => {
                let ticket = out.defer(request);
                self.tickets.push(ticket);
                if self.at_once {
                    assert!(out.accept_upgrade(ticket, Upgrade::new().tag(1)));
                }
                None
            }
            Some("no") => Some(Response::text(403, "no")),
            _ => None,
        }
    }

    fn on_open(&mut self, id: ConnectionId, request: &Request<'_>, out: &mut Outbox) {
        let ticket = out.defer(request);
        assert!(!out.awaits(ticket), "nobody waits for the answer to a request that has it");
        self.open.push(id);
        self.opened.push((request.tag(), request.subprotocol().map(str::to_owned)));
    }

    fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
        let text = message.text().unwrap_or_default().to_owned();
        if text == "pause" {
            assert!(out.pause(id));
        }
        out.send_text(id, &text);
        self.messages.push(text);
    }

    fn on_close(&mut self, id: ConnectionId, (): (), reason: &CloseReason, out: &mut Outbox) {
        if let Some(heir) = self.heir.take() {
            assert!(out.accept_upgrade(heir, Upgrade::new().tag(9)));
        }
        self.open.retain(|open| *open != id);
        self.closed.push(reason.clone());
    }

    fn on_wake(&mut self, out: &mut Outbox) {
        let Some(work) = self.work.take() else { return };
        while let Ok(what) = work.try_recv() {
            what(self, out);
        }
        self.work = Some(work);
    }
}

/// A server of this process. Dropping it stops it.
pub struct Local {
    pub addr: SocketAddr,
    pub service: SocketAddr,
    sender: Sender<Work>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    pub fn start(settings: Settings) -> Local {
        let ((sender, work), waker) = (channel(), Waker::default());
        let options = percore::ServerOptions { signals: false, ..percore::ServerOptions::default() };
        let desk = Desk { work: Some(work), ..Desk::default() };
        let server = Server::new(desk).settings(settings).options(options).waker(&waker);
        let server = server.listen("127.0.0.1:0").and_then(|server| server.listen_service("127.0.0.1:0"));
        let server = server.expect("ports");
        let only = |addrs: std::io::Result<Vec<percore::ListenAddr>>| {
            addrs.expect("bound")[0].to_string().parse().expect("a TCP address")
        };
        let (addr, service) = (only(server.local_addrs()), only(server.service_addrs()));
        let thread = std::thread::spawn(move || {
            server.run().expect("a loop");
        });
        Local { addr, service, sender, waker, thread: Some(thread) }
    }

    /// A connection of a client.
    pub fn connect(&self) -> super::Client {
        super::Client::connect(self.addr)
    }

    /// Has the app do something, and returns what comes of it.
    pub fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Desk, &mut Outbox) -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let work = move |desk: &mut Desk, out: &mut Outbox| {
            let _ = sender.send(what(desk, out));
        };
        self.sender.send(Box::new(work)).expect("the server is there");
        self.waker.wake();
        receiver.recv_timeout(super::PATIENCE).expect("an answer")
    }

    /// Waits until the app holds so many tickets.
    pub fn tickets(&self, count: usize) -> Vec<Ticket> {
        super::eventually("requests that were put off", || self.ask(move |desk, _| desk.tickets.len() >= count));
        self.ask(|desk, _| desk.tickets.clone())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.sender.send(Box::new(|_, out| out.stop()));
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}
