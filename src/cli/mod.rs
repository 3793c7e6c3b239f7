//! Floor 6, the command line: one file a command.
//!
//! Raw flags first ([`flags`]), checked settings second; an error says what to type instead. Exit codes: 0 when all
//! went well, 1 when something failed, 2 when the command line was wrong.

pub mod flags;
mod serve;
pub mod units;

use clap::{Parser, Subcommand};
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
}

/// Parses the command line and calls its command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => report(serve::run(serve)),
    }
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
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(line)) => (line, 2),
        Err(Failure::Run(line)) => (line, 1),
    };
    eprintln!("percore: {line}");
    ExitCode::from(code)
}
