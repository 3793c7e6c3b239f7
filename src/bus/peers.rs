//! Whom a participant hears, and what of it: the state of a place on a bus without its sockets, files and locks. What these
//! tell comes in by calls; what to look into comes out as [`Peers::unsettled`].
//!
//! Three things tell of a participant, and may do so in any order, late, or never:
//!
//! * the region: the entry of its slot says who owns it, and its ring what that one and its former owners published;
//! * a link, over which both can wake each other, and whose end hints that it is gone;
//! * the lock of its slot, which the kernel gives up with its owner: only this tells for certain who is gone.
//!
//! Invariants:
//!
//! * One reader for each slot, from our own joining on and for as long as we are here: whoever owns the slot, its records are
//!   handed out once and in order, or counted as lost.
//! * Owners of a slot only go forward: `told` never exceeds `latest`, and neither is ever replaced by an older one. What links and locks
//!   say is of a generation, and says nothing about a later one.
//! * A participant is told of as gone once all that it published has been read.

use super::envelope;
use super::event::BusEvent;
use super::region::{Entry, Region, is_newer};
use super::ring::{Corrupt, Reader};
use crate::channel::record::Records;
use crate::net::id::Participant;
use std::sync::atomic::Ordering::Relaxed;

/// How the list of a participant stands with us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum List {
    Known,
    Due,
    /// It could not be read, and is to be tried again.
    Failed,
}

/// What was said of a slot to whoever drains.
#[derive(Debug)]
struct Said {
    slot: u32,
    /// The owner that was told of last, and whether it has not left since.
    generation: u32,
    present: bool,
    list: List,
    /// Lost records that nobody was there to be told of with.
    lost: u64,
}

/// A slot, and whom we hear of in it.
#[derive(Debug)]
struct Peer {
    reader: Reader,
    said: Said,
    /// The owner as we know it from its entry.
    latest: Entry,
    /// Whether that one is gone: what it published is still read to its end.
    gone: bool,
    /// Whether there is a link to that one.
    linked: bool,
    /// Whether it was there before us, so that it is for us to connect.
    older: bool,
    /// The entry could not be read.
    unsure: bool,
    /// Nothing comes from here until the entry changes.
    idle: bool,
    /// Why its ring could not be read, until it can be again.
    damage: Option<Corrupt>,
}

/// Everyone else on a bus.
#[derive(Debug)]
pub struct Peers {
    me: usize,
    peers: Vec<Peer>,
    /// The slots that there is anything to do about: of a bus with many slots mostly few.
    busy: Vec<usize>,
    /// [`Region::changes`] when the entries were looked at last.
    changes: u64,
    lost: u64,
    /// Slots whose rings were found damaged, and why.
    damaged: Vec<(usize, Corrupt)>,
}

impl Peers {
    /// Begins to hear what is published in any slot but our own. To be called before others can know of us: what they
    /// publish once they do is for us too.
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
        // Different from what the region says now, so that all entries are looked at.
        Peers { me, peers, busy: Vec::new(), changes: region.changes().wrapping_sub(1), lost: 0, damaged: Vec::new() }
    }

    /// Whoever is found from now on joined after us, and connects to us.
    pub fn joined(&mut self) {
        self.peers
            .iter_mut()
            .filter(|peer| peer.latest.generation == 0 && !peer.unsure)
            .for_each(|peer| peer.older = false);
    }

    /// Looks who owns the slots, if that may have changed. Returns whether it had.
    pub fn look(&mut self, region: Region<'_>) -> bool {
        let changes = region.changes();
        if changes == self.changes {
            return false;
        }
        self.changes = changes;
        (0..self.peers.len()).for_each(|slot| self.look_at(region, slot));
        true
    }

    /// Notes the slots that are busy, if that of one may have changed.
    fn note_busy(&mut self, slot: usize) {
        let is_busy = |peer: &Peer| !peer.idle || peer.unsure;
        if self.busy.contains(&slot) != is_busy(&self.peers[slot]) {
            self.busy.clear();
            let peers = self.peers.iter().enumerate();
            self.busy.extend(peers.filter(|(_, peer)| is_busy(peer)).map(|(slot, _)| slot));
        }
    }

    /// The slots that there is anything to do about, by their place among these.
    pub fn busy(&self, place: usize) -> Option<usize> {
        self.busy.get(place).copied()
    }

    /// Looks who owns a slot.
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

    /// A participant said over a connection who it is. False if there is a later owner, or nobody can have said so: then the
    /// connection is of no use.
    pub fn linked(&mut self, region: Region<'_>, slot: usize, entry: Entry) -> bool {
        if slot >= self.peers.len() || slot == self.me || entry.generation == 0 {
            return false;
        }
        self.look_at(region, slot);
        if self.peers[slot].unsure {
            // What it says is all that there is.
            self.found(slot, entry);
            self.note_busy(slot);
        }
        let peer = &mut self.peers[slot];
        peer.linked |= peer.latest.generation == entry.generation;
        peer.latest.generation == entry.generation
    }

    /// The connection to that owner has ended. It may be gone, or may only not have been able to take it.
    pub fn unlinked(&mut self, slot: usize, generation: u32) {
        let peer = &mut self.peers[slot];
        if peer.latest.generation == generation {
            peer.linked = false;
        }
    }

    /// Slots whose owner may be gone without our knowing: each is to be looked at by [`Peers::look_at`], its lock asked for after
    /// that, and [`Peers::settle`] called.
    pub fn unsettled(&self) -> impl Iterator<Item = usize> {
        let is_unsettled = |peer: &Peer| peer.unsure || peer.is_there() && !peer.linked;
        self.busy.iter().copied().filter(move |slot| is_unsettled(&self.peers[*slot]))
    }

    /// Whether somebody holds the lock of a slot.
    pub fn settle(&mut self, slot: usize, held: bool) {
        let peer = &mut self.peers[slot];
        if !held {
            (peer.gone, peer.linked, peer.unsure) = (true, false, false);
            self.note_busy(slot);
        }
    }

    /// Whether it is for us to connect to the owner of a slot: it was there before we were.
    pub fn is_ours_to_connect(&self, slot: usize) -> bool {
        let peer = &self.peers[slot];
        peer.older && !peer.linked && (peer.is_there() || peer.unsure)
    }

    /// Everyone else who is there.
    pub fn others(&self) -> impl Iterator<Item = Participant> {
        let there = self.peers.iter().enumerate().filter(|(_, peer)| peer.is_there());
        there.map(|(slot, peer)| Participant { slot: slot as u32, generation: peer.latest.generation })
    }

    /// Whether that owner of a slot is there, as far as we know.
    pub fn is_there(&self, slot: usize) -> bool {
        self.peers[slot].is_there()
    }

    /// Records that were lost here so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Slots whose rings turned out to be damaged since this was called last.
    pub fn take_damaged(&mut self) -> Vec<(usize, Corrupt)> {
        std::mem::take(&mut self.damaged)
    }

    /// Participants whose lists could not be read.
    pub fn failed_lists(&self) -> usize {
        self.peers.iter().filter(|peer| peer.said.list == List::Failed).count()
    }

    /// Lists that could not be read are to be tried again.
    pub fn retry_lists(&mut self) {
        self.peers.iter_mut().filter(|peer| peer.said.list == List::Failed).for_each(|peer| peer.said.list = List::Due);
    }

    /// Whether something may have come: [`Peers::drain`] is worth a call.
    #[inline]
    pub fn is_behind(&self, region: Region<'_>) -> bool {
        region.changes() != self.changes
            || self.busy.iter().any(|&slot| {
                let peer = &self.peers[slot];
                !peer.idle
                    && (peer.has_news() || peer.said.list == List::Due || peer.reader.is_behind(region.ring(slot)))
            })
    }

    /// Hands out what came, of each participant a batch at most. `list` reads who is on the channels of a participant, or cannot. Says
    /// whether there is more.
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
            // One that is idle now was taken out.
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
                // Damaged: it was published, and nobody knows what it was.
                all_lost += 1;
                return said.lost(lost + 1, each);
            };
            if !said.is_there(from) {
                // Of what was lost, the new owner's part begins at its first record.
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
            // Its records told of it before its entry did, which is damaged.
            (*latest, *gone) = (Entry { generation: said.generation, start: (0, 0) }, false);
        }
        if !more {
            // All that former owners published is read, and if the owner is gone all of its own.
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
        // Read after the records: whatever these told is in it.
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

    /// Whether it is to be told that someone came or went.
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

    /// Whether the next record can be of that owner: of the one that is there, or of a later one up to the latest.
    fn can_go_on_with(&self, generation: u32, latest: Entry, region: Region<'_>) -> bool {
        if self.is_there(generation) {
            return true;
        }
        let is_later = generation > 0 && (self.generation == 0 || is_newer(generation, self.generation));
        let is_known = |latest: Entry| !is_newer(generation, latest.generation);
        // One may have joined since the entries were looked at. Where the entry is damaged, the record is not.
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
