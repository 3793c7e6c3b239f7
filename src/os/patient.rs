//! Standard streams that may be non-blocking, because a shell or another program that shares them made them so.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// Waits where the stream would not block.
pub struct Patient<F>(pub F);

impl<F: AsFd> Patient<F> {
    fn until_done(&self, ready: PollFlags, mut attempt: impl FnMut(&F) -> Result<usize, Errno>) -> io::Result<usize> {
        loop {
            match attempt(&self.0) {
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, ready)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl<F: AsFd> Read for Patient<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until_done(PollFlags::IN, |stream| rustix::io::read(stream, &mut *buffer))
    }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_done(PollFlags::OUT, |stream| rustix::io::write(stream, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
