//! Any bytes as the memory of a bus: it is read to an end or an error, whatever stands there, also while it changes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percore::internal::bus::atomic::{AtomicU64, Ordering};
use percore::internal::bus::envelope::{HEAD_BYTES, read};
use percore::internal::bus::region::{Geometry, Region};
use percore::internal::bus::ring::{Reader, Writer};

/// Reads of one ring: more than its length in records cannot be needed.
const MOST_READS: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let _ = Geometry::read(&words);
    let geometry = Geometry::new(2, 4096).expect("within bounds");
    let memory: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
    let region = Region::new(&memory, geometry);
    // The first words are a ring's marks and a place in it, the rest stands in the ring.
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let ring = region.ring(1);
    let marks = [ring.head, ring.reserved, ring.checkpoint];
    marks.iter().enumerate().for_each(|(at, mark)| mark.store(word(at), Ordering::Relaxed));
    for (place, value) in ring.words.iter().zip(words.iter().skip(5)) {
        place.store(*value, Ordering::Relaxed);
    }
    let mut reader = Reader::at(word(3), word(4) as u32);
    for turn in 0..MOST_READS {
        let result = reader.read(ring, |_, _, record| {
            if let Some((_, content)) = read(record) {
                assert_eq!(HEAD_BYTES + content.channel.len() + content.payload.len(), record.len());
            }
        });
        // Someone writes where no one but the owner may.
        if let Some(byte) = rest.get(turn) {
            marks[usize::from(*byte) % 3].store(u64::from(*byte) << (byte % 56), Ordering::Relaxed);
        }
        if !result.is_ok_and(|progress| progress.more) {
            break;
        }
        assert!(turn + 1 < MOST_READS, "it ends");
    }
    let _ = Reader::at_head(ring);
    if let Ok(mut writer) = Writer::resume(ring) {
        writer.push(ring, &[&bytes[..bytes.len().min(1000)]]).expect("short enough");
        writer.publish(ring);
        let mut reader = Reader::at_head(ring);
        assert_eq!(reader.read(ring, |_, _, _| {}).map(|progress| progress.records), Ok(0));
    }
});
