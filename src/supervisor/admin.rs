//! The admin listener: `/healthz`, `/readyz` and `/metrics`, served by a percore loop of its own on a thread of its own.
//! Counters are read where workers show them, so that no worker wakes for a scrape.
//!
//! Since its own loop says nothing of the others, it looks at whether the one that matters goes on: the supervisor's, which
//! looks after the workers, or that of the only process. Its connections are few, so that nobody can use up the descriptors
//! of the process through it.

use super::worker::{counted, passes};
use crate::app::App;
use crate::net::id::ConnectionId;
use crate::os::listener::ListenAddr;
use crate::os::shared_words::SharedWords;
use crate::os::usage::ProcessUsage;
use crate::outbox::Outbox;
use crate::protocol::http::{Request, Response};
use crate::protocol::message::Message;
use crate::protocol::upgrade::UpgradeRules;
use crate::reactor::{Server, ServerOptions};
use crate::session::Settings;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::log::{Level, Log};
use crate::telemetry::pulse::{Pulse, pass_every};
use crate::telemetry::stats::{MetricKind, Stats};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Connections to the admin listener; the one that has been silent longest makes place for another.
const MOST_CONNECTIONS: usize = 32;

/// What the admin listener shows of one slot.
#[derive(Default)]
pub struct SlotView {
    /// What its ended workers had counted.
    pub past: Stats,
    /// The counters of its workers: the one that serves, and those that retire.
    pub live: Vec<Arc<SharedWords>>,
    /// The process that serves.
    pub process: Option<u32>,
    /// Whether one serves.
    pub up: bool,
    /// Whether one did, and its loop does not go on.
    pub hangs: bool,
    /// Times that a worker died and another took its place.
    pub restarts: u64,
}

/// What the admin listener shows.
#[derive(Default)]
pub struct Board {
    /// By slot.
    pub slots: Vec<SlotView>,
    /// The keeper of the history, if it is a process of its own.
    pub keeper: Option<SlotView>,
    /// Whether all listeners listened, once.
    pub ready: bool,
    /// The supervisor's process; none for a plain one.
    pub supervisor: Option<u32>,
    /// Passes of the supervisor.
    pub passes: u64,
    /// Whether the service is ending.
    pub draining: bool,
    /// Reloads that succeeded, and that failed.
    pub reloads: [u64; 2],
}

/// A board that one thread changes and another shows.
pub type SharedBoard = Arc<Mutex<Board>>;

impl Board {
    fn is_ready(&self) -> bool {
        let serves = self.slots.iter().any(|slot| slot.up && !slot.drains());
        self.ready && !self.draining && serves && !self.slots.iter().any(|slot| slot.hangs)
    }

    /// Passes of the loop without which nothing goes on.
    fn passes(&self) -> u64 {
        match (self.supervisor, self.slots.first().and_then(|slot| slot.live.first())) {
            (None, Some(words)) => passes(words),
            _ => self.passes,
        }
    }

    fn metrics(&self) -> Exposition {
        let labelled = |value: &dyn Fn(&SlotView) -> u64| -> Vec<(String, u64)> {
            let slots = self.slots.iter().enumerate();
            slots.map(|(number, slot)| (format!("worker=\"{number}\""), value(slot))).collect()
        };
        let mut out = Exposition::default();
        let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("PERCORE_BUILD_COMMIT"));
        let build = format!("version=\"{version}\",commit=\"{commit}\"");
        out.family(MetricKind::Gauge, "percore_build_info", "The version and the commit, as labels.", &[(build, 1)]);
        let supervisor = self.supervisor.map(|pid| (String::new(), u64::from(pid)));
        if let Some(pid) = supervisor {
            out.family(MetricKind::Gauge, "percore_supervisor_pid", "The supervisor's process number.", &[pid]);
        }
        let up = labelled(&|slot| slot.up.into());
        out.family(MetricKind::Gauge, "percore_worker_up", "Whether a worker serves.", &up);
        let (name, help) = ("percore_worker_restarts_total", "Workers that died and were replaced.");
        out.family(MetricKind::Counter, name, help, &labelled(&|slot| slot.restarts));
        let reloads = [("success", self.reloads[0]), ("failure", self.reloads[1])];
        let reloads = reloads.map(|(result, count)| (format!("result=\"{result}\""), count));
        out.family(MetricKind::Counter, "percore_reloads_total", "Reloads of all workers, by result.", &reloads);
        let stats = self.slots.iter().enumerate().map(|(number, slot)| (number.to_string(), slot.total()));
        let keeper = self.keeper.iter().map(|keeper| ("keeper".to_owned(), keeper.total()));
        out.workers(&stats.chain(keeper).collect::<Vec<_>>());
        out
    }

    /// The process that serves, by slot.
    fn processes(&self) -> Vec<Option<u32>> {
        self.slots.iter().map(|slot| slot.process).collect()
    }
}

/// What the workers' processes use, under the names that Prometheus's own libraries have for it. One that is just gone is left
/// out.
fn process_metrics(processes: &[Option<u32>], out: &mut Exposition) {
    let read =
        |(slot, pid): (usize, &Option<u32>)| Some((format!("worker=\"{slot}\""), ProcessUsage::read((*pid)?).ok()?));
    let usages: Vec<(String, ProcessUsage)> = processes.iter().enumerate().filter_map(read).collect();
    let mut family = |kind, name, help, value: &dyn Fn(&ProcessUsage) -> f64| {
        let values: Vec<_> = usages.iter().map(|(worker, usage)| (worker.clone(), value(usage))).collect();
        out.family(kind, name, help, &values);
    };
    use MetricKind::{Counter, Gauge};
    family(Gauge, "process_start_time_seconds", "When the process began, in Unix seconds.", &|of| {
        of.start_time_seconds
    });
    family(Counter, "process_cpu_seconds_total", "Processor time of the process.", &|of| of.cpu_seconds);
    let help = "Resident memory of the process; that of the program's text is shared by all workers.";
    family(Gauge, "process_resident_memory_bytes", help, &|of| of.resident_bytes as f64);
    family(Gauge, "process_open_fds", "Open descriptors.", &|of| of.open_descriptors as f64);
    family(Gauge, "process_max_fds", "Descriptors that the process may have.", &|of| of.most_descriptors as f64);
}

impl SlotView {
    fn drains(&self) -> bool {
        self.live.first().is_some_and(|words| counted(words).draining > 0)
    }

    /// The sum of what all its workers counted; levels are those of the living.
    fn total(&self) -> Stats {
        let mut sum = self.past;
        for stats in self.live.iter().map(|words| counted(words)) {
            sum.add(&stats);
            sum.add_levels(&stats);
        }
        sum
    }
}

struct Admin {
    board: SharedBoard,
    hang_timeout: Duration,
    pulse: Pulse,
}

impl App for Admin {
    type State = ();

    fn on_tick(&mut self, now: Duration, _: &mut Outbox) -> Option<Duration> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        self.pulse.look(board.passes(), now, self.hang_timeout);
        if board.supervisor.is_none() {
            let stalls = self.pulse.stalls(self.hang_timeout);
            board.slots.iter_mut().for_each(|slot| (slot.up, slot.hangs) = (!stalls, stalls));
        }
        Some(now + pass_every(self.hang_timeout))
    }

    fn is_healthy(&self) -> bool {
        !self.pulse.hangs(self.hang_timeout)
    }

    fn on_request(&mut self, request: &Request<'_>, _: &mut Outbox) -> Option<Response> {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let response = match request.path() {
            "/metrics" => {
                let (mut metrics, processes) = (board.metrics(), board.processes());
                // Reading what processes use takes longer than the supervisor should wait for the board.
                drop(board);
                process_metrics(&processes, &mut metrics);
                Response::new(200).content(Exposition::MEDIA_TYPE, metrics.into_text())
            }
            "/readyz" if board.is_ready() => Response::text(200, "ready"),
            "/readyz" if board.draining => Response::text(503, "draining"),
            "/readyz" => Response::text(503, "not ready"),
            _ => return None,
        };
        let reads = matches!(request.method(), "GET" | "HEAD");
        Some(if reads {
            response
        } else {
            Response::text(405, "This path takes GET, HEAD.").header("Allow", "GET, HEAD")
        })
    }

    fn on_open(&mut self, _: ConnectionId, _: &Request<'_>, _: &mut Outbox) {}

    fn on_message(&mut self, _: ConnectionId, _: &mut (), _: Message<'_>, _: &mut Outbox) {}
}

/// Serves a board on a thread of its own, which ends with the process, and logs where.
///
/// # Errors
/// As `bind(2)`, with a sentence that names the address; as `pthread_create(3)`.
pub fn serve(addr: &ListenAddr, board: SharedBoard, hang_timeout: Duration, log: &mut Log) -> io::Result<()> {
    let nobody = UpgradeRules { paths: Vec::new(), ..UpgradeRules::default() };
    let server = Server::new(Admin { board, hang_timeout, pulse: Pulse::default() })
        .settings(Settings { upgrade: nobody, max_sockets: MOST_CONNECTIONS, ..Settings::default() })
        .options(ServerOptions { signals: false, ..ServerOptions::default() })
        .listen(&addr.to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("{error}; choose another --admin, or 'off' for none")))?;
    let bound = server.local_addrs()?.remove(0);
    std::thread::Builder::new().name("admin".into()).spawn(move || server.run())?;
    log.push(Level::Info, "admin", &[("listen", &bound.to_string())], format!("admin listener on {bound}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    fn words(stats: &Stats) -> Arc<SharedWords> {
        let shared = SharedWords::create("percore-test", Stats::WORDS).expect("memory");
        shared.iter().zip(stats.words()).for_each(|(word, value)| word.store(value, Relaxed));
        Arc::new(shared)
    }

    #[test]
    fn a_slot_adds_up_over_its_workers() {
        let past = Stats { upgrades: 10, ..Stats::default() };
        let serving = words(&Stats { upgrades: 5, open: 4, ..Stats::default() });
        let retiring = words(&Stats { upgrades: 7, open: 2, draining: 1, bus_participants: 3, ..Stats::default() });
        let slot = SlotView { past, live: vec![serving, retiring], up: true, restarts: 1, ..SlotView::default() };
        let mut board = Board { slots: vec![slot, SlotView::default()], ready: true, ..Board::default() };
        let text = board.metrics().into_text();
        for line in [
            "percore_upgrades_total{worker=\"0\"} 22",
            "percore_connections_open{worker=\"0\"} 6",
            "percore_bus_participants{worker=\"0\"} 3",
            "percore_worker_up{worker=\"1\"} 0",
            "percore_worker_restarts_total{worker=\"0\"} 1",
            "percore_reloads_total{result=\"failure\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
        assert!(board.is_ready());
        board.slots[1].hangs = true;
        assert!(!board.is_ready(), "its share of the connections waits");
        board.slots[1].hangs = false;
        board.slots[0].live.remove(0);
        assert!(!board.is_ready(), "who retires takes nobody on");
    }
}
