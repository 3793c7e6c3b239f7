//! [`serve`]: the command line of the ready applications for one of your own.

use super::flags::{Defaults, ServerFlags};
use super::healthcheck::{self, HealthcheckFlags};
use super::reload::{self, ReloadFlags};
use super::serve::{Part, prepare, serve_app, supervise, supervises};
use super::{Failure, help, is_help, one_line, parse, report};
use crate::app::App;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::fmt::Display;
use std::process::ExitCode;

#[derive(Parser, Debug)]
#[command(propagate_version = true)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve, as one process or as a supervisor and its workers
    Serve(ServeFlags),
    /// Run as a worker of a supervisor
    #[command(hide = true)]
    Worker(ServeFlags),
    /// Replace the workers of a service by new ones of the program now on disk
    Reload(ReloadFlags),
    /// Check the health of a server: exit code 0 if it answers 200, else 1
    Healthcheck(HealthcheckFlags),
}

#[derive(Args, Debug)]
struct ServeFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// Arguments of the application itself, after --
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Runs a program that serves an app of your own with all that `percore serve` has: flags, environment variables,
/// workers and their supervisor, admin listener, metrics, bus, reload, drain, logs and health check. `main` should do
/// nothing else.
///
/// The program is called `NAME serve [FLAGS] [-- ARGUMENTS]`, `NAME reload` or `NAME healthcheck`; each has `--help`.
/// `app` gets the arguments after `--` and makes the app: once in each worker and, if there are workers, once in the
/// supervisor, so that wrong arguments are reported once. Clients may upgrade on `/` and `/ws` unless `--path` names
/// other paths; an app that requires a token checks it on every path, in [`App::on_request`] or [`App::on_open`].
///
/// Returns exit code 0 after a drain, 1 if serving failed, and 2 if the command line or the environment is wrong,
/// with a line on standard error.
///
/// ```no_run
/// use percore::{App, ConnectionId, Message, Outbox, Request};
/// use std::process::ExitCode;
///
/// /// Answers each text with a greeting.
/// struct Greeter(String);
///
/// impl App for Greeter {
///     type State = ();
///     fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}
///     fn on_message(&mut self, id: ConnectionId, _: &mut (), mut message: Message<'_>, out: &mut Outbox) {
///         if let Some(name) = message.text() {
///             out.send_text(id, &format!("{}, {name}", self.0));
///         }
///     }
/// }
///
/// fn main() -> ExitCode {
///     percore::cli::serve("greeter", env!("CARGO_PKG_VERSION"), |arguments| match arguments {
///         [greeting] => Ok(Greeter(greeting.clone())),
///         _ => Err("give one greeting, as in: greeter serve -- Hello"),
///     })
/// }
/// ```
pub fn serve<A: App, E: Display>(
    name: &'static str,
    version: &'static str,
    app: impl FnOnce(&[String]) -> Result<A, E>,
) -> ExitCode {
    let command = || Program::command().name(name).version(version);
    let parsed = parse(command()).and_then(|matches| Program::from_arg_matches(&matches));
    let result = match parsed {
        Ok(Program { command: Command::Serve(flags) }) => run(flags, app, Part::Main),
        Ok(Program { command: Command::Worker(flags) }) => run(flags, app, Part::Worker),
        Ok(Program { command: Command::Reload(flags) }) => reload::run(flags),
        Ok(Program { command: Command::Healthcheck(flags) }) => healthcheck::run(flags),
        Err(error) if is_help(error.kind()) => return help(name, &error),
        Err(error) => Err(Failure::Usage(one_line(&error.to_string()))),
    };
    report(name, command, result)
}

fn run<A: App, E: Display>(
    flags: ServeFlags,
    app: impl FnOnce(&[String]) -> Result<A, E>,
    part: Part,
) -> Result<(), Failure> {
    prepare();
    let checked = flags.server.check(Defaults::PLAIN)?;
    let app = app(&flags.arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    if supervises(&checked, part) { supervise(checked, true) } else { serve_app(app, checked, part) }
}
