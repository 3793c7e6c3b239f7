//! The ring and the parking under loom: every order of events, up to a bound of preemptions, that the memory model allows.
//! The sources are compiled here once more, with loom's atomics in the place of the processor's.

#![allow(dead_code)]

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}
#[path = "../src/bus/parking.rs"]
mod parking;
#[path = "../src/bus/ring.rs"]
mod ring;

use atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;
use parking::Parking;
use ring::{Reader, Ring, Writer};

/// Records of 8 bytes take two words, so four of them fill the ring.
const WORDS: usize = 8;

struct Memory {
    head: AtomicU64,
    reserved: AtomicU64,
    checkpoint: AtomicU64,
    place: AtomicU64,
    words: Vec<AtomicU64>,
    parked: AtomicU64,
    rung: AtomicU64,
}

impl Memory {
    fn new() -> Memory {
        let zero = || AtomicU64::new(0);
        let words = (0..WORDS).map(|_| zero()).collect();
        Memory {
            head: zero(),
            reserved: zero(),
            checkpoint: zero(),
            place: zero(),
            words,
            parked: zero(),
            rung: zero(),
        }
    }

    fn ring(&self) -> Ring<'_> {
        Ring {
            head: &self.head,
            reserved: &self.reserved,
            checkpoint: &self.checkpoint,
            place: &self.place,
            words: &self.words,
        }
    }
}

/// Each record holds its own number, twice, so that one that is put together from two shows.
fn payload(number: u32) -> [u8; 8] {
    (u64::from(number) << 32 | u64::from(number)).to_le_bytes()
}

fn push(writer: &mut Writer, ring: Ring<'_>, number: u32) {
    writer.push(ring, &[&payload(number)]).expect("short enough");
}

/// What a reader has seen: the number it expects next.
struct Seen(u32);

impl Seen {
    fn read(&mut self, reader: &mut Reader, ring: Ring<'_>) -> bool {
        let progress = reader.read(ring, |_, lost, record| {
            let number = u32::from_le_bytes(record[..4].try_into().expect("8 bytes"));
            assert_eq!(record, payload(number), "a record that nobody wrote");
            assert!(number >= self.0, "backwards");
            assert_eq!(u64::from(number - self.0), lost, "losses add up");
            self.0 = number + 1;
        });
        progress.expect("nothing is corrupt").more
    }
}

fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// A writer can be killed between any two stores, and its successor goes on from the checkpoint up to the head.
#[test]
fn a_checkpoint_is_never_beyond_the_head() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let looked_at = Arc::clone(&memory);
        let successor = thread::spawn(move || {
            for _ in 0..2 {
                let checkpoint = looked_at.checkpoint.load(Ordering::Acquire);
                assert!(checkpoint <= looked_at.head.load(Ordering::Acquire), "it would be taken for damage");
            }
        });
        let mut writer = Writer::resume(memory.ring()).expect("new");
        for number in [0, 2] {
            push(&mut writer, memory.ring(), number);
            push(&mut writer, memory.ring(), number + 1);
            writer.publish(memory.ring());
        }
        successor.join().expect("it looked");
    });
}

/// The writer laps a reader that has not begun to read.
#[test]
fn a_lapped_reader_never_sees_half_a_record() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let mut writer = Writer::resume(memory.ring()).expect("new");
        for number in 0..3 {
            push(&mut writer, memory.ring(), number);
            writer.publish(memory.ring());
        }
        let theirs = Arc::clone(&memory);
        let reading = thread::spawn(move || {
            let (mut reader, mut seen) = (Reader::at(0, 0), Seen(0));
            seen.read(&mut reader, theirs.ring());
            (reader, seen)
        });
        for number in 3..6 {
            push(&mut writer, memory.ring(), number);
            writer.publish(memory.ring());
        }
        let (mut reader, mut seen) = reading.join().expect("no panic");
        while seen.read(&mut reader, memory.ring()) {}
        assert_eq!(seen.0, 6, "everything that can be read was read");
    });
}

/// Records become visible when they are published, whole, and not before.
#[test]
fn what_is_published_together_is_seen_in_order() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let theirs = Arc::clone(&memory);
        let writing = thread::spawn(move || {
            let mut writer = Writer::resume(theirs.ring()).expect("new");
            push(&mut writer, theirs.ring(), 0);
            push(&mut writer, theirs.ring(), 1);
            writer.publish(theirs.ring());
        });
        let (mut reader, mut seen) = (Reader::at(0, 0), Seen(0));
        // So small a ring is read one record at a time.
        let more = seen.read(&mut reader, memory.ring());
        assert_eq!((seen.0, more), (seen.0.min(1), seen.0 == 1), "both were published, or none");
        writing.join().expect("no panic");
        while seen.read(&mut reader, memory.ring()) {}
        assert_eq!(seen.0, 2);
    });
}

/// Publishes a record, and rings for the sleeper: counted in `rung`.
fn publish_and_ring(memory: &Memory, writer: &mut Writer, number: u32) {
    push(writer, memory.ring(), number);
    writer.publish(memory.ring());
    parking::published();
    ring_for(memory);
}

fn ring_for(memory: &Memory) {
    if let Some(found) = parking::asleep(&memory.parked) {
        memory.rung.fetch_add(1, Ordering::AcqRel);
        parking::rung(&memory.parked, found);
    }
}

/// Who goes to sleep has seen the record, or is woken for it.
#[test]
fn no_wake_up_is_missed() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let mut parking = Parking::begin(&memory.parked);
        let theirs = Arc::clone(&memory);
        let writing = thread::spawn(move || {
            publish_and_ring(&theirs, &mut Writer::resume(theirs.ring()).expect("new"), 0);
        });
        parking.park(&memory.parked);
        let sleeps = !Reader::at(0, 0).is_behind(memory.ring());
        if !sleeps {
            parking.unpark(&memory.parked);
        }
        writing.join().expect("no panic");
        assert!(!sleeps || memory.rung.load(Ordering::Relaxed) > 0, "asleep for ever");
    });
}

/// One that publishes elsewhere found us asleep and rings late, when we are awake, or asleep again: what it does to our word
/// after that does not keep the next publisher from ringing.
#[test]
fn a_late_publisher_does_not_silence_a_sleeper() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let mut parking = Parking::begin(&memory.parked);
        parking.park(&memory.parked);
        let late = Arc::clone(&memory);
        let late = thread::spawn(move || {
            ring_for(&late);
        });
        let theirs = Arc::clone(&memory);
        let writing = thread::spawn(move || {
            publish_and_ring(&theirs, &mut Writer::resume(theirs.ring()).expect("new"), 0);
        });
        // The late one has rung: we wake, find nothing, and sleep again.
        let before = memory.rung.load(Ordering::Acquire);
        parking.unpark(&memory.parked);
        parking.park(&memory.parked);
        let sleeps = !Reader::at(0, 0).is_behind(memory.ring());
        writing.join().expect("no panic");
        late.join().expect("no panic");
        assert!(!sleeps || memory.rung.load(Ordering::Relaxed) > before, "asleep for ever");
    });
}

/// One that is held up before it rings keeps nobody else from ringing.
#[test]
fn a_publisher_that_stops_silences_nobody() {
    model(3, || {
        let memory = Arc::new(Memory::new());
        let mut parking = Parking::begin(&memory.parked);
        parking.park(&memory.parked);
        let stopped = Arc::clone(&memory);
        let stopped = thread::spawn(move || {
            // And rings in an hour.
            parking::published();
            parking::asleep(&stopped.parked)
        });
        publish_and_ring(&memory, &mut Writer::resume(memory.ring()).expect("new"), 0);
        stopped.join().expect("no panic");
        assert_eq!(memory.rung.load(Ordering::Relaxed), 1);
    });
}
