//! The line between a supervisor and a worker: short messages, with descriptors, over a socket that is the worker's
//! standard input. Its end tells each of them that the other is gone, whatever killed it.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event::Source};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most descriptors that the kernel passes in one message (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;
/// The longest message.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A message received over the line.
#[derive(Debug)]
pub struct ControlMessage {
    /// The message.
    pub text: String,
    /// The descriptors received with it.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of the line.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Creates a line: our end, and the end for the standard input of a process.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> io::Result<(Control, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Control(ours), theirs))
    }

    /// The end that is our standard input.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn of_standard_input() -> io::Result<Control> {
        io::stdin().as_fd().try_clone_to_owned().map(Control)
    }

    /// Makes [`Control::receive`] non-blocking from now on.
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        Ok(ioctl_fionbio(&self.0, true)?)
    }

    /// A second handle on the same end.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn try_clone(&self) -> io::Result<Control> {
        self.0.try_clone().map(Control)
    }

    /// Waits until the other end is gone, without reading messages.
    pub fn wait_for_end(&self) {
        // With no events requested, poll reports only the end (POLLHUP).
        while poll(&mut [PollFd::new(&self.0, PollFlags::empty())], None).is_err_and(|error| error == Errno::INTR) {}
    }

    /// Registers for messages, edge-triggered.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, Interest::READABLE)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As `sendmsg(2)`: `BrokenPipe` when the other end is gone, `InvalidInput` for too many descriptors.
    pub fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            let text = format!("{} descriptors, of which {MAX_DESCRIPTORS} can be passed", descriptors.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message; `None` when the other end is gone.
    ///
    /// # Errors
    /// As `recvmsg(2)`: `WouldBlock` when nothing has come, after [`Control::set_nonblocking`].
    pub fn receive(&self) -> io::Result<Option<ControlMessage>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(Some(ControlMessage { text, descriptors }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_and_the_end() {
        let (ours, theirs) = Control::pair().expect("a pair");
        let theirs = Control(theirs);
        theirs.set_nonblocking().expect("an option");
        let nothing = theirs.receive().expect_err("nothing came");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let sent = io::stderr();
        ours.send("start", &[sent.as_fd(), sent.as_fd()]).expect("sent");
        ours.send("go", &[]).expect("sent");
        let first = theirs.receive().expect("received").expect("a message");
        assert_eq!((first.text.as_str(), first.descriptors.len()), ("start", 2));
        assert_eq!(theirs.receive().expect("received").expect("a message").text, "go");
        let many = vec![sent.as_fd(); MAX_DESCRIPTORS + 1];
        assert_eq!(ours.send("x", &many).expect_err("too many").kind(), io::ErrorKind::InvalidInput);
        let watching = theirs.try_clone().expect("a descriptor");
        let watch = std::thread::spawn(move || watching.wait_for_end());
        ours.send("last", &[]).expect("sent");
        assert!(!watch.is_finished(), "a message is no end");
        drop(ours);
        watch.join().expect("the end");
        assert_eq!(theirs.receive().expect("received").expect("a message").text, "last");
        assert!(theirs.receive().expect("received").is_none());
        assert_eq!(theirs.send("x", &[]).expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
    }
}
