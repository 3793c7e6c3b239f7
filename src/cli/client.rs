//! `percore client URL [TICKER...]`: prices of a ticker feed, or a conversation with any WebSocket server.

use super::Failure;
use super::bench::tls_client;
use super::choices::DeflateFlag;
use super::flags::{check_subprotocols, header, is_origin};
use super::units::{boolean, bytes, duration};
use crate::apps::ticker::client::Wishes;
use crate::client::conversation::{self, Manner};
use crate::client::{Dial, history_path, prices};
use crate::os::hostname;
use crate::os::url::Url;
use crate::protocol::client::Offer;
use crate::reactor::Target;
use crate::session::Settings;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Time between Pings of the ticker's protocol.
const PING: Duration = Duration::from_secs(60);
/// Wait before another attempt.
const RETRY: Duration = Duration::from_secs(5);

/// Each also reads `PERCORE_CLIENT_<FLAG>` from the environment.
#[derive(Args, Debug)]
pub(super) struct ClientFlags {
    /// ws://HOST[:PORT][/PATH], wss:// for TLS, or unix:SOCKET[:/PATH]
    #[arg(value_name = "URL")]
    url: String,
    /// Symbols to ask a ticker feed for. Without any, lines of standard input are sent as messages, and messages shown
    #[arg(value_name = "TICKER")]
    tickers: Vec<String>,

    /// How long a connection may take to open
    #[arg(long, env = "PERCORE_CLIENT_CONNECT_TIMEOUT", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration, help_heading = "Connection")]
    connect_timeout: Duration,
    /// PEM file with the certificates to trust, for wss:// [default: the system's]
    #[arg(long, env = "PERCORE_CLIENT_CA", value_name = "FILE", help_heading = "Connection")]
    ca: Option<PathBuf>,
    /// Accept any certificate, for wss://; does not protect against interception
    #[arg(long, short = 'k', env = "PERCORE_CLIENT_INSECURE", help_heading = "Connection", conflicts_with = "ca")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    insecure: bool,
    /// Extra header for the handshake; repeatable
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header, help_heading = "Connection")]
    header: Vec<(String, String)>,
    /// Subprotocol to offer; repeatable, the preferred one first
    #[arg(long, env = "PERCORE_CLIENT_SUBPROTOCOL", value_name = "NAME", value_delimiter = ',')]
    #[arg(help_heading = "Connection")]
    subprotocol: Vec<String>,
    /// Origin header, as browsers send it: SCHEME://HOST
    #[arg(long, env = "PERCORE_CLIENT_ORIGIN", value_name = "ORIGIN", help_heading = "Connection")]
    origin: Option<String>,
    /// permessage-deflate mode to offer
    #[arg(long, env = "PERCORE_CLIENT_DEFLATE", value_name = "MODE", default_value = "off", value_enum)]
    #[arg(num_args = 0..=1, default_missing_value = "no-takeover", require_equals = true, help_heading = "Connection")]
    deflate: DeflateFlag,
    /// Longest message, in both directions
    #[arg(long, env = "PERCORE_CLIENT_MAX_MESSAGE", value_name = "BYTES", default_value = "16M", value_parser = bytes)]
    #[arg(help_heading = "Connection")]
    max_message: usize,
    /// Time between WebSocket Pings; 0 for none
    #[arg(long, env = "PERCORE_CLIENT_PING_INTERVAL", value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = duration, help_heading = "Connection")]
    ping_interval: Duration,
    /// Give up after this long without data from the server; 0 for never [default: 2.5 times --ping-interval]
    #[arg(long, env = "PERCORE_CLIENT_PING_TIMEOUT", value_name = "TIME", value_parser = duration)]
    #[arg(help_heading = "Connection")]
    ping_timeout: Option<Duration>,

    /// Write one JSON object per line to standard output
    #[arg(long, env = "PERCORE_CLIENT_JSON", help_heading = "Output")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    json: bool,

    /// Time between the ticker protocol's Pings; reconnect after twice that without data [default: 60s]
    #[arg(long, env = "PERCORE_CLIENT_PING", value_name = "TIME", value_parser = duration)]
    #[arg(help_heading = "Tickers")]
    ping: Option<Duration>,
    /// Wait before each reconnect; 0 to give up instead [default: 5s with a TICKER, else 0]
    #[arg(long, env = "PERCORE_CLIENT_RETRY", value_name = "TIME", value_parser = duration)]
    #[arg(help_heading = "Connection")]
    retry: Option<Duration>,
    /// Client name sent to the feed [default: HOSTNAME-PROCESS]
    #[arg(long, env = "PERCORE_CLIENT_ID", value_name = "NAME", help_heading = "Tickers")]
    id: Option<String>,

    /// Close and exit at the end of the input, as Ctrl-D on a terminal always does
    #[arg(long, short = 'E', env = "PERCORE_CLIENT_EXIT_ON_EOF")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true, help_heading = "Conversation")]
    exit_on_eof: bool,
    /// Send lines as binary messages
    #[arg(long, env = "PERCORE_CLIENT_BINARY", help_heading = "Conversation")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    binary: bool,
    /// Keep no history of lines typed on a terminal
    #[arg(long, env = "PERCORE_CLIENT_NO_HISTORY", help_heading = "Conversation")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    no_history: bool,
}

/// Runs it; `is_typed` tells whether a flag is on the command line.
pub(super) fn run(flags: ClientFlags, is_typed: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
    check_use(flags.tickers.is_empty(), is_typed)?;
    let mut dial = dial(&flags, is_typed)?;
    let ending = if flags.tickers.is_empty() {
        let manner = Manner {
            binary: flags.binary,
            json: flags.json,
            exit_on_eof: flags.exit_on_eof,
            history: if flags.no_history { None } else { history_path() },
            max_line: flags.max_message,
            retry: flags.retry.filter(|wait| !wait.is_zero()),
        };
        conversation::run(&mut dial, manner)
    } else {
        prices::run(&dial, wishes(&flags)?, flags.json)
    };
    ending.map_err(|error| Failure::Run(error.to_string()))?.map_err(|line| {
        let hint = if line.contains("the certificate is") {
            " (--ca FILE trusts another authority, -k any certificate)"
        } else {
            ""
        };
        Failure::Run(line + hint)
    })
}

fn wishes(flags: &ClientFlags) -> Result<Wishes, Failure> {
    let (ping, retry) = (flags.ping.unwrap_or(PING), flags.retry.unwrap_or(RETRY));
    if ping.is_zero() {
        return Err(Failure::Usage("--ping must be longer than 0".into()));
    }
    let id = flags.id.clone().unwrap_or_else(|| format!("{}-{}", hostname::hostname(), std::process::id()));
    let retry = (!retry.is_zero()).then_some(retry);
    Ok(Wishes { id, tickers: flags.tickers.clone(), ping, retry })
}

/// Refuses flags without effect in this mode; in the environment they are ignored.
fn check_use(is_conversation: bool, is_typed: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
    let (useless, why) = if is_conversation {
        (&["ping", "id"][..], "is for a ticker feed: give a TICKER")
    } else {
        (&["exit_on_eof", "binary", "no_history"][..], "is for a conversation: give no TICKER")
    };
    match useless.iter().find(|flag| is_typed(flag)) {
        Some(flag) => Err(Failure::Usage(format!("--{} {why}", flag.replace('_', "-")))),
        None => Ok(()),
    }
}

/// Checks what no parser of a single flag can.
fn dial(flags: &ClientFlags, is_typed: &dyn Fn(&str) -> bool) -> Result<Dial, Failure> {
    let url = Url::parse(&flags.url, &[("ws", Some(80)), ("wss", Some(443))]).map_err(Failure::Usage)?;
    check_subprotocols(&flags.subprotocol)?;
    if let Some(bad) = flags.origin.as_ref().filter(|origin| !is_origin(origin) && *origin != "null") {
        return Err(Failure::Usage(format!("--origin '{bad}': give SCHEME://HOST, such as https://example.org")));
    }
    if flags.connect_timeout.is_zero() {
        return Err(Failure::Usage("--connect-timeout must be longer than 0".into()));
    }
    let timeout = flags.ping_timeout.unwrap_or(flags.ping_interval.mul_f64(2.5));
    if !timeout.is_zero() && timeout <= flags.ping_interval {
        return Err(Failure::Usage(format!(
            "--ping-timeout must be longer than --ping-interval ({:?}), or no answer can arrive in time",
            flags.ping_interval
        )));
    }
    let tls = match (url.scheme, &flags.ca) {
        ("wss", authorities) => Some((tls_client(authorities.as_deref(), flags.insecure)?, url.host_name().to_owned())),
        (_, Some(_)) if is_typed("ca") => return Err(Failure::Usage("--ca is for TLS: give a URL with wss://".into())),
        (_, _) if flags.insecure && is_typed("insecure") => {
            return Err(Failure::Usage("--insecure is for TLS: give a URL with wss://".into()));
        }
        (_, _) => None,
    };
    let settings = Settings {
        max_message: flags.max_message,
        heartbeat: flags.ping_interval,
        heartbeat_timeout: timeout,
        handshake_timeout: flags.connect_timeout,
        ..Settings::default()
    };
    let offer = offer(flags, &url)?.into();
    Ok(Dial { url: url.to_string(), target: Target { addr: url.place, source: None, offer, tls }, settings })
}

fn offer(flags: &ClientFlags, url: &Url) -> Result<Offer, Failure> {
    let (mut host, mut headers) = (url.host.clone(), Vec::new());
    for (name, value) in &flags.header {
        match name.to_ascii_lowercase().as_str() {
            "host" => host.clone_from(value),
            "sec-websocket-protocol" => return Err(Failure::Usage("--header: give --subprotocol NAME instead".into())),
            "sec-websocket-extensions" => return Err(Failure::Usage("--header: give --deflate instead".into())),
            "upgrade" | "connection" | "sec-websocket-key" | "sec-websocket-version" => {
                return Err(Failure::Usage(format!("--header: the handshake sets {name} itself")));
            }
            _ => headers.push((name.clone(), value.clone())),
        }
    }
    headers.extend(flags.origin.iter().map(|origin| ("Origin".to_owned(), origin.clone())));
    let (target, subprotocols) = (url.target().to_owned(), flags.subprotocol.clone());
    Ok(Offer { target, host, subprotocols, deflate: flags.deflate.into(), headers })
}
