//! What every lane guarantees: its bytes, in order, however they were queued and taken.

use super::*;
use proptest::prelude::*;

fn write(queue: &mut OutQueue, key: u32, room: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let count = match queue.single(key) {
        Some(bytes) => {
            slices[0] = IoSlice::new(bytes);
            1
        }
        None => queue.gather(key, &mut slices),
    };
    let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).take(room).collect();
    let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
    assert!(count == MAX_SLICES || offered == queue.lane_at(key).queued_bytes());
    queue.sent(key, bytes.len(), bytes.len() < offered);
    bytes
}

proptest! {
    /// Whatever is queued for each lane, and in whatever pieces sockets take it, each lane's bytes come out in order.
    #[test]
    fn every_lane_gets_its_bytes_in_order(
        passes in prop::collection::vec(
            (
                prop::collection::vec((0u32..4, 0usize..3000, 0u8..5), 0..400),
                // How many bytes a socket takes, and whether a signal interrupts the write to it first.
                prop::collection::vec((0usize..9000, any::<bool>()), 4),
            ),
            1..8,
        )
    ) {
        let mut queue = OutQueue::new();
        let (mut want, mut got) = (vec![Vec::<u8>::new(); 4], vec![Vec::new(); 4]);
        let mut stamp = 0u8;
        for key in 0..4 {
            queue.open(key, 1);
        }
        for (pushes, mut sockets) in passes {
            for (key, len, way) in pushes {
                stamp = stamp.wrapping_add(1);
                let bytes = vec![stamp; len];
                want[key as usize].extend(&bytes);
                match way {
                    0 => queue.push_owned(key, [vec![0; 3], bytes].concat(), 3, len + 3),
                    1 => queue.push(key, &bytes),
                    2 => {
                        queue.begin_run(key, 1);
                        for part in bytes.chunks(len / 3 + 1) {
                            queue.reserve(part.len()).copy_from_slice(part);
                            queue.commit_to_run(part.len());
                        }
                    }
                    // For two, which may take it at different times.
                    3 => {
                        let start = queue.common_bytes();
                        queue.extend_common(&bytes);
                        want[(key as usize + 1) % 4].extend(&bytes);
                        for key in [key, (key + 1) % 4] {
                            queue.push_common(key, start, start + len);
                        }
                    }
                    // Read between other bytes, none of them kept.
                    _ => {
                        let mut input = queue.lend_input();
                        let space = &mut input.space()[..len + 20];
                        space.fill(0xEE);
                        space[7..7 + len].copy_from_slice(&bytes);
                        prop_assert!(queue.push_in_place(key, &space[7..7 + len]));
                        queue.take_back_input(input, len + 20);
                    }
                }
            }
            while let Some(key) = queue.next_dirty() {
                let (room, interrupted) = &mut sockets[key as usize];
                if std::mem::take(interrupted) {
                    queue.sent(key, 0, false);
                } else {
                    got[key as usize].extend(write(&mut queue, key, *room));
                }
            }
            queue.end_flush();
            for key in 0..4 {
                prop_assert_eq!(
                    queue.lane_at(key).queued_bytes(),
                    want[key as usize].len() - got[key as usize].len()
                );
                queue.unblock(key);
            }
        }
        while let Some(key) = queue.next_dirty() {
            got[key as usize].extend(write(&mut queue, key, usize::MAX));
        }
        prop_assert!(got == want);
        queue.end_flush();
        for lane in &queue.lanes {
            prop_assert!(lane.backlog.is_none());
        }
        prop_assert_eq!(queue.kept_common_bytes(), 0);
    }
}

/// A lane that was given nothing kept its place in an arena that was no longer its own.
#[test]
fn nothing_queued_leaves_nothing_behind() {
    let mut queue = OutQueue::new();
    queue.open(0, 1);
    queue.open(1, 1);
    queue.push(0, b"");
    assert_eq!(queue.next_dirty(), None);
    queue.end_flush();
    queue.push(1, b"");
    queue.push(0, b"x");
    assert_eq!(queue.next_dirty(), Some(0));
    assert_eq!(write(&mut queue, 0, 9), b"x");
}

#[test]
fn spans_that_touch_are_one_and_a_closed_lane_is_passed_over() {
    let mut queue = OutQueue::new();
    queue.open(0, 1);
    queue.open(1, 2);
    queue.push(0, b"ab");
    queue.push(0, b"cd");
    queue.push(1, b"x");
    assert_eq!(queue.spans.len(), 2);
    assert_eq!(queue.close(0), 4);
    assert!(queue.lane(0, 1).is_none());
    assert_eq!(queue.next_dirty(), Some(1));
    assert_eq!(write(&mut queue, 1, 9), b"x");
    assert_eq!(queue.next_dirty(), None);
    queue.end_flush();
}

/// Bytes for many are kept once, as long as one of them waits; a closed connection gives up its part.
#[test]
fn what_many_wait_for_is_kept_once() {
    let mut queue = OutQueue::new();
    for pass in 0..10 {
        queue.extend_common(&[pass; 1000]);
        for key in 0..100 {
            if pass == 0 {
                queue.open(key, 1);
            }
            queue.push_common(key, 0, 1000);
        }
        while let Some(key) = queue.next_dirty() {
            queue.sent(key, 0, true);
        }
        queue.end_flush();
    }
    assert_eq!(queue.kept_common_bytes(), 10_000);
    for key in 0..99 {
        assert_eq!(queue.close(key), 10_000);
    }
    assert!(queue.unblock(99));
    assert_eq!(queue.next_dirty(), Some(99));
    assert_eq!(write(&mut queue, 99, 2500), [[0; 1000].as_slice(), &[1; 1000], &[2; 500]].concat());
    queue.end_flush();
    assert_eq!(queue.kept_common_bytes(), 8000);
    assert_eq!(queue.close(99), 7500);
    assert_eq!(queue.kept_common_bytes(), 0);
}

/// A connection that waits for a small part of a pass gets a copy of it, and does not keep the whole.
#[test]
fn a_small_part_is_copied() {
    let mut queue = OutQueue::new();
    queue.open(0, 1);
    queue.extend_common(&[7; 100_000]);
    queue.push_common(0, 10, 60);
    assert_eq!(queue.next_dirty(), Some(0));
    queue.sent(0, 20, true);
    queue.end_flush();
    assert_eq!(queue.kept_common_bytes(), 0);
    assert!(queue.unblock(0));
    assert_eq!(queue.next_dirty(), Some(0));
    assert_eq!(write(&mut queue, 0, 99), [7; 30]);
}

/// A span of the read buffer is identified by its address, which must not match a place that is no longer lent.
#[test]
fn only_what_lies_in_the_lent_buffer_is_queued_in_place() {
    let mut queue = OutQueue::new();
    queue.open(0, 1);
    assert!(!queue.push_in_place(0, b"elsewhere"));
    let mut input = queue.lend_input();
    assert!(!queue.push_in_place(0, b"elsewhere"));
    input.space()[..4].copy_from_slice(b"here");
    assert!(queue.push_in_place(0, &input.space()[..4]));
    queue.take_back_input(input, 4);
    assert_eq!(queue.pass_bytes(), 4);
    // Kept bytes are not lent again.
    let mut input = queue.lend_input();
    input.space()[..4].copy_from_slice(b"gone");
    queue.take_back_input(input, 4);
    assert_eq!(queue.next_dirty(), Some(0));
    assert_eq!(write(&mut queue, 0, 9), b"here");
    queue.end_flush();
    assert_eq!(queue.pass_bytes(), 0);
}
