//! Finds where to connect: asks a Sentinel for the master, or a node of a cluster for the one that has a slot. It
//! blocks, for a limited time, so it needs a thread of its own.

use super::dialect::slot_of;
use super::resp::{Replies, Reply, command};
use super::url::{Login, refusal, shown};
use crate::os::listener::ListenAddr;
use crate::os::resolve::resolve_all;
use crate::os::tls::TlsClient;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step of a question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest string in a reply.
const MAX_BULK: usize = 4096;

/// Where to connect, and the name that a certificate must be for.
#[derive(Debug)]
pub struct Found {
    pub addrs: Vec<ListenAddr>,
    pub name: String,
}

/// The login and the TLS client to ask with.
pub struct Asking<'a> {
    pub login: Option<&'a Login>,
    pub tls: Option<&'a TlsClient>,
}

impl Asking<'_> {
    /// Returns the master of that name, from the first Sentinel that knows it.
    ///
    /// # Errors
    /// When none knows it: the error of the last one.
    pub fn master_of(&self, hosts: &[String], master: &str) -> Result<Found, String> {
        let question: [&[&[u8]]; 3] = [&[b"SENTINEL"], &[b"GET-MASTER-ADDR-BY-NAME"], &[master.as_bytes()]];
        self.first(hosts, "Sentinel", &question, |reply, _| match reply {
            Reply::Array(items) => match items.as_slice() {
                [Reply::Bulk(host), Reply::Bulk(port)] => Some(endpoint(host, &String::from_utf8_lossy(port))),
                _ => None,
            },
            _ => None,
        })
        .map_err(|why| why.unwrap_or_else(|| "no Sentinel knows this master".into()))
    }

    /// Returns the node of a cluster that has the slot of a tag, from the first node that answers.
    ///
    /// # Errors
    /// When none knows it: the error of the last one.
    pub fn node_of(&self, hosts: &[String], tag: &[u8]) -> Result<Found, String> {
        let slot = i64::from(slot_of(tag));
        self.first(hosts, "node", &[&[b"CLUSTER"], &[b"SLOTS"]], |reply, asked| {
            let Reply::Array(ranges) = reply else { return None };
            ranges.iter().find_map(|range| match range {
                Reply::Array(items) => match items.as_slice() {
                    [Reply::Integer(first), Reply::Integer(last), Reply::Array(node), ..]
                        if (*first..=*last).contains(&slot) =>
                    {
                        node_addr(node, asked)
                    }
                    _ => None,
                },
                _ => None,
            })
        })
        .map_err(|why| why.unwrap_or_else(|| format!("no node of the cluster has slot {slot}")))
    }

    /// Returns the first address that `read` finds in a reply; else the last error, if there was one.
    fn first(
        &self,
        hosts: &[String],
        what: &str,
        question: &[&[&[u8]]],
        read: impl Fn(&Reply<'_>, &str) -> Option<String>,
    ) -> Result<Found, Option<String>> {
        let mut why = None;
        for host in hosts {
            let told = self.ask(host, question, |reply| read(reply, host)).and_then(|found| match found {
                Some(found) => resolve_all(&found, 0).map(|addrs| Some((found, addrs))),
                None => Ok(None),
            });
            match told {
                Ok(Some((found, addrs))) => {
                    let name = found.rsplit_once(':').map_or("", |(name, _)| name).to_owned();
                    return Ok(Found { addrs: addrs.into_iter().map(ListenAddr::Tcp).collect(), name });
                }
                Ok(None) => {}
                Err(error) => why = Some(format!("{what} at {host}: {error}")),
            }
        }
        Err(why)
    }

    /// Asks one host, and a second time with user and password if it requires them.
    fn ask<T>(
        &self,
        host: &str,
        question: &[&[&[u8]]],
        read: impl Fn(&Reply<'_>) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let said = |error: io::Error| error.to_string();
        let addrs = resolve_all(host, 0)?;
        let addr: &SocketAddr = addrs.first().ok_or("no address found")?;
        let stream = TcpStream::connect_timeout(addr, PATIENCE).map_err(said)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(said)?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let mut line: Box<dyn ReadWrite> = match self.tls {
            Some(tls) => Box::new(tls.connect_blocking(stream, name).map_err(said)?),
            None => Box::new(stream),
        };
        let mut replies = Replies::new(MAX_BULK);
        say(&mut *line, question)?;
        let first = hear(&mut *line, &mut replies, |reply| match reply {
            Reply::Error(error) if error.starts_with(b"NOAUTH") && self.login.is_some() => None,
            reply => Some(self.read(reply, &read)),
        })?;
        if let Some(answer) = first {
            return answer;
        }
        if let Some(Login { user, password }) = self.login {
            match user {
                Some(user) => say(&mut *line, &[&[b"AUTH"], &[user], &[password]])?,
                None => say(&mut *line, &[&[b"AUTH"], &[password]])?,
            }
        }
        hear(&mut *line, &mut replies, |reply| match reply {
            Reply::Error(error) => Err(refusal(error)),
            _ => Ok(()),
        })??;
        say(&mut *line, question)?;
        hear(&mut *line, &mut replies, |reply| self.read(reply, &read))?
    }

    fn read<T>(&self, reply: &Reply<'_>, read: impl Fn(&Reply<'_>) -> Option<T>) -> Result<Option<T>, String> {
        match reply {
            Reply::Error(error) => Err(format!("error reply: {}", shown(self.login, error))),
            reply => Ok(read(reply)),
        }
    }
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

fn say(line: &mut dyn ReadWrite, words: &[&[&[u8]]]) -> Result<(), String> {
    let mut bytes = Vec::new();
    command(&mut bytes, words);
    line.write_all(&bytes).and_then(|()| line.flush()).map_err(|error| error.to_string())
}

/// Returns what `read` makes of the next reply.
fn hear<T>(line: &mut dyn ReadWrite, replies: &mut Replies, read: impl FnOnce(&Reply<'_>) -> T) -> Result<T, String> {
    let mut buffer = [0; MAX_BULK];
    // A host that sends byte by byte is not read forever.
    for _ in 0..MAX_BULK {
        if let Some(reply) = replies.next_reply().map_err(|error| error.to_string())? {
            return Ok(read(&reply));
        }
        match line.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => return Err("connection closed".into()),
            bytes => replies.feed(&buffer[..bytes]),
        }
    }
    Err("its reply does not end".into())
}

/// `HOST:PORT`, with brackets around an IPv6 address.
fn endpoint(host: &[u8], port: &str) -> String {
    let host = String::from_utf8_lossy(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address of a node from `CLUSTER SLOTS`; a node that does not know its own has the address that was asked.
fn node_addr(node: &[Reply<'_>], asked: &str) -> Option<String> {
    let [host, Reply::Integer(port), ..] = node else { return None };
    match host {
        Reply::Bulk(host) if !host.is_empty() && *host != b"?" => Some(endpoint(host, &port.to_string())),
        _ => Some(format!("{}:{port}", asked.rsplit_once(':').map_or(asked, |(name, _)| name))),
    }
}
