//! An echo with tokio-tungstenite. Its own example forwards the stream to the sink, which flushes when nothing more
//! has arrived; so does this, without the lock between two halves.

use percore_peers::{echo, serve};
use tokio_tungstenite::{accept_async, tungstenite::Message};

fn main() -> std::io::Result<()> {
    serve(|stream| async {
        if let Ok(socket) = accept_async(stream).await {
            // An error ends the connection, as does a Close frame.
            let _ = echo(socket, |message: &Message| message.is_text() || message.is_binary()).await;
        }
    })
}
