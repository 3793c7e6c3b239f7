//! A process on a simulated bus: what `src/os/bus/mod.rs` does around the same core, one step at a time.

use super::heard::Heard;
use super::{Outside, Shown};
use crate::simulation::random::Random;
use percore::internal::bus::envelope;
use percore::internal::bus::parking::{self, Asleep, Parking};
use percore::internal::bus::peers::Peers;
use percore::internal::bus::region::{Entry, is_newer, next_generation};
use percore::internal::bus::ring::Writer;
use percore::internal::channel::record::Records;
use percore::{Participant, Presence, Record, RecordKind};

/// How long a participant waits at most before it looks again at those to whom it has no link.
const LOOK_AGAIN: u64 = 50;

/// How far a process has come. Between any two it can be stopped or killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Claiming,
    Announcing,
    Listing,
    Listening,
    Looking,
    Running,
    /// It has shown records, and wakes sleepers from this slot on; or has rung for one, and is to say so.
    Waking(usize, Option<Asleep>),
    Ended,
}

pub struct Process {
    pub id: usize,
    pub me: Participant,
    pub stage: Stage,
    pub stopped: bool,
    /// It has no descriptors left.
    pub starved: bool,
    pub timer: Option<u64>,
    pub heard: Heard,
    start: (u64, u32),
    writer: Option<Writer>,
    parking: Option<Parking>,
    peers: Option<Peers>,
    presence: Presence,
    /// Pushed, and not shown.
    pushed: Vec<Shown>,
    said: u64,
    asleep: bool,
    /// Connections by slot: made, and taken with whose they are.
    made: Vec<(usize, u64, u32)>,
    taken: Vec<(usize, u64, u32)>,
}

impl Process {
    pub fn new(id: usize, outside: &Outside) -> Process {
        let me = Participant { slot: u32::MAX, generation: 0 };
        Process {
            id,
            me,
            stage: Stage::Claiming,
            stopped: false,
            starved: false,
            timer: None,
            heard: Heard::new(me, &outside.shown, outside.is_damaged),
            start: (0, 0),
            writer: None,
            parking: None,
            peers: None,
            presence: Presence::default(),
            pushed: Vec::new(),
            said: 0,
            asleep: false,
            made: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn slot(&self) -> usize {
        self.me.slot as usize
    }

    pub fn others(&self) -> Vec<Participant> {
        self.peers.iter().flat_map(Peers::others).collect()
    }

    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    pub fn check_settled(&self) {
        let peers = self.peers.as_ref().expect("it joined");
        assert_eq!(peers.unsettled().count(), 0, "{} has nothing to look after", self.me);
    }

    pub fn check_lost(&self) {
        let lost = self.peers.as_ref().map(Peers::lost);
        assert_eq!(lost, Some(self.heard.lost), "{} counts what it tells", self.me);
    }

    /// Killed, at whatever it does.
    pub fn end(&mut self, _outside: &mut Outside) {
        self.stage = Stage::Ended;
        self.peers = None;
    }

    /// Leaves by itself: it takes its files along.
    pub fn leave(&mut self, outside: &mut Outside) {
        outside.sockets[self.slot()] = None;
        outside.lists[self.slot()] = None;
        self.end(outside);
    }

    /// Whether it does not sleep, or is woken.
    pub fn is_runnable(&self, outside: &Outside) -> bool {
        !self.asleep
            || self.stage != Stage::Running
            || outside.rung[self.id]
            || self.timer.is_some_and(|timer| timer <= outside.now)
            || !self.starved && outside.backlogs.get(&self.id).is_some_and(|backlog| !backlog.is_empty())
            || self.made.iter().chain(&self.taken).any(|(_, id, _)| has_news(outside, *id, self.id))
    }

    /// Does the next thing.
    pub fn run(&mut self, random: &mut Random, outside: &mut Outside) {
        match self.stage {
            Stage::Claiming => self.claim(outside),
            Stage::Announcing => self.announce(outside),
            Stage::Listing => {
                outside.lists[self.slot()] = Some((self.me.generation, Records::new()));
                self.stage = Stage::Listening;
            }
            Stage::Listening => {
                outside.sockets[self.slot()] = Some(self.id);
                outside.backlogs.insert(self.id, Vec::new());
                self.stage = Stage::Looking;
            }
            Stage::Looking => {
                self.peers.as_mut().expect("announced").look(outside.region());
                self.settle(true, outside);
                self.peers.as_mut().expect("announced").joined();
                self.stage = Stage::Running;
            }
            Stage::Running if self.is_runnable(outside) => self.pass(random, outside),
            Stage::Waking(slot, found) => self.wake(slot, found, outside),
            Stage::Running | Stage::Ended => {}
        }
    }

    fn claim(&mut self, outside: &mut Outside) {
        let slots = outside.geometry.slots;
        let is_sound = |slot: usize| {
            let region = outside.region();
            region.entry(slot).is_some() && Writer::resume(region.ring(slot)).is_ok()
        };
        match (0..slots).find(|slot| outside.locks[*slot].is_none() && is_sound(*slot)) {
            Some(slot) => {
                outside.locks[slot] = Some(self.id);
                self.me.slot = slot as u32;
                self.stage = Stage::Announcing;
            }
            None => self.stage = Stage::Ended,
        }
    }

    fn announce(&mut self, outside: &mut Outside) {
        let (region, slot) = (outside.region(), self.slot());
        let (Ok(writer), Some(former)) = (Writer::resume(region.ring(slot)), region.entry(slot)) else {
            // Damaged just now: it gives the slot up.
            outside.locks[slot] = None;
            self.stage = Stage::Ended;
            return;
        };
        self.me.generation = next_generation(former.generation);
        self.start = writer.place();
        self.parking = Some(Parking::begin(region.slot(slot).parked()));
        self.peers = Some(Peers::new(region, slot));
        self.heard = Heard::new(self.me, &outside.shown, outside.is_damaged);
        region.announce(slot, Entry { generation: self.me.generation, start: self.start });
        outside.hellos.insert(self.id, (slot, Entry { generation: self.me.generation, start: self.start }));
        self.writer = Some(writer);
        self.stage = Stage::Listing;
    }

    /// One pass of a loop: what came over connections, what was published, and to sleep if that was all.
    fn pass(&mut self, random: &mut Random, outside: &mut Outside) {
        self.asleep = false;
        self.look(random, outside);
        let rounds = random.size(0, 3);
        for _ in 0..rounds {
            if !self.drain(outside) {
                break;
            }
        }
        let (parking, peers) = (self.parking.as_mut().expect("joined"), self.peers.as_ref().expect("joined"));
        let region = outside.region();
        let flag = region.slot(self.me.slot as usize).parked();
        parking.park(flag);
        if peers.is_behind(region) {
            parking.unpark(flag);
        } else {
            self.asleep = true;
        }
    }

    fn look(&mut self, random: &mut Random, outside: &mut Outside) {
        outside.rung[self.id] = false;
        let is_due = self.timer.is_some_and(|timer| timer <= outside.now);
        self.timer.take_if(|_| is_due);
        let region = outside.region();
        self.parking.as_ref().expect("joined").unpark(region.slot(self.slot()).parked());
        // Events come in any order, and not all at once.
        let mut events: Vec<u64> = self.made.iter().chain(&self.taken).map(|(_, id, _)| *id).collect();
        for index in (1..events.len()).rev() {
            events.swap(index, random.size(0, index));
        }
        let late = random.size(0, events.len());
        if random.one_in(2) {
            self.accept(outside);
        }
        for id in &events[..late] {
            self.read(*id, outside);
        }
        self.accept(outside);
        events[late..].iter().for_each(|id| self.read(*id, outside));
        let peers = self.peers.as_mut().expect("joined");
        peers.look(outside.region());
        self.mend(outside);
        if is_due {
            self.peers.as_mut().expect("joined").retry_lists();
        }
        self.settle(is_due, outside);
    }

    fn mend(&self, outside: &Outside) {
        let entry = Entry { generation: self.me.generation, start: self.start };
        if outside.region().entry(self.slot()) != Some(entry) {
            outside.region().announce(self.slot(), entry);
        }
    }

    fn accept(&mut self, outside: &mut Outside) {
        if self.starved {
            self.look_after(LOOK_AGAIN, outside.now);
            return;
        }
        let Some(waiting) = outside.backlogs.get_mut(&self.id).map(std::mem::take) else { return };
        for id in waiting {
            let Some(connection) = outside.connections.get(&id).cloned() else { continue };
            // What the maker said when it connected.
            let Some(hello) = outside_hello(outside, connection.maker) else { continue };
            let peers = self.peers.as_mut().expect("joined");
            let is_known = peers.linked(outside.region(), hello.0, hello.1);
            let Some(connection) = outside.connections.get_mut(&id) else { continue };
            connection.accepted = true;
            if is_known {
                connection.answered = true;
                self.taken.retain(|(slot, ..)| *slot != hello.0);
                self.taken.push((hello.0, id, hello.1.generation));
                self.read(id, outside);
            } else {
                connection.open[1] = false;
            }
        }
    }

    /// What came over a connection: the answer of its other side, or its end.
    fn read(&mut self, id: u64, outside: &mut Outside) {
        let peers = self.peers.as_mut().expect("joined");
        let is_made = self.made.iter().any(|(_, made, _)| *made == id);
        let links = if is_made { &mut self.made } else { &mut self.taken };
        let Some(place) = links.iter().position(|(_, link, _)| *link == id) else { return };
        let (slot, _, generation) = links[place];
        let mut generation = generation;
        let other_side = usize::from(is_made);
        let ended = match outside.connections.get_mut(&id) {
            Some(connection) => {
                let taker = connection.taker;
                if is_made
                    && connection.answered
                    && !std::mem::replace(&mut connection.answer_read, true)
                    && let Some((theirs, entry)) = outside_hello(outside, taker)
                    && theirs == slot
                    && peers.linked(outside.region(), slot, entry)
                {
                    generation = entry.generation;
                    links[place].2 = generation;
                }
                !outside.connections[&id].open[other_side]
            }
            None => true,
        };
        if ended {
            links.remove(place);
            if let Some(connection) = outside.connections.get_mut(&id) {
                connection.open = [false; 2];
            }
            let is_left =
                self.made.iter().chain(&self.taken).any(|(of, _, theirs)| *of == slot && *theirs == generation);
            if !is_left {
                self.peers.as_mut().expect("joined").unlinked(slot, generation);
            }
        }
    }

    fn settle(&mut self, is_due: bool, outside: &mut Outside) {
        let peers = self.peers.as_mut().expect("joined");
        let unsettled: Vec<usize> = peers.unsettled().collect();
        for slot in unsettled {
            let peers = self.peers.as_mut().expect("joined");
            peers.look_at(outside.region(), slot);
            let held = outside.locks[slot].is_some();
            peers.settle(slot, held);
            if is_due
                && held
                && peers.is_ours_to_connect(slot)
                && !self.made.iter().any(|(of, ..)| *of == slot)
                && !self.starved
                && let Some(id) = outside.connect(self.id, slot)
            {
                self.made.push((slot, id, 0));
            }
        }
        if self.peers.as_ref().is_some_and(|peers| peers.unsettled().next().is_some()) {
            self.look_after(LOOK_AGAIN, outside.now);
        }
    }

    fn look_after(&mut self, time: u64, now: u64) {
        self.timer = Some(self.timer.map_or(now + time, |timer| timer.min(now + time)));
    }

    fn drain(&mut self, outside: &mut Outside) -> bool {
        let overwritten: Vec<u64> = (0..outside.geometry.slots)
            .map(|slot| {
                let ring = outside.region().ring(slot);
                let reserved = ring.reserved.load(percore::internal::bus::atomic::Ordering::Relaxed);
                reserved.saturating_sub(ring.words.len() as u64)
            })
            .collect();
        let (peers, heard, starved) = (self.peers.as_mut().expect("joined"), &mut self.heard, self.starved);
        let mut failed = false;
        let list = |of: Participant| {
            let list = match &outside.lists[of.slot as usize] {
                _ if starved => None,
                None => Some(Records::new()),
                Some((generation, list)) if *generation == of.generation => Some(list.clone()),
                Some((generation, _)) => is_newer(*generation, of.generation).then(Records::new),
            };
            failed |= list.is_none();
            list
        };
        let more = peers.drain(outside.region(), list, |event| heard.event(event, &outside.shown, &overwritten));
        if failed {
            self.look_after(LOOK_AGAIN, outside.now);
        }
        more
    }

    /// Publishes some records, and begins to wake whoever sleeps; now and then it shows nothing, and is perhaps killed before it does.
    pub fn publish(&mut self, random: &mut Random, outside: &mut Outside) {
        if self.stage != Stage::Running {
            return self.run(random, outside);
        }
        // Whatever it was that woke it.
        self.asleep = false;
        let count = if random.one_in(8) { random.size(1, 120) } else { random.size(1, 3) };
        for _ in 0..count {
            self.push(random, outside);
        }
        if !random.one_in(10) {
            self.show(outside);
        }
    }

    pub fn has_pushed(&self) -> bool {
        self.stage != Stage::Ended && !self.pushed.is_empty()
    }

    pub fn has_unshown(&self) -> bool {
        self.stage == Stage::Running && self.has_pushed()
    }

    pub fn show(&mut self, outside: &mut Outside) {
        self.write_list(outside);
        self.writer.as_mut().expect("joined").publish(outside.region().ring(self.me.slot as usize));
        self.note_shown(outside);
        parking::published();
        self.stage = Stage::Waking(0, None);
    }

    fn push(&mut self, random: &mut Random, outside: &mut Outside) {
        self.said += 1;
        let mut payload = format!("{} {}", self.id, self.said).into_bytes();
        let kind = if random.one_in(4) { RecordKind::Enter } else { RecordKind::Text };
        if kind == RecordKind::Text {
            payload.resize(payload.len() + random.size(0, 60), b'.');
        } else if random.one_in(2) {
            let old = self.presence.members(b"c").next().map(str::to_owned);
            if let Some(old) = old {
                self.push_one(RecordKind::Leave, old.as_bytes(), outside);
            }
        }
        self.push_one(kind, &payload, outside);
    }

    fn push_one(&mut self, kind: RecordKind, payload: &[u8], outside: &mut Outside) {
        let slot = self.me.slot as usize;
        let head = envelope::head(self.me.generation, kind, b"c");
        let bytes = head.len() + 1 + payload.len();
        if self.writer.as_ref().expect("joined").is_full(outside.region().ring(slot), bytes) {
            self.write_list(outside);
            // For want of room what was pushed before is shown.
            self.note_shown(outside);
        }
        let writer = self.writer.as_mut().expect("joined");
        let position = writer.place().0;
        writer.push(outside.region().ring(slot), &[&head, b"c", payload]).expect("short");
        self.pushed.push(Shown { generation: self.me.generation, payload: payload.to_vec(), position });
        self.presence.apply(self.me, Record { kind, channel: b"c", payload }, |_| {});
    }

    fn write_list(&self, outside: &mut Outside) {
        outside.lists[self.slot()] = Some((self.me.generation, self.presence.list(self.me)));
    }

    fn note_shown(&mut self, outside: &mut Outside) {
        outside.shown[self.me.slot as usize].append(&mut self.pushed);
    }

    /// Wakes one sleeper, in two steps: it rings, and says that it has.
    fn wake(&mut self, slot: usize, found: Option<Asleep>, outside: &mut Outside) {
        if let Some(found) = found {
            parking::rung(outside.region().slot(slot).parked(), found);
            self.stage = Stage::Waking(slot + 1, None);
            return;
        }
        self.peers.as_mut().expect("joined").look(outside.region());
        for slot in slot..outside.geometry.slots {
            if self.peers.as_ref().is_some_and(|peers| peers.is_there(slot))
                && let Some(found) = parking::asleep(outside.region().slot(slot).parked())
            {
                self.ring(slot, outside);
                self.stage = Stage::Waking(slot, Some(found));
                return;
            }
        }
        self.stage = Stage::Running;
    }

    fn ring(&mut self, slot: usize, outside: &mut Outside) {
        let is_linked = |links: &[(usize, u64, u32)]| links.iter().any(|(of, ..)| *of == slot);
        if !is_linked(&self.made) && !is_linked(&self.taken) {
            self.accept(outside);
        }
        for (of, id, _) in self.made.iter().chain(&self.taken) {
            if *of == slot
                && let Some(connection) = outside.connections.get(id)
            {
                let other = if connection.maker == self.id { connection.taker } else { connection.maker };
                outside.rung[other] = true;
            }
        }
    }
}

/// Who a process is, as it says at the beginning of a connection.
fn outside_hello(outside: &Outside, process: usize) -> Option<(usize, Entry)> {
    outside.hellos.get(&process).copied()
}

/// Whether something came over a connection that this process has not read.
fn has_news(outside: &Outside, id: u64, process: usize) -> bool {
    outside.connections.get(&id).is_none_or(|connection| {
        let other = usize::from(connection.maker == process);
        !connection.open[other] || other == 1 && connection.answered && !connection.answer_read
    })
}
