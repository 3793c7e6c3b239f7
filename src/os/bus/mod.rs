//! A participant's place on a bus: a folder with the shared region, and a socket for each who takes part.
//!
//! A slot is claimed by a lock on a byte of the region's file, which the kernel gives up with its owner. Participants are
//! connected to each other: over a connection a sleeper is woken, and by its end, whatever ended the process, the others
//! know at once that a participant is gone.
//!
//! Invariants: the region has one writer for each ring, the holder of the slot's lock; joins happen one after another, under
//! the folder's lock, so whoever joins is connected to everyone who joined before.

mod folder;
mod links;
mod own_list;
mod private;

pub use folder::{BusOptions, Folder};
pub use private::PrivateBus;

use crate::bus::envelope::{self, HEAD_BYTES};
use crate::bus::event::BusEvent;
use crate::bus::parking;
use crate::bus::ring::{Reader, Writer};
use crate::data::id::Participant;
use crate::data::record::{MAX_CHANNEL_BYTES, PublishError, Record, Records};
use links::{Links, News};
use own_list::OwnList;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// A participant that we hear of.
struct Peer {
    /// The owner that was told of last; 0 before any was.
    told: u32,
    /// The owner that is there now.
    latest: u32,
    /// Position and number of its first record.
    start: (u64, u32),
    reader: Reader,
    /// Whether that one is known to be gone: what it published is still read to its end.
    gone: bool,
}

/// A place on a bus. Dropping it leaves the bus.
///
/// ```no_run
/// use percore::{Bus, BusOptions, Record};
///
/// let mut bus = Bus::join("/dev/shm/my-bus".as_ref(), BusOptions::default())?;
/// bus.publish(Record::text("news", "hello")).expect("short enough");
/// bus.flush();
/// loop {
///     while bus.drain(|event| println!("{event:?}")) {}
///     bus.wait(None)?;
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Bus {
    links: Links,
    list: OwnList,
    me: Participant,
    writer: Writer,
    /// By slot; none for our own.
    peers: Vec<Option<Peer>>,
    /// Whether something was pushed that is not published yet.
    dirty: bool,
    records: u64,
    lost: u64,
    /// The last to be dropped: with it goes our claim on the slot, whose files are a successor's after that.
    folder: Folder,
}

impl Bus {
    /// Joins the bus in a folder, which is made if there is none.
    ///
    /// # Errors
    /// A folder or file that cannot be made, opened or mapped; one that holds no bus, or one of another version; a full
    /// disk; no slot that is free. Each says which and why.
    pub fn join(path: &Path, options: BusOptions) -> io::Result<Bus> {
        let mut folder = Folder::open(path, options)?;
        // One after another, so that nobody who joins at the same time is missed.
        let joining = folder.lock_joining()?;
        let (slot, writer) = folder.claim()?;
        let region = folder.region();
        let own = region.slot(slot);
        let generation = (own.generation().load(Acquire) as u32).wrapping_add(1).max(1);
        let me = Participant { slot: slot as u32, generation };
        own.pid().store(std::process::id().into(), Relaxed);
        // What its former owner counted.
        own.published().store(0, Relaxed);
        own.lost().store(0, Relaxed);
        own.generation().store(generation.into(), Release);
        let start = writer.place();
        let mut peers: Vec<Option<Peer>> = (0..folder.slots()).map(|_| None).collect();
        let list = OwnList::create(folder.list_path(slot), folder.mode(), me)?;
        let mut links = Links::listen(&folder.socket(slot), folder.mode(), me, folder.slots())?;
        for other in (0..folder.slots()).filter(|other| *other != slot) {
            if !folder.is_held(other)? {
                continue;
            }
            // Before it hears of us: whatever it publishes once it has is for us too.
            // One whose ring cannot be read is as good as gone, as in `drain`.
            let Ok(reader) = Reader::at_head(region.ring(other)) else { continue };
            let latest = region.slot(other).generation().load(Acquire) as u32;
            if links.connect(other, &folder.socket(other), start)? {
                peers[other] = Some(Peer { told: 0, latest, start: (0, 0), reader, gone: false });
            }
        }
        drop(joining);
        Ok(Bus { links, list, me, writer, peers, dirty: false, records: 0, lost: 0, folder })
    }

    /// Who we are.
    pub fn me(&self) -> Participant {
        self.me
    }

    /// How many can take part.
    pub fn slots(&self) -> usize {
        self.folder.slots()
    }

    /// Everyone else.
    pub fn others(&self) -> impl Iterator<Item = Participant> {
        let peers = self.peers.iter().enumerate();
        peers.filter_map(|(slot, peer)| {
            peer.as_ref().map(|peer| Participant { slot: slot as u32, generation: peer.latest })
        })
    }

    /// Publishes a record. Nobody sees it before [`Bus::flush`], unless the ring is full.
    ///
    /// What tells who is on a channel also goes on our list, for those who join later.
    ///
    /// # Errors
    /// When it is too long.
    pub fn publish(&mut self, record: Record<'_>) -> Result<(), PublishError> {
        if record.channel.len() > MAX_CHANNEL_BYTES {
            return Err(PublishError::ChannelTooLong);
        }
        let bytes = HEAD_BYTES + record.channel.len() + record.payload.len();
        if self.writer.is_full(self.folder.region().ring(self.me.slot as usize), bytes) {
            self.write_list();
        }
        self.push(record)?;
        if record.kind.is_presence() {
            self.list.add(record);
        }
        Ok(())
    }

    fn push(&mut self, record: Record<'_>) -> Result<(), PublishError> {
        let Record { kind, channel, payload } = record;
        let head = envelope::head(self.me.generation, kind, channel);
        let ring = self.folder.region().ring(self.me.slot as usize);
        self.writer
            .push(ring, &[&head, channel, payload])
            .map_err(|_| PublishError::TooLong { limit: self.limit() })?;
        (self.dirty, self.records) = (true, self.records + 1);
        Ok(())
    }

    /// Writes our list, as is to be done before what is on it is shown.
    fn write_list(&mut self) {
        let again = self.list.write();
        for record in again.iter().flat_map(Records::iter) {
            // It was pushed before, so it is short enough.
            let _ = self.push(record);
        }
    }

    /// Why our list of who is on our channels cannot be written, once each time that this begins. Who keeps up hears
    /// everything all the same; others hear it again as soon as there is a list, which each [`Bus::flush`] tries to write.
    pub fn presence_error(&mut self) -> Option<io::Error> {
        self.list.take_error()
    }

    /// The longest record there can be, channel and payload together, in bytes.
    pub fn limit(&self) -> usize {
        self.folder.region().ring(self.me.slot as usize).max_record_bytes().saturating_sub(HEAD_BYTES)
    }

    /// Shows what was published, and wakes whoever sleeps.
    pub fn flush(&mut self) {
        self.write_list();
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let (region, slot) = (self.folder.region(), self.me.slot as usize);
        self.writer.publish(region.ring(slot));
        region.slot(slot).published().store(self.records, Relaxed);
        self.wake_sleepers();
    }

    fn wake_sleepers(&mut self) {
        let region = self.folder.region();
        parking::published();
        for slot in 0..self.peers.len() {
            if slot != self.me.slot as usize && parking::is_to_be_woken(region.slot(slot).parked()) {
                self.links.wake(slot, region);
            }
        }
    }

    /// Hands out what came, of each participant a batch at most. Says whether there is more.
    pub fn drain(&mut self, mut each: impl FnMut(BusEvent<'_>)) -> bool {
        let mut more = false;
        for slot in 0..self.peers.len() {
            more |= self.drain_one(slot, &mut each);
        }
        more
    }

    fn drain_one(&mut self, slot: usize, each: &mut impl FnMut(BusEvent<'_>)) -> bool {
        let list_is_due = Cell::new(false);
        let mut each = |event: BusEvent<'_>| {
            match event {
                BusEvent::Joined(_) | BusEvent::Gap { .. } => list_is_due.set(true),
                BusEvent::Left(_) => list_is_due.set(false),
                BusEvent::Record { .. } | BusEvent::Present { .. } => {}
            }
            each(event);
        };
        let Some(peer) = &mut self.peers[slot] else { return false };
        let (region, me) = (self.folder.region(), self.me.slot as usize);
        let of = |generation| Participant { slot: slot as u32, generation };
        let (mut told, latest, first) = (peer.told, peer.latest, peer.start.1);
        let result = peer.reader.read(region.ring(slot), |number, mut lost, record| {
            let Some((generation, record)) = envelope::read(record) else { return };
            if generation != told {
                if told > 0 {
                    // Of what was lost, the new owner's part begins at its first record.
                    let before = u64::from(first.wrapping_sub(number.wrapping_sub(lost as u32)));
                    if generation == latest && (1..=lost).contains(&before) {
                        each(BusEvent::Gap { from: of(told), lost: before });
                        lost -= before;
                    }
                    each(BusEvent::Left(of(told)));
                }
                told = generation;
                each(BusEvent::Joined(of(told)));
            }
            if lost > 0 {
                each(BusEvent::Gap { from: of(told), lost });
            }
            each(BusEvent::Record { from: of(told), record });
        });
        region.cursor(me, slot).store(peer.reader.position(), Relaxed);
        if let Ok(progress) = result {
            self.lost += progress.lost;
            if progress.lost > 0 {
                region.slot(me).lost().store(self.lost, Relaxed);
            }
            // All of its former owner's is read; the new one has perhaps said nothing yet.
            if told != latest && peer.reader.position() >= peer.start.0 {
                if told > 0 {
                    each(BusEvent::Left(of(told)));
                }
                told = latest;
                each(BusEvent::Joined(of(told)));
            }
            peer.told = told;
            if progress.more || !peer.gone {
                // Read after the records: whatever these told is in it.
                if list_is_due.get() {
                    each(BusEvent::Present { from: of(told), list: &self.folder.list(of(told)) });
                }
                return progress.more;
            }
        }
        // Gone; or it writes without keeping to the form, and is as good as gone.
        if told > 0 {
            each(BusEvent::Left(of(told)));
        }
        self.peers[slot] = None;
        self.links.close(slot);
        false
    }

    /// Descriptor that is readable when [`Bus::take_news`] has something to do, for a loop of one's own.
    pub fn descriptor(&self) -> RawFd {
        self.links.as_raw_fd()
    }

    /// Takes what came over the connections: who is new, who is gone, and that we were woken.
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub fn take_news(&mut self) -> io::Result<()> {
        self.look(Some(Duration::ZERO))
    }

    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.links.poll(timeout, self.folder.region())?;
        for (slot, news) in self.links.take_news() {
            match (news, &mut self.peers[slot]) {
                // Its ring goes on where its former owner's ended, of which something may still be unread.
                (News::Joined { generation, start }, Some(peer)) => {
                    (peer.gone, peer.latest, peer.start) = (false, generation, start);
                }
                (News::Joined { generation, start }, none) => {
                    let reader = Reader::at(start.0, start.1);
                    *none = Some(Peer { told: 0, latest: generation, start, reader, gone: false });
                }
                (News::Gone, peer) => peer.iter_mut().for_each(|peer| peer.gone = true),
            }
        }
        Ok(())
    }

    /// Whether something may have come: [`Bus::drain`] is worth a call.
    #[inline]
    pub fn is_behind(&self) -> bool {
        let region = self.folder.region();
        self.peers.iter().enumerate().any(|(slot, peer)| {
            peer.as_ref()
                .is_some_and(|peer| peer.gone || peer.told != peer.latest || peer.reader.is_behind(region.ring(slot)))
        })
    }

    /// About to sleep. False when something came meanwhile, which is to be drained first; else whoever publishes sends a
    /// word that makes [`Bus::descriptor`] readable.
    pub fn park(&mut self) -> bool {
        let region = self.folder.region();
        let own = region.slot(self.me.slot as usize);
        parking::park(own.parked());
        let missed = self.is_behind() || self.links.has_news();
        if missed {
            parking::unpark(own.parked());
        }
        !missed
    }

    /// Awake again.
    pub fn unpark(&mut self) {
        parking::unpark(self.folder.region().slot(self.me.slot as usize).parked());
    }

    /// Sleeps until something comes, or for so long.
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.park() {
            return self.take_news();
        }
        let looked = self.look(timeout);
        self.unpark();
        looked
    }
}
