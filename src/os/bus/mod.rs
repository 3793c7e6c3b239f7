//! A participant's place on a bus: a folder with the shared region, and a socket for each who takes part.
//!
//! A slot is claimed by a lock on a byte of the region's file, which the kernel gives up with its owner. Who is there stands in the
//! region, and `bus/peers.rs` makes of that, of the locks and of the connections what this participant hears. Over a connection a sleeper is
//! woken, and by its end, whatever ended the process, the others know at once to look whether a participant is gone.
//!
//! Invariants: the region has one writer for each ring, the holder of the slot's lock. Nobody waits for anybody, and nobody holds
//! anything that another waits for, so that one that does not run, or is killed, keeps nobody from joining or going on.

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

/// How soon it is looked again whether a participant is gone to whom there is no connection; then twice as long each
/// time, up to the latter.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];
/// How often it is looked whether the files are there, where the kernel does not tell.
const CHECK: Duration = Duration::from_secs(1);
/// What is to be said waits for whoever asks, up to this many.
const WARNINGS: usize = 16;

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
    me: Participant,
    writer: Writer,
    start: (u64, u32),
    parking: Parking,
    peers: Peers,
    /// Whether something was pushed that is not published yet.
    dirty: bool,
    records: u64,
    /// When to look again at those to whom there is no connection, and how many these were.
    look_again: Duration,
    unsettled: usize,
    /// Whether lists could not be read, which is said once.
    lists_failed: bool,
    warnings: VecDeque<String>,
    /// When it was looked last whether the files are there still, and whether they are not.
    checked: Instant,
    replaced: bool,
    /// These are dropped in their order. What lies in the folder is removed before the slot is given up, as it is a successor's
    /// after that; and the others see the end of a connection once it is.
    list: OwnList,
    folder: Folder,
    links: Links,
}

/// A slot that was claimed, with all that its owner puts in the folder.
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
        // What its former owner counted.
        own.published().store(0, Relaxed);
        own.lost().store(0, Relaxed);
        let parking = Parking::begin(own.parked());
        let peers = Peers::new(region, slot);
        // Before anything that takes time: until then it seems that the former owner holds the slot.
        region.announce(slot, Entry { generation: me.generation, start: writer.place() });
        let list = OwnList::create(folder.directory().clone(), folder.mode(), me)?;
        let links = Links::listen(folder, me, writer.place())?;
        Ok(Place { me, writer, parking, peers, list, links })
    }
}

/// Whether it is for this slot alone that it cannot be had: it is damaged, or others have put something in the place of its files.
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
    /// Joins the bus in a folder, which is made if there is none.
    ///
    /// # Errors
    /// A folder or file that cannot be made, opened or mapped, or that belongs to others; one that holds no bus, or one of another
    /// version; a full disk; no slot that is free. Each says which and why.
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
        self.peers.others()
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
        // Whoever sleeps stood in the region before it did.
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

    /// Whoever was found and has no connection, and may never have one, is looked at by the clock.
    fn look_after_unsettled(&mut self) {
        if self.peers.unsettled().next().is_some() {
            self.links.look_after(self.look_again);
        }
    }

    /// Hands out what came, of each participant a batch at most. Returns whether there is more.
    pub fn drain(&mut self, each: impl FnMut(BusEvent<'_>)) -> bool {
        let Bus { folder, peers, .. } = self;
        let mut failed = None;
        let list = |of| folder.list(of).map_err(|error| failed = Some((of, error))).ok();
        let more = peers.drain(folder.region(), list, each);
        if let Some((of, error)) = failed {
            if !std::mem::replace(&mut self.lists_failed, true) {
                self.warn(format!(
                    "cannot read who is on the channels of {of}, and is tried again: {}",
                    in_words(&error)
                ));
            }
            self.links.look_after(LOOK_AGAIN[1]);
        } else if self.lists_failed && self.peers.failed_lists() == 0 {
            self.lists_failed = false;
        }
        for (slot, Corrupt(why)) in self.peers.take_damaged() {
            self.warn(format!("the memory of the bus is damaged, in the ring of slot {slot}: {why}"));
        }
        self.look_after_unsettled();
        more
    }

    fn warn(&mut self, text: String) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push_back(text);
        }
    }

    /// What an operator should know of the bus: each is said once, until it is over.
    pub fn warning(&mut self) -> Option<String> {
        self.warnings.pop_front()
    }

    /// Takes a lock that one participant of the bus can have, in a file of that name in its folder. `None` if another has it.
    ///
    /// # Errors
    /// When the file cannot be made or opened.
    pub fn lock(&self, name: &str) -> io::Result<Option<File>> {
        self.folder.lock(name)
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

    /// Returns if those who join from now on are on another bus. The region has no name any more then, and cannot be given one.
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

    /// Writes anew who we are, if that was damaged.
    fn mend(&mut self) {
        let (region, slot) = (self.folder.region(), self.me.slot as usize);
        let entry = Entry { generation: self.me.generation, start: self.start };
        if region.entry(slot) != Some(entry) {
            region.announce(slot, entry);
            self.warn(format!("the memory of the bus was damaged: slot {slot} did not say whose it is"));
        }
    }

    /// Looks by the locks who is gone of those to whom there is no connection, and connects to the others where that is for
    /// us to do. `is_due` says that the time for that has come.
    fn settle(&mut self, is_due: bool) {
        let unsettled: Vec<usize> = self.peers.unsettled().collect();
        for &slot in &unsettled {
            self.peers.look_at(self.folder.region(), slot);
            // An error does not say that it is gone.
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

    /// Whether something may have come: [`Bus::drain`] is worth a call.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.peers.is_behind(self.folder.region())
    }

    /// About to sleep. False when something came meanwhile, which is to be drained first; else whoever publishes sends a
    /// word that makes [`Bus::descriptor`] readable.
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

    /// Awake again.
    pub fn unpark(&mut self) {
        self.parking.unpark(self.folder.region().slot(self.me.slot as usize).parked());
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

impl Drop for Bus {
    fn drop(&mut self) {
        self.links.remove();
    }
}
