//! The files of a log, cut anywhere, read by others, and replaced.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A folder that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("percore-history-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Place(std::env::temp_dir().join(name))
    }

    fn open(&self) -> HistoryFiles {
        HistoryFiles::open(&self.0, 0o600).expect("a folder").expect("nobody has it")
    }

    /// All payloads that are read, and how that ends.
    fn load(&self) -> (Vec<Vec<u8>>, Option<Tail>, HistoryFiles) {
        let (mut files, mut payloads) = (self.open(), Vec::new());
        let tail = files.load(|_, payload, _| payloads.push(payload.to_vec())).expect("files");
        (payloads, tail, files)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn head() -> Vec<u8> {
    Entry::Head { removals: 0, origins: Vec::new() }.payload()
}

/// A log with a file for each list of names.
fn write(place: &Place, names: &[Vec<String>]) -> Vec<Vec<u8>> {
    let mut files = place.open();
    let mut payloads = Vec::new();
    files.begin(7).expect("a file");
    for (number, names) in names.iter().enumerate() {
        if number == 0 {
            files.append(&head()).expect("room");
            files.replace(true).expect("named");
        } else {
            files.rotate(&head(), false).expect("another file");
        }
        payloads.push(head());
        for name in names {
            let payload = Entry::Removed { channel: name }.payload();
            files.append(&payload).expect("room");
            payloads.push(payload);
        }
    }
    files.set_mark(1).expect("written");
    assert_eq!(files.mark(), Some(Mark { log: 7, boot: 1, end: files.end() }));
    payloads
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_cut_what_is_whole_is_read(
        names in prop::collection::vec(prop::collection::vec("[a-z]{0,40}", 0..5), 1..4), cut in any::<prop::sample::Index>()
    ) {
        let place = Place::new();
        let payloads = write(&place, &names);
        let (read, tail, files) = place.load();
        prop_assert_eq!((&read, tail), (&payloads, Some(Tail::Clean)));
        let (start, end) = (files.segments.back().expect("a file").start, files.end());
        drop(files);
        let kept = cut.index((end - start) as usize + 1) as u64;
        let last = File::options().write(true).open(path(&place.0, start)).expect("the last");
        last.set_len(kept).expect("cut");
        let (read, tail, mut files) = place.load();
        prop_assert_eq!(&read[..], &payloads[..read.len()]);
        prop_assert!(files.end() <= start + kept);
        let is_whole = kept == end - start;
        prop_assert!(is_whole || files.mark().expect("a mark").end > files.end(), "{:?}", tail);
        if tail.is_some() && tail != Some(Tail::Damaged) {
            files.go_on().expect("it goes on");
            let more = Entry::Closed.payload();
            files.append(&more).expect("room");
            drop(files);
            let (again, tail, _) = place.load();
            prop_assert_eq!((again, tail), ([read, vec![more]].concat(), Some(Tail::Clean)));
        }
    }

    #[test]
    fn a_reader_goes_on_where_it_was(
        names in prop::collection::vec(prop::collection::vec("[a-z]{0,40}", 0..5), 1..4), most in 1usize..100
    ) {
        let place = Place::new();
        let payloads = write(&place, &names);
        let mut reader = HistoryReader::new(&place.0);
        let (begin, _) = reader.read(None, most).expect("files").expect("a beginning");
        let (mut at, mut bytes) = (begin, Vec::new());
        while let Some((_, more)) = reader.read(Some(at), most).expect("files") {
            if more.is_empty() {
                break;
            }
            at += more.len() as u64;
            bytes.extend(more);
        }
        let framed: usize = payloads.iter().map(|payload| entry::HEAD_BYTES + payload.len()).sum();
        prop_assert_eq!(bytes.len(), framed);
    }
}

#[test]
fn one_keeper_has_the_files() {
    let place = Place::new();
    assert!(HistoryReader::new(&place.0).read(None, 10).expect("nothing there").is_none());
    let first = place.open();
    assert!(HistoryFiles::open(&place.0, 0o600).expect("a folder").is_none());
    drop(first);
    let (payloads, tail, _) = place.load();
    assert_eq!((payloads.len(), tail), (0, None));
}

#[test]
fn another_log_takes_the_place_of_one_that_is_damaged() {
    let place = Place::new();
    write(&place, &[vec!["a".to_owned()], vec!["b".to_owned()]]);
    let (_, _, mut files) = place.load();
    files.begin(8).expect("another");
    files.append(&head()).expect("room");
    // Killed before it has its name, the former one is there.
    drop(files);
    assert_eq!(place.load().2.log(), 7);
    let (_, _, mut files) = place.load();
    files.begin(9).expect("another");
    files.append(&head()).expect("room");
    files.name_last(false).expect("named");
    // Killed before the former is removed, it is passed over.
    drop(files);
    let (payloads, tail, mut files) = place.load();
    assert_eq!((files.log(), payloads.len(), tail), (9, 1, Some(Tail::Clean)));
    files.go_on().expect("it goes on");
    assert_eq!(positions(&place.0).expect("names").len(), 1);
}
