//! Keeps the files of a bus where new participants look for them.

use super::folder::{BusOptions, Folder};
use super::private::PrivateBus;
use std::io;
use std::path::Path;

/// Guards the files of a bus for a supervisor, which does not take part itself. If the files are removed, new
/// participants cannot find those on the bus; so the keeper creates another bus in the same place, to which all must
/// move.
pub struct BusKeeper {
    folder: Folder,
    options: BusOptions,
    private: Option<PrivateBus>,
}

impl BusKeeper {
    /// Keeps the bus in a folder, creating it if there is none.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join).
    pub fn of_folder(path: &Path, options: BusOptions) -> io::Result<BusKeeper> {
        Ok(BusKeeper { folder: Folder::open(path, options)?, options, private: None })
    }

    /// Creates a bus in a folder of its own, which is removed with the keeper.
    ///
    /// # Errors
    /// As [`PrivateBus::create`].
    pub fn of_private(options: BusOptions) -> io::Result<BusKeeper> {
        let private = PrivateBus::create(options)?;
        Ok(BusKeeper { folder: Folder::open(private.path(), options)?, options, private: Some(private) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Checks the files. If they are gone or replaced, makes sure that there is a bus again, and returns true:
    /// participants of the former one must move.
    ///
    /// # Errors
    /// As [`Bus::join`](super::Bus::join), when none can be created.
    pub fn restore(&mut self) -> io::Result<bool> {
        if !self.folder.is_replaced() {
            return Ok(false);
        }
        self.folder = Folder::open(self.folder.path(), self.options)?;
        if let Some(private) = &mut self.private {
            private.own_again()?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bus;
    use super::*;
    use std::fs;

    const SMALL: BusOptions = BusOptions { slots: 4, ring_bytes: 4096, mode: 0o600 };

    #[test]
    fn a_bus_is_there_again() -> io::Result<()> {
        let path = std::env::temp_dir().join(format!("percore-keeper-{}", std::process::id()));
        let mut keeper = BusKeeper::of_folder(&path, SMALL)?;
        let before = Bus::join(&path, SMALL)?;
        assert!(!keeper.restore()?);
        fs::remove_dir_all(&path)?;
        assert_eq!((keeper.restore()?, keeper.restore()?), (true, false));
        let [first, second] = [Bus::join(&path, SMALL)?, Bus::join(&path, SMALL)?];
        assert_eq!((before.others().count(), second.others().count()), (0, 1));
        drop((first, second));
        // If another process created one meanwhile, that one is used.
        fs::remove_dir_all(&path)?;
        let other = Bus::join(&path, SMALL)?;
        assert!(keeper.restore()?);
        assert_eq!(Bus::join(&path, SMALL)?.others().count(), 1);
        drop(other);
        fs::remove_dir_all(&path)
    }

    #[test]
    fn a_private_one_is_owned_again_and_goes_with_its_keeper() -> io::Result<()> {
        let mut keeper = BusKeeper::of_private(SMALL)?;
        let path = keeper.path().to_owned();
        fs::remove_dir_all(&path)?;
        assert!(keeper.restore()?);
        // Another supervisor does not take it for abandoned.
        let another = BusKeeper::of_private(SMALL)?;
        assert!(path.exists() && another.path() != path);
        drop(keeper);
        assert!(!path.exists());
        Ok(())
    }
}
