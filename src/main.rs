//! The command `percore`. What it does is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    percore::cli::main()
}
