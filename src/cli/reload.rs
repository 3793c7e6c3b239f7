//! `percore reload`: makes a supervisor replace its workers, and reports the result.

use super::Failure;
use super::ask::{Answer, Target};
use super::flags::default_admin;
use super::healthcheck::reachable;
use super::units::duration;
use crate::os::listener::ListenAddr;
use clap::Args;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Interval between questions to the supervisor.
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(super) struct ReloadFlags {
    /// The service's admin listener: HOST:PORT, PORT or unix:SOCKET [default: 127.0.0.1:9464]
    #[arg(long, env = "PERCORE_ADMIN", value_name = "ADDR")]
    admin: Option<String>,
    /// How long the new workers may take to get ready
    #[arg(long, env = "PERCORE_RELOAD_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    timeout: Duration,
}

/// What the admin listener reports about reloads.
struct Told {
    supervisor: Option<i32>,
    succeeded: u64,
    failed: u64,
}

/// Sends SIGHUP and waits until the supervisor has counted the reload.
pub(super) fn run(flags: ReloadFlags) -> Result<(), Failure> {
    let admin = flags.admin.unwrap_or_else(|| default_admin().to_string());
    let url = match admin.parse() {
        Ok(ListenAddr::Unix(_)) => format!("{admin}:/metrics"),
        Ok(ListenAddr::Tcp(addr)) => format!("http://{}/metrics", reachable(addr)),
        // It may be the name of another host.
        Err(_) => format!("http://{admin}/metrics"),
    };
    let target = Target::parse(&url).map_err(|error| Failure::Usage(format!("--admin {error}")))?;
    let deadline = Instant::now() + flags.timeout;
    let before = told(&target, deadline)?;
    let Some(supervisor) = before.supervisor.and_then(Pid::from_raw) else {
        return Err(Failure::Run(format!("{target}: a plain process without workers to replace (--workers)")));
    };
    hang_up(&target, supervisor, deadline)?;
    loop {
        let now = told(&target, deadline)?;
        if now.failed > before.failed {
            let text = "reload failed: the old workers keep serving; see the service's log";
            return Err(Failure::Run(text.into()));
        }
        if now.succeeded > before.succeeded {
            // The reload is done, even if standard output is closed.
            let _ = writeln!(io::stdout(), "reloaded: new workers serve, the old ones drain");
            return Ok(());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Signals the supervisor, if it is the very process that answers: a listener may name another one, or one in another
/// container.
fn hang_up(target: &Target, supervisor: Pid, deadline: Instant) -> Result<(), Failure> {
    let number = supervisor.as_raw_nonzero();
    let failed = |what: String| Failure::Run(format!("{target} names process {number} as its supervisor, {what}"));
    // A later process with the same number must not be signalled.
    let process = pidfd_open(supervisor, PidfdFlags::empty())
        .map_err(|error| failed(format!("which cannot be found: {error}")))?;
    let answer = asked(target, deadline)?;
    let answers = answer.other_end().and_then(|end| end.belongs_to(number.get()));
    match answers {
        Ok(true) => {}
        Ok(false) => return Err(failed("which is not the process that answers there: not signalled".into())),
        Err(error) => return Err(failed(format!("which could not be checked ({error}): not signalled"))),
    }
    pidfd_send_signal(process, Signal::HUP).map_err(|error| failed(format!("which cannot be signalled: {error}")))
}

fn asked(target: &Target, deadline: Instant) -> Result<Answer, Failure> {
    let failed = |what: String| Failure::Run(format!("{target}: {what}"));
    let answer = target.ask(deadline).map_err(|error| failed(error.to_string()))?;
    match answer.is_ok() {
        true => Ok(answer),
        false => Err(failed(format!("answered '{}'", answer.line.escape_default()))),
    }
}

fn told(target: &Target, deadline: Instant) -> Result<Told, Failure> {
    let content = asked(target, deadline)?.content();
    let text = content.map_err(|error| Failure::Run(format!("{target}: {error}")))?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Ok(Told {
        supervisor: value("percore_supervisor_pid ").and_then(|pid| i32::try_from(pid).ok()),
        succeeded: value("percore_reloads_total{result=\"success\"}").unwrap_or(0),
        failed: value("percore_reloads_total{result=\"failure\"}").unwrap_or(0),
    })
}
