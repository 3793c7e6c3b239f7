//! `percore serve gateway`: its flags, and the plan they yield.

use super::Failure;
use super::flags::{Checked, Defaults, ServerFlags};
use super::gateway_key::{bus_key, cluster_key};
use super::jwt_flags::JwtFlags;
use super::service_flags::ServiceFlags;
use super::units::{bytes, duration};
use crate::gateway::AccessKeys;
use crate::gateway::app::{Gateway, Manner};
use crate::gateway::codec::Codec;
use crate::gateway::codec::aws::Aws;
use crate::gateway::codec::json::Json;
use crate::gateway::codec::route::Selection;
use crate::gateway::core::Core;
use crate::gateway::name::Names;
use crate::gateway::rules::{Balance, Limits, OnFailure, Rules};
use crate::gateway::tokens::Tokens;
use crate::net::network::Network;
use crate::net::rate::RateRules;
use crate::origin::{self, CallRules, Secrets, Target};
use crate::os::clock::unix_time;
use crate::os::ledger::FileLedger;
use crate::os::listener::ListenAddr;
use crate::os::tls::TlsClient;
use crate::reactor::{Waker, seed};
use clap::{Args, ValueEnum};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Headers that the origin's client writes itself.
const OWN_HEADERS: [&str; 8] =
    ["host", "connection", "content-length", "content-type", "transfer-encoding", "upgrade", "te", "trailer"];
/// Path of the service in connection names.
const SERVICE_PATH: &str = "/sr";
/// Stands for the address in connection names where other nodes cannot reach us.
const NO_ADDRESS: &str = "localhost";

#[derive(Args, Debug)]
pub(super) struct GatewayFlags {
    /// The application: http://HOST:PORT/PATH, https://.. or unix:SOCKET:/PATH; repeatable, load is balanced
    #[arg(long, env = "PERCORE_ORIGIN_URL", value_name = "URL", value_delimiter = ',', required = true)]
    #[arg(help_heading = "Origin", value_parser = Target::origin)]
    origin_url: Vec<Target>,
    /// Format of events
    #[arg(long, env = "PERCORE_EVENTS", value_name = "FORMAT", default_value = "json", help_heading = "Origin")]
    #[arg(value_enum)]
    events: EventsFlag,
    /// Ask the origin about each handshake; it may refuse one with a status of its own
    #[arg(long, env = "PERCORE_AUTHORIZE", help_heading = "Origin")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    authorize: bool,
    /// Request header to pass to the origin when a connection opens; repeatable
    #[arg(long, env = "PERCORE_FORWARD_HEADER", value_name = "NAME", value_delimiter = ',', help_heading = "Origin")]
    forward_header: Vec<String>,
    /// How long connecting to an origin may take
    #[arg(long, env = "PERCORE_ORIGIN_DIAL_TIMEOUT", value_name = "TIME", default_value = "1s", value_parser = duration)]
    #[arg(help_heading = "Origin")]
    origin_dial_timeout: Duration,
    /// How long a call to an origin may take in total
    #[arg(long, env = "PERCORE_ORIGIN_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    #[arg(help_heading = "Origin")]
    origin_timeout: Duration,
    /// How long to retry an event that could not be sent to any origin
    #[arg(long, env = "PERCORE_ORIGIN_PATIENCE", value_name = "TIME", default_value = "2s", value_parser = duration)]
    #[arg(help_heading = "Origin")]
    origin_patience: Duration,
    /// What to do with a connection after the origin fails to take its event
    #[arg(long, env = "PERCORE_ON_ORIGIN_FAILURE", value_name = "WHAT", default_value = "close")]
    #[arg(value_enum, help_heading = "Origin")]
    on_origin_failure: FailureFlag,
    /// How long to retry telling the origin that a connection has closed
    #[arg(long, env = "PERCORE_CLOSED_RETRY", value_name = "TIME", default_value = "5m", value_parser = duration)]
    #[arg(help_heading = "Origin")]
    closed_retry: Duration,
    /// Closed connections that may wait to be reported to the origin; further ones are not reported
    #[arg(long, env = "PERCORE_MAX_CLOSED", value_name = "N", default_value_t = 100_000, help_heading = "Origin")]
    max_closed: usize,
    /// Concurrent calls to one origin; further events wait
    #[arg(long, env = "PERCORE_ORIGIN_CALLS", value_name = "N", default_value_t = 512, help_heading = "Origin")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    origin_calls: u32,
    /// How to choose among several origins
    #[arg(long, env = "PERCORE_ORIGIN_BALANCE", value_name = "HOW", default_value = "least", help_heading = "Origin")]
    #[arg(value_enum)]
    origin_balance: BalanceFlag,
    /// File with secrets to sign calls with (Standard Webhooks), one whsec_.. a line
    #[arg(long, env = "PERCORE_ORIGIN_SECRET_FILE", value_name = "FILE", help_heading = "Origin")]
    origin_secret_file: Option<PathBuf>,
    /// PEM file with the certificates to trust, for https:// [default: the system's]
    #[arg(long, env = "PERCORE_ORIGIN_CA", value_name = "FILE", help_heading = "Origin")]
    origin_ca: Option<PathBuf>,
    /// How often to tell the origin which connections are open; 0 for never
    #[arg(long, env = "PERCORE_KEEP_ALIVE_INTERVAL", value_name = "TIME", default_value = "0", value_parser = duration)]
    #[arg(help_heading = "Origin")]
    keep_alive_interval: Duration,
    /// Messages of one connection that may wait for the origin; beyond it, reading from the connection pauses
    #[arg(long, env = "PERCORE_QUEUE_MESSAGES", value_name = "N", default_value_t = 100, help_heading = "Origin")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    queue_messages: u32,
    /// The same in bytes
    #[arg(long, env = "PERCORE_QUEUE_BYTES", value_name = "BYTES", default_value = "1M", value_parser = bytes)]
    #[arg(help_heading = "Origin")]
    queue_bytes: usize,
    /// Bytes of a worker's waiting events, at most a quarter of --max-memory; beyond it new connections are refused
    #[arg(long, env = "PERCORE_QUEUE_TOTAL", value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    #[arg(help_heading = "Origin")]
    queue_total: usize,

    /// Address where other nodes and the application reach the service: IP:PORT or HOST:PORT [default: its listener]
    #[arg(long, env = "PERCORE_ADVERTISE", value_name = "ADDR", help_heading = "Cluster")]
    advertise: Option<String>,
    /// File with a key shared by all nodes, so that they accept each other's connection names [default: random]
    #[arg(long, env = "PERCORE_CLUSTER_KEY_FILE", value_name = "FILE", help_heading = "Cluster")]
    cluster_key_file: Option<PathBuf>,
    /// Network of nodes without that key to send messages to, such as those of websocket-service; repeatable
    #[arg(long, env = "PERCORE_PEER", value_name = "CIDR", value_delimiter = ',', help_heading = "Cluster")]
    peer: Vec<Network>,

    /// Same as --listen 127.0.0.1:PORT; a request without an upgrade gets 400
    #[arg(
        long,
        env = "PERCORE_WEBSOCKET_PORT",
        value_name = "PORT",
        help_heading = "Compatibility with websocket-service"
    )]
    websocket_port: Option<u16>,
    /// Same as --service-listen 127.0.0.1:PORT
    #[arg(
        long,
        env = "PERCORE_SERVICE_REQUEST_PORT",
        value_name = "PORT",
        help_heading = "Compatibility with websocket-service"
    )]
    service_request_port: Option<u16>,
    /// Same as --admin 127.0.0.1:PORT
    #[arg(
        long,
        env = "PERCORE_DEBUG_PORT",
        value_name = "PORT",
        help_heading = "Compatibility with websocket-service"
    )]
    debug_port: Option<u16>,
    /// Subprotocols to offer; the client's first choice among them wins; repeatable
    #[arg(long, env = "PERCORE_SUBPROTOCOLS", value_name = "NAMES", value_delimiter = ',')]
    #[arg(help_heading = "Compatibility with websocket-service")]
    subprotocols: Vec<String>,

    #[command(flatten)]
    tokens: TokenFlags,
    #[command(flatten)]
    aws: AwsFlags,
    #[command(flatten)]
    service: ServiceFlags,
    #[command(flatten)]
    server: ServerFlags,
}

/// Where clients send their tokens, and what the tokens must be.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Tokens")]
struct TokenFlags {
    #[command(flatten)]
    jwt: JwtFlags,
    /// Query parameter that may carry the token, besides Authorization: Bearer
    #[arg(long, env = "PERCORE_JWT_PARAMETER", value_name = "NAME")]
    jwt_parameter: Option<String>,
    /// Cookie that may carry the token
    #[arg(long, env = "PERCORE_JWT_COOKIE", value_name = "NAME")]
    jwt_cookie: Option<String>,
}

impl TokenFlags {
    fn tokens(&self) -> Result<Option<Tokens>, String> {
        let verifier = self.jwt.verifier()?;
        if verifier.is_none() && (self.jwt_parameter.is_some() || self.jwt_cookie.is_some()) {
            return Err("--jwt-parameter and --jwt-cookie need --jwt-secret-file or --jwks-file".to_owned());
        }
        Ok(verifier.map(|verifier| Tokens::new(verifier, self.jwt_parameter.clone(), self.jwt_cookie.clone())))
    }
}

/// Flags of `--events aws`.
#[derive(Args, Debug)]
#[command(next_help_heading = "AWS API Gateway")]
struct AwsFlags {
    /// Stage in the events
    #[arg(long, env = "PERCORE_AWS_STAGE", value_name = "NAME", default_value = "prod")]
    aws_stage: String,
    /// Domain in the events, where functions reach @connections [default: the address of the service]
    #[arg(long, env = "PERCORE_AWS_DOMAIN", value_name = "NAME", default_value = "")]
    aws_domain: String,
    /// Expression that selects a message's route
    #[arg(
        long,
        env = "PERCORE_AWS_ROUTE_SELECTION",
        value_name = "EXPRESSION",
        default_value = "$request.body.action"
    )]
    aws_route_selection: String,
    /// Route to accept, besides $default; repeatable [default: any]
    #[arg(long, env = "PERCORE_AWS_ROUTE", value_name = "NAME", value_delimiter = ',')]
    aws_route: Vec<String>,
    /// Send the body of the origin's response to a message to the client
    #[arg(long, env = "PERCORE_AWS_ROUTE_RESPONSE")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    aws_route_response: bool,
    /// AWS credentials file; requests to @connections must be signed with one of its keys
    #[arg(long, env = "PERCORE_AWS_CREDENTIALS_FILE", value_name = "FILE")]
    aws_credentials_file: Option<PathBuf>,
    /// Apply AWS's limits: 2 h per connection, 10 min idle, messages of 128 KiB in frames of 32 KiB, text only
    #[arg(long, env = "PERCORE_AWS_LIMITS")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    aws_limits: bool,
}

/// AWS's limits on message and frame length.
const AWS_MESSAGE: usize = 128 << 10;
const AWS_FRAME: usize = 32 << 10;

impl AwsFlags {
    fn codec(&self) -> Result<Aws, String> {
        let selection = Selection::read(&self.aws_route_selection, self.aws_route.clone());
        Ok(Aws {
            stage: self.aws_stage.clone(),
            domain: self.aws_domain.clone(),
            selection: selection.map_err(|error| format!("--aws-route-selection {error}"))?,
            route_response: self.aws_route_response,
        })
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum EventsFlag {
    /// The JSON of websocket-service
    Json,
    /// The events of AWS API Gateway for Lambda functions
    Aws,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum FailureFlag {
    /// Close it with 1011
    Close,
    /// Keep it open and drop the event
    Keep,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum BalanceFlag {
    /// The one with the fewest calls in progress
    Least,
    /// One after the other
    RoundRobin,
}

/// What the gateway's flags yield, besides the settings of every server.
pub(super) struct Plan {
    rules: Rules,
    manner: Manner,
    calls: CallRules,
    origins: Vec<Target>,
    advertise: Option<String>,
    key: Option<Vec<u8>>,
    aws: Option<Aws>,
    tokens: TokenFlags,
}

impl GatewayFlags {
    /// Checks the flags.
    pub(super) fn check(self) -> Result<(Plan, Checked), Failure> {
        let mut plan = self.plan()?;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let subprotocols = self.subprotocols.iter().filter(|name| !name.is_empty()).cloned();
        let server = self.server.and_subprotocols(subprotocols);
        let server = match self.websocket_port {
            Some(port) => server.or_listen_at(local(port)),
            None => server,
        };
        let server = match self.debug_port {
            Some(port) => server.or_admin_at(SocketAddr::from(([127, 0, 0, 1], port))),
            None => server,
        };
        let service = match self.service_request_port {
            Some(port) => self.service.or_listen_at(&local(port)).map_err(Failure::Usage)?,
            None => self.service,
        };
        let rates = RateRules::default();
        let mut checked = server.check(Defaults { port: 8080, paths: &["*"], origins: &[], rates })?;
        service.apply(&mut checked)?;
        if self.aws.aws_limits {
            checked.settings.max_message = checked.settings.max_message.min(AWS_MESSAGE);
            checked.settings.max_frame = AWS_FRAME;
        }
        let node_token = checked.settings.service_token.clone();
        let (max_message, has_token) = (checked.settings.max_message, node_token.is_some());
        let manner = Manner { max_message, has_token, ..plan.manner };
        let max_memory = checked.settings.max_memory;
        if max_memory > 0 {
            plan.rules.total_bytes = plan.rules.total_bytes.min(max_memory / 4);
        }
        checked.settings.answer_timeout = self.origin_patience + self.origin_timeout + Duration::from_secs(5);
        Ok((Plan { calls: CallRules { node_token, ..plan.calls }, manner, ..plan }, checked))
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let own = |name: &&String| {
            let name = name.to_ascii_lowercase();
            OWN_HEADERS.contains(&name.as_str()) || name.starts_with("webhook-") || name.starts_with("percore-")
        };
        let bad = |name: &&String| !super::flags::is_token(name) || own(name);
        if let Some(bad) = self.forward_header.iter().find(bad) {
            return Err(Failure::Usage(format!("--forward-header '{bad}' cannot be forwarded")));
        }
        // Only a check: each worker reads the files itself.
        self.tokens.tokens().map_err(Failure::Usage)?;
        for (flag, time) in [("origin-dial-timeout", self.origin_dial_timeout), ("origin-timeout", self.origin_timeout)]
        {
            if time.is_zero() {
                return Err(Failure::Usage(format!("--{flag} must be longer than 0")));
            }
        }
        let read = |flag: &str, path: &Path| {
            fs::read_to_string(path).map_err(|error| Failure::Usage(format!("--{flag} {}: {error}", path.display())))
        };
        let secrets = self.origin_secret_file.as_deref().map(|path| {
            let flag = "origin-secret-file";
            let bad = |error| Failure::Usage(format!("--{flag} {}: {error}", path.display()));
            Secrets::read(&read(flag, path)?).map_err(bad)
        });
        let key = self.cluster_key_file.as_deref().map(|path| {
            let flag = "cluster-key-file";
            let bad = |error| Failure::Usage(format!("--{flag} {}: {error}", path.display()));
            cluster_key(&read(flag, path)?).map_err(bad)
        });
        let tls = match self.origin_url.iter().any(Target::is_encrypted) {
            true => Some(TlsClient::new(self.origin_ca.as_deref()).map_err(|error| Failure::Run(error.to_string()))?),
            false => None,
        };
        let access_keys = self.aws.aws_credentials_file.as_deref().map(|path| {
            let flag = "aws-credentials-file";
            let bad = |error| Failure::Usage(format!("--{flag} {}: {error}", path.display()));
            AccessKeys::read(&read(flag, path)?).map_err(bad)
        });
        if let Some(addr) = &self.advertise
            && Target::node(&format!("{addr}{SERVICE_PATH}")).is_err()
        {
            return Err(Failure::Usage(format!(
                "--advertise '{addr}' is not a valid address: give IP:PORT or HOST:PORT"
            )));
        }
        Ok(Plan {
            rules: Rules {
                queue_messages: self.queue_messages as usize,
                queue_bytes: self.queue_bytes,
                total_bytes: self.queue_total,
                patience: self.origin_patience,
                closed_retry: self.closed_retry,
                max_closed: self.max_closed,
                on_failure: match self.on_origin_failure {
                    FailureFlag::Close => OnFailure::Close,
                    FailureFlag::Keep => OnFailure::Keep,
                },
                keep_alive_interval: self.keep_alive_interval,
                origin_calls: self.origin_calls as usize,
                limits: self.aws.aws_limits.then_some(Limits::OF_AWS),
                balance: match self.origin_balance {
                    BalanceFlag::Least => Balance::Least,
                    BalanceFlag::RoundRobin => Balance::RoundRobin,
                },
            },
            manner: Manner {
                // AWS always authorizes.
                authorizes: self.authorize || matches!(self.events, EventsFlag::Aws),
                subprotocols: self.subprotocols.iter().filter(|name| !name.is_empty()).cloned().collect(),
                forwarded: self.forward_header.clone(),
                plain_is_bad: self.websocket_port.is_some(),
                peers: self.peer.clone(),
                max_message: 0,
                text_only: self.aws.aws_limits,
                has_token: false,
                access_keys: access_keys.transpose()?,
            },
            calls: CallRules {
                dial_timeout: self.origin_dial_timeout,
                timeout: self.origin_timeout,
                secrets: secrets.transpose()?,
                tls,
                ..CallRules::default()
            },
            origins: self.origin_url.clone(),
            advertise: self.advertise.clone(),
            aws: match self.events {
                EventsFlag::Json => None,
                EventsFlag::Aws => Some(self.aws.codec().map_err(Failure::Usage)?),
            },
            key: key.transpose()?,
            tokens: self.tokens.clone(),
        })
    }
}

impl Plan {
    fn codec(&self) -> Box<dyn Codec> {
        match &self.aws {
            Some(aws) => Box::new(aws.clone()),
            None => Box::new(Json),
        }
    }

    /// Makes the app, and starts the thread that makes its calls and wakes it with `waker`.
    pub(super) fn start(&self, waker: &Waker) -> io::Result<Gateway> {
        let codec = self.codec();
        let calls = CallRules { keeps_headers: codec.reads_headers(), ..self.calls.clone() };
        let link = origin::start(self.origins.clone(), calls, waker.clone())?;
        let core = Core::new(self.rules.clone(), codec, self.origins.len());
        let returns = link.returns().clone();
        let mut gateway = Gateway::new(core, self.manner.clone(), move |call| link.call(call), returns);
        if let Some(tokens) = self.tokens.tokens().map_err(io::Error::other)? {
            gateway.demand(tokens);
        }
        Ok(gateway)
    }

    /// Tells the app its place: the address of its service, and its slot on the bus in that folder.
    pub(super) fn place(
        &self,
        gateway: &mut Gateway,
        service: &[ListenAddr],
        slot: u32,
        bus: Option<&Path>,
    ) -> io::Result<()> {
        let tcp = service.iter().find_map(|addr| match addr {
            ListenAddr::Tcp(addr) => Some(*addr),
            ListenAddr::Unix(_) => None,
        });
        let address = match (&self.advertise, tcp) {
            (Some(addr), _) => addr.clone(),
            (None, Some(addr)) if addr.ip().is_unspecified() => {
                let text =
                    format!("the service listens on {addr}: give --advertise, the address where other nodes reach it");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            (None, Some(addr)) => addr.to_string(),
            (None, None) => NO_ADDRESS.to_owned(),
        };
        let key = match (&self.key, bus) {
            (Some(key), _) => key.clone(),
            (None, Some(bus)) => bus_key(bus)?,
            (None, None) => seed()?.to_vec(),
        };
        let slot = u8::try_from(slot).map_err(io::Error::other)?;
        let microseconds = unix_time().as_micros().try_into().map_err(io::Error::other)?;
        let address = format!("{address}{SERVICE_PATH}");
        gateway.place(Names::new(&address, &key), slot, microseconds);
        if let Some(bus) = bus {
            gateway.keep(FileLedger::create(bus, &address)?);
        }
        Ok(())
    }
}
