//! The flags by which a server takes part in a bus.

use super::units::{bytes, mode};
use crate::bus::region::MAX_SLOTS;
use crate::os::bus::BusOptions;
use clap::Args;
use std::path::PathBuf;

/// Flags of the bus.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Bus")]
pub struct BusFlags {
    /// Folder of the bus between processes, or 'off'
    #[arg(long, env = "PERCORE_BUS", value_name = "DIR")]
    #[arg(
        long_help = "Folder of the bus between processes, on tmpfs such as /dev/shm/chat: all that name the same folder \
        broadcast to each other; or 'off' [default: with --workers, an app that broadcasts has one for its workers alone; \
        else off]"
    )]
    bus: Option<PathBuf>,
    /// What each process can publish before it overwrites what others have not read; a message takes a quarter at most
    #[arg(long, env = "PERCORE_BUS_SIZE", value_name = "BYTES", default_value = "4M", value_parser = ring)]
    bus_size: usize,
    /// Permissions of a new bus, which decide who may take part
    #[arg(long, env = "PERCORE_BUS_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    bus_mode: u32,
}

/// Slots for others than the workers: a command, a bridge, a keeper and the one that takes its place.
const SPARE_SLOTS: usize = 4;
/// The most workers of one bus: in a reload the old and the new ones are there at once.
pub(super) const MAX_WORKERS: usize = (MAX_SLOTS - SPARE_SLOTS) / 2;

/// The slots that so many workers want, up to [`MAX_WORKERS`].
pub(super) fn slots_for(workers: usize) -> usize {
    (2 * workers + SPARE_SLOTS).clamp(BusOptions::default().slots, MAX_SLOTS)
}

/// Which bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BusPlace {
    /// One for the workers of this supervisor, if it has any and the app broadcasts.
    Private,
    /// None.
    Off,
    /// The one in a folder.
    Folder(PathBuf),
}

impl BusFlags {
    pub(super) fn place(&self) -> BusPlace {
        match &self.bus {
            None => BusPlace::Private,
            Some(path) if path.as_os_str() == "off" => BusPlace::Off,
            Some(path) => BusPlace::Folder(path.clone()),
        }
    }

    pub(super) fn options(&self) -> BusOptions {
        BusOptions { ring_bytes: self.bus_size, mode: self.bus_mode, ..BusOptions::default() }
    }
}

/// Reads the size of a ring.
pub(super) fn ring(text: &str) -> Result<usize, String> {
    match bytes(text)? {
        size if (4096..=1 << 30).contains(&size) && size.is_power_of_two() => Ok(size),
        _ => Err("give a power of two from 4K to 1G, such as 4M".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_fits_on_the_bus() {
        assert_eq!([1, 30, 31, 100, MAX_WORKERS].map(slots_for), [64, 64, 66, 204, MAX_SLOTS]);
    }
}
