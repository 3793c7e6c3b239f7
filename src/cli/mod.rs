//! Floor 6, the command line: one file a command.
//!
//! Raw flags first ([`flags`]), checked settings second; an error says what to type instead. Exit codes: 0 when all
//! went well, 1 when something failed, 2 when the command line was wrong.

mod ask;
mod bench;
mod bridge;
mod bus;
pub mod bus_flags;
mod client;
pub mod flags;
mod gateway;
mod gateway_key;
mod healthcheck;
mod limit_flags;
mod reload;
mod serve;
pub mod service_flags;
pub mod units;
mod workers;

use crate::os::log_writer;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use serve::Part;
use std::process::ExitCode;

/// A WebSocket server: one epoll loop per core, one process per loop.
#[derive(Parser, Debug)]
#[command(name = "percore", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve an application
    #[command(subcommand)]
    Serve(serve::Serve),
    /// What a supervisor runs
    #[command(subcommand, hide = true)]
    Worker(serve::Serve),
    /// Put load on a WebSocket server, and measure what comes back
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Talk to a WebSocket server, line by line, or show the prices of a ticker feed
    Client(client::ClientFlags),
    /// Look at a bus between processes, publish on it, listen to it
    #[command(subcommand)]
    Bus(bus::BusCommand),
    /// Pass on to other hosts, by Redis, what is published on a bus
    Bridge(bridge::BridgeFlags),
    /// Replace the workers of a service by ones of the program that is on disk now
    Reload(reload::ReloadFlags),
    /// Ask a server how it is: exit code 0 when it answers 200, else 1
    Healthcheck(healthcheck::HealthcheckFlags),
}

/// Parses the command line and calls its command.
pub fn main() -> ExitCode {
    let matches = Cli::command().try_get_matches();
    match matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((Cli { command: Command::Serve(serve) }, _)) => report(serve::run(serve, Part::Main)),
        Ok((Cli { command: Command::Worker(serve) }, _)) => report(serve::run(serve, Part::Worker)),
        Ok((Cli { command: Command::Bench(bench) }, _)) => report(bench::run(bench)),
        Ok((Cli { command: Command::Client(flags) }, matches)) => {
            report(client::run(flags, &|flag| is_typed(&matches, flag)))
        }
        Ok((Cli { command: Command::Bus(command) }, _)) => report(bus::run(command)),
        Ok((Cli { command: Command::Bridge(flags) }, _)) => report(bridge::run(flags)),
        Ok((Cli { command: Command::Reload(flags) }, _)) => report(reload::run(flags)),
        Ok((Cli { command: Command::Healthcheck(flags) }, _)) => report(healthcheck::run(flags)),
        Err(error) if is_help(error.kind()) => error.exit(),
        Err(error) => report(Err(Failure::Usage(one_line(&error.to_string())))),
    }
}

/// Whether a flag of the command stands on the command line. One in the environment may be meant for other calls.
fn is_typed(matches: &ArgMatches, flag: &str) -> bool {
    matches.subcommand().is_some_and(|(_, flags)| flags.value_source(flag) == Some(ValueSource::CommandLine))
}

/// Whether what the parser has to say is not an error but a text that was asked for, or may as well have been.
fn is_help(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(kind, DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// The parser's message without the usage that it appends, on one line as every other error.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = said.collect::<Vec<_>>().join(" ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The command line or the environment is wrong: exit code 2.
    Usage(String),
    /// Something else: exit code 1.
    Run(String),
}

fn report(result: Result<(), Failure>) -> ExitCode {
    let (line, code) = match result {
        Ok(()) => {
            log_writer::finish();
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(line)) => (line, 2),
        Err(Failure::Run(line)) => (line, 1),
    };
    log_writer::last_line(&format!("percore: {line}"));
    ExitCode::from(code)
}
