//! The Dockerfile and the compose files in a real Docker engine, and the binary for arm64 under an emulator;
//! `tests/docker/scenario.py` has the checks.

use std::process::Command;

/// Set to 1 where no Docker engine can run.
const SKIP: &str = "PERCORE_SKIP_DOCKER";

#[test]
fn containers() {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("containers: left out, as {SKIP}=1 says");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker/run");
    let status = Command::new(script).status().expect("bash runs");
    assert!(status.success(), "tests/docker/run failed: {status}. {SKIP}=1 leaves it out where Docker cannot run");
}
