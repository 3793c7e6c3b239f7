//! The files of a bus are removed while in use, as by a clean-up of old files: the workers of a service stay together.

use crate::common::chat::{Talker, start, start_on};
use crate::common::process::{self, children};
use crate::common::{Server, TempDir};
use std::fs;
use std::path::PathBuf;

/// More than one worker would have, in all likelihood.
const CLIENTS: usize = 16;

/// Whatever one says, all others hear.
fn assert_one_chat(server: &Server) {
    let mut talkers: Vec<Talker> = (0..CLIENTS).map(|_| Talker::to(server.addr())).collect();
    talkers[0].submits("are you there?");
    talkers.iter_mut().for_each(|talker| talker.must_hear_chat("are you there?"));
}

/// Removes the files, kills a worker, which another follows that finds no bus, and waits until all have moved to one.
fn remove_and_kill(server: &Server, folder: &PathBuf) {
    let workers = children(server.child().id());
    assert_eq!(workers.len(), 2);
    fs::remove_dir_all(folder).expect("it is there");
    process::signal(workers[0], "KILL");
    server.wait_for_log("were removed while in use: a new bus was created in their place");
    server.wait_for_log("reloaded: 2 new workers took over");
}

#[test]
fn a_service_whose_bus_is_removed_stays_one() {
    let folder = TempDir::new();
    let bus = folder.path("bus");
    let server = start_on(&bus, &["--workers", "2", "--admin", "off", "--drain-timeout", "1s"]);
    assert_one_chat(&server);
    remove_and_kill(&server, &bus);
    assert_one_chat(&server);
    // Those who join from elsewhere find it, too.
    let other = start_on(&bus, &[]);
    let (mut here, mut there) = (Talker::to(server.addr()), Talker::to(other.addr()));
    there.submits("from elsewhere");
    here.must_hear_chat("from elsewhere");
    there.must_hear_chat("from elsewhere");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn so_does_one_with_a_bus_of_its_own() {
    let server = start(&["--workers", "2", "--admin", "off", "--drain-timeout", "1s"]);
    let prefix = format!("percore-private-{}-", server.child().id());
    let mut folders = fs::read_dir("/dev/shm").expect("shared memory").flatten();
    let folder = folders.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).expect("a bus").path();
    assert_one_chat(&server);
    remove_and_kill(&server, &folder);
    assert_one_chat(&server);
    // Another supervisor does not take it for one that nobody has.
    drop(start(&["--workers", "2", "--admin", "off"]));
    assert!(folder.exists());
    assert_eq!(server.stop().0, Some(0));
    assert!(!folder.exists(), "it goes with its supervisor");
}
