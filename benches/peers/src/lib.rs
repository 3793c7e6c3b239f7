//! What the peers on tokio share: a runtime of one thread that listens on 127.0.0.1:PORT, and an echo over any socket
//! that is a stream and a sink of messages.

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// Where to listen: 127.0.0.1 and the port that is the only argument.
pub fn address() -> SocketAddr {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("the argument is a port");
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Serves each connection in a task of its own.
///
/// As the peers' own echo examples do, tasks run outside of tokio's budget.
pub fn serve<F: Future<Output = ()> + Send + 'static>(connection: impl Fn(TcpStream) -> F) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address())?;
        let listener = socket.listen(4096)?;
        loop {
            // Out of descriptors, the next one to accept has to wait for a connection to end.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if stream.set_nodelay(true).is_ok() {
                tokio::spawn(tokio::task::unconstrained(connection(stream)));
            }
        }
    })
}

/// Sends each message back until the connection ends; what had arrived together goes back together.
pub async fn echo<S, M, E>(socket: S, is_data: impl Fn(&M) -> bool) -> Result<(), E>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
{
    let mut socket = socket.ready_chunks(64);
    while let Some(messages) = socket.next().await {
        for message in messages {
            let message = message?;
            if is_data(&message) {
                socket.feed(message).await?;
            }
        }
        socket.flush().await?;
    }
    Ok(())
}
