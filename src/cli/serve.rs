//! `percore serve APP`: one plain process, or a supervisor and its workers.

use super::Failure;
use super::bus_flags::{BusPlace, MAX_WORKERS, slots_for};
use super::channels::ChannelsFlags;
use super::channels_serve::serve_channels;
use super::flags::{Checked, Defaults, PinFlag, ServerFlags};
use super::gateway::GatewayFlags;
use super::units::{boolean, duration};
use super::workers::Workers;
use crate::app::App;
use crate::apps::chat::{self, Chat};
use crate::apps::echo::{Echo, PrefixedEcho};
use crate::apps::ticker::market::Market;
use crate::apps::ticker::table::{TABLE, read_csv};
use crate::apps::ticker::{Ticker, Times};
use crate::net::rate::RateRules;
use crate::os::allocator::give_memory_back;
use crate::os::bus::{Bus, BusKeeper, BusOptions, is_in_memory};
use crate::os::clock::unix_time;
use crate::os::cpus;
use crate::os::descriptors::raise_descriptor_limit;
use crate::os::hostname::hostname;
use crate::os::listener::ListenAddr;
use crate::os::log_writer;
use crate::os::shared_words::SharedWords;
use crate::reactor::{Outcome, Server, Waker, seed};
use crate::supervisor::admin::{self, Board, SharedBoard, SlotView};
use crate::supervisor::{
    Assignment, KEEPER_COMMAND, Plan, Program, Ready, SlotListeners, Supervisor, WORKER_COMMAND, listen_all,
    watch_for_orphans,
};
use crate::telemetry::log::{Field, Level, Log, counted};
use crate::telemetry::stats::Stats;
use clap::{Args, Subcommand};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What a client of the chat says goes to everyone.
const CHAT_RATES: RateRules = RateRules { messages: 200, bytes: 256 << 10, channel: 1 << 20 };
/// A client of the ticker says little.
const TICKER_RATES: RateRules = RateRules { messages: 20, bytes: 64 << 10, channel: 0 };

#[derive(Subcommand, Debug)]
pub(super) enum Serve {
    /// Echo every message with the same opcode
    Echo(EchoFlags),
    /// Broadcast and chat rooms on /websockets, and GET /ping1, /ping2 to everyone, across all processes on a bus
    Chat(ChatFlags),
    /// Channels: backends publish by HTTP, clients subscribe with the SDKs of Centrifugo, and who was away gets what it missed
    Channels(Box<ChannelsFlags>),
    /// Hold WebSockets for an application that is an HTTP server, in any language
    Gateway(Box<GatewayFlags>),
    /// Prices to whoever asks for them, the same from all processes on a bus
    Ticker(TickerFlags),
}

#[derive(Args, Debug)]
pub(super) struct TickerFlags {
    /// Time from one price of a symbol to the next
    #[arg(long, env = "PERCORE_TICK", value_name = "TIME", default_value = "2s", value_parser = duration)]
    #[arg(help_heading = "Ticker")]
    tick: Duration,
    /// Time between a client's Pings: one that is silent for half as long again is asked, for twice as long released
    #[arg(long, env = "PERCORE_PING", value_name = "TIME", default_value = "60s", value_parser = duration)]
    #[arg(help_heading = "Ticker")]
    ping: Duration,
    /// File of symbols and start prices, SYMBOL,PRICE a line [default: a table of eight]
    #[arg(long, env = "PERCORE_PRICES", value_name = "FILE", help_heading = "Ticker")]
    prices: Option<PathBuf>,
    /// Number that the prices follow from [default: a random one]
    #[arg(long, env = "PERCORE_SEED", value_name = "N", help_heading = "Ticker")]
    seed: Option<u64>,
    /// Serve a page on / to try the ticker in a browser
    #[arg(long, env = "PERCORE_DEMO", help_heading = "Ticker")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    demo: bool,
    #[command(flatten)]
    server: ServerFlags,
}

impl TickerFlags {
    fn ticker(&self) -> Result<Ticker, Failure> {
        for (flag, time) in [("tick", self.tick), ("ping", self.ping)] {
            if time < Duration::from_millis(1) {
                return Err(Failure::Usage(format!("--{flag} must be 1ms or longer")));
            }
        }
        let table = match &self.prices {
            None => TABLE.map(|(symbol, price)| (symbol.to_owned(), price)).to_vec(),
            Some(path) => {
                let bad = |error: String| Failure::Usage(format!("--prices {}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
                read_csv(&text).map_err(bad)?
            }
        };
        let [a, b, c, d, e, f, g, h, ..] = seed().map_err(failed)?;
        let seed = self.seed.unwrap_or(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        Ok(Ticker::new(Market::new(table, seed, unix_time().as_secs()), Times { tick: self.tick, ping: self.ping })
            .demo(self.demo))
    }
}

#[derive(Args, Debug)]
pub(super) struct ChatFlags {
    /// Serve a page on / to try the chat in a browser
    #[arg(long, env = "PERCORE_DEMO", help_heading = "Chat")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    demo: bool,
    #[command(flatten)]
    server: ServerFlags,
}

#[derive(Args, Debug)]
pub(super) struct EchoFlags {
    /// Greet, echo with '[<hostname>] ' in front of each message, and log each; listens at $HTTP_SERVER_ADDR
    #[arg(long, env = "PERCORE_HOSTNAME_PREFIX", help_heading = "Echo")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true, value_parser = boolean)]
    #[arg(value_name = "BOOL", hide_default_value = true)]
    hostname_prefix: bool,
    #[command(flatten)]
    server: ServerFlags,
}

/// What a process is to the service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, or its supervisor.
    Main,
    /// One of its workers.
    Worker,
    /// The keeper of their history.
    Keeper,
}

/// What a process that serves begins with.
pub(super) fn prepare() {
    give_memory_back();
    raise_descriptor_limit();
}

pub(super) fn run(serve: Serve, part: Part) -> Result<(), Failure> {
    prepare();
    match serve {
        Serve::Echo(EchoFlags { hostname_prefix, server }) => {
            let server = if hostname_prefix { server.or_listen_at_server_addr()? } else { server };
            let mut checked = server.check(Defaults::PLAIN)?;
            leave_out_bus(&mut checked, part);
            match checked {
                checked if supervises(&checked, part) => supervise(checked, false),
                checked if hostname_prefix => serve_app(PrefixedEcho::new(&hostname()), checked, part),
                checked => serve_app(Echo, checked, part),
            }
        }
        Serve::Chat(ChatFlags { demo, server }) => {
            let mut checked =
                server.check(Defaults { port: 9001, paths: &[chat::PATH], origins: &["same"], rates: CHAT_RATES })?;
            announce_page(&mut checked, demo, part);
            match checked {
                checked if supervises(&checked, part) => supervise(checked, true),
                checked => serve_app(Chat::new(seed().map_err(failed)?).demo(demo), checked, part),
            }
        }
        Serve::Channels(flags) => serve_channels(*flags, part),
        Serve::Gateway(flags) => serve_gateway(*flags, part),
        Serve::Ticker(flags) => {
            // Also where others will serve: what is wrong is said once.
            let ticker = flags.ticker()?;
            let mut checked = flags.server.check(Defaults { rates: TICKER_RATES, ..Defaults::PLAIN })?;
            announce_page(&mut checked, flags.demo, part);
            match checked {
                checked if supervises(&checked, part) => supervise(checked, true),
                checked => serve_app(ticker, checked, part),
            }
        }
    }
}

/// Returns where the page of `--demo` is, once for all workers.
fn announce_page(checked: &mut Checked, demo: bool, part: Part) {
    if demo && part == Part::Main {
        let text = "A page to try it in a browser is on / of each address".to_owned();
        checked.log.push(Level::Info, "demo", &[], text);
    }
}

/// For an app that publishes nothing, and asks for nothing that others publish.
fn leave_out_bus(checked: &mut Checked, part: Part) {
    let BusPlace::Folder(path) = std::mem::replace(&mut checked.bus, BusPlace::Off) else { return };
    if part == Part::Main {
        let text = format!("echo publishes nothing and has no use for a bus: --bus {} is left out", path.display());
        checked.log.push(Level::Warn, "bus", &[], text);
    }
}

/// Returns where a bus costs more than it needs to.
pub(super) fn warn_of_disk(path: &Path, log: &mut Log) {
    if !is_in_memory(path) {
        let text = format!(
            "the bus in {} is not in memory: what is published there is written to a disk as well; choose a folder on tmpfs, \
            such as in /dev/shm",
            path.display()
        );
        log.push(Level::Warn, "bus", &[("bus", &path.display().to_string())], text);
    }
}

fn serve_gateway(flags: GatewayFlags, part: Part) -> Result<(), Failure> {
    let (plan, checked) = flags.check()?;
    if supervises(&checked, part) {
        return supervise(checked, true);
    }
    let waker = Waker::default();
    let app = plan.start(&waker).map_err(failed)?;
    serve_prepared(app, checked, part, None, |mut server, slot, bus| {
        let service = server.service_addrs()?;
        plan.place(server.app_mut(), &service, slot, bus)?;
        Ok(server.waker(&waker))
    })
}

/// Whether this process has others serve.
pub(super) fn supervises(checked: &Checked, part: Part) -> bool {
    part == Part::Main && checked.workers != Workers::Plain
}

pub(super) fn failed(error: io::Error) -> Failure {
    Failure::Run(error.to_string())
}

/// Serves in this process.
pub(super) fn serve_app<A: App>(app: A, checked: Checked, part: Part) -> Result<(), Failure> {
    serve_prepared(app, checked, part, None, |server, _, _| Ok(server))
}

/// The same, of an app that has to know where it listens, and its slot and the folder of the bus that it is on; `beside` are the counters
/// of another loop of this process.
pub(super) fn serve_prepared<A: App>(
    app: A,
    mut checked: Checked,
    part: Part,
    beside: Option<Arc<SharedWords>>,
    prepare: impl FnOnce(Server<A>, u32, Option<&Path>) -> io::Result<Server<A>>,
) -> Result<(), Failure> {
    let (format, mut end) = (checked.options.log_format, checked.log.like());
    // Before anyone is told that we serve.
    let bus = match &checked.bus {
        BusPlace::Folder(path) => {
            let bus = Bus::join(path, checked.bus_options).map_err(failed)?;
            if part == Part::Main {
                warn_of_disk(path, &mut checked.log);
            }
            Some(bus)
        }
        BusPlace::Private | BusPlace::Off => None,
    };
    let (place, slot) = (checked.bus.clone(), bus.as_ref().map_or(0, |bus| bus.me().slot));
    let folder = match &place {
        BusPlace::Folder(path) => Some(path.as_path()),
        BusPlace::Private | BusPlace::Off => None,
    };
    let server = match part {
        Part::Main => plain(app, checked, beside),
        Part::Worker | Part::Keeper => worker(app, checked, part),
    };
    let server = server.and_then(|server| prepare(server, slot, folder));
    let (mut server, on_bus) = (server.map_err(failed)?, bus.is_some());
    if let Some(bus) = bus {
        server = server.bus(bus);
    }
    let outcome = server.run().map_err(failed)?;
    let (level, text, stats) = match outcome {
        Outcome::Drained(stats) => (Level::Info, "stopped".to_owned(), stats),
        Outcome::Abandoned(cut_off, stats) => {
            (Level::Warn, format!("stopped: --drain-timeout cut off {}", counted(cut_off, "connection*")), stats)
        }
        Outcome::Interrupted(stats) => {
            (Level::Warn, format!("stopped by a second signal with {}", counted(stats.open, "connection* open")), stats)
        }
    };
    let counted = stats.fields();
    // Where nobody is shown the counters, time is not measured.
    let timed = !counted.contains(&("passes", 0));
    let calls = !counted.contains(&("origin_calls", 0));
    let commands = ["channels_commands", "channels_api_requests"].iter().any(|name| !counted.contains(&(*name, 0)));
    let is_kept = |name: &str| match name {
        "passes" | "message_latency" => timed,
        name if name.starts_with("origin") || name.starts_with("gateway_") => calls,
        name if name.starts_with("channels_") => commands,
        name => on_bus || !name.starts_with("bus_"),
    };
    let kept = counted.iter().filter(|(name, _)| is_kept(name));
    let fields: Vec<(_, &dyn Field)> = kept.map(|(name, count)| (*name, count as _)).collect();
    end.push(level, "stop", &fields, format!("{text}; {stats}"));
    log_writer::write_log(format, &mut end);
    match outcome {
        Outcome::Interrupted(_) => Err(Failure::Run("stopped at once by a second signal".into())),
        _ => Ok(()),
    }
}

/// A process without a supervisor.
fn plain<A: App>(app: A, checked: Checked, beside: Option<Arc<SharedWords>>) -> io::Result<Server<A>> {
    let Checked { listen, service, admin, ready_fd, settings, options, mut log, .. } = checked;
    let mut ready = Ready::new(ready_fd)?;
    let bind = options.bind();
    let hang_timeout = options.hang_timeout;
    let mut server = Server::new(app).settings(settings).options(options);
    let owned = |listener| Rc::into_inner(listener).ok_or_else(|| io::Error::other("a listener that is shared"));
    for SlotListeners { public, service } in listen_all(&listen, &service, 1, bind)? {
        for listener in public {
            server = server.listener(owned(listener)?);
        }
        for listener in service {
            server = server.service_listener(owned(listener)?);
        }
    }
    for addr in server.local_addrs()? {
        let addr = addr.to_string();
        log.push(Level::Info, "start", &[("listen", &addr)], format!("Starting server on {addr}..."));
    }
    for addr in server.service_addrs()? {
        log_service(&mut log, &addr);
    }
    if let Some(addr) = admin {
        let counters = Arc::new(SharedWords::create("percore-counters", Stats::WORDS)?);
        let only = SlotView {
            live: std::iter::once(Arc::clone(&counters)).chain(beside).collect(),
            process: Some(std::process::id()),
            up: true,
            ..SlotView::default()
        };
        let board = SharedBoard::default();
        *board.lock().unwrap_or_else(PoisonError::into_inner) =
            Board { slots: vec![only], ready: true, ..Board::default() };
        admin::serve(&addr, board, hang_timeout, &mut log)?;
        server = server.counters(counters);
    }
    // Connections wait in the backlog from now on; the loop writes the log in its first pass, when it takes signals.
    ready.serving();
    Ok(server.log(log))
}

/// A worker of a supervisor.
fn worker<A: App>(app: A, checked: Checked, part: Part) -> io::Result<Server<A>> {
    let Checked { mut settings, options, mut log, .. } = checked;
    let Assignment { slot, control, counters, listeners, service_listeners } = Assignment::receive()?;
    if part == Part::Worker {
        log_writer::name_worker(slot);
    }
    settings.node = slot as u32;
    let shown = counters.map_or_else(
        || {
            let text = "this worker is of another version than its supervisor, which cannot show its metrics";
            log.push(Level::Warn, "metrics", &[], text.into());
            SharedWords::create("percore-counters", Stats::WORDS).map(Arc::new)
        },
        Ok,
    );
    let times = (options.hang_timeout, options.drain_timeout);
    let counters = shown?;
    watch_for_orphans(&control, Arc::clone(&counters), times, (log.like(), options.log_format))?;
    let mut server = Server::new(app).settings(settings).options(options).control(control).counters(counters);
    for listener in listeners {
        server = server.listener(listener);
    }
    for listener in service_listeners {
        server = server.service_listener(listener);
    }
    Ok(server.log(log))
}

/// Runs workers, of an app that broadcasts or not.
pub(super) fn supervise(checked: Checked, broadcasts: bool) -> Result<(), Failure> {
    supervise_with(checked, broadcasts, false)
}

/// The same with a keeper of their history, or not.
pub(super) fn supervise_with(mut checked: Checked, broadcasts: bool, has_keeper: bool) -> Result<(), Failure> {
    let place = checked.bus.clone();
    let workers = match place {
        BusPlace::Folder(_) => workers_on_bus(&mut checked)?,
        BusPlace::Private if broadcasts => workers_on_bus(&mut checked)?,
        BusPlace::Private | BusPlace::Off => checked.workers.number(),
    };
    let bus_options = BusOptions { slots: slots_for(workers), ..checked.bus_options };
    let mut arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
    // A private one goes with the supervisor, when all workers are gone.
    let keeper = match place {
        // Whatever keeps workers from it shows now, and not as deaths of theirs.
        BusPlace::Folder(path) => {
            let keeper = BusKeeper::of_folder(&path, bus_options).map_err(failed)?;
            let slots = Bus::join(&path, bus_options).map_err(failed)?.slots();
            warn_of_disk(&path, &mut checked.log);
            // It may have been made by others, for fewer.
            if slots < 2 * workers {
                let path = path.display();
                return Err(Failure::Run(format!(
                    "the bus in {path} has {slots} slots, and {workers} workers take {} while they are reloaded: have fewer \
                    workers, or remove the bus when nobody is on it, and it is made anew",
                    2 * workers
                )));
            }
            Some(keeper)
        }
        BusPlace::Private if broadcasts => {
            let keeper = BusKeeper::of_private(bus_options).map_err(failed)?;
            // What is behind -- belongs to the app.
            let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
            arguments.splice(end..end, ["--bus".into(), keeper.path().into()]);
            Some(keeper)
        }
        BusPlace::Private | BusPlace::Off => None,
    };
    supervise_program(checked, arguments, keeper, has_keeper).map_err(failed)
}

/// How many there can be on a bus: of as many as there are cores those that fit.
fn workers_on_bus(checked: &mut Checked) -> Result<usize, Failure> {
    let wanted = checked.workers.number();
    if wanted <= MAX_WORKERS {
        return Ok(wanted);
    }
    if checked.workers != Workers::Auto {
        let text = format!("--workers {wanted}: a bus takes {MAX_WORKERS} at most; give fewer, or --bus off");
        return Err(Failure::Usage(text));
    }
    let text = format!("{MAX_WORKERS} workers for {wanted} cores, as a bus takes no more");
    checked.log.push(Level::Warn, "workers", &[("workers", &MAX_WORKERS), ("cores", &wanted)], text);
    checked.workers = Workers::Number(MAX_WORKERS);
    Ok(MAX_WORKERS)
}

fn supervise_program(
    checked: Checked,
    arguments: Vec<OsString>,
    bus: Option<BusKeeper>,
    has_keeper: bool,
) -> io::Result<()> {
    let Checked { listen, service, workers, pin, admin, ready_fd, options, mut log, .. } = checked;
    let ready = Ready::new(ready_fd)?;
    let slots = workers.number();
    let listeners = listen_all(&listen, &service, slots, options.bind())?;
    let board = SharedBoard::default();
    let addrs: BTreeSet<String> = listeners
        .iter()
        .flat_map(|slot| &slot.public)
        .map(|listener| listener.local_addr().map(|addr| addr.to_string()))
        .collect::<Result<_, _>>()?;
    for addr in addrs {
        let text = format!("Starting server on {addr}... ({})", counted(slots, "worker*"));
        log.push(Level::Info, "start", &[("listen", &addr), ("workers", &slots)], text);
    }
    // The first slot's are those of all, but where each worker has an address of its own.
    for listener in listeners.iter().take(1).flat_map(|slot| &slot.service) {
        log_service(&mut log, &listener.local_addr()?);
    }
    if let Some(addr) = admin {
        admin::serve(&addr, Arc::clone(&board), options.hang_timeout, &mut log)?;
    }
    let program = Program { path: std::env::current_exe()?, command: WORKER_COMMAND, arguments };
    let plan = Plan {
        keeper: has_keeper.then(|| Program { command: KEEPER_COMMAND, ..program.clone() }),
        program,
        listeners,
        cpus: places(slots, pin)?,
        drain_timeout: options.drain_timeout,
        hang_timeout: options.hang_timeout,
        bus,
        board,
        ready,
        log,
        log_format: options.log_format,
    };
    Supervisor::new(plan)?.run()
}

fn log_service(log: &mut Log, addr: &ListenAddr) {
    let addr = addr.to_string();
    log.push(Level::Info, "start", &[("service", &addr)], format!("service listener on {addr}"));
}

/// The processor for each slot.
fn places(slots: usize, pin: PinFlag) -> io::Result<Vec<Option<usize>>> {
    let allowed = cpus::allowed()?;
    let pins = match pin {
        PinFlag::On => true,
        PinFlag::Off => false,
        // Else several services would crowd the same few processors.
        PinFlag::Auto => slots == allowed.len() && slots == cpus::usable(),
    };
    Ok((0..slots).map(|slot| allowed.get(slot % allowed.len().max(1)).copied().filter(|_| pins)).collect())
}
