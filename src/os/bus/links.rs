//! The connections between participants: over them each gives the others its bell, an event descriptor that wakes it,
//! and their end suggests that a participant is gone.
//!
//! A new participant connects to those present, and both identify themselves. Neither waits for that: a stopped
//! participant accepts connections later, and until then the new one polls by a timer.
//!
//! Writing to an eventfd costs half of what a message does, and the woken process need not read it: it is registered
//! edge-triggered and its counter cannot overflow. Messages remain for participants whose bell we do not have yet.

use super::folder::{Directory, Folder};
use crate::bus::peers::Peers;
use crate::bus::region::{Entry, Region};
use crate::net::id::Participant;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, event::Source};
use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, Mode, OFlags, chmod, fchmod, openat, statat};
use rustix::io::{Errno, read, write};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, send, sendmsg,
    socket_with,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// Connections waiting for a participant that does not run at the moment.
const BACKLOG: i32 = 1024;
/// The message that wakes.
const WAKE: &[u8] = b"!";
/// The value added to a bell's counter.
const RING: [u8; 8] = 1u64.to_ne_bytes();
const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);
const WATCH: Token = Token(usize::MAX - 3);
/// Retry interval for accepting waiting connections.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What both sides of a connection send first: four words of 8 bytes.
struct Hello {
    slot: u64,
    entry: Entry,
}

const HELLO_BYTES: usize = 32;

impl Hello {
    fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let Entry { generation, start } = self.entry;
        let mut bytes = [0; HELLO_BYTES];
        let words = [self.slot, generation.into(), start.0, start.1.into()];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Hello> {
        let bytes: &[u8; HELLO_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let (generation, number) = (u32::try_from(word(8)?).ok()?, u32::try_from(word(24)?).ok()?);
        Some(Hello { slot: word(0)?, entry: Entry { generation, start: (word(16)?, number) } })
    }
}

/// A connection to another participant.
struct Link {
    socket: OwnedFd,
    /// The bell that wakes it, once received.
    bell: Option<OwnedFd>,
    /// The generation of its owner; 0 until it has identified itself.
    generation: u32,
}

/// The result of a look at the connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Looked {
    /// The timer of [`Links::look_after`] has expired.
    pub is_due: bool,
    /// A participant connected, a connection ended, or the region's file was removed.
    pub changed: bool,
}

/// All connections of a participant.
pub(super) struct Links {
    me: Participant,
    hello: [u8; HELLO_BYTES],
    poll: Poll,
    events: Events,
    listener: OwnedFd,
    timer: OwnedFd,
    /// The timer's delay, if it is set.
    timer_after: Option<Duration>,
    directory: Directory,
    /// Reports that the region's file was removed; `None` if there are too many watches.
    watch: Option<OwnedFd>,
    /// Our bell.
    bell: OwnedFd,
    /// By slot: first the connections that we made, then those made to us. Two that join at once may have one of each.
    links: Vec<Option<Link>>,
    /// Accepted, but not identified yet.
    strangers: Vec<Option<OwnedFd>>,
}

impl Links {
    /// Listens for later participants, replacing what a former owner of the slot left.
    pub fn listen(folder: &Folder, me: Participant, start: (u64, u32)) -> io::Result<Links> {
        let (listener, directory) = (socket()?, folder.directory().clone());
        bind_in(folder, &listener, &name(me.slot as usize))?;
        listen(&listener, BACKLOG)?;
        let poll = Poll::new()?;
        register(&poll, &listener, LISTENER)?;
        // Created now, as there may be no descriptor for it when it is needed.
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        register(&poll, &timer, TIMER)?;
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        register(&poll, &bell, BELL)?;
        let watch = folder.watch().ok();
        if let Some(watch) = &watch {
            register(&poll, watch, WATCH)?;
        }
        let entry = Entry { generation: me.generation, start };
        Ok(Links {
            me,
            hello: Hello { slot: me.slot.into(), entry }.to_bytes(),
            poll,
            events: Events::with_capacity(64),
            listener,
            timer,
            timer_after: None,
            directory,
            watch,
            bell,
            links: (0..2 * folder.slots()).map(|_| None).collect(),
            strangers: Vec::new(),
        })
    }

    fn slots(&self) -> usize {
        self.links.len() / 2
    }

    /// Connects to the owner of a slot, unless that is done, and identifies us. If the owner is gone or cannot accept
    /// now, there is no connection, and this can be called again.
    pub fn connect(&mut self, folder: &Folder, slot: usize) {
        if self.links[slot].is_none() {
            self.links[slot] = self.try_connect(folder, slot).ok();
        }
    }

    fn try_connect(&self, folder: &Folder, slot: usize) -> io::Result<Link> {
        let link = socket()?;
        connect(&link, &address(&folder.socket_path(&name(slot)))?)?;
        self.send_with_bell(&link, &self.hello)?;
        register(&self.poll, &link, Token(slot))?;
        Ok(Link { socket: link, bell: None, generation: 0 })
    }

    /// Wakes a participant. One that is gone need not wake; one whose socket is full was woken already.
    pub fn wake(&mut self, slot: usize, region: Region<'_>, peers: &mut Peers) {
        let places = [slot, self.slots() + slot];
        if places.iter().all(|place| self.links[*place].is_none()) {
            // It may have joined just now.
            self.accept(region, peers);
        }
        let there = || places.iter().filter_map(|place| self.links[*place].as_ref());
        if there().filter_map(|link| link.bell.as_ref()).any(|bell| write(bell, &RING).is_ok()) {
            return;
        }
        for link in there() {
            let _ = send(&link.socket, WAKE, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    fn send_with_bell(&self, socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        let (mut space, bells) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(1))], [self.bell.as_fd()]);
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&bells));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            // Too many descriptors are in flight to participants that do not run.
            Err(Errno::TOOMANYREFS) => send(socket, bytes, flags),
            sent => sent,
        }
    }

    /// Makes [`Links::poll`] return after that time at the latest.
    pub fn look_after(&mut self, time: Duration) {
        if self.timer_after.is_some_and(|after| after <= time) {
            return;
        }
        let time_in = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: time_in };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok() {
            self.timer_after = Some(time);
        }
    }

    /// Handles what arrived; sleeps up to `timeout` if there is nothing.
    pub fn poll(&mut self, timeout: Option<Duration>, region: Region<'_>, peers: &mut Peers) -> io::Result<Looked> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        let mut looked = Looked::default();
        for event in &events {
            looked.changed |= event.token() != BELL;
            match event.token() {
                BELL => {}
                WATCH => self.clear_watch(),
                LISTENER => self.accept(region, peers),
                TIMER => {
                    (self.timer_after, looked.is_due) = (None, true);
                    self.accept(region, peers);
                }
                Token(place) if place < self.links.len() => {
                    self.read_link(place, event.is_read_closed(), region, peers)
                }
                Token(token) => self.read_stranger(token - self.links.len(), region, peers),
            }
        }
        self.events = events;
        polled.map(|()| looked)
    }

    /// Whether the kernel reports the removal of the region's file.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// The content of its events does not matter.
    fn clear_watch(&self) {
        let mut bytes = [0; 1024];
        while self.watch.as_ref().is_some_and(|watch| read(watch, &mut bytes).is_ok_and(|length| length > 0)) {}
    }

    fn accept(&mut self, region: Region<'_>, peers: &mut Peers) {
        loop {
            let stranger = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stranger) => stranger,
                Err(Errno::AGAIN) => return,
                // For lack of descriptors, say: the listener will not report them again.
                Err(_) => return self.look_after(ACCEPT_AGAIN),
            };
            let place = self.strangers.iter().position(Option::is_none).unwrap_or_else(|| {
                self.strangers.push(None);
                self.strangers.len() - 1
            });
            if register(&self.poll, &stranger, Token(self.links.len() + place)).is_ok() {
                self.strangers[place] = Some(stranger);
                // A new participant identifies itself at once, so usually that has arrived.
                self.read_stranger(place, region, peers);
            }
        }
    }

    fn read_stranger(&mut self, place: usize, region: Region<'_>, peers: &mut Peers) {
        let Some(stranger) = self.strangers.get_mut(place).and_then(Option::take) else { return };
        let mut bytes = [0; HELLO_BYTES + 1];
        match receive(&stranger, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => self.strangers[place] = Some(stranger),
            Ok((length, bell)) => {
                let Some(hello) = Hello::from_bytes(&bytes[..length]) else { return };
                let slot = usize::try_from(hello.slot).unwrap_or(usize::MAX);
                if slot >= self.slots() || slot == self.me.slot as usize {
                    return;
                }
                let place = self.slots() + slot;
                if peers.linked(region, slot, hello.entry) && reregister(&self.poll, &stranger, Token(place)).is_ok() {
                    // Without our bell it wakes us by messages.
                    let _ = self.send_with_bell(&stranger, &self.hello);
                    self.links[place] = Some(Link { socket: stranger, bell, generation: hello.entry.generation });
                    // A message may follow already, or the end.
                    self.read_link(place, true, region, peers);
                }
            }
            Err(_) => {}
        }
    }

    /// Reads the message that woke us, or the other side's identification; with `to_the_end`, reads all of them up to
    /// the end. One message arrives per sleep, so they do not pile up.
    fn read_link(&mut self, place: usize, to_the_end: bool, region: Region<'_>, peers: &mut Peers) {
        let slot = place % self.slots();
        let mut bytes = [0; 64];
        while let Some(link) = &mut self.links[place] {
            match receive(&link.socket, &mut bytes) {
                Ok((length @ 1.., bell)) => {
                    link.bell = link.bell.take().or(bell);
                    if let Some(hello) = Hello::from_bytes(&bytes[..length])
                        && hello.slot == slot as u64
                        && link.generation == 0
                        && peers.linked(region, slot, hello.entry)
                    {
                        link.generation = hello.entry.generation;
                    }
                    if !to_the_end {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    let generation = link.generation;
                    self.links[place] = None;
                    if self
                        .links
                        .iter()
                        .skip(slot)
                        .step_by(self.slots())
                        .flatten()
                        .all(|other| other.generation != generation)
                    {
                        peers.unlinked(slot, generation);
                    }
                }
            }
        }
    }

    /// Removes the name by which others connect to us.
    pub fn remove(&self) {
        let _ = self.directory.remove(&name(self.me.slot as usize));
    }
}

impl AsRawFd for Links {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

fn name(slot: usize) -> String {
    format!("{slot}.sock")
}

/// Binds a socket to a name in the folder, with the permissions of the bus. It never has more, and the umask can only
/// remove some; they are restored once the file is known to be ours.
fn bind_in(folder: &Folder, socket: &OwnedFd, name: &str) -> io::Result<()> {
    let (directory, mode) = (folder.directory(), Mode::from_raw_mode(folder.mode()));
    directory.remove(name)?;
    fchmod(socket, mode)?;
    let path = folder.socket_path(name);
    bind(socket, &address(&path)?)?;
    let bound = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if Mode::from_raw_mode(bound.st_mode) == mode {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if (found.st_dev, found.st_ino) != (bound.st_dev, bound.st_ino)
        || found.st_uid != rustix::process::geteuid().as_raw()
    {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} was replaced")));
    }
    Ok(chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Receives a message, with its bell if there is one.
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

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        io::Error::new(io::Error::from(error).kind(), text)
    })
}

fn register(poll: &Poll, socket: &OwnedFd, token: Token) -> io::Result<()> {
    SourceFd(&socket.as_raw_fd()).register(poll.registry(), token, Interest::READABLE)
}

fn reregister(poll: &Poll, socket: &OwnedFd, token: Token) -> io::Result<()> {
    SourceFd(&socket.as_raw_fd()).reregister(poll.registry(), token, Interest::READABLE)
}
