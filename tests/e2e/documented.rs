//! The documents name everything that a user can set, count or see on the wire: flags, counters, close codes.

use crate::common::documents;
use std::fs;
use std::process::Command;

/// Close codes that percore sends, or hands to an app.
const CLOSE_CODES: [&str; 10] = ["1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011"];

/// Flags of whatever stands in an output of `--help`.
fn flags(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flag = |line: &str| {
        let start = line.find("--")?;
        let end = line[start + 2..].find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        Some(line[start..end.map_or(line.len(), |end| start + 2 + end)].to_owned())
    };
    lines.filter_map(flag).collect()
}

/// Names that no document has as a word of its own.
fn missing(names: &[String], documents: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let stands = |name: &String| {
        documents.match_indices(name.as_str()).any(|(at, _)| {
            let (before, after) = (&documents[..at], &documents[at + name.len()..]);
            !before.ends_with(is_part) && !after.starts_with(is_part)
        })
    };
    names.iter().filter(|name| !stands(name)).cloned().collect()
}

/// README.md and everything below docs.
fn texts() -> String {
    let is_manual = |path: &str| path == "README.md" || path.starts_with("docs/");
    documents::all().into_iter().filter(|document| is_manual(&document.path)).map(|document| document.text).collect()
}

fn assert_documented(names: &[String]) {
    let missing = missing(names, &texts());
    assert!(missing.is_empty(), "no document names {}", missing.join(", "));
}

#[test]
fn every_flag() {
    for (command, at_least) in [
        ("serve echo", 20),
        ("serve chat", 20),
        ("serve ticker", 20),
        ("serve gateway", 60),
        ("serve channels", 60),
        ("client", 15),
        ("reload", 3),
        ("bus tail", 3),
        ("bench echo", 15),
        ("bench idle", 10),
        ("bench connect", 10),
        ("bench fanout", 15),
        ("healthcheck", 2),
        ("bridge", 12),
        ("keeper", 9),
    ] {
        let words = command.split(' ').chain(["--help"]);
        let output = Command::new(env!("CARGO_BIN_EXE_percore")).args(words).output();
        let help = String::from_utf8(output.expect("percore runs").stdout).expect("help is text");
        let flags = flags(&help);
        assert!(flags.len() >= at_least, "the flags are read from the help of {command}: {flags:?}");
        assert_documented(&flags);
    }
}

#[test]
fn every_counter() {
    let stats = percore::Stats::default();
    let counters: Vec<String> = stats.fields().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(counters.len() > 10);
    assert_documented(&counters);
}

#[test]
fn every_metric() {
    let stats = percore::Stats::default();
    let metrics: Vec<String> = stats.metrics().iter().map(|(metric, _)| metric.name.to_owned()).collect();
    assert!(metrics.len() > 10);
    assert_documented(&metrics);
}

#[test]
fn every_close_code() {
    assert_documented(&CLOSE_CODES.map(str::to_owned));
}

/// The rows of a table of faults whose last cell names no test: `file::name`.
fn rows_without_a_test(table: &str, source_of: impl Fn(&str) -> String) -> Vec<String> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| fault ");
    let names_a_test = |row: &str| {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let (file, name) = cell.trim().trim_matches('`').split_once("::")?;
        source_of(file).contains(&format!("#[test]\nfn {name}() {{")).then_some(())
    };
    table.lines().filter(is_row).filter(|row| names_a_test(row).is_none()).map(str::to_owned).collect()
}

#[test]
fn every_fault_is_tried_by_a_test() {
    let faults = documents::read("docs/faults.md").text;
    assert!(faults.lines().filter(|line| line.starts_with("| ")).count() > 20);
    let missing = rows_without_a_test(&faults, |file| {
        fs::read_to_string(documents::root().join(format!("tests/e2e/{file}.rs"))).unwrap_or_default()
    });
    assert!(missing.is_empty(), "no test of that name:\n{}", missing.join("\n"));
    let table = "| fault | test |\n|---|---|\n| a | `x::b` |\n| c | `x::d` |\n| e | |\n";
    assert_eq!(rows_without_a_test(table, |_| "#[test]\nfn b() {\n".into()), ["| c | `x::d` |", "| e | |"]);
}

#[test]
fn a_name_that_is_missing_is_found() {
    let help =
        "Options:\n      --path <PATH>\n          What it does, --not this\n  -h, --help\n      --path-too[=<BOOL>]\n";
    assert_eq!(flags(help), ["--path", "--help", "--path-too"]);
    let names = ["--path".to_owned(), "1001".to_owned(), "open".to_owned()];
    assert_eq!(missing(&names, "`--path-too`, 10011 and opened"), names);
    assert!(missing(&names, "`--path`, (1001), open.").is_empty());
}
