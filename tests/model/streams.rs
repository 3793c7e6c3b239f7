//! The history of channels against a reference that keeps everything: whatever happens, a client gets all that it
//! missed or nothing, and as long as space suffices it gets it for exactly the time that the rules grant.

use percore::internal::pubsub::streams::{Filter, Keep, Most, Streams};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

const KEEP: Keep = Keep { size: 4, ttl: Duration::from_secs(10), meta_ttl: Duration::from_secs(25) };
const MOST: Most = Most { publications: 3, bytes: 150 };
const ALL: Most = Most { publications: usize::MAX, bytes: usize::MAX };
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Append {
        channel: usize,
        bytes: usize,
    },
    /// From so far behind the top, of the epoch at hand, of any, or of another.
    Since {
        channel: usize,
        behind: u64,
        epoch: u8,
    },
    Read {
        channel: usize,
        since: Option<u64>,
        reverse: bool,
    },
    Remove {
        channel: usize,
    },
    Wait {
        seconds: u64,
    },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let channel = || 0..NAMES.len();
    prop_oneof![
        6 => (channel(), 0usize..60).prop_map(|(channel, bytes)| Step::Append { channel, bytes }),
        5 => (channel(), 0u64..7, 0u8..3).prop_map(|(channel, behind, epoch)| Step::Since { channel, behind, epoch }),
        2 => (channel(), prop::option::of(0u64..12), any::<bool>())
            .prop_map(|(channel, since, reverse)| Step::Read { channel, since, reverse }),
        1 => channel().prop_map(|channel| Step::Remove { channel }),
        3 => (0u64..12).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Expire),
    ]
}

/// A channel's stream, with all that was ever published on it.
#[derive(Default)]
struct Reference {
    epoch: String,
    all: Vec<(Duration, String)>,
    /// So many are gone whatever their age.
    removed: usize,
    used: Duration,
}

impl Reference {
    fn kept(&self, now: Duration) -> &[(Duration, String)] {
        let floor = self.removed.max(self.all.len().saturating_sub(KEEP.size));
        let young = self.all[floor..].iter().position(|(at, _)| *at + KEEP.ttl > now);
        young.map_or(&[], |first| &self.all[floor + first..])
    }

    fn lives(&self, now: Duration) -> bool {
        !self.epoch.is_empty() && (!self.kept(now).is_empty() || self.used + KEEP.meta_ttl > now)
    }
}

/// Runs the steps; with `tight` there is too little space for all.
fn run(steps: &[Step], tight: bool) -> Result<(), TestCaseError> {
    let bound = if tight { 1500 } else { 1 << 20 };
    let mut streams = Streams::new(bound, [7; 32]);
    let mut channels: HashMap<&str, Reference> = HashMap::new();
    let mut epochs: HashMap<String, Vec<String>> = HashMap::new();
    let mut now = Duration::ZERO;
    for (number, step) in steps.iter().enumerate() {
        let name = match step {
            Step::Append { channel, .. } | Step::Since { channel, .. } | Step::Read { channel, .. } => NAMES[*channel],
            Step::Remove { channel } => {
                let name = NAMES[*channel];
                streams.remove(name, now);
                if let Some(reference) = channels.get_mut(name).filter(|reference| reference.lives(now)) {
                    (reference.removed, reference.used) = (reference.all.len(), now);
                }
                continue;
            }
            Step::Wait { seconds } => {
                now += Duration::from_secs(*seconds);
                continue;
            }
            Step::Expire => {
                streams.expire(now);
                prop_assert!(streams.next_deadline().is_none_or(|at| at > now));
                continue;
            }
        };
        let top = streams.top(name, KEEP, now);
        let reference = channels.entry(name).or_default();
        let is_same = reference.epoch == top.epoch.as_str();
        if !tight {
            prop_assert_eq!(is_same, reference.lives(now), "{:?} at {:?}", step, now);
        }
        if !is_same {
            prop_assert!(!epochs.contains_key(top.epoch.as_str()), "a new stream has a new epoch");
            *reference = Reference { epoch: top.epoch.as_str().to_owned(), ..Reference::default() };
        }
        reference.used = now;
        prop_assert_eq!(top.offset, reference.all.len() as u64);
        let of_epoch = epochs.entry(reference.epoch.clone()).or_default();
        match step {
            Step::Append { bytes, .. } => {
                let body = format!("{{\"data\":\"{number} {}\"", "x".repeat(*bytes));
                let (position, text) = streams.append(name, &body, KEEP, now);
                prop_assert_eq!(position.epoch, top.epoch);
                prop_assert_eq!(position.offset, top.offset + 1);
                prop_assert_eq!(&*text, format!("{body},\"offset\":{}}}", position.offset));
                reference.all.push((now, text.to_string()));
                of_epoch.push(text.to_string());
            }
            Step::Since { behind, epoch, .. } => {
                // Beyond the top, too.
                let Some(offset) = (top.offset + 1).checked_sub(*behind) else { continue };
                let asked = [reference.epoch.as_str(), "", "another1"][usize::from(*epoch)];
                let missed = streams.since(name, (offset, asked), MOST, KEEP, now);
                prop_assert_eq!(missed.top, top);
                let got = missed.publications.map(|list| list.iter().map(|text| text.to_string()).collect::<Vec<_>>());
                let wanted = of_epoch.get(offset as usize..).filter(|_| *epoch != 2).map(<[String]>::to_vec);
                if let Some(got) = &got {
                    prop_assert_eq!(Some(got), wanted.as_ref(), "all or nothing");
                }
                let bytes = |list: &Vec<String>| list.iter().map(String::len).sum::<usize>();
                let fits = |list: &Vec<String>| list.len() <= MOST.publications && bytes(list) <= MOST.bytes;
                let is_there = |list: &Vec<String>| list.len() <= reference.kept(now).len();
                let wanted = wanted.filter(fits).filter(is_there);
                if !tight {
                    prop_assert_eq!(got, wanted);
                }
            }
            Step::Read { since, reverse, .. } => {
                let filter = Filter { since: *since, reverse: *reverse };
                let (position, list) = streams.read(name, filter, ALL, KEEP, now);
                prop_assert_eq!(position, top);
                let mut wanted: Vec<String> = reference.kept(now).iter().map(|(_, text)| text.clone()).collect();
                let offset = |text: &String| -> u64 {
                    let (_, end) = text.rsplit_once(':').expect("an offset");
                    end.trim_end_matches('}').parse().expect("a number")
                };
                match (since, reverse) {
                    (Some(since), false) => wanted.retain(|text| offset(text) > *since),
                    (Some(since), true) => wanted.retain(|text| offset(text) < *since),
                    (None, _) => {}
                }
                if *reverse {
                    wanted.reverse();
                }
                if !tight {
                    prop_assert_eq!(list.iter().map(|text| text.to_string()).collect::<Vec<_>>(), wanted);
                }
            }
            _ => {}
        }
        prop_assert!(streams.held().1 <= bound, "{:?}", streams.held());
    }
    if !tight {
        prop_assert_eq!(streams.counts().evicted, 0);
    }
    // In the end nothing is left.
    streams.expire(now + KEEP.ttl + KEEP.meta_ttl);
    prop_assert_eq!((streams.held(), streams.next_deadline()), ((0, 0), None));
    Ok(())
}

proptest! {
    #[test]
    fn clients_get_what_the_rules_say(steps in vec(step(), 0..80)) {
        run(&steps, false)?;
    }

    #[test]
    fn without_space_clients_get_all_or_nothing(steps in vec(step(), 0..80)) {
        run(&steps, true)?;
    }
}

#[test]
fn the_stream_that_was_published_on_least_recently_goes_first() {
    let mut streams = Streams::new(1500, [7; 32]);
    for channel in ["old", "new", "newest"] {
        streams.append(channel, &format!("{{\"data\":\"{}\"", "x".repeat(100)), KEEP, Duration::ZERO);
    }
    let tops = |streams: &mut Streams, name| streams.top(name, KEEP, Duration::ZERO).offset;
    assert_eq!((streams.held().0, streams.counts().evicted), (2, 1));
    assert_eq!((tops(&mut streams, "newest"), tops(&mut streams, "new")), (1, 1));
    assert_eq!(tops(&mut streams, "old"), 0);
}

/// Channels on which nothing is published cost no other its history, however many are asked for.
#[test]
fn streams_without_publications_go_first() {
    let mut streams = Streams::new(4000, [7; 32]);
    streams.append("used", "{\"data\":1", KEEP, Duration::ZERO);
    let before = streams.top("used", KEEP, Duration::ZERO);
    for number in 0..1000 {
        streams.top(&format!("unused{number}"), KEEP, Duration::ZERO);
    }
    assert!(streams.counts().evicted > 900);
    assert_eq!(streams.top("used", KEEP, Duration::ZERO), before);
}
