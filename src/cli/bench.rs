//! `percore bench WORKLOAD URL`.

use super::Failure;
use super::bench_sources::{AddressRange, addresses, check_sources};
use super::choices::DeflateFlag;
use super::flags::{check_subprotocols, header};
use super::output;
use super::units::{LONGEST, boolean, bytes, duration};
use super::workers::{Workers, workers};
use crate::bench::{
    Limits, PUBLISHED_BYTES, Plan, Program, Report, Share, Url, Workload, plotted, run as run_plan, run_worker,
    run_workers,
};
use crate::os::tls::TlsClient;
use crate::protocol::message::Kind;
use crate::telemetry::log::counted;
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub(super) enum Bench {
    /// Send messages on every connection and check that they come back
    Echo {
        #[command(flatten)]
        load: LoadFlags,
        #[command(flatten)]
        messages: MessageFlags,
    },
    /// Hold idle connections; with --pid, measure what they cost the server
    Idle {
        #[command(flatten)]
        load: LoadFlags,
        /// First send one message on each connection and wait for its echo
        #[arg(long, env = "PERCORE_BENCH_ECHO", help_heading = "Load")]
        #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
        #[arg(value_name = "BOOL", hide_default_value = true)]
        echo: bool,
    },
    /// Open and close connections, --connections at a time
    Connect {
        #[command(flatten)]
        load: LoadFlags,
    },
    /// Publish on one connection and receive on all others, as in a chat room
    Fanout {
        #[command(flatten)]
        load: LoadFlags,
        #[command(flatten)]
        messages: MessageFlags,
        /// Where the publisher connects, such as another process on the same bus [default: URL]
        #[arg(long, env = "PERCORE_BENCH_PUBLISH_TO", value_name = "URL", help_heading = "Load")]
        publish_to: Option<String>,
    },
}

/// Flags of every workload. Each also reads `PERCORE_BENCH_<FLAG>` from the environment.
#[derive(Args, Debug)]
pub(super) struct LoadFlags {
    /// ws://HOST[:PORT][/PATH], wss:// for TLS, unix:SOCKET[:/PATH], or tcp://HOST:PORT for a raw TCP echo
    #[arg(value_name = "URL")]
    url: String,
    /// Number of connections
    #[arg(long, short, env = "PERCORE_BENCH_CONNECTIONS", value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    connections: u32,
    /// Processes that share the load: a number, or auto for one per core, or more if descriptor limits demand it
    #[arg(long, env = "PERCORE_BENCH_WORKERS", value_name = "N|auto", default_value = "1", value_parser = workers)]
    #[arg(help_heading = "Load")]
    workers: Workers,
    /// How long to measure
    #[arg(long, short, env = "PERCORE_BENCH_DURATION", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration, help_heading = "Load")]
    duration: Duration,
    /// Run the load this long before measuring
    #[arg(long, env = "PERCORE_BENCH_WARMUP", value_name = "TIME", default_value = "1s", value_parser = duration)]
    #[arg(help_heading = "Load")]
    warmup: Duration,

    /// Connections to open per second [default: as fast as possible]
    #[arg(long, env = "PERCORE_BENCH_CONNECT_RATE", value_name = "N", help_heading = "Connections")]
    #[arg(value_parser = positive)]
    connect_rate: Option<f64>,
    /// How long a connection may take to open
    #[arg(long, env = "PERCORE_BENCH_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = duration, help_heading = "Connections")]
    handshake_timeout: Duration,
    /// Address to connect from, or first and last of several; repeatable, used in turn [default: the kernel's choice]
    #[arg(long, env = "PERCORE_BENCH_SOURCE", value_name = "IP[-IP]", value_delimiter = ',', value_parser = addresses)]
    #[arg(help_heading = "Connections")]
    #[arg(
        long_help = "Address to connect from, or first and last of several, as 10.0.0.5-10.0.0.9; repeatable, used in turn \
        [default: the kernel's choice; for a server on the loopback, 127.0.0.1 and as many addresses after it as the \
        connections need ports]"
    )]
    source: Vec<AddressRange>,
    /// permessage-deflate mode to offer
    #[arg(
        long,
        env = "PERCORE_BENCH_DEFLATE",
        value_name = "MODE",
        default_value = "off",
        help_heading = "Connections"
    )]
    #[arg(value_enum, num_args = 0..=1, default_missing_value = "no-takeover", require_equals = true)]
    deflate: DeflateFlag,
    /// Subprotocol to offer; repeatable
    #[arg(long, env = "PERCORE_BENCH_SUBPROTOCOL", value_name = "NAME", value_delimiter = ',')]
    #[arg(help_heading = "Connections")]
    subprotocol: Vec<String>,
    /// Extra header for the handshake; repeatable
    #[arg(long, short = 'H', value_name = "NAME: VALUE", help_heading = "Connections")]
    #[arg(value_parser = header)]
    header: Vec<(String, String)>,

    /// PEM file with the certificates to trust, for wss:// [default: the system's]
    #[arg(long, env = "PERCORE_BENCH_CA", value_name = "FILE", help_heading = "Connections")]
    ca: Option<PathBuf>,
    /// Accept any certificate, for wss://
    #[arg(long, short = 'k', env = "PERCORE_BENCH_INSECURE", help_heading = "Connections", conflicts_with = "ca")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    insecure: bool,

    /// Process of the server, to measure its CPU time and memory; repeatable
    #[arg(long, env = "PERCORE_BENCH_PID", value_name = "PID", value_delimiter = ',', help_heading = "Results")]
    pid: Vec<u32>,
    /// Also write the results as JSON to this file; - for standard output, instead of the table
    #[arg(long, env = "PERCORE_BENCH_JSON", value_name = "FILE", help_heading = "Results")]
    json: Option<PathBuf>,
    /// Plot latency by percentile and over time, as SVG
    #[arg(long, env = "PERCORE_BENCH_PLOT", value_name = "FILE", help_heading = "Results")]
    plot: Option<PathBuf>,
    /// Print no progress lines
    #[arg(long, short, env = "PERCORE_BENCH_QUIET", help_heading = "Results")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct MessageFlags {
    /// Payload length of a message
    #[arg(long, short, env = "PERCORE_BENCH_SIZE", value_name = "BYTES", default_value = "125", value_parser = bytes)]
    #[arg(help_heading = "Messages")]
    size: usize,
    /// Messages in flight at a time: on each connection, or from the publisher
    #[arg(long, short, env = "PERCORE_BENCH_IN_FLIGHT", value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Messages")]
    in_flight: u32,
    /// Messages per second over all connections, sent without waiting for echoes [default: each echo triggers the next]
    #[arg(long, short, env = "PERCORE_BENCH_RATE", value_name = "N", value_parser = positive, help_heading = "Messages")]
    #[arg(conflicts_with = "in_flight")]
    rate: Option<f64>,
    /// Stop after this many messages in total, instead of after --duration; without a warm-up
    #[arg(long, short = 'n', env = "PERCORE_BENCH_COUNT", value_name = "N", help_heading = "Messages")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["duration", "warmup"])]
    count: Option<u64>,
    /// Send text messages instead of binary ones
    #[arg(long, env = "PERCORE_BENCH_TEXT", help_heading = "Messages", overrides_with = "binary")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    text: bool,
    /// Send binary messages, the default
    #[arg(long, help_heading = "Messages")]
    binary: bool,
}

/// Where results go, as typed.
struct Outputs {
    json: Option<PathBuf>,
    plot: Option<PathBuf>,
}

/// Where results go besides standard output.
struct Files {
    json: Option<OutputFile>,
    plot: Option<OutputFile>,
}

/// A file opened before there is anything to write; its old content stays until then.
struct OutputFile {
    path: PathBuf,
    file: File,
}

impl OutputFile {
    fn open(path: PathBuf) -> Result<OutputFile, Failure> {
        match File::options().write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(OutputFile { path, file }),
            Err(error) => Err(Failure::Run(format!("cannot write {}: {error}", path.display()))),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        // Only a regular file has a length, /dev/stdout or a pipe has none.
        let emptied = if self.file.metadata().is_ok_and(|data| data.is_file()) { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::Run(format!("cannot write {}: {error}", self.path.display())))
    }
}

/// Carries out one worker's share of a load; the parent process sends it.
pub(super) fn work(bench: Bench) -> Result<(), Failure> {
    let (plan, _) = checked(bench)?;
    run_worker(&plan).map_err(|error| Failure::Run(error.to_string()))
}

/// Runs the load and writes the results.
pub(super) fn run(bench: Bench) -> Result<(), Failure> {
    let (plan, Outputs { json, plot }) = checked(bench)?;
    let json_to_output = json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    check_sources(&plan)?;
    Limits::read().check(&plan, plan.share.workers).map_err(Failure::Usage)?;
    let json = json.filter(|_| !json_to_output);
    // Opened before the run, which would be in vain if they could not be written.
    let files = Files { json: json.map(OutputFile::open).transpose()?, plot: plot.map(OutputFile::open).transpose()? };
    let report = if plan.share.workers > 1 { run_split(plan) } else { run_plan(plan) };
    let report = report.map_err(|error| Failure::Run(error.to_string()))?;
    let json_text = || format!("{:#}\n", report.json());
    // The files first: standard output may be a pipe whose reader stops early.
    if let Some(mut file) = files.json {
        file.write(&json_text())?;
    }
    if let Some(mut file) = files.plot {
        file.write(&plotted(&report).map_err(|error| Failure::Run(format!("cannot draw the plot: {error}")))?)?;
    }
    let shown = output::print(&if json_to_output { json_text() } else { report.to_string() });
    match (report.errors(), shown) {
        (0, shown) => shown,
        (_, Err(failure @ Failure::Run(_))) => Err(failure),
        (count, _) => Err(Failure::Run(counted(count, "error*"))),
    }
}

/// Runs it in several processes: this program, with the same arguments.
fn run_split(plan: Plan) -> io::Result<Report> {
    let arguments = std::env::args_os().skip(2).collect();
    run_workers(plan, &Program { path: std::env::current_exe()?, arguments })
}

/// The plan, and where the results go.
fn checked(bench: Bench) -> Result<(Plan, Outputs), Failure> {
    let one = MessageFlags { size: 125, in_flight: 1, rate: None, count: None, text: false, binary: true };
    let (workload, load, messages, publish_to) = match bench {
        Bench::Echo { load, messages } => (Workload::Echo, load, messages, None),
        Bench::Idle { load, echo } => (Workload::Idle { echo }, load, one, None),
        Bench::Connect { load } => (Workload::Connect, load, one, None),
        Bench::Fanout { load, messages, publish_to } => (Workload::Fanout, load, messages, publish_to),
    };
    let outputs = Outputs { json: load.json.clone(), plot: load.plot.clone() };
    Ok((plan(workload, load, messages, publish_to)?, outputs))
}

/// Checks what no parser of a single flag can.
fn plan(
    workload: Workload,
    load: LoadFlags,
    messages: MessageFlags,
    publish_to: Option<String>,
) -> Result<Plan, Failure> {
    let url: Url = load.url.parse().map_err(Failure::Usage)?;
    let publish_to: Option<Url> = publish_to.map(|text| text.parse().map_err(Failure::Usage)).transpose()?;
    check_subprotocols(&load.subprotocol)?;
    if load.duration.is_zero() {
        return Err(Failure::Usage("--duration must be longer than 0".into()));
    }
    if load.handshake_timeout.is_zero() {
        return Err(Failure::Usage("--handshake-timeout must be longer than 0".into()));
    }
    if workload == Workload::Fanout && messages.size < PUBLISHED_BYTES {
        return Err(Failure::Usage(format!(
            "--size {} is too short: a published message carries its number and time, in {PUBLISHED_BYTES} bytes",
            messages.size
        )));
    }
    if workload == Workload::Fanout && load.connections < 2 {
        return Err(Failure::Usage("--connections 1 leaves no subscriber: give 2 or more".into()));
    }
    let source: Vec<IpAddr> = load.source.into_iter().flat_map(|range| range.0).collect();
    if let Some(bad) = source.iter().find(|source| !can_reach(source, &url)) {
        return Err(Failure::Usage(format!("--source {bad} cannot reach {}", url.text)));
    }
    let connections = load.connections as usize;
    let workers = match load.workers {
        Workers::Auto => Limits::read().workers(connections, load.workers.number()),
        given => given.number(),
    };
    if workers > connections {
        return Err(Failure::Usage(format!(
            "--workers {workers} is more than {connections} connections: each worker needs one"
        )));
    }
    let speaks_tls = [Some(&url), publish_to.as_ref()].iter().flatten().any(|url| url.tls.is_some());
    let tls = speaks_tls.then(|| tls_client(load.ca.as_deref(), load.insecure)).transpose()?;
    // With --count, every message sent is measured.
    let (duration, warmup) =
        if messages.count.is_some() { (LONGEST, Duration::ZERO) } else { (load.duration, load.warmup) };
    Ok(Plan {
        workload,
        url,
        publish_to,
        connections,
        in_flight: messages.in_flight as usize,
        rate: messages.rate,
        size: messages.size,
        kind: if messages.text && !messages.binary { Kind::Text } else { Kind::Binary },
        deflate: load.deflate.into(),
        subprotocols: load.subprotocol,
        headers: load.header,
        duration,
        warmup,
        count: messages.count,
        tls,
        connect_rate: load.connect_rate,
        handshake_timeout: load.handshake_timeout,
        source,
        pids: load.pid,
        quiet: load.quiet,
        share: Share { workers, ..Share::WHOLE },
    })
}

/// Trusts any server, the certificates in a file, or those that the system trusts.
pub(super) fn tls_client(authorities: Option<&Path>, insecure: bool) -> Result<TlsClient, Failure> {
    let client = if insecure { TlsClient::insecure() } else { TlsClient::new(authorities) };
    client.map_err(|error| Failure::Usage(format!("--ca: {error}")))
}

fn can_reach(source: &IpAddr, url: &Url) -> bool {
    url.ip().is_some_and(|ip| ip.is_ipv4() == source.is_ipv4())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e9);
    number.ok_or_else(|| "give a number above 0, such as 50000".into())
}
