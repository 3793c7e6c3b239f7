//! Which participants we hear, and how far: the state of a seat on a bus without its sockets, files and locks. Their
//! results come in by calls; what to check comes out as [`Peers::unsettled`].
//!
//! Three sources describe a participant, in any order, late, or never:
//!
//! * the region: the entry of its slot names its owner, and its ring holds the records of this and former owners;
//! * a link, over which both can wake each other, and whose end suggests that the participant is gone;
//! * the lock of its slot, which the kernel releases with its owner: only this proves that an owner is gone.
//!
//! Invariants:
//!
//! * One reader for each slot, from our joining to our leaving: the records of all its owners are handed out once and
//!   in order, or counted as lost.
//! * Owners of a slot only advance: `told` never exceeds `latest`, and an older one never replaces either. Links and
//!   locks describe one generation, and no later one.
//! * A participant is reported as gone only once everything it published has been read.

use super::envelope;
use super::event::BusEvent;
use super::region::{Entry, Region, is_newer};
use super::ring::{Corrupt, Reader};
use crate::channel::record::Records;
use crate::net::id::Participant;
use std::sync::atomic::Ordering::Relaxed;

/// The state of a participant's list here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum List {
    Known,
    Due,
    /// It could not be read, and must be retried.
    Failed,
}

/// What was reported about a slot.
#[derive(Debug)]
struct Said {
    slot: u32,
    /// The last owner reported, and whether it has not left since.
    generation: u32,
    present: bool,
    list: List,
    /// Lost records not reported yet, because no participant was present.
    lost: u64,
}

/// A slot, and its participant as we know it.
#[derive(Debug)]
struct Peer {
    reader: Reader,
    said: Said,
    /// The owner, according to its entry.
    latest: Entry,
    /// Whether that owner is gone: the rest of its records is still read.
    gone: bool,
    /// Whether there is a link to that owner.
    linked: bool,
    /// Whether it was there before us, so that we must connect.
    older: bool,
    /// The entry could not be read.
    unsure: bool,
    /// Nothing can arrive from this slot until the entry changes.
    idle: bool,
    /// Why its ring could not be read, until it can be again.
    damage: Option<Corrupt>,
}

/// All other participants of a bus.
#[derive(Debug)]
pub struct Peers {
    me: usize,
    peers: Vec<Peer>,
    /// The slots that need attention: usually few, even of a large bus.
    busy: Vec<usize>,
    /// [`Region::changes`] at the last look at the entries.
    changes: u64,
    lost: u64,
    /// Slots whose rings were found damaged, with the reason.
    damaged: Vec<(usize, Corrupt)>,
}

impl Peers {
    /// Starts reading every slot but our own. Call it before others can know of us: what they publish once they do is
    /// for us too.
    pub fn new(region: Region<'_>, me: usize) -> Peers {
        let peer = |slot: usize| Peer {
            reader: Reader::at_head(region.ring(slot)),
            said: Said { slot: slot as u32, generation: 0, present: false, list: List::Known, lost: 0 },
            latest: Entry::default(),
            gone: false,
            linked: false,
            older: true,
            unsure: false,
            idle: true,
            damage: None,
        };
        let peers = (0..region.slots()).map(peer).collect();
        // Differs from the region's value, so that all entries are checked.
        Peers { me, peers, busy: Vec::new(), changes: region.changes().wrapping_sub(1), lost: 0, damaged: Vec::new() }
    }

    /// Records that we have joined: a participant found from now on joined after us, and connects to us.
    pub fn joined(&mut self) {
        self.peers
            .iter_mut()
            .filter(|peer| peer.latest.generation == 0 && !peer.unsure)
            .for_each(|peer| peer.older = false);
    }

    /// Checks the owners of the slots, if they may have changed. Returns whether they may.
    pub fn look(&mut self, region: Region<'_>) -> bool {
        let changes = region.changes();
        if changes == self.changes {
            return false;
        }
        self.changes = changes;
        (0..self.peers.len()).for_each(|slot| self.look_at(region, slot));
        true
    }

    /// Updates the list of busy slots, if this slot's state may have changed.
    fn note_busy(&mut self, slot: usize) {
        let is_busy = |peer: &Peer| !peer.idle || peer.unsure;
        if self.busy.contains(&slot) != is_busy(&self.peers[slot]) {
            self.busy.clear();
            let peers = self.peers.iter().enumerate();
            self.busy.extend(peers.filter(|(_, peer)| is_busy(peer)).map(|(slot, _)| slot));
        }
    }

    /// The slots that need attention, by index.
    pub fn busy(&self, place: usize) -> Option<usize> {
        self.busy.get(place).copied()
    }

    /// Checks the owner of a slot.
    pub fn look_at(&mut self, region: Region<'_>, slot: usize) {
        if slot == self.me {
            return;
        }
        let found = region.entry(slot);
        self.peers[slot].unsure = found.is_none();
        self.found(slot, found.unwrap_or_default());
        self.note_busy(slot);
    }

    fn found(&mut self, slot: usize, entry: Entry) {
        let peer = &mut self.peers[slot];
        if entry.generation == 0 || peer.latest.generation > 0 && !is_newer(entry.generation, peer.latest.generation) {
            return;
        }
        if peer.latest.generation > 0 {
            peer.older = false;
        }
        (peer.latest, peer.gone, peer.linked, peer.idle) = (entry, false, false, false);
    }

    /// A participant identified itself over a connection. Returns false if there is a later owner, or if the claim
    /// cannot be true: the connection is then useless.
    pub fn linked(&mut self, region: Region<'_>, slot: usize, entry: Entry) -> bool {
        if slot >= self.peers.len() || slot == self.me || entry.generation == 0 {
            return false;
        }
        self.look_at(region, slot);
        if self.peers[slot].unsure {
            // Its claim is all that is known.
            self.found(slot, entry);
            self.note_busy(slot);
        }
        let peer = &mut self.peers[slot];
        peer.linked |= peer.latest.generation == entry.generation;
        peer.latest.generation == entry.generation
    }

    /// The connection to that owner has ended. It may be gone, or just unable to accept it.
    pub fn unlinked(&mut self, slot: usize, generation: u32) {
        let peer = &mut self.peers[slot];
        if peer.latest.generation == generation {
            peer.linked = false;
        }
    }

    /// Slots whose owner may be gone unnoticed: for each, call [`Peers::look_at`], then query its lock, and call
    /// [`Peers::settle`].
    pub fn unsettled(&self) -> impl Iterator<Item = usize> {
        let is_unsettled = |peer: &Peer| peer.unsure || peer.is_there() && !peer.linked;
        self.busy.iter().copied().filter(move |slot| is_unsettled(&self.peers[*slot]))
    }

    /// Applies the state of a slot's lock: whether a process holds it.
    pub fn settle(&mut self, slot: usize, held: bool) {
        let peer = &mut self.peers[slot];
        if !held {
            (peer.gone, peer.linked, peer.unsure) = (true, false, false);
            self.note_busy(slot);
        }
    }

    /// Whether we must connect to the owner of a slot: it was there before us.
    pub fn is_ours_to_connect(&self, slot: usize) -> bool {
        let peer = &self.peers[slot];
        peer.older && !peer.linked && (peer.is_there() || peer.unsure)
    }

    /// All other participants present.
    pub fn others(&self) -> impl Iterator<Item = Participant> {
        let there = self.peers.iter().enumerate().filter(|(_, peer)| peer.is_there());
        there.map(|(slot, peer)| Participant { slot: slot as u32, generation: peer.latest.generation })
    }

    /// Whether that slot's owner is present, as far as we know.
    pub fn is_there(&self, slot: usize) -> bool {
        self.peers[slot].is_there()
    }

    /// Records lost here so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Slots whose rings were found damaged since the last call.
    pub fn take_damaged(&mut self) -> Vec<(usize, Corrupt)> {
        std::mem::take(&mut self.damaged)
    }

    /// Participants whose lists could not be read.
    pub fn failed_lists(&self) -> usize {
        self.peers.iter().filter(|peer| peer.said.list == List::Failed).count()
    }

    /// Schedules unreadable lists to be read again.
    pub fn retry_lists(&mut self) {
        self.peers.iter_mut().filter(|peer| peer.said.list == List::Failed).for_each(|peer| peer.said.list = List::Due);
    }

    /// Whether records may have arrived, so that [`Peers::drain`] is worth a call.
    #[inline]
    pub fn is_behind(&self, region: Region<'_>) -> bool {
        region.changes() != self.changes
            || self.busy.iter().any(|&slot| {
                let peer = &self.peers[slot];
                !peer.idle
                    && (peer.has_news() || peer.said.list == List::Due || peer.reader.is_behind(region.ring(slot)))
            })
    }

    /// Hands out records, at most one batch per participant. `list` reads a participant's list of channel members, or
    /// fails. Returns whether there are more.
    pub fn drain(
        &mut self,
        region: Region<'_>,
        mut list: impl FnMut(Participant) -> Option<Records>,
        mut each: impl FnMut(BusEvent<'_>),
    ) -> bool {
        self.look(region);
        let mut more = false;
        let mut place = 0;
        while let Some(slot) = self.busy(place) {
            if !self.peers[slot].idle {
                more |= self.drain_one(region, slot, &mut list, &mut each);
                self.note_busy(slot);
            }
            // A slot that is idle now was removed.
            place += usize::from(self.busy(place) == Some(slot));
        }
        more
    }

    fn drain_one(
        &mut self,
        region: Region<'_>,
        slot: usize,
        list: &mut impl FnMut(Participant) -> Option<Records>,
        each: &mut impl FnMut(BusEvent<'_>),
    ) -> bool {
        let Peer { reader, said, latest, gone, damage, .. } = &mut self.peers[slot];
        let (ring, mut all_lost) = (region.ring(slot), 0);
        let read = reader.read(ring, |number, mut lost, record| {
            all_lost += lost;
            let record = envelope::read(record).filter(|(from, _)| said.can_go_on_with(*from, *latest, region));
            let Some((from, record)) = record else {
                // Damaged: a record was published, but its publisher is unknown.
                all_lost += 1;
                return said.lost(lost + 1, each);
            };
            if !said.is_there(from) {
                // Of the lost records, the new owner's begin with its first record.
                let before = u64::from(latest.start.1.wrapping_sub(number.wrapping_sub(lost as u32)));
                if said.present && from == latest.generation && (1..=lost).contains(&before) {
                    said.lost(before, each);
                    lost -= before;
                }
                said.joined(from, each);
            }
            said.lost(lost, each);
            each(BusEvent::Record { from: said.who(), record });
        });
        let more = match read {
            Ok(progress) => {
                damage.take_if(|_| progress.records > 0);
                progress.more
            }
            Err(why) => {
                if damage.replace(why).is_none() {
                    self.damaged.push((slot, why));
                }
                reader.is_behind(ring)
            }
        };
        if is_newer(said.generation, latest.generation) {
            // Its records revealed it before its entry, which is damaged.
            (*latest, *gone) = (Entry { generation: said.generation, start: (0, 0) }, false);
        }
        if !more {
            // All records of former owners are read, and the owner's too if it is gone.
            if *gone || !said.is_there(latest.generation) {
                said.left(each);
            }
            if !*gone && !said.present && latest.generation > 0 {
                said.joined(latest.generation, each);
            }
        }
        let peer = &mut self.peers[slot];
        peer.idle = !more && peer.gone;
        if all_lost > 0 {
            self.lost += all_lost;
            region.slot(self.me).lost().store(self.lost, Relaxed);
        }
        region.cursor(self.me, slot).store(peer.reader.position(), Relaxed);
        // Read after the records, so that it includes their changes.
        if peer.said.list == List::Due {
            let from = peer.said.who();
            let found = list(from);
            peer.said.list = if found.is_some() { List::Known } else { List::Failed };
            if let Some(list) = found {
                each(BusEvent::Present { from, list: &list });
            }
        }
        more
    }
}

impl Peer {
    fn is_there(&self) -> bool {
        self.latest.generation > 0 && !self.gone
    }

    /// Whether an arrival or departure must be reported.
    fn has_news(&self) -> bool {
        self.gone || self.is_there() && !self.said.is_there(self.latest.generation)
    }
}

impl Said {
    fn who(&self) -> Participant {
        Participant { slot: self.slot, generation: self.generation }
    }

    fn is_there(&self, generation: u32) -> bool {
        self.present && self.generation == generation
    }

    /// Whether the next record can be of that owner: the present one, or a later one up to the latest.
    fn can_go_on_with(&self, generation: u32, latest: Entry, region: Region<'_>) -> bool {
        if self.is_there(generation) {
            return true;
        }
        let is_later = generation > 0 && (self.generation == 0 || is_newer(generation, self.generation));
        let is_known = |latest: Entry| !is_newer(generation, latest.generation);
        // One may have joined since the entries were checked. If the entry is damaged, the record is still valid.
        is_later && (is_known(latest) || region.entry(self.slot as usize).is_none_or(is_known))
    }

    fn joined(&mut self, generation: u32, each: &mut impl FnMut(BusEvent<'_>)) {
        self.left(each);
        (self.generation, self.present, self.list) = (generation, true, List::Due);
        each(BusEvent::Joined(self.who()));
        let lost = std::mem::take(&mut self.lost);
        self.lost(lost, each);
    }

    fn left(&mut self, each: &mut impl FnMut(BusEvent<'_>)) {
        if std::mem::replace(&mut self.present, false) {
            self.list = List::Known;
            each(BusEvent::Left(self.who()));
        }
    }

    fn lost(&mut self, lost: u64, each: &mut impl FnMut(BusEvent<'_>)) {
        if lost > 0 && self.present {
            self.list = List::Due;
            each(BusEvent::Gap { from: self.who(), lost });
        } else {
            self.lost += lost;
        }
    }
}
