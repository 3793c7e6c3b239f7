//! `percore serve APP`.

use super::Failure;
use super::flags::{Checked, ServerFlags};
use crate::app::App;
use crate::apps::echo::{Echo, PrefixedEcho};
use crate::data::log::Level;
use crate::os::hostname::hostname;
use crate::os::log_writer::write_records;
use crate::reactor::{Outcome, Server};
use clap::{Args, Subcommand};

#[derive(Subcommand, Debug)]
pub(super) enum Serve {
    /// Echo every message with the same opcode
    Echo(EchoFlags),
}

#[derive(Args, Debug)]
pub(super) struct EchoFlags {
    /// Greet, and echo with '[<hostname>] ' in front of each message
    #[arg(long, env = "PERCORE_HOSTNAME_PREFIX", help_heading = "Echo")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    #[arg(value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    hostname_prefix: bool,
    #[command(flatten)]
    server: ServerFlags,
}

pub(super) fn run(serve: Serve) -> Result<(), Failure> {
    let Serve::Echo(flags) = serve;
    let checked = flags.server.check()?;
    if flags.hostname_prefix { serve_app(PrefixedEcho::new(&hostname()), checked) } else { serve_app(Echo, checked) }
}

fn serve_app<A: App>(app: A, checked: Checked) -> Result<(), Failure> {
    let Checked { listen, settings, options, mut log } = checked;
    let failed = |error: std::io::Error| Failure::Run(error.to_string());
    let format = options.log_format;
    let mut server = Server::new(app).settings(settings).options(options);
    for addr in &listen {
        server = server.listen(&addr.to_string()).map_err(failed)?;
    }
    for addr in server.local_addrs().map_err(failed)? {
        log.push(Level::Info, "start", &[("listen", &addr)], format!("Starting server on {addr}..."));
    }
    // The loop writes these lines in its first pass: whoever reads them may send signals, which it takes by then.
    let mut end = log.like();
    let outcome = server.log(log).run().map_err(failed)?;
    let (level, text, stats) = match outcome {
        Outcome::Drained(stats) => (Level::Info, "stopped".to_owned(), stats),
        Outcome::Abandoned(cut_off, stats) => {
            (Level::Warn, format!("stopped: {cut_off} connections were cut off by --drain-timeout"), stats)
        }
        Outcome::Interrupted(stats) => {
            (Level::Warn, format!("stopped by a second signal with {} connections open", stats.open), stats)
        }
    };
    end.push(level, "stop", &stats.fields(), format!("{text}; {stats}"));
    write_records(format, &end.take());
    match outcome {
        Outcome::Interrupted(_) => Err(Failure::Run("stopped at once by a second signal".into())),
        _ => Ok(()),
    }
}
