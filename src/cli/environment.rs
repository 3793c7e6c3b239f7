//! Environment variables in place of flags: reading them, and naming the variable in an error.

use clap::builder::Resettable;
use clap::{ArgMatches, Command};
use std::env;

/// The command to parse: an empty variable counts as not set, and the values of enums ignore case.
pub(super) fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let is_empty = arg.get_env().is_some_and(|name| env::var_os(name).is_some_and(|value| value.is_empty()));
        let takes_words = arg.get_action().takes_values();
        let arg = arg.ignore_case(takes_words);
        if is_empty { arg.env(Resettable::Reset) } else { arg }
    });
    command.mut_subcommands(with_variables)
}

/// The subcommand that the command line calls.
fn called<'a>(command: &'a Command, words: &[String]) -> &'a Command {
    words.iter().fold(command, |command, word| command.find_subcommand(word).unwrap_or(command))
}

/// Returns the variable that set a flag, where the error names it as `--FLAG`.
pub(super) fn source(command: &Command, error: &str, words: &[String]) -> Option<String> {
    let flag: &str = error.split_once("--")?.1;
    let flag = &flag[..flag.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(flag.len())];
    let arg = called(command, words).get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    let is_typed = |word: &String| {
        let long = word.strip_prefix("--").and_then(|word| word.strip_prefix(flag));
        let short = arg.get_short().is_some_and(|short| word.starts_with(&format!("-{short}")));
        short || long.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let variable = arg.get_env()?.to_str()?;
    let is_set = env::var_os(variable).is_some_and(|value| !value.is_empty());
    (is_set && !words.iter().any(is_typed)).then(|| variable.to_owned())
}

/// Returns whether a flag is on the command line. A variable may be meant for other calls.
pub(super) fn is_typed(matches: &ArgMatches, flag: &str) -> bool {
    use clap::parser::ValueSource::CommandLine;
    matches.subcommand().is_some_and(|(_, flags)| flags.value_source(flag) == Some(CommandLine))
}
