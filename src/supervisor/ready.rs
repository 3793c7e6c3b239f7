//! Tells whoever started the service how it goes: systemd over NOTIFY_SOCKET, others over a descriptor.

use crate::os::inherited;
use sd_notify::NotifyState;
use std::fs::File;
use std::io::{self, Write};

/// Whom to tell.
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

    /// Every listener listens. The descriptor gets a line, once, and is closed. Nobody may be there to be told, which is
    /// no reason not to serve.
    pub fn serving(&mut self) {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        if let Some(mut descriptor) = self.descriptor.take() {
            let _ = descriptor.write_all(b"ready\n");
        }
    }

    /// New workers are about to take over; [`Ready::serving`] follows.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
    }

    /// The service is ending.
    pub fn stopping(&self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }
}
