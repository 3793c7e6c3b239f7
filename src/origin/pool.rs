//! Connections to servers that are called: made when there is none to spare, kept for a moment, used again.

use super::target::Target;
use crate::os::allocator;
use crate::os::tls::TlsClient;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// How long a connection that is not used is kept: less than servers keep theirs, which as a rule is 2 s and more, so that a
/// call does not meet a server's end of the connection on its way.
const IDLE: Duration = Duration::from_millis(1_500);
/// Connections to one server that are kept at most.
const MOST_IDLE: usize = 512;

/// The longest head of an answer, and what is buffered of its content.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// After this many have ended the allocator is asked to give memory back.
const MANY: usize = 64;

/// The content of a request.
pub struct Content(Option<Bytes>);

impl Content {
    pub fn new(bytes: Vec<u8>) -> Content {
        Content(Some(bytes.into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A connection that takes requests.
pub type Sender = SendRequest<Content>;

/// A stream of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections that wait to be used again, by whom they lead to.
pub struct Pool<K>(Arc<Mutex<Idle<K>>>);

struct Idle<K> {
    by_callee: HashMap<K, Vec<(Sender, Instant)>>,
    /// Whether a task runs that ends those that wait for too long.
    is_swept: bool,
}

impl<K: Hash + Eq + Clone + Send + 'static> Pool<K> {
    pub fn new() -> Pool<K> {
        Pool(Arc::new(Mutex::new(Idle { by_callee: HashMap::new(), is_swept: false })))
    }

    /// Takes the one that was used last.
    pub fn take(&self, to: &K) -> Option<Sender> {
        let all = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).by_callee;
        let idle = all.get_mut(to)?;
        let since = Instant::now();
        while let Some((sender, last)) = idle.pop() {
            if since.duration_since(last) >= IDLE {
                // Those below it have waited longer.
                break;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        all.remove(to);
        None
    }

    /// Keeps one for the next call.
    pub fn put(&self, to: &K, sender: Sender) {
        if !sender.is_ready() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.by_callee.entry(to.clone()).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push((sender, Instant::now()));
        }
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::clone(&self.0)));
        }
    }
}

/// Ends connections that wait for too long, until there are none. Where these were many, what they held goes back to the
/// system once they have ended.
async fn sweep<K: Hash + Eq>(pool: Arc<Mutex<Idle<K>>>) {
    let mut ended = 0;
    loop {
        tokio::time::sleep(IDLE / 2).await;
        if ended >= MANY {
            allocator::trim();
            ended = 0;
        }
        let mut idle = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        idle.by_callee.retain(|_, waiting| {
            // The first have waited longest.
            let stale = waiting.iter().take_while(|(_, last)| now.duration_since(*last) >= IDLE).count();
            waiting.drain(..stale);
            ended += stale;
            !waiting.is_empty()
        });
        if idle.by_callee.is_empty() && ended < MANY {
            idle.is_swept = false;
            return;
        }
    }
}

/// Connects to a server, and has the connection driven by a task of its own.
///
/// # Errors
/// When no connection comes about.
pub async fn dial(target: &Target, tls: Option<&TlsClient>) -> io::Result<Sender> {
    let stream = connect(target, tls).await?;
    // Requests are short as a rule: one buffer costs less than a list of two.
    let rules = http1::Builder::new().writev(false).max_buf_size(MOST_HEAD_BYTES).to_owned();
    let (sender, connection) = rules.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn connect(target: &Target, tls: Option<&TlsClient>) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = target.socket() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for addr in target.addrs().await? {
        match TcpStream::connect(addr).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let Some(tls) = tls.filter(|_| target.is_encrypted()) else { return Ok(Box::new(stream)) };
                let connector = tokio_rustls::TlsConnector::from(tls.config());
                return Ok(Box::new(connector.connect(target.server_name()?, stream).await?));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
