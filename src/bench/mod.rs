//! Floor 6, the load generator behind `percore bench`: an app on the client's side of the same loop and protocol core.
//!
//! [`run`] carries out a [`Plan`] and returns a [`Report`]. Answers are checked, not only counted, and errors are
//! counted by kind.

mod fanout;
mod faults;
mod limits;
mod line;
mod load;
mod merge;
mod pace;
mod payload;
mod plan;
mod plot;
mod progress;
mod record;
mod report;
mod share;
mod stage;
mod url;
mod usage;
mod worker;
mod workers;

pub use limits::Limits;
pub use payload::PUBLISHED_BYTES;
pub use plan::{Plan, Workload};
pub use plot::plotted;
pub use report::Report;
pub use share::Share;
pub use url::Url;
pub use workers::{Program, run as run_workers};

use crate::os::clock::Clock;
use crate::os::cpus;
use crate::outbox::SendRules;
use crate::protocol::client::Offer;
use crate::protocol::extension::Deflate;
use crate::reactor::{Client, Target, Waker};
use crate::session::Settings;
use load::Load;
use progress::PROGRESS_EVERY;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use worker::{Begin, Line};

/// How long connections have to close after measuring.
const DRAIN: Duration = Duration::from_secs(3);
/// An open loop spins for a message that is due within this time.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// The longest message to accept from the server.
const MAX_MESSAGE: usize = 1 << 30;

/// Runs a plan to its end, or to the first SIGINT or SIGTERM.
///
/// # Errors
/// When the loop cannot run, or a `--pid` is not a process. Errors of connections are in the report.
pub fn run(plan: Plan) -> io::Result<Report> {
    let plan = Arc::new(plan);
    let load = Load::new(Arc::clone(&plan), None)?;
    let (_, load) = client(load, &plan).run()?;
    Ok(load.into_report())
}

/// Runs a part of a plan, on orders from the process at the other end of standard input, and reports to that process.
///
/// # Errors
/// When the loop cannot run, or there is no such process.
pub fn run_worker(plan: &Plan) -> io::Result<()> {
    let waker = Waker::default();
    let (Begin { index, workers, beginning }, line) = Line::open(waker.clone())?;
    let plan = Arc::new(plan.part(index, workers));
    let load = Load::new(Arc::clone(&plan), Some(line))?;
    client(load, &plan).waker(&waker).clock(Clock::since(beginning)).run()?;
    Ok(())
}

/// Makes the loop that carries out the plan.
fn client(load: Load, plan: &Plan) -> Client<Load> {
    let offer_to = |url: &Url| {
        Arc::new(Offer {
            target: url.target.clone(),
            host: url.host.clone(),
            subprotocols: plan.subprotocols.clone(),
            deflate: plan.deflate,
            headers: plan.headers.clone(),
        })
    };
    let offer = offer_to(&plan.url);
    let settings = Settings {
        max_message: MAX_MESSAGE,
        heartbeat: Duration::ZERO,
        heartbeat_timeout: Duration::ZERO,
        handshake_timeout: plan.handshake_timeout,
        deflate: Deflate { min_bytes: 1, max_bytes: usize::MAX, ..Deflate::default() },
        send: SendRules { max_backlog: plan.max_backlog(), ..SendRules::default() },
        ..Settings::default()
    };
    let tls_of = |url: &Url| plan.tls.clone().zip(url.tls.clone());
    let mut client = Client::new(load).settings(settings).time_each_read().drain_timeout(DRAIN);
    for source in plan.sources() {
        client = client.target(Target {
            addr: plan.url.addr.clone().into(),
            source,
            offer: Arc::clone(&offer),
            tls: tls_of(&plan.url),
        });
    }
    if let Some(url) = &plan.publish_to {
        client = client.target(Target {
            addr: url.addr.clone().into(),
            source: None,
            offer: offer_to(url),
            tls: tls_of(url),
        });
    }
    if !plan.url.handshake {
        client = client.without_handshake();
    }
    // Spinning processes without a core each would only take time from each other.
    if plan.rate.is_some() && plan.share.workers <= cpus::usable() {
        client = client.busy_poll(BUSY_POLL);
    }
    client
}
