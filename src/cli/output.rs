//! Standard output and standard error of the commands that end by themselves. Either may be closed, full or a pipe
//! without a reader, and none of that may stop a command in the middle of its work.

use super::Failure;
use crate::telemetry::log::in_words;
use std::io::{self, ErrorKind, Write};

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes a line to standard error. There is no place left to report a failure of that.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "percore: {}", in_words(&text));
}

/// The result of writing to standard output: a reader that closed the pipe has read enough, which is not an error.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Run(format!("cannot write to standard output: {error}")),
    })
}
