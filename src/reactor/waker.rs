//! [`Waker`]: how other threads make the loop look at what they left for it.

use mio::{Registry, Token};
use std::io;
use std::sync::{Arc, OnceLock};

/// Wakes a loop from any thread; the loop then calls [`App::on_wake`](crate::App::on_wake). The threads and the app
/// share the data by a means of their own: a channel, say.
///
/// ```
/// use percore::{App, Client, ConnectionId, Message, Outbox, Request, Waker};
/// use std::sync::mpsc::{Receiver, channel};
///
/// /// Stops when it receives "stop".
/// struct Obedient(Receiver<&'static str>);
///
/// impl App for Obedient {
///     type State = ();
///     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
///     fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
///     fn on_wake(&mut self, out: &mut Outbox) {
///         if self.0.try_iter().any(|word| word == "stop") {
///             out.stop();
///         }
///     }
/// }
///
/// let ((sender, receiver), waker) = (channel(), Waker::default());
/// let client = Client::new(Obedient(receiver)).waker(&waker);
/// std::thread::spawn(move || {
///     sender.send("stop").expect("it listens");
///     waker.wake();
/// });
/// client.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct Waker(Arc<OnceLock<mio::Waker>>);

impl Waker {
    /// Makes the loop call [`App::on_wake`](crate::App::on_wake), once for all calls since the last time. A loop that
    /// has not started does so at its start in any case.
    pub fn wake(&self) {
        // Fails only if the loop has ended.
        let _ = self.0.get().map(mio::Waker::wake);
    }

    /// Ties the waker to a loop; each loop needs its own.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let waker = mio::Waker::new(registry, token)?;
        self.0.set(waker).map_err(|_| io::Error::other("a waker wakes one loop"))
    }
}
