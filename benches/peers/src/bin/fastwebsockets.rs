//! An echo with fastwebsockets behind hyper, as in its own example: whole messages, pongs and vectored writes by its
//! defaults. It writes each message by itself.

use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percore_peers::serve;

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(async {
        // An error ends the connection.
        let _ = echo(upgraded).await;
    }));
    Ok(response)
}

fn main() -> std::io::Result<()> {
    serve(|stream| async {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        // A refused request ends the connection.
        let _ = connection.with_upgrades().await;
    })
}
