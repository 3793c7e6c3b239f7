//! The files of a log in memory, and the keeper that writes them, which may be killed at any step.

use crate::simulation::random::Random;
use percore::internal::pubsub::history::ask::Ask;
use percore::internal::pubsub::history::entry::{self, Entry, Found};
use percore::internal::pubsub::history::keeper::{Keeper, Moment, RECENT, Verdict};
use percore::internal::pubsub::history::word::Word;
use std::collections::VecDeque;
use std::time::Duration;

/// The one host of the simulation.
pub const HOST: u64 = 7;

/// What outlives a keeper.
#[derive(Default)]
pub struct Disk {
    /// Where each file begins, and what is in it.
    files: VecDeque<(u64, Vec<u8>)>,
    log: u64,
    /// Up to where it was told.
    mark: u64,
    /// When each file but the last was full.
    closed: VecDeque<Duration>,
    /// Nothing can be added.
    pub is_full: bool,
}

impl Disk {
    fn end(&self) -> u64 {
        self.files.back().map_or(0, |(start, bytes)| start + bytes.len() as u64)
    }

    /// As `HistoryReader::read`.
    pub fn read(&self, from: Option<u64>, most: usize) -> Option<(u64, Vec<u8>)> {
        let from = from.or(self.files.front().map(|(start, _)| *start))?;
        let (start, bytes) = self.files.iter().rfind(|(start, _)| *start <= from)?;
        let at = (from - start).min(bytes.len() as u64) as usize;
        Some((from, bytes[at..(at + most).min(bytes.len())].to_vec()))
    }

    fn append(&mut self, payload: &[u8]) -> Option<u64> {
        let begin = self.end();
        let framed = entry::frame(self.log, begin, payload);
        let (_, bytes) = self.files.back_mut().filter(|_| !self.is_full)?;
        bytes.extend_from_slice(&framed);
        Some(begin)
    }

    /// Some of the last file is lost.
    pub fn cut(&mut self, random: &mut Random) {
        if let Some((_, bytes)) = self.files.back_mut() {
            let kept = random.size(0, bytes.len());
            bytes.truncate(kept);
        }
    }
}

/// A keeper that runs.
pub struct Running {
    keeper: Keeper,
    max_bytes: usize,
}

/// Whether it goes on.
#[derive(PartialEq, Eq)]
pub enum Fate {
    Lives,
    Killed,
}

impl Running {
    /// Starts one, and what it tells.
    pub fn start(disk: &mut Disk, now: Duration, max_bytes: usize, random: &mut Random) -> (Running, Vec<Vec<u8>>) {
        let mut keeper = Keeper::new(HOST);
        let mut end = disk.files.front().map_or(0, |(start, _)| *start);
        'files: for (start, bytes) in &mut disk.files {
            let mut at = 0;
            assert_eq!(*start, end, "files follow each other");
            loop {
                match entry::find(&bytes[at..], *start + at as u64) {
                    Found::Whole { payload, .. } => {
                        keeper.apply(payload, *start + at as u64, now);
                        at += entry::HEAD_BYTES + payload.len();
                    }
                    Found::Part(0) if at == bytes.len() => break,
                    _ => {
                        end = *start + at as u64;
                        bytes.truncate(at);
                        break 'files;
                    }
                }
            }
            end = *start + at as u64;
        }
        if disk.files.is_empty() || end < disk.mark {
            let log = random.next();
            (disk.log, disk.is_full, disk.closed) = (log, false, VecDeque::new());
            disk.files = [(disk.mark.max(end), Vec::new())].into();
            keeper.begin_log(log);
            disk.append(&keeper.head()).expect("there is room");
            for name in keeper.names() {
                let begin = disk.end();
                for payload in keeper.payloads_of(&name) {
                    disk.append(&payload).expect("there is room");
                }
                keeper.moved(&name, begin);
            }
        } else {
            keeper.follow(disk.log);
        }
        keeper.lead(max_bytes, now);
        let mut running = Running { keeper, max_bytes };
        let mut words = Vec::new();
        running.write_dropped(disk, now, &mut words);
        words.push(running.hello(disk));
        disk.mark = disk.end();
        (running, words)
    }

    /// Where the log ends.
    pub fn hello(&self, disk: &Disk) -> Vec<u8> {
        Word::Hello { log: disk.log, end: disk.end() }.bytes()
    }

    fn write(&mut self, disk: &mut Disk, payload: &[u8], now: Duration, words: &mut Vec<Vec<u8>>) -> bool {
        let Some(begin) = disk.append(payload) else { return false };
        self.keeper.apply(payload, begin, now);
        words.push(Word::Entry { log: disk.log, begin, payload }.bytes());
        true
    }

    fn write_dropped(&mut self, disk: &mut Disk, now: Duration, words: &mut Vec<Vec<u8>>) {
        while let Some(payload) = self.keeper.unwritten() {
            let Some(begin) = disk.append(payload) else { return };
            words.push(Word::Entry { log: disk.log, begin, payload }.bytes());
            self.keeper.wrote(begin, now);
        }
    }

    /// Does what was asked. What it tells comes out, unless it is killed first.
    pub fn answer(
        &mut self,
        disk: &mut Disk,
        asks: Vec<Vec<u8>>,
        now: Moment,
        deadly: bool,
        random: &mut Random,
    ) -> (Fate, Vec<Vec<u8>>) {
        let mut words = Vec::new();
        for ask in asks {
            if deadly && random.one_in(8) {
                return (Fate::Killed, Vec::new());
            }
            let ask = Ask::read(&ask).expect("workers ask in the right form");
            self.write_dropped(disk, now.kept, &mut words);
            match self.keeper.consider(&ask, now) {
                Verdict::Pass => {}
                Verdict::Greet => words.push(self.hello(disk)),
                Verdict::Refuse(by) => words.push(Word::Refused(by).bytes()),
                Verdict::Known(by, position) => words.push(Word::Known(by, position).bytes()),
                Verdict::Write(payload, by) => {
                    if deadly && random.one_in(6) {
                        // In the middle of it.
                        let part = random.size(0, payload.len());
                        let framed = entry::frame(disk.log, disk.end(), &payload);
                        disk.files.back_mut().expect("a file").1.extend_from_slice(&framed[..part]);
                        return (Fate::Killed, Vec::new());
                    }
                    if self.keeper.unwritten().is_some() || !self.write(disk, &payload, now.kept, &mut words) {
                        self.keeper.refused(by, now.kept);
                        words.push(Word::Refused(by).bytes());
                    }
                }
            }
        }
        if deadly {
            return (Fate::Killed, Vec::new());
        }
        self.keeper.expire(now.kept);
        self.write_dropped(disk, now.kept, &mut words);
        disk.mark = disk.end();
        (Fate::Lives, words)
    }

    /// Begins another file, and does without the first.
    pub fn compact(&mut self, disk: &mut Disk, now: Duration) -> Vec<Vec<u8>> {
        if disk.is_full {
            return Vec::new();
        }
        let begin = disk.end();
        let head = entry::frame(disk.log, begin, &self.keeper.head());
        disk.files.push_back((begin, head));
        disk.closed.push_back(now);
        let (start, bytes) = &disk.files[0];
        let first_end = start + bytes.len() as u64;
        if disk.closed[0] + RECENT > now {
            disk.mark = disk.end();
            return vec![Word::Skip { log: disk.log, begin, end: disk.end() }.bytes()];
        }
        while let Some((name, payloads)) = self.keeper.stream_before(first_end) {
            let begin = disk.end();
            for payload in payloads {
                disk.append(&payload).expect("there is room");
            }
            self.keeper.moved(&name, begin);
        }
        disk.files.pop_front();
        disk.closed.pop_front();
        disk.mark = disk.end();
        assert!(self.keeper.ledger().streams.held().1 <= self.max_bytes.max(1000));
        vec![Word::Skip { log: disk.log, begin, end: disk.end() }.bytes()]
    }

    /// The position of a channel.
    pub fn position(&self, channel: &str) -> (String, u64) {
        let position = self.keeper.ledger().position(channel);
        (position.epoch.as_str().to_owned(), position.offset)
    }
}

/// Entries of a log have a head first.
pub fn begins_with_head(disk: &Disk) -> bool {
    disk.files.iter().all(|(start, bytes)| match entry::find(bytes, *start) {
        Found::Whole { payload, .. } => matches!(Entry::read(payload), Some(Entry::Head { .. })),
        _ => false,
    })
}
