//! `percore keeper`, and the keeper that `serve channels` has beside it: a process of its supervisor, or a thread.

use super::Failure;
use super::bus_flags::ring;
use super::choices::{FormatFlag, LevelFlag};
use super::serve::warn_of_disk;
use super::units::{bytes, mode};
use crate::keeper::{KeeperApp, Setup, Sync};
use crate::os::bus::{Bus, BusOptions};
use crate::os::clock::{monotonic, unix_time};
use crate::os::history::{HistoryFiles, HistoryReader, boot};
use crate::os::log_writer::LogFormat;
use crate::os::shared_words::SharedWords;
use crate::pubsub::history::replica::Outside;
use crate::reactor::{Server, ServerOptions, Waker};
use crate::supervisor::Ready;
use crate::telemetry::log::{Level, Log};
use crate::telemetry::stats::Stats;
use clap::{Args, ValueEnum};
use rand::TryRng;
use rand::rngs::SysRng;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a process waits for the files of the history to be there before it serves.
const FILES_TIMEOUT: Duration = Duration::from_secs(5);
const FILES_EVERY: Duration = Duration::from_millis(5);
/// How long after one on a thread has failed another begins.
const START_AGAIN: Duration = Duration::from_millis(500);

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SyncFlag {
    /// Before a publication is answered: nothing is lost when the machine goes down
    Always,
    /// Every second
    Interval,
    /// When the system does it
    Never,
}

impl From<SyncFlag> for Sync {
    fn from(flag: SyncFlag) -> Sync {
        match flag {
            SyncFlag::Always => Sync::Always,
            SyncFlag::Interval => Sync::Interval,
            SyncFlag::Never => Sync::Never,
        }
    }
}

/// Where histories are kept.
#[derive(Args, Clone, Debug)]
pub(super) struct FilesFlags {
    /// Folder on a disk for the files of the history, which then outlive a restart [default: with --workers or --bus in the bus's folder]
    #[arg(long, env = "PERCORE_HISTORY_DIR", value_name = "DIR")]
    pub history_dir: Option<PathBuf>,
    /// When they are brought to the disk; what was not is lost when the machine goes down, and clients are told
    #[arg(long, env = "PERCORE_HISTORY_SYNC", value_name = "WHEN", default_value = "interval", value_enum)]
    pub history_sync: SyncFlag,
}

#[derive(Args, Debug)]
pub(super) struct KeeperFlags {
    /// Folder of the bus, on tmpfs; it is made if there is none in the folder above it
    #[arg(long, env = "PERCORE_BUS", value_name = "DIR")]
    bus: PathBuf,
    /// Bytes of each participant's ring, a power of two, where the bus is made
    #[arg(long, env = "PERCORE_BUS_SIZE", value_name = "BYTES", default_value = "4M", value_parser = ring)]
    bus_size: usize,
    /// Permissions of the bus's files, where it is made, and of the history's
    #[arg(long, env = "PERCORE_BUS_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    bus_mode: u32,
    /// Bytes of all histories; the channels that were published on least recently lose theirs first
    #[arg(long, env = "PERCORE_HISTORY_BYTES", value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    history_bytes: usize,
    #[command(flatten)]
    files: FilesFlags,

    /// Descriptor that gets a line and is closed once it is on the bus
    #[arg(long, env = "PERCORE_READY_FD", value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<i32>,
    /// What is logged to standard error
    #[arg(long, env = "PERCORE_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_enum)]
    log_level: LevelFlag,
    /// How a line looks
    #[arg(long, env = "PERCORE_LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_enum)]
    log_format: FormatFlag,
}

/// Runs a keeper until SIGTERM or SIGINT.
pub(super) fn run(flags: KeeperFlags) -> Result<(), Failure> {
    let options = BusOptions { ring_bytes: flags.bus_size, mode: flags.bus_mode, ..BusOptions::default() };
    let setup = Setup {
        bus: flags.bus.clone(),
        folder: flags.files.history_dir.unwrap_or_else(|| flags.bus.clone()),
        mode: flags.bus_mode,
        sync: flags.files.history_sync.into(),
        max_bytes: flags.history_bytes,
    };
    if setup.folder != flags.bus {
        check_files(&setup)?;
    }
    let run = || -> io::Result<()> {
        let mut ready = Ready::new(flags.ready_fd)?;
        let bus = Bus::join(&flags.bus, options)?;
        let mut log = Log::new(flags.log_level.into());
        let bus_folder = flags.bus.display().to_string();
        let text = format!("Keeper of the bus in {bus_folder} as {}", bus.me());
        log.push(Level::Info, "start", &[("bus", &bus_folder)], text);
        warn_of_disk(&flags.bus, &mut log);
        let options = ServerOptions { log_format: flags.log_format.into(), ..ServerOptions::default() };
        ready.serving();
        Server::new(KeeperApp::new(setup, Arc::default())?).options(options).log(log).bus(bus).run()?;
        Ok(())
    };
    run().map_err(|error| Failure::Run(error.to_string()))
}

/// A keeper on a thread of its own.
pub(super) struct KeeperThread {
    stop: Arc<AtomicBool>,
    waker: Arc<Mutex<Waker>>,
    thread: JoinHandle<()>,
    /// Where it shows its counters.
    pub counters: Arc<SharedWords>,
}

impl KeeperThread {
    /// Starts one on the bus in a folder. One that fails is followed by another.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `pthread_create(3)`.
    pub fn start(
        setup: Setup,
        (path, options): (PathBuf, BusOptions),
        log: Log,
        log_format: LogFormat,
    ) -> io::Result<KeeperThread> {
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Waker::default())));
        let counters = Arc::new(SharedWords::create("percore-counters", Stats::WORDS)?);
        // What it begins and ends is the process's own business.
        let log = if log.keeps(Level::Warn) && !log.keeps(Level::Debug) { Log::new(Some(Level::Warn)) } else { log };
        let (stops, wakes, shown) = (Arc::clone(&stop), Arc::clone(&waker), Arc::clone(&counters));
        let run = move || -> io::Result<()> {
            // The process's own loop takes the signals.
            let options_of_loop = ServerOptions { signals: false, log_format, ..ServerOptions::default() };
            let (app, bus) = (KeeperApp::new(setup.clone(), Arc::clone(&stops))?, Bus::join(&path, options)?);
            let waker = Waker::default();
            *wakes.lock().unwrap_or_else(PoisonError::into_inner) = waker.clone();
            let server = Server::new(app).options(options_of_loop).log(log.like()).bus(bus);
            server.waker(&waker).counters(Arc::clone(&shown)).run().map(|_| ())
        };
        let stops = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
            while run().is_err() || !stops.load(Relaxed) {
                std::thread::sleep(START_AGAIN);
                if stops.load(Relaxed) {
                    return;
                }
            }
        })?;
        Ok(KeeperThread { stop, waker, thread, counters })
    }

    /// Ends it, once all is on the disk.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).wake();
        let _ = self.thread.join();
    }
}

/// Looks whether the files of a history can be had, by a keeper to come.
///
/// # Errors
/// A folder or files that cannot be made or read.
pub(super) fn check_files(setup: &Setup) -> Result<(), Failure> {
    HistoryFiles::open(&setup.folder, setup.mode).map(|_| ()).map_err(|error| Failure::Run(error.to_string()))
}

/// What a process has of the history in a folder that a keeper writes.
///
/// # Errors
/// No random numbers.
pub(super) fn outside(folder: &Path) -> io::Result<Outside> {
    let mut reader = HistoryReader::new(folder);
    Ok(Outside {
        read: Box::new(move |from, most| reader.read(from, most)),
        monotonic: Box::new(monotonic),
        offset: unix_time().saturating_sub(monotonic()),
        host: boot(),
        origin: SysRng.try_next_u64().map_err(io::Error::other)?.max(1),
    })
}

/// Waits until `loads` has found the files. It serves without them as well, but for channels with a history.
pub(super) fn wait_for_files(mut loads: impl FnMut() -> bool) {
    let until = monotonic() + FILES_TIMEOUT;
    while !loads() && monotonic() < until {
        std::thread::sleep(FILES_EVERY);
    }
}
