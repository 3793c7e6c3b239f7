//! Asks Sentinel where the master is. It blocks, within bounds: for a thread of its own.

use super::resp::{Replies, Reply, command};
use super::url::shown;
use crate::os::listener::ListenAddr;
use crate::os::resolve::resolve_all;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step of a question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest part of an answer.
const MAX_BULK: usize = 4096;

/// The addresses of the master of that name, by the first of the Sentinels that knows it.
///
/// # Errors
/// What the last one said, when none knows.
pub fn master_of(hosts: &[String], master: &str) -> Result<Vec<ListenAddr>, String> {
    let mut why = "there is no Sentinel to ask".to_owned();
    for host in hosts {
        let told = resolve_all(host, 0).and_then(|addrs| {
            let addr = addrs.first().ok_or("it has no address")?;
            ask(*addr, master)
        });
        match told {
            Ok(addr) => return Ok(vec![ListenAddr::Tcp(addr)]),
            Err(error) => why = format!("Sentinel at {host}: {error}"),
        }
    }
    Err(why)
}

fn ask(addr: SocketAddr, master: &str) -> Result<SocketAddr, String> {
    let mut question = Vec::new();
    command(&mut question, &[&[b"SENTINEL"], &[b"GET-MASTER-ADDR-BY-NAME"], &[master.as_bytes()]]);
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(said)?;
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(said)?;
    stream.write_all(&question).map_err(said)?;
    let (mut replies, mut buffer) = (Replies::new(MAX_BULK), [0; MAX_BULK]);
    // A Sentinel that says little by little is not heard to its end.
    for _ in 0..MAX_BULK {
        match stream.read(&mut buffer).map_err(said)? {
            0 => return Err("it closed the connection".into()),
            bytes => replies.feed(&buffer[..bytes]),
        }
        if let Some(reply) = replies.next_reply().map_err(|error| error.to_string())? {
            return addr_of(&reply);
        }
    }
    Err("its answer has no end".into())
}

fn addr_of(reply: &Reply<'_>) -> Result<SocketAddr, String> {
    match reply {
        Reply::Array(items) => match items.as_slice() {
            [Reply::Bulk(host), Reply::Bulk(port)] => {
                let (host, port) = (String::from_utf8_lossy(host), String::from_utf8_lossy(port));
                let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                let addrs = resolve_all(&host, 0)?;
                addrs.first().copied().ok_or_else(|| "the master has no address".into())
            }
            _ => Err("it knows no master of that name".into()),
        },
        Reply::Error(error) => Err(format!("it says {}", shown(None, error))),
        _ => Err("it knows no master of that name".into()),
    }
}
