//! Which users' files a participant trusts. On a host with other users any of them can create a folder in /dev/shm
//! first, and a user who may write to the files of a bus can read everything, impersonate anyone, and kill the readers.

use rustix::process::{getegid, geteuid, getgroups};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Permissions of the folder for files with permissions `mode`: users that may read the files may list it.
pub(super) fn shares_folder(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// The users and groups to trust.
pub(super) struct Trust {
    mode: u32,
    user: u32,
    groups: Vec<u32>,
}

impl Trust {
    /// Trusts ourselves and root, and users that permissions of `mode` include.
    pub fn new(mode: u32) -> io::Result<Trust> {
        let groups = getgroups()?.into_iter().chain([getegid()]).map(|group| group.as_raw()).collect();
        Ok(Trust { mode, user: geteuid().as_raw(), groups })
    }

    /// Whether files with this owner and group are trusted.
    fn includes(&self, user: u32, group: u32) -> bool {
        user == self.user
            || user == 0
            || self.mode & 0o020 != 0 && self.groups.contains(&group)
            || self.mode & 0o002 != 0
    }

    /// # Errors
    /// When it belongs to others.
    pub fn check_owner(&self, what: &str, found: &Metadata) -> io::Result<()> {
        if self.includes(found.uid(), found.gid()) {
            return Ok(());
        }
        let text = format!(
            "{what} belongs to user {}, not to user {}: join as that user, or share it with a group or all by --bus-mode",
            found.uid(),
            self.user
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    /// # Errors
    /// When it belongs to others, or when more of them can put files there than the permissions of the region include.
    pub fn check_folder(&self, found: &Metadata, region_mode: u32) -> io::Result<()> {
        self.check_owner("the folder", found)?;
        let (mode, meant) = (found.mode() & 0o7777, shares_folder(self.mode | region_mode));
        // In a sticky folder others cannot remove or replace our files, and the owner of theirs is checked.
        if mode & WRITABLE_BY_OTHERS & !meant == 0 || mode & STICKY != 0 {
            return Ok(());
        }
        let text =
            format!("others may put files into the folder, which has mode {mode:o}: have it {:o}", meant & 0o777);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_included_by_the_mode_alone() {
        let trust = |mode| Trust { mode, user: 1000, groups: vec![100, 1000] };
        let included =
            |mode: u32| [(1000, 5), (0, 5), (33, 100), (33, 5)].map(|(user, group)| trust(mode).includes(user, group));
        assert_eq!(included(0o600), [true, true, false, false]);
        assert_eq!(included(0o640), [true, true, false, false], "who may only read is not trusted");
        assert_eq!(included(0o660), [true, true, true, false]);
        assert_eq!(included(0o666), [true; 4]);
    }
}
