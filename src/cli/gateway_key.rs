//! The key with which nodes and workers recognise each other's connection names.

use crate::reactor::seed;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The shortest key in a file, in characters.
const SHORTEST: usize = 16;
/// Name of its file in the folder of a bus.
const NAME: &str = "gateway-key";

/// Reads a key that all nodes share: the text of a file, trimmed.
///
/// # Errors
/// A sentence about what is wrong.
pub(super) fn cluster_key(text: &str) -> Result<Vec<u8>, String> {
    match text.trim() {
        key if key.len() >= SHORTEST => Ok(key.as_bytes().to_vec()),
        _ => Err(format!("a key has at least {SHORTEST} characters (openssl rand -hex 32)")),
    }
}

/// Returns the key that all participants of a bus share; the first of them creates it.
///
/// # Errors
/// When it cannot be read or created.
pub(super) fn bus_key(bus: &Path) -> io::Result<Vec<u8>> {
    let path = bus.join(NAME);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        key => return key,
    }
    // Written in full before it gets its name, so that no process reads half of it. Its mode is that of the bus.
    let mode = fs::metadata(bus)?.mode() & 0o666;
    let own = bus.join(format!("{NAME}.{}", std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&own)?;
    file.write_all(&seed()?)?;
    let made = fs::hard_link(&own, &path);
    fs::remove_file(&own)?;
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => fs::read(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::DirBuilderExt;

    #[test]
    fn all_on_a_bus_have_one_key() -> io::Result<()> {
        let bus = std::env::temp_dir().join(format!("percore-key-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&bus)?;
        let first = bus_key(&bus)?;
        assert!(first.len() == 32 && bus_key(&bus)? == first);
        assert_eq!(fs::metadata(bus.join(NAME))?.mode() & 0o077, 0);
        assert_eq!(fs::read_dir(&bus)?.count(), 1, "nothing is left behind");
        fs::remove_dir_all(&bus)
    }

    #[test]
    fn a_key_is_long() {
        assert_eq!(cluster_key("0123456789abcdef\n"), Ok(b"0123456789abcdef".to_vec()));
        for short in ["", "\n", "0123456789abcde"] {
            assert!(cluster_key(short).is_err());
        }
    }
}
