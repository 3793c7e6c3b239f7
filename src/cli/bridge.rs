//! `percore bridge`: connects the bus of this host with those of other hosts, by way of Redis.

use super::Failure;
use super::bus_flags::ring;
use super::choices::{FormatFlag, LevelFlag};
use super::serve::warn_of_disk;
use super::units::{bytes, duration, mode};
use crate::bridge::dialect::Dialect;
use crate::bridge::event_loop::{self, Setup};
use crate::bridge::exchange::{Exchange, Rules};
use crate::bridge::url::{Place, RedisUrl};
use crate::bridge::wire::HostId;
use crate::os::bus::{Bus, BusOptions};
use crate::os::tls::TlsClient;
use crate::supervisor::Ready;
use crate::telemetry::log::{Level, Log};
use clap::Args;
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file in the folder of a bus; the only bridge of that bus holds its lock.
const LOCK: &str = "bridge";

#[derive(Args, Debug)]
pub(super) struct BridgeFlags {
    /// Folder of the bus, on tmpfs; created if missing, inside a folder that exists
    #[arg(long, env = "PERCORE_BUS", value_name = "DIR")]
    bus: PathBuf,
    /// Size of each participant's ring, a power of two, if the bridge creates the bus
    #[arg(long, env = "PERCORE_BUS_SIZE", value_name = "BYTES", default_value = "4M", value_parser = ring)]
    bus_size: usize,
    /// Permissions of the bus's files, if the bridge creates the bus
    #[arg(long, env = "PERCORE_BUS_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    bus_mode: u32,

    // Never parsed by clap, whose errors show the input: it may contain a password.
    /// Redis: redis://[USER:PASSWORD@]HOST[:PORT], rediss:// for TLS, redis+sentinel://HOST,HOST/MASTER, redis+cluster://HOST,HOST
    /// or unix:/PATH. Set a password in PERCORE_REDIS, where ps does not show it
    #[arg(long, env = "PERCORE_REDIS", value_name = "URL", hide_env_values = true)]
    redis: String,
    /// PEM file with the certificates to trust, for rediss:// [default: the system's]
    #[arg(long, env = "PERCORE_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// Reconnect to Redis after this long without data; PING is sent after a third of it
    #[arg(long, env = "PERCORE_REDIS_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    redis_timeout: Duration,
    /// Remove a host and its members after this long without data from it; set the same on all hosts
    #[arg(long, env = "PERCORE_HOST_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    host_timeout: Duration,
    /// Bytes that may be queued for Redis; messages beyond that are dropped and counted
    #[arg(long, env = "PERCORE_MAX_BACKLOG", value_name = "BYTES", default_value = "16M", value_parser = bytes)]
    max_backlog: usize,

    /// Write a line to this descriptor and close it once Redis is connected
    #[arg(long, env = "PERCORE_READY_FD", value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<i32>,
    /// Level of the log on standard error
    #[arg(long, env = "PERCORE_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_enum)]
    log_level: LevelFlag,
    /// Format of log lines
    #[arg(long, env = "PERCORE_LOG_FORMAT", value_name = "FORMAT", default_value = "text", value_enum)]
    log_format: FormatFlag,
}

pub(super) fn run(flags: BridgeFlags) -> Result<(), Failure> {
    let usage = |error: String| Failure::Usage(format!("--redis: {error}"));
    let redis: RedisUrl = flags.redis.parse().map_err(usage)?;
    let tls = match (redis.place.is_tls(), &flags.redis_ca) {
        (true, authorities) => {
            let client = TlsClient::new(authorities.as_deref());
            Some(client.map_err(|error| Failure::Usage(format!("--redis-ca: {error}")))?)
        }
        (_, Some(_)) => return Err(Failure::Usage("--redis-ca is for TLS: give a URL with rediss://".into())),
        (_, None) => None,
    };
    let times = [("redis-timeout", flags.redis_timeout), ("host-timeout", flags.host_timeout)];
    if let Some((flag, _)) = times.iter().find(|(_, time)| *time < Duration::from_millis(10)) {
        return Err(Failure::Usage(format!("--{flag} must be 10ms or longer")));
    }
    bridge(flags, redis, tls).map_err(|error| Failure::Run(error.to_string()))
}

fn bridge(flags: BridgeFlags, redis: RedisUrl, tls: Option<TlsClient>) -> io::Result<()> {
    let options = BusOptions { ring_bytes: flags.bus_size, mode: flags.bus_mode, ..BusOptions::default() };
    let ready = Ready::new(flags.ready_fd)?;
    let bus = Bus::join(&flags.bus, options)?;
    let lock = only_one(&bus, &flags.bus)?;
    let mut dice = StdRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
    let me = HostId(dice.random());
    let (place, mut log) = (redis.to_string(), Log::new(flags.log_level.into()));
    let bus_folder = flags.bus.display().to_string();
    let text = format!("Bridge of the bus in {bus_folder} as {}; host {me}; Redis at {place}", bus.me());
    log.push(Level::Info, "start", &[("bus", &bus_folder), ("host", &me.to_string()), ("redis", &place)], text);
    warn_of_disk(&flags.bus, &mut log);
    let rules = Rules {
        max_backlog: flags.max_backlog,
        redis_timeout: flags.redis_timeout,
        host_timeout: flags.host_timeout,
        max_record: bus.limit(),
        login: redis.login.clone(),
        place,
        dialect: match &redis.place {
            Place::Cluster { tag, .. } => Dialect::sharded(tag),
            _ => Dialect::default(),
        },
        asks_role: matches!(redis.place, Place::Sentinel { .. } | Place::Cluster { .. }),
    };
    let exchange = Exchange::new(me, rules, log);
    event_loop::run(Setup { bus, lock, redis, tls, exchange, dice, log_format: flags.log_format.into(), ready })
}

/// Takes the lock of the bridge, held as long as the file is open: two bridges would forward everything twice.
fn only_one(bus: &Bus, folder: &Path) -> io::Result<File> {
    bus.lock(LOCK)?.ok_or_else(|| {
        let text = format!(
            "the bus in {} already has a bridge: a second one would forward everything twice",
            folder.display()
        );
        io::Error::new(io::ErrorKind::AddrInUse, text)
    })
}
