//! The world of a simulated bus: the region, locks, sockets, lists and the clock, and what was really published.

mod heard;
mod process;

use crate::simulation::random::Random;
use percore::internal::bus::atomic::{AtomicU64, Ordering::Relaxed};
use percore::internal::bus::region::{Entry, Geometry, Region};
use percore::internal::channel::record::Records;
use process::{Process, Stage};
use std::collections::HashMap;

/// Connections that one takes that does not run.
const BACKLOG: usize = 2;

/// A record as it was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    pub generation: u32,
    pub payload: Vec<u8>,
    /// Where it begins in its ring.
    pub position: u64,
}

/// A connection. Each side is open until its process closes it or ends.
#[derive(Clone, Debug)]
pub struct Connection {
    pub maker: usize,
    pub taker: usize,
    pub open: [bool; 2],
    pub accepted: bool,
    /// The taker's answer is on its way.
    pub answered: bool,
    pub answer_read: bool,
}

/// What lies outside of the processes.
pub struct Outside {
    pub words: Vec<AtomicU64>,
    pub geometry: Geometry,
    /// By slot: who holds its lock, who bound its socket last, and its list with the generation of who wrote it.
    pub locks: Vec<Option<usize>>,
    pub sockets: Vec<Option<usize>>,
    pub lists: Vec<Option<(u32, Records)>>,
    /// By slot: all that was ever shown.
    pub shown: Vec<Vec<Shown>>,
    pub connections: HashMap<u64, Connection>,
    /// By process: who it is, as it says at the beginning of a connection.
    pub hellos: HashMap<usize, (usize, Entry)>,
    /// By process: connections that it has not accepted.
    pub backlogs: HashMap<usize, Vec<u64>>,
    pub rung: Vec<bool>,
    pub now: u64,
    pub is_damaged: bool,
    next: u64,
}

impl Outside {
    pub fn region(&self) -> Region<'_> {
        Region::new(&self.words, self.geometry)
    }

    /// Connects to the owner of a slot, if it listens and takes more.
    pub fn connect(&mut self, maker: usize, slot: usize) -> Option<u64> {
        let taker = self.sockets[slot].filter(|taker| self.backlogs.contains_key(taker))?;
        let backlog = self.backlogs.get_mut(&taker)?;
        if backlog.len() >= BACKLOG {
            return None;
        }
        self.next += 1;
        backlog.push(self.next);
        let connection =
            Connection { maker, taker, open: [true; 2], accepted: false, answered: false, answer_read: false };
        self.connections.insert(self.next, connection);
        Some(self.next)
    }

    /// A process is gone, and all that the kernel kept for it.
    fn close_all(&mut self, process: usize) {
        self.backlogs.remove(&process);
        for connection in self.connections.values_mut() {
            for (side, owner) in [connection.maker, connection.taker].into_iter().enumerate() {
                connection.open[side] &= owner != process;
            }
        }
        self.connections.retain(|_, connection| connection.open != [false; 2]);
        for lock in &mut self.locks {
            lock.take_if(|owner| *owner == process);
        }
    }
}

pub struct World {
    random: Random,
    outside: Outside,
    processes: Vec<Process>,
    pub heard: u64,
    pub lost: u64,
    pub joins: u64,
    /// The slot whose words were damaged last, and how many records it had shown then.
    damaged: Option<(usize, usize)>,
}

impl World {
    pub fn new(mut random: Random, is_damaged: bool) -> World {
        let geometry = Geometry::new(random.size(2, 5), 4096).expect("within bounds");
        let words: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
        geometry.write(&words);
        let slots = geometry.slots;
        let outside = Outside {
            words,
            geometry,
            locks: vec![None; slots],
            sockets: vec![None; slots],
            lists: vec![None; slots],
            shown: vec![Vec::new(); slots],
            connections: HashMap::new(),
            hellos: HashMap::new(),
            backlogs: HashMap::new(),
            rung: Vec::new(),
            now: 0,
            is_damaged,
            next: 0,
        };
        World { random, outside, processes: Vec::new(), heard: 0, lost: 0, joins: 0, damaged: None }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.outside.now += self.random.between(0, 2);
        let there: Vec<usize> =
            (0..self.processes.len()).filter(|index| self.processes[*index].stage != Stage::Ended).collect();
        if there.is_empty() || there.len() < self.outside.geometry.slots + 1 && self.random.one_in(8) {
            self.outside.rung.push(false);
            self.processes.push(Process::new(self.processes.len(), &self.outside));
            self.joins += 1;
            return;
        }
        let index = *self.random.pick(&there);
        let World { random, outside, processes, .. } = self;
        let unshown: Vec<usize> =
            processes.iter().filter(|process| process.has_pushed()).map(|process| process.me.slot as usize).collect();
        let process = &mut processes[index];
        match random.between(0, 99) {
            // Stopped and continued by a signal, or for want of a processor.
            0..=2 => process.stopped = !process.stopped,
            3 => process.starved = !process.starved,
            4 => {
                process.end(outside);
                outside.close_all(index);
            }
            5 if process.stage == Stage::Running && !process.stopped => {
                process.leave(outside);
                outside.close_all(index);
            }
            // One at a time: the next comes once its owner has made good the last.
            6 if outside.is_damaged
                && random.one_in(12)
                && self.damaged.is_none_or(|(slot, shown)| outside.shown[slot].len() > shown) =>
            {
                self.damaged = damage(random, outside, &unshown).or(self.damaged);
            }
            _ if process.stopped => {}
            7..=45 => process.publish(random, outside),
            _ => process.run(random, outside),
        }
        if process.stage == Stage::Ended {
            self.account(index);
        }
    }

    fn account(&mut self, index: usize) {
        let heard = &mut self.processes[index].heard;
        self.heard += std::mem::take(&mut heard.records);
        self.lost += std::mem::take(&mut heard.lost);
    }

    /// Everybody goes on, and nobody does anything but what it is woken for, until all sleep. Then all know all.
    pub fn end(&mut self) {
        for process in &mut self.processes {
            (process.stopped, process.starved) = (false, false);
        }
        if self.outside.is_damaged {
            // A live writer makes good what is damaged when it publishes; what it hit must be past.
            for _ in 0..40 {
                self.pass_all(true);
            }
        }
        let mut passes = 0;
        loop {
            let mut ran = self.pass_all(false);
            for process in self.processes.iter_mut().filter(|process| process.has_unshown()) {
                process.show(&mut self.outside);
                ran = true;
            }
            passes += 1;
            assert!(passes < 10_000, "somebody spins");
            if ran {
                continue;
            }
            // All sleep: time goes by.
            let Some(next) = self.live().filter_map(|process| process.timer).min() else { break };
            self.outside.now = self.outside.now.max(next);
        }
        let live: Vec<usize> = self.live().map(|process| process.id).collect();
        for &index in &live {
            self.check(index, &live);
            self.account(index);
        }
    }

    fn live(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.stage != Stage::Ended)
    }

    fn pass_all(&mut self, publishes: bool) -> bool {
        let mut ran = false;
        for index in 0..self.processes.len() {
            let World { random, outside, processes, .. } = self;
            let process = &mut processes[index];
            if process.stage == Stage::Ended || !publishes && !process.is_runnable(outside) {
                continue;
            }
            if publishes {
                process.publish(random, outside);
            }
            process.run(random, outside);
            ran = true;
        }
        ran
    }

    /// What a participant must know when all is quiet.
    fn check(&self, index: usize, live: &[usize]) {
        let (outside, process) = (&self.outside, &self.processes[index]);
        let others: Vec<&Process> =
            live.iter().filter(|other| **other != index).map(|other| &self.processes[*other]).collect();
        let mut want: Vec<_> = others.iter().map(|other| other.me).collect();
        want.sort_by_key(|who| who.slot);
        assert_eq!(process.others(), want, "{} knows who is there", process.me);
        for other in others {
            assert!(process.heard.is_there(other.me), "{} was told of {}", process.me, other.me);
            let [theirs, known] = [other.presence(), process.heard.presence()].map(|presence| {
                let mut members: Vec<&str> =
                    presence.channels().flat_map(|channel| presence.members(channel)).collect();
                members.retain(|member| member.starts_with(&format!("{} ", other.id)));
                members
            });
            assert_eq!(known, theirs, "{} knows whom {} has", process.me, other.me);
        }
        process.check_settled();
        if !outside.is_damaged {
            process.check_lost();
        }
        for (slot, shown) in outside.shown.iter().enumerate() {
            if slot != process.me.slot as usize {
                process.heard.check_end(
                    slot,
                    shown,
                    outside.is_damaged && !live.iter().any(|id| self.processes[*id].me.slot as usize == slot),
                );
            }
        }
    }
}

/// Writes 8 bytes where they hurt; says in which slot, and how many records it has shown.
fn damage(random: &mut Random, outside: &Outside, unshown: &[usize]) -> Option<(usize, usize)> {
    let slot = random.size(0, outside.geometry.slots - 1);
    let region = outside.region();
    let ring = region.ring(slot);
    let (head, words) = (ring.head.load(Relaxed), ring.words.len() as u64);
    let own = region.slot(slot);
    let near = &ring.words[(head.wrapping_sub(random.between(0, 60)) & (words - 1)) as usize];
    let word = *random.pick(&[
        ring.head,
        ring.checkpoint,
        ring.reserved,
        ring.place,
        own.generation(),
        own.parked(),
        near,
        near,
    ]);
    let was = word.load(Relaxed);
    let (small, any) = (random.between(1, 600), random.next());
    let values = [0, 1, u64::MAX, was.wrapping_add(small), was.wrapping_sub(small), 1 << 40, any, was ^ 1 << 35];
    let value = *random.pick(&values);
    // With a head that is a little too far, what was pushed and not shown is heard, and what the killed left so.
    if std::ptr::eq(word, ring.head) && (unshown.contains(&slot) || (was..was + words).contains(&value)) {
        return None;
    }
    word.store(value, Relaxed);
    Some((slot, outside.shown[slot].len()))
}
