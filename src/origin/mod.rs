//! Floor 6, the origin's client: a thread that makes the HTTP calls of the gateway and of webhooks, so that the loop never waits
//! for one.
//!
//! The loop hands over [`Call`]s by a queue and is woken when results wait in [`Returns`]. Both are bounded by the number of
//! calls that the core lets be under way. On the thread there is one task a call, over a pool of connections.

mod http;
mod pool;
mod signature;
mod target;

pub use signature::Secrets;
pub use target::Target;

use crate::gateway::call::{Call, Outcome, Returned, Returns};
use crate::os::tls::TlsClient;
use crate::reactor::Waker;
use http::Caller;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Calls that are taken from the queue at a time.
const BATCH: usize = 256;

/// How calls are made.
#[derive(Clone, Debug)]
pub struct CallRules {
    /// How long a connection may take to come about, TLS included. Default 1 s.
    pub dial_timeout: Duration,
    /// How long a call may take in all. Default 15 s.
    pub timeout: Duration,
    /// How long a connection to another node may take to come about. Default 500 ms.
    pub node_dial_timeout: Duration,
    /// The longest answer, in bytes. Default 1 MiB.
    pub max_answer: usize,
    /// What the names of those headers of answers begin with that are given back; `None` where none is.
    pub keeps_headers: Option<&'static str>,
    /// The header that each call to an origin has on top, such as a token.
    pub headers: Vec<(String, String)>,
    /// What calls to other nodes are let in by: the token of their service listeners.
    pub node_token: Option<String>,
    /// What calls to origins are signed with.
    pub secrets: Option<Secrets>,
    /// Whom to trust, for origins with `https`.
    pub tls: Option<TlsClient>,
}

impl Default for CallRules {
    fn default() -> CallRules {
        CallRules {
            dial_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(15),
            node_dial_timeout: Duration::from_millis(500),
            max_answer: 1 << 20,
            keeps_headers: None,
            headers: Vec::new(),
            node_token: None,
            secrets: None,
            tls: None,
        }
    }
}

/// The loop's end: where calls go, and where results come from.
#[derive(Clone, Debug)]
pub struct Link {
    calls: UnboundedSender<Call>,
    returns: Arc<Returns>,
}

impl Link {
    /// Has a call made.
    pub fn call(&self, call: Call) {
        // Fails only when the thread has ended, which it does after the loop.
        let _ = self.calls.send(call);
    }

    /// The results since this was called last.
    pub fn returns(&self) -> &Arc<Returns> {
        &self.returns
    }
}

/// Starts the thread. It wakes the loop by `waker`, and ends when every [`Link`] to it is gone.
///
/// # Errors
/// When there can be no thread, or it can have no epoll.
pub fn start(targets: Vec<Target>, rules: CallRules, waker: Waker) -> io::Result<Link> {
    let (calls, queue) = unbounded_channel();
    let returns = Arc::new(Returns::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let caller = Arc::new(Caller::new(targets, rules));
    let back = Back { returns: Arc::clone(&returns), waker };
    std::thread::Builder::new().name("origin".into()).spawn(move || runtime.block_on(serve(queue, caller, back)))?;
    Ok(Link { calls, returns })
}

/// The way back to the loop.
#[derive(Clone)]
struct Back {
    returns: Arc<Returns>,
    waker: Waker,
}

impl Back {
    fn put(&self, key: u64, outcome: Outcome, took: Duration) {
        if self.returns.put(Returned { key, outcome, took }) {
            self.waker.wake();
        }
    }
}

async fn serve(mut queue: UnboundedReceiver<Call>, caller: Arc<Caller>, back: Back) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        for call in batch.drain(..) {
            let (caller, back) = (Arc::clone(&caller), back.clone());
            tokio::spawn(async move {
                let (key, began) = (call.key, Instant::now());
                let outcome = caller.make(call).await;
                back.put(key, outcome, began.elapsed());
            });
        }
    }
}
