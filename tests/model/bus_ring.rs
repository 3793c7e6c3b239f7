//! Rings with random writers and readers, and with corrupt memory.

use percore::internal::bus::atomic::{AtomicU64, Ordering};
use percore::internal::bus::ring::{Progress, Reader, Ring, TooLong, Writer};
use proptest::prelude::*;

struct Memory {
    head: AtomicU64,
    reserved: AtomicU64,
    checkpoint: AtomicU64,
    place: AtomicU64,
    words: Vec<AtomicU64>,
}

impl Memory {
    fn new(words: usize) -> Memory {
        let zero = || AtomicU64::new(0);
        Memory {
            head: zero(),
            reserved: zero(),
            checkpoint: zero(),
            place: zero(),
            words: (0..words).map(|_| zero()).collect(),
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

/// A record's payload: its number, and bytes that follow from it.
fn payload(number: u32, bytes: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..bytes).map(|at| (number as usize * 31 + at * 7) as u8).collect();
    if bytes >= 4 {
        payload[..4].copy_from_slice(&number.to_le_bytes());
    }
    payload
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Publish,
    Read(usize),
    /// Another writer takes the ring over, as after a death.
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (4usize..400).prop_map(Step::Push),
        3 => (400usize..3000).prop_map(Step::Push),
        1 => Just(Step::Publish),
        4 => (0usize..3).prop_map(Step::Read),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 1..300)
}

/// A reader and what it is to see next.
struct Seen {
    reader: Reader,
    next: u32,
}

impl Seen {
    fn read(&mut self, ring: Ring<'_>, written: &[usize]) -> Progress {
        let next = &mut self.next;
        let result = self.reader.read(ring, |_, lost, record| {
            let number = u32::from_le_bytes(record[..4].try_into().expect("four bytes at least"));
            assert!(number >= *next, "backwards");
            assert_eq!(u64::from(number - *next), lost, "losses add up");
            assert_eq!(record, payload(number, written[number as usize]));
            *next = number + 1;
        });
        result.expect("nothing is corrupt")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is pushed, published and read in whatever order: records come whole and in order, and losses add up.
    #[test]
    fn records_come_whole_and_losses_add_up(steps in steps(), words_log in 10u32..13) {
        let memory = Memory::new(1 << words_log);
        let ring = memory.ring();
        let mut writer = Writer::resume(ring).expect("new");
        let mut readers: Vec<Seen> =
            (0..3).map(|_| Seen { reader: Reader::at(0, 0), next: 0 }).collect();
        let (mut written, mut published) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Push(bytes) => {
                    let number = written.len() as u32;
                    let record = payload(number, bytes);
                    let (first, second) = record.split_at(bytes / 3);
                    match writer.push(ring, &[first, second]) {
                        Ok(()) => written.push(bytes),
                        Err(TooLong { limit }) => prop_assert!(limit < bytes && limit == ring.max_record_bytes()),
                    }
                }
                Step::Publish => {
                    writer.publish(ring);
                    published = written.len();
                }
                Step::Read(reader) => {
                    readers[reader].read(ring, &written);
                }
                Step::Resume => {
                    // What was published in between, for want of room, stays; the rest is gone with its writer.
                    writer = Writer::resume(ring).expect("an honest writer left it");
                    published = published.max(writer.place().1 as usize);
                    written.truncate(published);
                }
            }
        }
        writer.publish(ring);
        for reader in &mut readers {
            while reader.read(ring, &written).more {}
            prop_assert!(!reader.reader.is_behind(ring));
            prop_assert_eq!(reader.next as usize, written.len());
        }
    }

    /// Memory that anyone may have written to: an answer or an error, never a panic, and never without end.
    #[test]
    fn hostile_memory_does_no_harm(
        words in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..600, (0u64..600).prop_map(|low| low << 32 | low)], 512),
        marks in prop::array::uniform3(prop_oneof![any::<u64>(), 0u64..1200]),
        start in prop_oneof![any::<u64>(), 0u64..1200],
    ) {
        let memory = Memory::new(512);
        for (word, value) in memory.words.iter().zip(&words) {
            word.store(*value, Ordering::Relaxed);
        }
        for (mark, value) in [&memory.head, &memory.reserved, &memory.checkpoint].iter().zip(marks) {
            mark.store(value, Ordering::Relaxed);
        }
        let mut reader = Reader::at(start, 0);
        let mut reads = 0;
        while reader.read(memory.ring(), |_, _, record| assert!(record.len() <= memory.ring().max_record_bytes())).is_ok_and(|progress| progress.more) {
            reads += 1;
            prop_assert!(reads < 1000, "it ends");
        }
        if let Ok(mut writer) = Writer::resume(memory.ring()) {
            let _ = writer.push(memory.ring(), &[b"hello"]);
            writer.publish(memory.ring());
        }
    }
}
