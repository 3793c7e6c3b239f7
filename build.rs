//! Finds out which commit is built, so that two builds of a version can be told apart: `PERCORE_COMMIT` where it is given (an
//! image is built without the repository), else what cargo noted in a package, else what git says. None of them need be there.

use std::env;
use std::path::Path;
use std::process::Command;

/// Digits of a commit that are told.
const DIGITS: usize = 9;

fn main() {
    println!("cargo:rerun-if-env-changed=PERCORE_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let given = env::var("PERCORE_COMMIT").ok();
    let commit = given.as_deref().and_then(shortened).or_else(packaged).or_else(checked_out);
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let full = commit.as_ref().map_or_else(|| version.clone(), |commit| format!("{version} (commit {commit})"));
    println!("cargo:rustc-env=PERCORE_BUILD_VERSION={full}");
    println!("cargo:rustc-env=PERCORE_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The beginning of a commit, if it is one.
fn shortened(text: &str) -> Option<String> {
    let text = text.trim();
    let is_commit = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| text[..text.len().min(DIGITS)].to_ascii_lowercase())
}

/// What cargo wrote into a package that it made of a repository.
fn packaged() -> Option<String> {
    let noted = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, behind) = noted.split_once("\"sha1\"")?;
    shortened(behind.split('"').nth(1)?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The commit of the repository that this folder is the top of: any other is of a project that has this one within.
fn checked_out() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // They change with each commit and each checkout. One that is not there would have this run each time.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    shortened(&git(&["rev-parse", "HEAD"])?)
}
