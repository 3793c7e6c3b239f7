//! The flags that every `serve` command has, as typed, and the settings they yield once checked.

mod others;

use super::Failure;
use super::bus_flags::{BusFlags, BusPlace};
use super::choices::{DeflateFlag, FormatFlag, LevelFlag};
use super::limit_flags::LimitFlags;
use super::units::{boolean, bytes, duration, microseconds, mode};
use super::workers::{Workers, workers};
use crate::net::network::Network;
use crate::net::rate::RateRules;
use crate::os::bus::BusOptions;
use crate::os::listener::ListenAddr;
use crate::outbox::{SendRules, SlowConsumer};
use crate::protocol::extension::Deflate;
use crate::protocol::forwarded::{ForwardedHeader, ProxyRules};
use crate::protocol::http::HeadLimits;
use crate::protocol::upgrade::UpgradeRules;
use crate::reactor::ServerOptions;
use crate::session::Settings;
use crate::supervisor::ListenPattern;
use crate::telemetry::log::{Level, Log};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Flags of every server. Each also reads `PERCORE_<FLAG>` from the environment; a flag that may be repeated takes
/// several values there, separated by commas.
#[derive(Args, Debug, Clone)]
pub struct ServerFlags {
    /// Where to listen: IP:PORT, [v6]:PORT or unix:PATH, '{worker}' for a worker's number; repeatable
    #[arg(long, env = "PERCORE_LISTEN", value_name = "ADDR", value_delimiter = ',', help_heading = "Listening")]
    #[arg(
        long_help = "Where to listen: IP:PORT, [v6]:PORT or unix:PATH; repeatable. '{worker}' stands for a worker's \
        number, from 0, and gives each worker its own address; otherwise the workers share one port, which no other \
        process may use \
        [default: 127.0.0.1:8080, for chat port 9001, for channels 8000, or 0.0.0.0:$PORT where PORT is set]"
    )]
    listen: Vec<String>,
    /// Length of the accept queue, bounded by the kernel's somaxconn
    #[arg(long, env = "PERCORE_BACKLOG", value_name = "N", default_value_t = 4096, help_heading = "Listening")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=65535))]
    backlog: i32,
    /// Permissions of unix sockets, such as 660; connecting takes write permission [default: by the umask]
    #[arg(long, env = "PERCORE_UNIX_MODE", value_name = "MODE", value_parser = mode, help_heading = "Listening")]
    unix_mode: Option<u32>,
    /// Share the port with other processes of the same user that also have this flag
    #[arg(long, env = "PERCORE_REUSE_PORT", help_heading = "Listening")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    #[arg(long_help = "Share the port with other processes of the same user that also have this flag; the kernel \
        distributes the connections (SO_REUSEPORT). Without it, a port in use is an error")]
    reuse_port: bool,
    /// Maximum number of open WebSocket connections; further upgrades get 503 with Retry-After
    #[arg(long, env = "PERCORE_MAX_CONNECTIONS", value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Listening")]
    max_connections: u32,

    /// Worker processes: a number, or 'auto' for one per core; 1 runs a plain process without a supervisor
    #[arg(long, env = "PERCORE_WORKERS", value_name = "N", default_value = "1", value_parser = workers)]
    #[arg(help_heading = "Workers")]
    workers: Workers,
    /// Pin each worker to a core of its own
    #[arg(long, env = "PERCORE_PIN", value_name = "WHEN", default_value = "auto", help_heading = "Workers")]
    #[arg(value_enum)]
    #[arg(
        long_help = "Pin each worker to a core of its own; auto: if there is a worker for each core that this process \
        may use, and no control group grants less CPU time than those cores have"
    )]
    pin: PinFlag,
    /// Spin this long before blocking, such as 20us: lower latency for more CPU
    #[arg(long, env = "PERCORE_BUSY_POLL", value_name = "TIME", default_value = "0", value_parser = microseconds)]
    #[arg(help_heading = "Workers")]
    busy_poll: Duration,
    /// Replace a worker whose loop stalls this long; a plain process answers /healthz with 503; 0 for never
    #[arg(long, env = "PERCORE_HANG_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = "Workers")]
    hang_timeout: Duration,
    /// Where /healthz, /readyz and /metrics are served, or 'off' [default: 127.0.0.1:9464 with --workers, else off]
    #[arg(long, env = "PERCORE_ADMIN", value_name = "ADDR", value_parser = admin, help_heading = "Workers")]
    admin: Option<Admin>,
    /// Write a line to this descriptor and close it once all listeners are ready
    #[arg(long, env = "PERCORE_READY_FD", value_name = "FD", help_heading = "Workers")]
    #[arg(value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<i32>,

    /// Proxy trusted to name the client's address: IP, CIDR or 'unix'; repeatable [default: none]
    #[arg(long, env = "PERCORE_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', help_heading = "Proxies")]
    trusted_proxy: Vec<Network>,
    /// Header in which trusted proxies name it; the other one is ignored, as a client may have forged it
    #[arg(long, env = "PERCORE_FORWARDED_HEADER", value_name = "NAME", default_value = "x-forwarded-for")]
    #[arg(value_enum, help_heading = "Proxies")]
    forwarded_header: ForwardedFlag,
    /// Require a PROXY protocol header, v1 or v2, from a trusted proxy (from any peer without --trusted-proxy)
    #[arg(long, env = "PERCORE_PROXY_PROTOCOL", help_heading = "Proxies")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    proxy_protocol: bool,
    /// Maximum number of open connections per client (IPv4 address or IPv6 /64); beyond it 429; 0 for no limit
    #[arg(long, env = "PERCORE_MAX_CONNECTIONS_PER_IP", value_name = "N", default_value_t = 0)]
    #[arg(help_heading = "Proxies")]
    max_connections_per_ip: u32,

    /// Path that accepts upgrades; repeatable [default: / and /ws, for chat /websockets, for channels /connection/websocket]
    #[arg(long, env = "PERCORE_PATH", value_name = "PATH", value_delimiter = ',', help_heading = "Upgrade")]
    path: Vec<String>,
    // The line is read in a terminal, where brackets around the URL would only be in the way.
    #[allow(rustdoc::bare_urls)]
    /// Allowed origin: https://example.org, 'same' for the host itself, or 'any'; repeatable [default: any, for chat and channels same]
    #[arg(long, env = "PERCORE_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', help_heading = "Upgrade")]
    origin: Vec<String>,
    /// Subprotocol to offer; repeatable; the client's order decides
    #[arg(long, env = "PERCORE_SUBPROTOCOL", value_name = "NAME", value_delimiter = ',', help_heading = "Upgrade")]
    subprotocol: Vec<String>,
    /// Longest request line; a longer one gets 414
    #[arg(long, env = "PERCORE_MAX_REQUEST_LINE", value_name = "BYTES", default_value = "8K", value_parser = bytes)]
    #[arg(help_heading = "Upgrade")]
    max_request_line: usize,
    /// Longest request head (request line and headers); a longer one gets 431
    #[arg(long, env = "PERCORE_MAX_HEADERS", value_name = "BYTES", default_value = "16K", value_parser = bytes)]
    #[arg(help_heading = "Upgrade")]
    max_headers: usize,
    /// How long a request may take to arrive; beyond it 408
    #[arg(long, env = "PERCORE_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = "Upgrade")]
    handshake_timeout: Duration,
    /// After this long, the next response is the last on its connection; 0 for no limit
    #[arg(long, env = "PERCORE_HTTP_LIFETIME", value_name = "TIME", default_value = "60s", value_parser = duration)]
    #[arg(help_heading = "Upgrade")]
    http_lifetime: Duration,

    /// Longest message, after decompression; a longer one closes the connection with 1009
    #[arg(long, env = "PERCORE_MAX_MESSAGE", value_name = "BYTES", default_value = "1M", value_parser = bytes)]
    #[arg(help_heading = "Messages")]
    max_message: usize,
    /// Bytes that may be queued for one connection before --slow-consumer applies
    #[arg(long, env = "PERCORE_MAX_BACKLOG", value_name = "BYTES", default_value = "4M", value_parser = bytes)]
    #[arg(help_heading = "Messages")]
    max_backlog: usize,
    /// What to do with a connection whose backlog is full
    #[arg(long, env = "PERCORE_SLOW_CONSUMER", value_name = "POLICY", default_value = "close")]
    #[arg(value_enum, help_heading = "Messages")]
    slow_consumer: SlowConsumerFlag,
    /// permessage-deflate: off, each message by itself, or with windows that persist (uses much memory)
    #[arg(long, env = "PERCORE_DEFLATE", value_name = "MODE", default_value = "no-takeover")]
    #[arg(value_enum, help_heading = "Messages")]
    deflate: DeflateFlag,
    /// Send messages shorter than this uncompressed
    #[arg(long, env = "PERCORE_DEFLATE_MIN", value_name = "BYTES", default_value = "1K", value_parser = bytes)]
    #[arg(help_heading = "Messages")]
    deflate_min: usize,
    /// Send messages longer than this uncompressed; with windows below 4 KiB the limit is lower
    #[arg(long, env = "PERCORE_DEFLATE_MAX", value_name = "BYTES", default_value = "128K", value_parser = bytes)]
    #[arg(help_heading = "Messages")]
    deflate_max: usize,
    /// Compression level, 1 (fast) to 9 (small)
    #[arg(long, env = "PERCORE_DEFLATE_LEVEL", value_name = "LEVEL", default_value_t = 1, help_heading = "Messages")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9))]
    deflate_level: u32,
    /// Largest compression window: 9 (512 bytes) to 15 (32 KiB)
    #[arg(long, env = "PERCORE_DEFLATE_WINDOW", value_name = "BITS", default_value_t = 15, help_heading = "Messages")]
    #[arg(value_parser = clap::value_parser!(u8).range(9..=15))]
    deflate_window: u8,

    /// Time between Pings on each connection; 0 for none
    #[arg(long, env = "PERCORE_HEARTBEAT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    #[arg(help_heading = "Liveness")]
    heartbeat: Duration,
    /// Close a connection after this long without any data from it; 0 for never
    #[arg(long, env = "PERCORE_HEARTBEAT_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = duration)]
    #[arg(help_heading = "Liveness")]
    heartbeat_timeout: Duration,
    /// How long a peer may take to answer a Close frame
    #[arg(long, env = "PERCORE_CLOSE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    #[arg(help_heading = "Liveness")]
    close_timeout: Duration,
    /// How long connections have to close after SIGTERM or SIGINT
    #[arg(long, env = "PERCORE_DRAIN_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = "Liveness")]
    drain_timeout: Duration,

    /// Level of the log on standard error
    #[arg(long, env = "PERCORE_LOG_LEVEL", value_name = "LEVEL", default_value = "info", help_heading = "Logging")]
    #[arg(value_enum)]
    log_level: LevelFlag,
    /// Format of log lines
    #[arg(long, env = "PERCORE_LOG_FORMAT", value_name = "FORMAT", default_value = "text", help_heading = "Logging")]
    #[arg(value_enum)]
    log_format: FormatFlag,
    /// Log a line for each message (at level info)
    #[arg(long, env = "PERCORE_LOG_MESSAGES", help_heading = "Logging")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    log_messages: bool,

    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    bus: BusFlags,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum ForwardedFlag {
    XForwardedFor,
    /// RFC 7239
    Forwarded,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum SlowConsumerFlag {
    /// Close the connection
    Close,
    /// Skip messages to it until it has caught up
    Drop,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PinFlag {
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug)]
enum Admin {
    On(ListenAddr),
    Off,
}

fn admin(text: &str) -> Result<Admin, String> {
    if text == "off" { Ok(Admin::Off) } else { text.parse().map(Admin::On) }
}

pub(super) fn default_admin() -> ListenAddr {
    ListenAddr::Tcp((std::net::Ipv4Addr::LOCALHOST, 9464).into())
}

/// The settings that the flags yield.
pub(super) struct Checked {
    pub listen: Vec<ListenPattern>,
    /// Where to listen for the application behind the server.
    pub service: Vec<ListenPattern>,
    pub workers: Workers,
    pub pin: PinFlag,
    pub admin: Option<ListenAddr>,
    pub ready_fd: Option<i32>,
    pub bus: BusPlace,
    pub bus_options: BusOptions,
    pub settings: Settings,
    pub options: ServerOptions,
    pub log: Log,
}

/// An app's defaults: where it listens, and which upgrades it accepts.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub port: u16,
    pub paths: &'static [&'static str],
    pub rates: RateRules,
    /// Empty for any.
    pub origins: &'static [&'static str],
}

impl Defaults {
    /// Those of an app without any of its own.
    pub const PLAIN: Defaults = Defaults {
        port: 8080,
        paths: &["/", "/ws"],
        rates: RateRules { messages: 0, bytes: 0, channel: 0 },
        origins: &[],
    };
}

impl ServerFlags {
    /// Without `--listen`, listens at `HTTP_SERVER_ADDR`, if that is set.
    pub(super) fn or_listen_at_server_addr(mut self) -> Result<ServerFlags, Failure> {
        if self.listen.is_empty() {
            self.listen.extend(server_addr()?);
        }
        Ok(self)
    }

    /// Checks what no parser of a single flag can.
    pub(super) fn check(self, defaults: Defaults) -> Result<Checked, Failure> {
        let listen = listen_addrs(&self.listen, defaults.port)?;
        if let Some(bad) =
            self.path.iter().find(|path| *path != "*" && !path.starts_with('/') || path.contains(['?', '#', ' ']))
        {
            return Err(Failure::Usage(format!(
                "--path '{bad}' is not a valid path: it begins with / and has no ?, # or space"
            )));
        }
        check_subprotocols(&self.subprotocol)?;
        let origin_is_good = |origin: &&String| ["any", "same", "null"].contains(&origin.as_str()) || is_origin(origin);
        if let Some(bad) = self.origin.iter().find(|origin| !origin_is_good(origin)) {
            return Err(Failure::Usage(format!(
                "--origin '{bad}' is not a valid origin: give SCHEME://HOST[:PORT] without a path, same, null or any"
            )));
        }
        if !self.heartbeat_timeout.is_zero() && self.heartbeat >= self.heartbeat_timeout {
            return Err(Failure::Usage(format!(
                "--heartbeat-timeout {:?} must be longer than --heartbeat {:?}, or no client can answer in time",
                self.heartbeat_timeout, self.heartbeat
            )));
        }
        if !self.hang_timeout.is_zero() && self.hang_timeout < Duration::from_millis(100) {
            return Err(Failure::Usage("--hang-timeout must be 0, or 100ms or longer".into()));
        }
        let too_short = [("handshake-timeout", self.handshake_timeout), ("close-timeout", self.close_timeout)];
        if let Some((flag, _)) = too_short.iter().find(|(_, time)| time.is_zero()) {
            return Err(Failure::Usage(format!("--{flag} must be longer than 0")));
        }
        let admin = match &self.admin {
            Some(Admin::On(addr)) => Some(addr.clone()),
            Some(Admin::Off) => None,
            None => (self.workers != Workers::Plain).then(default_admin),
        };
        let (workers, pin, ready_fd) = (self.workers, self.pin, self.ready_fd);
        let (settings, options, log) = (self.settings(defaults), self.options(), self.log());
        let (bus, bus_options) = (self.bus.place(), self.bus.options());
        let service = Vec::new();
        Ok(Checked { listen, service, workers, pin, admin, ready_fd, bus, bus_options, settings, options, log })
    }

    fn settings(&self, defaults: Defaults) -> Settings {
        let paths = defaults.paths.iter().map(|path| (*path).to_owned()).collect();
        Settings {
            max_message: self.max_message,
            upgrade: UpgradeRules {
                paths: if self.path.is_empty() { paths } else { self.path.clone() },
                origins: self.origins(defaults),
                subprotocols: self.subprotocol.clone(),
            },
            deflate: Deflate {
                mode: self.deflate.into(),
                window_bits: self.deflate_window,
                level: self.deflate_level,
                min_bytes: self.deflate_min,
                max_bytes: self.deflate_max,
            },
            head: HeadLimits { request_line_bytes: self.max_request_line, head_bytes: self.max_headers },
            send: SendRules {
                max_backlog: self.max_backlog,
                slow_consumer: match self.slow_consumer {
                    SlowConsumerFlag::Close => SlowConsumer::Close,
                    SlowConsumerFlag::Drop => SlowConsumer::Drop,
                },
            },
            rates: self.limits.rates(defaults.rates, self.workers.number()),
            max_memory: self.limits.max_memory(self.workers.number()),
            heartbeat: self.heartbeat,
            heartbeat_timeout: self.heartbeat_timeout,
            handshake_timeout: self.handshake_timeout,
            http_lifetime: self.http_lifetime,
            close_timeout: self.close_timeout,
            max_connections: self.max_connections as usize,
            max_connections_per_ip: self.max_connections_per_ip,
            proxies: ProxyRules {
                trusted: self.trusted_proxy.clone(),
                header: match self.forwarded_header {
                    ForwardedFlag::XForwardedFor => ForwardedHeader::XForwardedFor,
                    ForwardedFlag::Forwarded => ForwardedHeader::Forwarded,
                },
                proxy_protocol: self.proxy_protocol,
            },
            ..Settings::default()
        }
    }

    /// `any` among them admits every origin, which the rules express as an empty list.
    fn origins(&self, defaults: Defaults) -> Vec<String> {
        let named = defaults.origins.iter().map(|origin| (*origin).to_owned());
        let origins = if self.origin.is_empty() { named.collect() } else { self.origin.clone() };
        if origins.iter().any(|origin| origin == "any") { Vec::new() } else { origins }
    }

    fn options(&self) -> ServerOptions {
        ServerOptions {
            backlog: self.backlog,
            unix_mode: self.unix_mode,
            reuse_port: self.reuse_port,
            drain_timeout: self.drain_timeout,
            log_format: self.log_format.into(),
            busy_poll: self.busy_poll,
            hang_timeout: self.hang_timeout,
            signals: true,
        }
    }

    fn log(&self) -> Log {
        let mut log = Log::new(self.log_level.into());
        log.messages = self.log_messages && log.keeps(Level::Info);
        log
    }
}

/// `HTTP_SERVER_ADDR` from the environment, unless empty: `:80` is port 80 on all addresses.
pub(super) fn server_addr() -> Result<Option<String>, Failure> {
    let addr = match std::env::var("HTTP_SERVER_ADDR").unwrap_or_default() {
        addr if addr.is_empty() => return Ok(None),
        port if port.starts_with(':') => format!("0.0.0.0{port}"),
        addr => addr,
    };
    match addr.parse::<ListenPattern>() {
        Ok(_) => Ok(Some(addr)),
        Err(error) => Err(Failure::Usage(format!("HTTP_SERVER_ADDR in the environment: {error}"))),
    }
}

/// `--listen` as given, else `PORT` of the environment on all addresses, else the app's port on 127.0.0.1.
pub(super) fn listen_addrs(given: &[String], port: u16) -> Result<Vec<ListenPattern>, Failure> {
    if !given.is_empty() {
        let parsed = given.iter().map(|addr| addr.parse().map_err(|error| Failure::Usage(format!("--listen {error}"))));
        return parsed.collect();
    }
    let addr = match std::env::var("PORT").unwrap_or_default() {
        unset if unset.is_empty() => format!("127.0.0.1:{port}"),
        port => match port.parse::<u16>() {
            Ok(port) => format!("0.0.0.0:{port}"),
            Err(_) => {
                return Err(Failure::Usage(format!("PORT '{port}' in the environment is not a port: give 0 to 65535")));
            }
        },
    };
    addr.parse().map(|addr| vec![addr]).map_err(Failure::Usage)
}

pub(super) fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/'))
}

/// Checks that each is a token (RFC 6455, section 4.1).
pub(super) fn check_subprotocols(names: &[String]) -> Result<(), Failure> {
    match names.iter().find(|name| !is_token(name)) {
        Some(bad) => {
            Err(Failure::Usage(format!("--subprotocol '{bad}' is not a token: letters, digits and -._~ only")))
        }
        None => Ok(()),
    }
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let is_character = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(is_character)
}

/// Parses a header, `Name: value`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    let is_good = |(name, value): &(String, String)| is_token(name) && !value.contains(|c: char| c.is_control());
    parts.filter(is_good).ok_or_else(|| "give 'Name: value'".into())
}
