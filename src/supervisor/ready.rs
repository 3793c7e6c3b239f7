//! Notifies the parent of the service's state: systemd over NOTIFY_SOCKET, others over a descriptor.

use crate::os::inherited;
use sd_notify::NotifyState;
use std::fs::File;
use std::io::{self, Write};

/// The notifier.
#[derive(Debug)]
pub struct Ready {
    descriptor: Option<File>,
}

impl Ready {
    /// Takes over `descriptor` (`--ready-fd`).
    ///
    /// # Errors
    /// When it is not open.
    pub fn new(descriptor: Option<i32>) -> io::Result<Ready> {
        Ok(Ready { descriptor: descriptor.map(inherited::take).transpose()?.map(File::from) })
    }

    /// Reports that every listener listens. The descriptor gets a line, once, and is closed. Without a reader the
    /// service runs all the same.
    pub fn serving(&mut self) {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        if let Some(mut descriptor) = self.descriptor.take() {
            let _ = descriptor.write_all(b"ready\n");
        }
    }

    /// Reports that new workers are about to take over; [`Ready::serving`] follows.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
    }

    /// Reports that the service is ending.
    pub fn stopping(&self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }
}
