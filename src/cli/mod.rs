//! Floor 6, the command line: one file a command.
//!
//! Raw flags first ([`flags`]), checked settings second; an error says what to type instead. Exit codes: 0 when all
//! went well, 1 when something failed, 2 when the command line was wrong.

mod ask;
mod bench;
mod bench_sources;
mod bridge;
mod bus;
mod bus_flags;
mod channels;
mod channels_config;
mod channels_serve;
mod choices;
mod client;
mod config;
mod environment;
mod examples;
mod flags;
mod gateway;
mod gateway_key;
mod healthcheck;
mod jwt_flags;
mod keeper;
mod limit_flags;
mod output;
mod own;
mod reload;
mod serve;
mod service_flags;
mod shell;
mod units;
mod workers;

pub use own::serve;

use crate::os::log_writer;
use crate::telemetry::log::in_words;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serve::Part;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// A WebSocket server: one epoll loop per core, one process per loop.
#[derive(Parser, Debug)]
#[command(name = "percore", version = env!("PERCORE_BUILD_VERSION"), propagate_version = true)]
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
    /// What shares a load
    #[command(subcommand, hide = true)]
    BenchWorker(bench::Bench),
    /// Talk to a WebSocket server, line by line, or show the prices of a ticker feed
    Client(client::ClientFlags),
    /// Look at a bus between processes, publish on it, listen to it
    #[command(subcommand)]
    Bus(bus::BusCommand),
    /// Pass on to other hosts, by Redis, what is published on a bus
    Bridge(bridge::BridgeFlags),
    /// Keep the history of the channels of a bus: number what is published, and write it to files
    Keeper(keeper::KeeperFlags),
    /// What a supervisor runs as the keeper of its workers
    #[command(subcommand, hide = true)]
    KeeperOf(serve::Serve),
    /// Look at a configuration file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Replace the workers of a service by ones of the program that is on disk now
    Reload(reload::ReloadFlags),
    /// Ask a server how it is: exit code 0 when it answers 200, else 1
    Healthcheck(healthcheck::HealthcheckFlags),
    /// Print what a shell needs to complete commands and flags: bash, elvish, fish, powershell or zsh
    Completions(shell::CompletionsFlags),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(shell::ManFlags),
}

/// Parses the command line and calls its command.
pub fn main() -> ExitCode {
    let report = |result| report("percore", Cli::command, result);
    let matches = parse(shell::command());
    match matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((Cli { command: Command::Serve(serve) }, _)) => report(serve::run(serve, Part::Main)),
        Ok((Cli { command: Command::Worker(serve) }, _)) => report(serve::run(serve, Part::Worker)),
        Ok((Cli { command: Command::Bench(bench) }, _)) => report(bench::run(bench)),
        Ok((Cli { command: Command::BenchWorker(bench) }, _)) => report(bench::work(bench)),
        Ok((Cli { command: Command::Client(flags) }, matches)) => {
            report(client::run(flags, &|flag| environment::is_typed(&matches, flag)))
        }
        Ok((Cli { command: Command::Bus(command) }, _)) => report(bus::run(command)),
        Ok((Cli { command: Command::Bridge(flags) }, _)) => report(bridge::run(flags)),
        Ok((Cli { command: Command::Keeper(flags) }, _)) => report(keeper::run(flags)),
        Ok((Cli { command: Command::KeeperOf(serve) }, _)) => report(serve::run(serve, Part::Keeper)),
        Ok((Cli { command: Command::Config(command) }, _)) => report(config::run(command)),
        Ok((Cli { command: Command::Reload(flags) }, _)) => report(reload::run(flags)),
        Ok((Cli { command: Command::Healthcheck(flags) }, _)) => report(healthcheck::run(flags)),
        Ok((Cli { command: Command::Completions(flags) }, _)) => report(shell::completions(flags)),
        Ok((Cli { command: Command::Man(flags) }, _)) => report(shell::man(flags)),
        Err(error) if is_help(error.kind()) => help("percore", &error),
        Err(error) => report(Err(Failure::Usage(one_line(&error.to_string())))),
    }
}

/// Reads the command line of this process, and the environment.
fn parse(command: clap::Command) -> clap::error::Result<clap::ArgMatches> {
    let command = environment::with_variables(command);
    // Where it is not read in a terminal lines stay whole, so that they can be searched.
    let command = if io::stdout().is_terminal() { command } else { command.term_width(0) };
    command.try_get_matches()
}

/// Prints a text that was asked for; what was not, because there was no command, is an error.
fn help(name: &str, error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        let _ = io::stderr().write_all(text.as_bytes());
        return ExitCode::from(2);
    }
    report(name, Cli::command, output::print(&text))
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
    let line = said.collect::<Vec<_>>().join(" ").replace(" tip: ", "; ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The command line or the environment is wrong: exit code 2.
    Usage(String),
    /// Something else: exit code 1.
    Run(String),
    /// Nobody reads standard output any more, as behind `| head`: exit code 0, without a word.
    Unread,
}

/// The exit code of the program `name`, whose command line is `command`, after a line about what went wrong.
fn report(name: &str, command: impl FnOnce() -> clap::Command, result: Result<(), Failure>) -> ExitCode {
    let (line, code) = match result {
        Ok(()) | Err(Failure::Unread) => {
            log_writer::finish();
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(line)) => {
            let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            match environment::source(&command(), &line, &words) {
                Some(variable) => (format!("{variable} in the environment: {line}"), 2),
                None => (line, 2),
            }
        }
        Err(Failure::Run(line)) => (line, 1),
    };
    log_writer::last_line(&format!("{name}: {}", in_words(&line)));
    ExitCode::from(code)
}
