//! `percore reload`: has a supervisor replace its workers, and says what came of it.

use super::Failure;
use super::ask::Target;
use super::flags::default_admin;
use super::units::duration;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How often the supervisor is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(super) struct ReloadFlags {
    /// The service's admin listener: HOST:PORT or unix:SOCKET [default: 127.0.0.1:9464]
    #[arg(long, env = "PERCORE_ADMIN", value_name = "ADDR")]
    admin: Option<String>,
    /// How long the new workers may take to serve
    #[arg(long, env = "PERCORE_RELOAD_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    timeout: Duration,
}

/// What the admin listener tells of reloads.
struct Told {
    supervisor: Option<i32>,
    succeeded: u64,
    failed: u64,
}

/// Sends SIGHUP, and waits until the supervisor has counted the reload.
pub(super) fn run(flags: ReloadFlags) -> Result<(), Failure> {
    let admin = flags.admin.unwrap_or_else(|| default_admin().to_string());
    let url = if admin.starts_with("unix:") { format!("{admin}:/metrics") } else { format!("http://{admin}/metrics") };
    let target = Target::parse(&url).map_err(|error| Failure::Usage(format!("--admin {error}")))?;
    let deadline = Instant::now() + flags.timeout;
    let before = told(&target, deadline)?;
    let Some(supervisor) = before.supervisor.and_then(Pid::from_raw) else {
        return Err(Failure::Run(format!("{target}: a plain process, which has no workers to replace (--workers)")));
    };
    kill_process(supervisor, Signal::HUP)
        .map_err(|error| Failure::Run(format!("cannot signal the supervisor, process {supervisor:?}: {error}")))?;
    loop {
        let now = told(&target, deadline)?;
        if now.failed > before.failed {
            let text = "reload failed: the old workers go on; the service's log says why";
            return Err(Failure::Run(text.into()));
        }
        if now.succeeded > before.succeeded {
            // It was done, whether or not anybody hears of it.
            let _ = writeln!(io::stdout(), "reloaded: new workers serve, the old ones retire");
            return Ok(());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn told(target: &Target, deadline: Instant) -> Result<Told, Failure> {
    let failed = |what: String| Failure::Run(format!("{target}: {what}"));
    let answer = target.ask(deadline).map_err(|error| failed(error.to_string()))?;
    if !answer.is_ok() {
        return Err(failed(format!("answered '{}'", answer.line.escape_default())));
    }
    let text = answer.into_content().map_err(|error| failed(error.to_string()))?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Ok(Told {
        supervisor: value("percore_supervisor_pid ").and_then(|pid| i32::try_from(pid).ok()),
        succeeded: value("percore_reloads_total{result=\"success\"}").unwrap_or(0),
        failed: value("percore_reloads_total{result=\"failure\"}").unwrap_or(0),
    })
}
