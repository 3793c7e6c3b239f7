//! `percore config`: checks a configuration file without serving.

use super::Failure;
use super::channels::read_config;
use super::output;
use crate::telemetry::log::counted;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check a file for serve channels --config: exit code 0 if valid, else 2 and the first mistake with its line
    Check(CheckFlags),
}

#[derive(Args, Debug)]
pub(super) struct CheckFlags {
    /// File to check
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check(CheckFlags { file }) = command;
    let rules = read_config(&file)?;
    let namespaces = counted(rules.namespaces.len() as u64, "namespace*");
    output::print(&format!("{}: valid, with {namespaces}\n", file.display()))
}
