//! The number of processes that serve.

use crate::os::cpus;

/// The number of processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Workers {
    /// Only this one, without a supervisor.
    Plain,
    /// This many, supervised.
    Number(usize),
    /// One per core, supervised.
    Auto,
}

impl Workers {
    /// Returns the number of processes to run.
    pub fn number(&self) -> usize {
        match self {
            Workers::Plain => 1,
            Workers::Number(number) => *number,
            Workers::Auto => cpus::usable(),
        }
    }
}

/// Reads `auto` or a number.
///
/// # Errors
/// A sentence about what may be typed.
pub(super) fn workers(text: &str) -> Result<Workers, String> {
    match text.parse::<usize>() {
        _ if text == "auto" => Ok(Workers::Auto),
        Ok(1) => Ok(Workers::Plain),
        Ok(number @ 2..=1024) => Ok(Workers::Number(number)),
        _ => Err("give 1 to 1024, or auto".into()),
    }
}
