//! Floor 6, the load generator behind `percore bench`: an app on the client's side of the same loop and protocol core.
//!
//! [`Plan`] says what to do, [`run`] does it, [`Report`] says what came of it. Answers are checked, not only counted, and
//! whatever is not as it should be is counted by its kind.

mod faults;
mod load;
mod pace;
mod payload;
mod plan;
mod plot;
mod progress;
mod record;
mod report;
mod stage;
mod url;
mod usage;

pub use payload::PUBLISHED_BYTES;
pub use plan::{Plan, Workload};
pub use plot::plotted;
pub use report::Report;
pub use url::Url;

use crate::outbox::SendRules;
use crate::protocol::client::Offer;
use crate::reactor::{Client, Target};
use crate::session::Settings;
use load::Load;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long connections have to close once all is measured.
const DRAIN: Duration = Duration::from_secs(3);
/// In an open loop the next message is waited for without sleep when it is due so soon.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// The longest message that is taken from the server.
const MAX_MESSAGE: usize = 1 << 30;

/// Runs a plan to its end, or to the first SIGINT or SIGTERM.
///
/// # Errors
/// What makes the loop impossible, or a `--pid` that is no process. What goes wrong with connections is in the report.
pub fn run(plan: Plan) -> io::Result<Report> {
    let plan = Arc::new(plan);
    let load = Load::new(Arc::clone(&plan))?;
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
        send: SendRules {
            max_backlog: plan.max_backlog(),
            deflate_min: 1,
            deflate_max: usize::MAX,
            ..SendRules::default()
        },
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
    if plan.rate.is_some() {
        client = client.busy_poll(BUSY_POLL);
    }
    let (_, load) = client.run()?;
    Ok(load.into_report())
}
