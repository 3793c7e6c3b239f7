//! A participant's seat on a bus: a folder with the shared region, and a socket for each participant.
//!
//! A lock on a byte of the region's file claims a slot; the kernel releases it with its owner. The region lists the
//! participants, and `bus/peers.rs` derives this participant's events from that, the locks and the connections. A
//! connection serves to wake a sleeper. When it ends, for whatever reason, the others check at once whether the
//! participant is gone.
//!
//! Invariants: the region has one writer for each ring, the holder of the slot's lock. No participant waits for another
//! or holds anything that another needs, so that a stopped or killed one keeps none from joining or continuing.

mod folder;
mod keeper;
mod links;
mod own_list;
mod private;
mod trust;

pub use folder::{BusOptions, Folder, is_in_memory};
pub use keeper::BusKeeper;
pub use private::PrivateBus;

use crate::bus::envelope::{self, HEAD_BYTES};
use crate::bus::event::BusEvent;
use crate::bus::parking::{self, Parking};
use crate::bus::peers::Peers;
use crate::bus::region::{Entry, next_generation};
use crate::bus::ring::{Corrupt, Writer};
use crate::channel::record::{MAX_CHANNEL_BYTES, PublishError, Record, Records};
use crate::net::id::Participant;
use crate::telemetry::log::in_words;
use links::Links;
use own_list::OwnList;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How soon to check again whether a participant without a connection is gone; then twice as long each time, up to the
/// second value.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];
/// How often to check that the files exist, if the kernel does not report their removal.
const CHECK: Duration = Duration::from_secs(1);
/// Warnings are kept until the caller asks, up to this many.
const WARNINGS: usize = 16;

/// A seat on a bus. Dropping it leaves the bus.
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
    me: Participant,
    writer: Writer,
    start: (u64, u32),
    parking: Parking,
    peers: Peers,
    /// Whether pushed records are not published yet.
    dirty: bool,
    records: u64,
    /// When to check participants without a connection again, and how many there were.
    look_again: Duration,
    unsettled: usize,
    /// Whether some lists could not be read, which is reported once.
    lists_failed: bool,
    warnings: VecDeque<String>,
    /// When the files were last checked, and whether they have been replaced.
    checked: Instant,
    replaced: bool,
    /// Dropped in this order. The files in the folder are removed before the slot is released, since they are a
    /// successor's after that; and the others see a connection end once it is released.
    list: OwnList,
    folder: Folder,
    links: Links,
}

/// A claimed slot, with everything that its owner puts in the folder.
struct Place {
    me: Participant,
    writer: Writer,
    parking: Parking,
    peers: Peers,
    list: OwnList,
    links: Links,
}

impl Place {
    fn take(folder: &Folder, slot: usize) -> io::Result<Place> {
        let (writer, region) = (folder.writer(slot)?, folder.region());
        let own = region.slot(slot);
        let former = region.entry(slot).unwrap_or_default();
        let me = Participant { slot: slot as u32, generation: next_generation(former.generation) };
        own.pid().store(std::process::id().into(), Relaxed);
        // Counts of the former owner.
        own.published().store(0, Relaxed);
        own.lost().store(0, Relaxed);
        let parking = Parking::begin(own.parked());
        let peers = Peers::new(region, slot);
        // Before anything slow: until then the former owner appears to hold the slot.
        region.announce(slot, Entry { generation: me.generation, start: writer.place() });
        let list = OwnList::create(folder.directory().clone(), folder.mode(), me)?;
        let links = Links::listen(folder, me, writer.place())?;
        Ok(Place { me, writer, parking, peers, list, links })
    }
}

/// Whether only this slot cannot be used: it is damaged, or others have replaced its files.
fn is_of_the_slot(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::DirectoryNotEmpty
            | ErrorKind::AlreadyExists
            | ErrorKind::AddrInUse
            | ErrorKind::PermissionDenied
    )
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("me", &self.me).field("records", &self.records).finish_non_exhaustive()
    }
}

impl Bus {
    /// Joins the bus in a folder, creating it if there is none.
    ///
    /// # Errors
    /// When a folder or file cannot be created, opened or mapped, or belongs to others; when it is not a bus, or one of
    /// another version; when the disk is full or no slot is free. Each error says which and why.
    pub fn join(path: &Path, options: BusOptions) -> io::Result<Bus> {
        let folder = Folder::open(path, options)?;
        let mut refused = None;
        for slot in 0..folder.slots() {
            if !folder.claim(slot)? {
                continue;
            }
            match Place::take(&folder, slot) {
                Ok(place) => return Ok(Bus::begin(folder, place)),
                Err(error) if is_of_the_slot(&error) => {
                    folder.give_up(slot)?;
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let (slots, path) = (folder.slots(), path.display());
        Err(match refused {
            Some(error) => io::Error::new(error.kind(), format!("{error}; and no other of {slots} slots is free")),
            None => {
                let text = format!("all {slots} slots of the bus in {path} are taken");
                io::Error::new(ErrorKind::StorageFull, text)
            }
        })
    }

    fn begin(folder: Folder, place: Place) -> Bus {
        let Place { me, writer, parking, mut peers, list, links } = place;
        let start = writer.place();
        peers.look(folder.region());
        let mut bus = Bus {
            me,
            writer,
            start,
            parking,
            peers,
            dirty: false,
            records: 0,
            look_again: LOOK_AGAIN[0],
            unsettled: 0,
            lists_failed: false,
            warnings: VecDeque::new(),
            checked: Instant::now(),
            replaced: false,
            list,
            folder,
            links,
        };
        bus.settle(true);
        bus.peers.joined();
        bus
    }

    /// Our own identity on the bus.
    pub fn me(&self) -> Participant {
        self.me
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.folder.slots()
    }

    /// All other participants.
    pub fn others(&self) -> impl Iterator<Item = Participant> {
        self.peers.others()
    }

    /// Publishes a record. Others see it after [`Bus::flush`], or earlier if the ring is full.
    ///
    /// A record about channel members is also added to our list, for participants that join later.
    ///
    /// # Errors
    /// When the record is too long.
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

    /// Writes our list, which must be done before its changes are shown.
    fn write_list(&mut self) {
        let again = self.list.write();
        for record in again.iter().flat_map(Records::iter) {
            // It was pushed before, so it is short enough.
            let _ = self.push(record);
        }
    }

    /// Returns why our list of channel members cannot be written, once per failure. Participants that keep up still get
    /// everything; the others get it once there is a list again, which each [`Bus::flush`] tries to write.
    pub fn presence_error(&mut self) -> Option<io::Error> {
        self.list.take_error()
    }

    /// The longest possible record, channel and payload together, in bytes.
    pub fn limit(&self) -> usize {
        self.folder.region().ring(self.me.slot as usize).max_record_bytes().saturating_sub(HEAD_BYTES)
    }

    /// Shows the published records, and wakes sleeping participants.
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
        // A sleeper was in the region before it slept.
        self.peers.look(region);
        let mut place = 0;
        while let Some(slot) = self.peers.busy(place) {
            place += 1;
            if self.peers.is_there(slot)
                && let Some(found) = parking::asleep(region.slot(slot).parked())
            {
                self.links.wake(slot, region, &mut self.peers);
                parking::rung(region.slot(slot).parked(), found);
            }
        }
        self.look_after_unsettled();
    }

    /// Uses the timer to check participants that have no connection, and may never have one.
    fn look_after_unsettled(&mut self) {
        if self.peers.unsettled().next().is_some() {
            self.links.look_after(self.look_again);
        }
    }

    /// Hands out the records that arrived, at most one batch per participant. Returns whether there are more.
    pub fn drain(&mut self, each: impl FnMut(BusEvent<'_>)) -> bool {
        let Bus { folder, peers, .. } = self;
        let mut failed = None;
        let list = |of| folder.list(of).map_err(|error| failed = Some((of, error))).ok();
        let more = peers.drain(folder.region(), list, each);
        if let Some((of, error)) = failed {
            if !std::mem::replace(&mut self.lists_failed, true) {
                self.warn(format!("cannot read the channel members of {of}, will try again: {}", in_words(&error)));
            }
            self.links.look_after(LOOK_AGAIN[1]);
        } else if self.lists_failed && self.peers.failed_lists() == 0 {
            self.lists_failed = false;
        }
        for (slot, Corrupt(why)) in self.peers.take_damaged() {
            self.warn(format!("the memory of the bus is damaged in the ring of slot {slot}: {why}"));
        }
        self.look_after_unsettled();
        more
    }

    fn warn(&mut self, text: String) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push_back(text);
        }
    }

    /// Returns the next warning for an operator; each condition is reported once, until it is over.
    pub fn warning(&mut self) -> Option<String> {
        self.warnings.pop_front()
    }

    /// Takes a lock that only one participant of the bus can hold, in a file with that name in its folder. `None` if
    /// another holds it.
    ///
    /// # Errors
    /// When the file cannot be created or opened.
    pub fn lock(&self, name: &str) -> io::Result<Option<File>> {
        self.folder.lock(name)
    }

    /// A descriptor that is readable when [`Bus::take_news`] has something to do, for a loop of your own.
    pub fn descriptor(&self) -> RawFd {
        self.links.as_raw_fd()
    }

    /// Handles what arrived over the connections: new participants, lost ones, and wake-ups.
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub fn take_news(&mut self) -> io::Result<()> {
        self.look(Some(Duration::ZERO))
    }

    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let region = self.folder.region();
        let looked = self.links.poll(timeout, region, &mut self.peers)?;
        let changed = self.peers.look(region);
        if looked.changed || changed {
            self.mend();
        }
        if !self.replaced && (looked.changed || !self.links.is_watched() && self.checked.elapsed() >= CHECK) {
            self.check_files();
        }
        if looked.is_due {
            self.peers.retry_lists();
        }
        if looked.changed || changed || self.peers.unsettled().next().is_some() {
            self.settle(looked.is_due);
        }
        Ok(())
    }

    /// Warns if new participants end up on another bus. The region then has no name, and cannot be given one.
    fn check_files(&mut self) {
        self.checked = Instant::now();
        self.replaced = self.folder.is_replaced();
        if self.replaced {
            self.warn(format!(
                "the files of the bus in {} were removed while it is in use: those who are on it go on, and whoever joins from now on \
                is on another bus, apart from them; start all of them again",
                self.folder.path().display()
            ));
        }
    }

    /// Rewrites our entry, if it was damaged.
    fn mend(&mut self) {
        let (region, slot) = (self.folder.region(), self.me.slot as usize);
        let entry = Entry { generation: self.me.generation, start: self.start };
        if region.entry(slot) != Some(entry) {
            region.announce(slot, entry);
            self.warn(format!("the memory of the bus was damaged: slot {slot} did not name its owner"));
        }
    }

    /// Checks the locks for lost participants among those without a connection, and connects to the others if that is
    /// up to us. `is_due`: the time for that has come.
    fn settle(&mut self, is_due: bool) {
        let unsettled: Vec<usize> = self.peers.unsettled().collect();
        for &slot in &unsettled {
            self.peers.look_at(self.folder.region(), slot);
            // An error does not mean that it is gone.
            let held = self.folder.is_held(slot).unwrap_or(true);
            self.peers.settle(slot, held);
            if is_due && held && self.peers.is_ours_to_connect(slot) {
                self.links.connect(&self.folder, slot);
            }
        }
        let left = self.peers.unsettled().count();
        if left > self.unsettled {
            self.look_again = LOOK_AGAIN[0];
        } else if is_due {
            self.look_again = (self.look_again * 2).min(LOOK_AGAIN[1]);
        }
        self.unsettled = left;
        if left > 0 {
            self.links.look_after(self.look_again);
        }
    }

    /// Returns whether records may have arrived, so that [`Bus::drain`] is worth a call.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.peers.is_behind(self.folder.region())
    }

    /// Prepares to sleep. Returns false if records arrived meanwhile, which must be drained first; otherwise a
    /// participant that publishes makes [`Bus::descriptor`] readable.
    pub fn park(&mut self) -> bool {
        let region = self.folder.region();
        let own = region.slot(self.me.slot as usize);
        self.parking.park(own.parked());
        let missed = self.is_behind();
        if missed {
            self.parking.unpark(own.parked());
        }
        !missed
    }

    /// Call after waking up.
    pub fn unpark(&mut self) {
        self.parking.unpark(self.folder.region().slot(self.me.slot as usize).parked());
    }

    /// Sleeps until something arrives, or up to `timeout`.
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

impl Drop for Bus {
    fn drop(&mut self) {
        self.links.remove();
    }
}
