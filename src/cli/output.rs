//! Standard output and standard error of the commands that end by themselves. Either may be closed, full or a pipe that
//! nobody reads, and none of that may end a command in the middle of its work.

use super::Failure;
use crate::telemetry::log::in_words;
use std::io::{self, ErrorKind, Write};

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Says something on standard error. Nobody can be told that it takes no more.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "percore: {}", in_words(&text));
}

/// What came of writing to standard output: whoever closed a pipe has read what they wanted.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Run(format!("cannot write to standard output: {error}")),
    })
}
