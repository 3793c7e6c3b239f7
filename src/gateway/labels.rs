//! Labels: words that the application gives to connections, to find them by. The worker of a connection keeps its
//! labels.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The most labels that a connection may have.
pub const MOST_LABELS: usize = 16;
/// The longest label, in characters.
pub const LONGEST_LABEL: usize = 128;
/// Approximate size of a connection's label in the tables.
const ENTRY_BYTES: usize = 64;

/// Whether a label is valid.
pub fn is_label(text: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&text.chars().count())
}

/// Connections, by number, and their labels.
#[derive(Default, Debug)]
pub struct Labels {
    by_label: HashMap<Arc<str>, BTreeSet<u64>>,
    by_serial: HashMap<u64, Vec<Arc<str>>>,
    bytes: usize,
}

impl Labels {
    /// Gives a label. Returns `false` if it is invalid or one too many.
    pub fn put(&mut self, serial: u64, label: &str) -> bool {
        let own = self.by_serial.get(&serial).map_or(&[][..], Vec::as_slice);
        if own.iter().any(|have| **have == *label) {
            return true;
        }
        if !is_label(label) || own.len() >= MOST_LABELS {
            return false;
        }
        let label = self.by_label.get_key_value(label).map_or_else(|| label.into(), |(label, _)| Arc::clone(label));
        self.by_label.entry(Arc::clone(&label)).or_default().insert(serial);
        self.bytes += ENTRY_BYTES + label.len();
        self.by_serial.entry(serial).or_default().push(label);
        true
    }

    /// Removes a label, if present.
    pub fn take(&mut self, serial: u64, label: &str) {
        let Some(own) = self.by_serial.get_mut(&serial) else { return };
        let Some(place) = own.iter().position(|have| **have == *label) else { return };
        let label = own.swap_remove(place);
        if own.is_empty() {
            self.by_serial.remove(&serial);
        }
        self.unlist(serial, &label);
    }

    /// A connection ended.
    pub fn forget(&mut self, serial: u64) {
        for label in self.by_serial.remove(&serial).into_iter().flatten() {
            self.unlist(serial, &label);
        }
    }

    fn unlist(&mut self, serial: u64, label: &str) {
        self.bytes -= ENTRY_BYTES + label.len();
        if let Some(all) = self.by_label.get_mut(label) {
            all.remove(&serial);
            if all.is_empty() {
                self.by_label.remove(label);
            }
        }
    }

    /// The labels of a connection, in the order it got them.
    pub fn of(&self, serial: u64) -> impl Iterator<Item = &str> {
        self.by_serial.get(&serial).into_iter().flatten().map(|label| &**label)
    }

    /// Connections with a label, at most this many and only those after `after`, in the order of their numbers.
    pub fn page(&self, label: &str, after: u64, most: usize) -> impl Iterator<Item = u64> {
        let all = self.by_label.get(label).map(|all| all.range((Bound::Excluded(after), Bound::Unbounded)));
        all.into_iter().flatten().copied().take(most)
    }

    /// Approximate memory of the labels.
    pub fn memory(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn connections_are_found_by_their_labels() {
        let mut labels = Labels::default();
        for serial in [3, 1, 2] {
            assert!(labels.put(serial, "a") && labels.put(serial, "a") && labels.put(serial, &format!("own {serial}")));
        }
        let page = |labels: &Labels, label, after, most| labels.page(label, after, most).collect::<Vec<_>>();
        assert_eq!(page(&labels, "a", 0, 10), [1, 2, 3]);
        assert_eq!(page(&labels, "a", 1, 1), [2]);
        assert!(page(&labels, "b", 0, 10).is_empty());
        assert_eq!(labels.of(2).collect::<Vec<_>>(), ["a", "own 2"]);
        labels.take(2, "a");
        labels.take(2, "never given");
        labels.forget(3);
        labels.forget(4);
        assert_eq!(page(&labels, "a", 0, 10), [1]);
        labels.forget(1);
        labels.forget(2);
        assert_eq!((labels.memory(), labels.by_label.len(), labels.by_serial.len()), (0, 0, 0));
    }

    #[test]
    fn labels_are_bounded() {
        let mut labels = Labels::default();
        for bad in ["", &"ü".repeat(LONGEST_LABEL + 1)] {
            assert!(!labels.put(1, bad), "{bad:?}");
        }
        for n in 0..MOST_LABELS {
            assert!(labels.put(1, &format!("{n}")));
        }
        assert!(!labels.put(1, "one more") && labels.put(1, "0") && labels.put(2, &"ü".repeat(LONGEST_LABEL)));
    }

    proptest! {
        #[test]
        fn both_tables_say_the_same(deeds in prop::collection::vec((0u8..3, 0u64..5, "[ab]{0,2}"), 0..60)) {
            let mut labels = Labels::default();
            for (deed, serial, label) in deeds {
                match deed {
                    0 => drop(labels.put(serial, &label)),
                    1 => labels.take(serial, &label),
                    _ => labels.forget(serial),
                }
                let pairs: usize = labels.by_label.values().map(BTreeSet::len).sum();
                prop_assert_eq!(pairs, labels.by_serial.values().map(Vec::len).sum::<usize>());
                for (label, all) in &labels.by_label {
                    prop_assert!(!all.is_empty() && all.iter().all(|serial| labels.by_serial[serial].contains(label)));
                }
                let bytes = labels.by_serial.values().flatten().map(|label| ENTRY_BYTES + label.len()).sum::<usize>();
                prop_assert_eq!(bytes, labels.memory());
            }
        }
    }
}
