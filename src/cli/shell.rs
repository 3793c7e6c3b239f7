//! `percore completions` and `percore man`: completions and man pages, generated from the command line's declaration.

use super::{Cli, Failure, examples, output};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct CompletionsFlags {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManFlags {
    /// Folder to write to; it must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The whole command line, examples included.
pub(super) fn command() -> Command {
    examples::added_to(Cli::command())
}

/// The same without hidden commands, such as the one that a supervisor runs.
fn public_command() -> Command {
    let all = command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("percore")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .propagate_version(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommands(shown)
}

pub(super) fn completions(flags: CompletionsFlags) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut public_command(), "percore", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(flags: ManFlags) -> Result<(), Failure> {
    let failed = |error| Failure::Run(format!("cannot write to {}: {error}", flags.folder.display()));
    clap_mangen::generate_to(public_command(), &flags.folder).map_err(failed)
}
