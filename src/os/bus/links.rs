//! The connections between participants: their end tells that a participant is gone, and over them each gives the others
//! its bell, an event descriptor that wakes it.
//!
//! Ringing takes half the time of sending a word, and who was woken need not read anything: the bell is waited for
//! edge-triggered, and its count never comes to its end. The word stays for whom we have no bell of yet.

use super::Participant;
use crate::bus::region::Region;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, event::Source};
use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, write};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, send, sendmsg,
    socket_with,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::fs::Permissions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

/// Connections that wait to be accepted by a participant that does not run at the moment.
const BACKLOG: i32 = 1024;
/// The word that wakes.
const WAKE: &[u8] = b"!";
/// What is added to the count of a bell.
const RING: [u8; 8] = 1u64.to_ne_bytes();
const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);
const RETRY: Token = Token(usize::MAX - 2);
/// After so long those who wait are tried to be accepted again: 100 ms.
const RETRY_AFTER: Itimerspec = Itimerspec {
    it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
    it_value: Timespec { tv_sec: 0, tv_nsec: 100_000_000 },
};

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// A participant joined, whose ring is to be read from there.
    Joined { generation: u32, start: (u64, u32) },
    /// It is gone.
    Gone,
}

/// What someone who joins says first: four words of 8 bytes.
struct Hello {
    slot: u64,
    generation: u32,
    /// Position and number of the first record in its ring that is its own.
    start: (u64, u32),
}

const HELLO_BYTES: usize = 32;

impl Hello {
    fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        for (chunk, word) in
            bytes.chunks_exact_mut(8).zip([self.slot, self.generation.into(), self.start.0, self.start.1.into()])
        {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Hello> {
        let bytes: &[u8; HELLO_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let number = u32::try_from(word(24)?).ok()?;
        Some(Hello { slot: word(0)?, generation: u32::try_from(word(8)?).ok()?, start: (word(16)?, number) })
    }

    /// Whose place it is, unless nobody can have said this. Before they say it, a slot's owner has counted itself there, and
    /// its ring ends where its first record will be; it may have a successor already, and have written any number since.
    fn place(&self, me: Participant, slots: usize, region: Region<'_>) -> Option<usize> {
        let slot = usize::try_from(self.slot).ok().filter(|slot| *slot < slots && *slot != me.slot as usize)?;
        let latest = region.slot(slot).generation().load(Acquire) as u32;
        let owners_since = latest.wrapping_sub(self.generation);
        let is_known = self.generation > 0 && owners_since <= u32::MAX / 2;
        (is_known && self.start.0 <= region.ring(slot).head.load(Acquire)).then_some(slot)
    }
}

/// A connection to another participant.
struct Link {
    socket: OwnedFd,
    /// What wakes it, once it is here.
    bell: Option<OwnedFd>,
}

/// All connections of a participant.
pub(super) struct Links {
    me: Participant,
    poll: Poll,
    events: Events,
    listener: OwnedFd,
    /// Runs while some could not be accepted, for want of descriptors say: the listener does not tell of them again.
    retry: OwnedFd,
    path: PathBuf,
    /// What wakes us.
    bell: OwnedFd,
    /// By slot.
    links: Vec<Option<Link>>,
    /// Accepted, and not heard of yet who they are.
    strangers: Vec<Option<OwnedFd>>,
    news: Vec<(usize, News)>,
}

impl Links {
    /// Listens for those who join later. What a former owner of the slot left at `path` is replaced.
    pub fn listen(path: &Path, mode: u32, me: Participant, slots: usize) -> io::Result<Links> {
        let addr = address(path)?;
        let listener = socket()?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        bind(&listener, &addr)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        listen(&listener, BACKLOG)?;
        let poll = Poll::new()?;
        register(&poll, &listener, LISTENER)?;
        // Made now, as there may be no descriptor for it when it is needed.
        let retry = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        register(&poll, &retry, RETRY)?;
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        register(&poll, &bell, BELL)?;
        Ok(Links {
            me,
            poll,
            events: Events::with_capacity(64),
            listener,
            retry,
            path: path.to_owned(),
            bell,
            links: (0..slots).map(|_| None).collect(),
            strangers: Vec::new(),
            news: Vec::new(),
        })
    }

    /// Connects to a participant, and says who we are and where our ring begins. False when it is just gone.
    pub fn connect(&mut self, slot: usize, path: &Path, start: (u64, u32)) -> io::Result<bool> {
        let link = socket()?;
        match connect(&link, &address(path)?) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(false),
            Err(error) => return Err(not_reached(slot, path, error)),
            Ok(()) => {}
        }
        let hello = Hello { slot: self.me.slot.into(), generation: self.me.generation, start };
        match self.send_with_bell(&link, &hello.to_bytes()) {
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            sent => sent?,
        };
        register(&self.poll, &link, Token(slot))?;
        self.links[slot] = Some(Link { socket: link, bell: None });
        Ok(true)
    }

    /// Wakes a participant. One that is gone need not wake; one whose socket is full has been woken.
    pub fn wake(&mut self, slot: usize, region: Region<'_>) {
        if self.links[slot].is_none() {
            // Someone who joined just now.
            self.accept(region);
        }
        let Some(link) = &self.links[slot] else { return };
        if link.bell.as_ref().is_none_or(|bell| write(bell, &RING).is_err()) {
            let _ = send(&link.socket, WAKE, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    fn send_with_bell(&self, socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        let (mut space, bells) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(1))], [self.bell.as_fd()]);
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&bells));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            // Too many descriptors are on their way to those who do not run.
            Err(Errno::TOOMANYREFS) => send(socket, bytes, flags),
            sent => sent,
        }
    }

    pub fn close(&mut self, slot: usize) {
        self.links[slot] = None;
    }

    /// Whether something came that was not taken yet.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What has come since this was called last.
    pub fn take_news(&mut self) -> std::vec::Drain<'_, (usize, News)> {
        self.news.drain(..)
    }

    /// Looks for what came; sleeps for so long if there is nothing.
    pub fn poll(&mut self, timeout: Option<Duration>, region: Region<'_>) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        for event in &events {
            match event.token() {
                BELL => {}
                LISTENER | RETRY => self.accept(region),
                Token(number) if number < self.links.len() => self.read_link(number, event.is_read_closed()),
                Token(number) => self.read_stranger(number - self.links.len(), region),
            }
        }
        self.events = events;
        polled
    }

    fn accept(&mut self, region: Region<'_>) {
        loop {
            let stranger = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stranger) => stranger,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    let _ = timerfd_settime(&self.retry, TimerfdTimerFlags::empty(), &RETRY_AFTER);
                    return;
                }
            };
            let place = self.strangers.iter().position(Option::is_none).unwrap_or_else(|| {
                self.strangers.push(None);
                self.strangers.len() - 1
            });
            if register(&self.poll, &stranger, Token(self.links.len() + place)).is_ok() {
                self.strangers[place] = Some(stranger);
                // Who joins says so at once, so mostly it is there.
                self.read_stranger(place, region);
            }
        }
    }

    fn read_stranger(&mut self, place: usize, region: Region<'_>) {
        let Some(stranger) = self.strangers.get_mut(place).and_then(Option::take) else { return };
        let mut bytes = [0; HELLO_BYTES + 1];
        match receive(&stranger, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => self.strangers[place] = Some(stranger),
            Ok((length, bell)) => {
                let hello = Hello::from_bytes(&bytes[..length]);
                let known = hello.and_then(|hello| Some((hello.place(self.me, self.links.len(), region)?, hello)));
                if let Some((slot, hello)) = known
                    && reregister(&self.poll, &stranger, Token(slot)).is_ok()
                {
                    // Without our bell it wakes us by words.
                    let _ = self.send_with_bell(&stranger, WAKE);
                    self.links[slot] = Some(Link { socket: stranger, bell });
                    self.news.push((slot, News::Joined { generation: hello.generation, start: hello.start }));
                    // A word may stand behind it already, or the end.
                    self.read_link(slot, true);
                }
            }
            Err(_) => {}
        }
    }

    /// Reads the word that woke us, or came with a bell; all of them, and the end, where that is to be found out. A word comes
    /// for each time that we slept, so none piles up.
    fn read_link(&mut self, slot: usize, to_the_end: bool) {
        let mut bytes = [0; 64];
        while let Some(link) = &mut self.links[slot] {
            match receive(&link.socket, &mut bytes) {
                Ok((1.., bell)) => {
                    link.bell = link.bell.take().or(bell);
                    if !to_the_end {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    self.links[slot] = None;
                    self.news.push((slot, News::Gone));
                }
            }
        }
    }
}

impl AsRawFd for Links {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Receives a message, and the bell that came with it.
fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok((received.bytes, rights))
}

fn not_reached(slot: usize, path: &Path, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    let text = match error.kind() {
        io::ErrorKind::WouldBlock => {
            let path = path.display();
            format!(
                "{path}: too many wait to be accepted: the participant in slot {slot} does not run, end or continue it"
            )
        }
        _ => format!("{}: {error}", path.display()),
    };
    io::Error::new(error.kind(), text)
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|error| {
        let text = format!("{}: {error} (a socket's path has at most 107 bytes)", path.display());
        io::Error::new(io::Error::from(error).kind(), text)
    })
}

fn register(poll: &Poll, socket: &OwnedFd, token: Token) -> io::Result<()> {
    SourceFd(&socket.as_raw_fd()).register(poll.registry(), token, Interest::READABLE)
}

fn reregister(poll: &Poll, socket: &OwnedFd, token: Token) -> io::Result<()> {
    SourceFd(&socket.as_raw_fd()).reregister(poll.registry(), token, Interest::READABLE)
}
