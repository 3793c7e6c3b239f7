//! `percore healthcheck [URL]`: checks the health of a server, for images that have neither a shell nor curl.

use super::Failure;
use super::ask::{ROUTE, Target};
use super::flags::{listen_addrs, server_addr};
use super::units::{boolean, duration};
use crate::os::listener::ListenAddr;
use clap::Args;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(super) struct HealthcheckFlags {
    // As in `flags`: the line is read in a terminal.
    #[allow(rustdoc::bare_urls)]
    /// http://HOST:PORT/PATH or unix:SOCKET:/PATH [default: /healthz of the first address in PERCORE_LISTEN, else of
    /// $HTTP_SERVER_ADDR, else of 127.0.0.1:$PORT, else of 127.0.0.1:8080]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Send a PROXY protocol header first, as a server with that flag requires
    #[arg(long, env = "PERCORE_PROXY_PROTOCOL")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    proxy_protocol: bool,
    /// How long the response may take
    #[arg(long, env = "PERCORE_HEALTHCHECK_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

/// Fails unless the server answers 200 in time.
pub(super) fn run(flags: HealthcheckFlags) -> Result<(), Failure> {
    if flags.timeout.is_zero() {
        return Err(Failure::Usage("--timeout must be longer than 0".into()));
    }
    let mut target = match &flags.url {
        Some(url) => Target::parse(url).map_err(Failure::Usage)?,
        None => listening()?,
    };
    target.proxy_protocol = flags.proxy_protocol;
    let deadline = Instant::now() + flags.timeout;
    let failed = |what: String| Failure::Run(format!("{target}: {what}"));
    match target.ask(deadline) {
        Ok(answer) if answer.is_ok() => Ok(()),
        Ok(answer) => Err(failed(format!("answered '{}'", answer.line.escape_default()))),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            Err(failed(format!("no answer within {:?}", flags.timeout)))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The server that the environment describes: `percore serve` with the same one listens there.
fn listening() -> Result<Target, Failure> {
    let given = std::env::var("PERCORE_LISTEN").unwrap_or_default();
    // With an address per worker, the first worker's.
    let mut first: Vec<String> = given.split(',').take(1).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
    if first.is_empty() {
        first.extend(server_addr()?);
    }
    let first =
        listen_addrs(&first, 8080)?.swap_remove(0).for_slot(0).map_err(|error| Failure::Usage(error.to_string()))?;
    let addr = match first {
        ListenAddr::Tcp(addr) => ListenAddr::Tcp(reachable(addr)),
        unix => unix,
    };
    let host = match &addr {
        ListenAddr::Tcp(addr) => addr.to_string(),
        ListenAddr::Unix(_) => "localhost".to_owned(),
    };
    Ok(Target { addr, host, path: ROUTE.to_owned(), proxy_protocol: false })
}

/// The address by which this host reaches a listener on all addresses.
pub(super) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
