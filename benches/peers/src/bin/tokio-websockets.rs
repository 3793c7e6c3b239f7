//! An echo with tokio-websockets, with the configuration of its own example; messages that arrived together are flushed
//! together.

use percore_peers::{echo, serve};
use tokio_websockets::{Config, Limits, Message, ServerBuilder};

fn main() -> std::io::Result<()> {
    serve(|stream| async {
        let builder = ServerBuilder::new().config(Config::default().frame_size(usize::MAX)).limits(Limits::unlimited());
        if let Ok((_, socket)) = builder.accept(stream).await {
            // An error ends the connection, as does a Close frame.
            let _ = echo(socket, |message: &Message| message.is_text() || message.is_binary()).await;
        }
    })
}
