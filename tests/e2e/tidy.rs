//! Style that matters, checked by reading the sources: the floors of the house, what each may use, and the rules for
//! every file and line. Each check is tested with a text that breaks its rule.

use crate::common::documents;
use std::fs;
use std::path::{Path, PathBuf};

/// No file is longer.
const MOST_LINES: usize = 500;
/// The first floor that may touch the operating system.
const EDGE: usize = 4;

/// The floor of a file or folder below `src`: the first that fits. `lib.rs`, which names everything, has none.
const FLOORS: [(&str, usize); 25] = [
    ("channel", 0),
    ("net", 0),
    ("queue", 0),
    ("telemetry", 0),
    ("text", 0),
    ("time", 0),
    ("jwt", 1),
    ("protocol", 1),
    ("app", 2),
    ("outbox", 2),
    ("apps", 2),
    ("gateway", 2),
    ("pubsub", 2),
    ("session", 3),
    ("bus", 3),
    ("os", 4),
    ("reactor", 5),
    ("bench", 6),
    ("bridge", 6),
    ("cli", 6),
    ("client", 6),
    ("keeper", 6),
    ("origin", 6),
    ("supervisor", 6),
    ("main", 6),
];

/// What only the edge of the operating system and those above it may name.
const EDGE_ONLY: [&str; 12] = [
    "mio::",
    "socket2::",
    "libc::",
    "signal_hook::",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
];

/// Turns of phrase that a reader has to take apart, and what to write instead.
const TURNS: [(&str, &str); 18] = [
    ("whoever", "a client that, any process that"),
    ("whomever", "the client that"),
    ("whom", "the client that"),
    ("nobody", "no client, no process"),
    ("somebody", "a client, a user"),
    ("so many", "a number, at most this many"),
    ("for so long", "up to this long"),
    ("for ever", "without end, always"),
    (" is said", "is logged, is reported"),
    (" are said", "are logged, are reported"),
    ("looks out", "polls, spins, checks"),
    ("look out", "poll, spin, check"),
    ("as fast as it goes", "as fast as possible"),
    ("one's own", "your own, the user's own"),
    ("is told to go", "is drained"),
    ("are told to go", "are drained"),
    ("leave no traces", "keep no history"),
    ("have it for machines", "machine-readable output"),
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Source without what stands after `//`. A `//` within quotes is cut as well, which hides no path that counts.
fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// A line without what stands in quotes. A quote that a backslash escapes does not end it.
fn without_strings(line: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    for c in line.chars() {
        if c == '"' && !escaped {
            quoted = !quoted;
        } else if !quoted {
            out.push(c);
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    out
}

/// Each line's number and text, comments left out, up to the tests at the end of the file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(without_comment).enumerate().map(|(index, line)| (index + 1, line))
}

/// Modules named after `crate::` in a text, those in braces too.
fn modules_used(text: &str) -> Vec<String> {
    let names = |rest: &str| -> Vec<String> {
        let word =
            |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
        let Some(inner) = rest.strip_prefix('{') else { return word(rest).into_iter().collect() };
        let (mut depth, mut found, mut start) = (0, Vec::new(), 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.extend(word(&inner[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
            if c == '}' && start == at + 1 {
                break;
            }
        }
        found
    };
    text.match_indices("crate::")
        .flat_map(|(at, found)| names(&text[at + found.len()..]))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Paths to a floor above the file's own. Names at the root of the crate are public ones, which `exports` explains.
fn floors_above(module: &str, text: &str, exports: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let Some(own) = floor_of(module) else {
        return vec![format!("{module} stands on no floor: give it one in tidy.rs")];
    };
    let source: String = code(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let used = modules_used(&source).into_iter().map(|name| exports(&name).unwrap_or(name));
    used.filter_map(|name| match floor_of(&name) {
        Some(floor) if floor <= own => None,
        Some(floor) => Some(format!("{module}, on floor {own}, uses {name}, on floor {floor}")),
        None => Some(format!("crate::{name} is no module with a floor")),
    })
    .collect()
}

/// What a file below the edge may not name.
fn edge_names(module: &str, text: &str) -> Vec<String> {
    if floor_of(module).is_none_or(|floor| floor >= EDGE) {
        return Vec::new();
    }
    let names = |line: &str| EDGE_ONLY.iter().find(|name| line.contains(*name)).copied();
    code(text).filter_map(|(number, line)| names(line).map(|name| format!("line {number}: {name}"))).collect()
}

fn too_long(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > MOST_LINES { vec![format!("{lines} lines")] } else { Vec::new() }
}

fn left_undone(text: &str) -> Vec<String> {
    // In two halves, so that this file passes.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let marked = |line: &str| marks.iter().any(|mark| line.contains(mark));
    lines_where(text.lines().enumerate().map(|(index, line)| (index + 1, line)), marked)
}

fn unwraps(text: &str) -> Vec<String> {
    lines_where(code(text), |line| line.contains(concat!(".unw", "rap()")))
}

fn lines_where<'a>(lines: impl Iterator<Item = (usize, &'a str)>, bad: impl Fn(&str) -> bool) -> Vec<String> {
    lines.filter(|(_, line)| bad(line)).map(|(number, line)| format!("line {number}: {}", line.trim())).collect()
}

/// Uses of `unsafe` without a line that begins with `SAFETY` in the comment above, or above a run of such lines.
fn unsafe_without_reason(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_unsafe = |line: &str| {
        let line = without_strings(without_comment(line));
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let explained = |index: usize| {
        let above = lines[..index].iter().rev().map(|line| line.trim());
        let mut above = above.take_while(|line| line.starts_with("//") || line.starts_with("#[") || is_unsafe(line));
        above.any(|line| line.trim_start_matches('/').trim_start().starts_with("SAFETY"))
    };
    let found = (0..lines.len()).filter(|index| is_unsafe(lines[*index]) && !explained(*index));
    found.map(|index| format!("line {}: {}", index + 1, lines[index].trim())).collect()
}

/// The module doc comment comes first.
fn no_module_comment(text: &str) -> Vec<String> {
    if text.starts_with("//! ") { Vec::new() } else { vec!["does not begin with a module comment".into()] }
}

/// Where a name exported by `lib.rs` at the root comes from.
fn export_in(lib: &str, name: &str) -> Option<String> {
    let line = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub use "))
        .find(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name))?;
    line.split("::").next().map(str::to_owned).filter(|module| module != name)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder whose name ends so, in order.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    fn visit(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                // What cargo has made is not ours.
                if !path.ends_with("target") {
                    visit(&path, ending, found);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join(folder), ending, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).expect("a file of ours").to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).expect("a source is text"))).collect()
}

/// `src/session/mod.rs` and `src/session.rs` are of the module `session`.
fn module_of(path: &str) -> &str {
    let path = path.trim_start_matches("src/");
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn sources() -> Vec<(String, String)> {
    let sources = files("src", ".rs");
    assert!(sources.len() > 20, "the sources are there to be read");
    sources
}

fn all_code() -> Vec<(String, String)> {
    let others = ["tests", "benches", "examples", "fuzz/fuzz_targets"];
    sources().into_iter().chain(others.iter().flat_map(|folder| files(folder, ".rs"))).collect()
}

fn assert_tidy(files: Vec<(String, String)>, check: impl Fn(&str, &str) -> Vec<String>) {
    let found =
        files.iter().flat_map(|(path, text)| check(path, text).into_iter().map(move |what| format!("{path}: {what}")));
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn inner_sources() -> Vec<(String, String)> {
    sources().into_iter().filter(|(path, _)| path != "src/lib.rs").collect()
}

#[test]
fn a_file_uses_its_own_floor_and_those_below() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    let exports = |name: &str| export_in(&lib, name);
    assert_tidy(inner_sources(), |path, text| floors_above(module_of(path), text, &exports));

    let none = |_: &str| None;
    assert_eq!(floors_above("queue", "use crate::session::Sessions;", &none).len(), 1);
    assert_eq!(floors_above("apps", "use crate::{app::App, reactor::{Server, Outcome}, net::id};", &none).len(), 1);
    assert_eq!(floors_above("session", "fn f() -> crate::os::clock::Clock {", &none).len(), 1);
    assert_eq!(floors_above("session", "use crate::{\n    app::App,\n    os::clock,\n};", &none).len(), 1);
    assert_eq!(
        floors_above("queue", "use crate::Server;", &|name| export_in("pub use reactor::{Outcome, Server};", name))
            .len(),
        1
    );
    assert_eq!(floors_above("newcomer", "", &none).len(), 1);
    assert!(floors_above("session", "use crate::outbox::Outbox; // not crate::os", &none).is_empty());
    assert!(floors_above("queue", "x\n#[cfg(test)]\nmod tests { use crate::reactor::Server; }", &none).is_empty());
}

#[test]
fn below_the_edge_nothing_touches_the_operating_system() {
    assert_tidy(inner_sources(), |path, text| edge_names(module_of(path), text));

    for bad in ["use mio::Poll;", "let now = Instant::now();", "use std::net::TcpStream;", "use std::time::SystemTime;"]
    {
        assert_eq!(edge_names("session", bad).len(), 1, "{bad}");
        assert!(edge_names("os", bad).is_empty());
    }
    assert!(edge_names("net", "use std::net::{IpAddr, Ipv6Addr, SocketAddr};").is_empty());
}

#[test]
fn no_file_is_too_long() {
    assert_tidy(all_code(), |_, text| too_long(text));
    assert_eq!(too_long(&"\n".repeat(MOST_LINES + 1)).len(), 1);
}

#[test]
fn nothing_is_left_undone() {
    assert_tidy(all_code(), |_, text| left_undone(text));
    assert_eq!(left_undone(concat!("fine\n// TO", "DO: more")), [concat!("line 2: // TO", "DO: more")]);
}

#[test]
fn nothing_unwraps_outside_tests() {
    assert_tidy(sources(), |_, text| unwraps(text));
    let bad = concat!("x.unw", "rap();");
    assert_eq!(unwraps(bad).len(), 1);
    assert!(unwraps(&format!("// {bad}\n#[cfg(test)]\nmod tests {{ {bad} }}")).is_empty());
}

#[test]
fn every_unsafe_has_its_reason() {
    assert_tidy(all_code(), |_, text| unsafe_without_reason(text));
    assert_eq!(unsafe_without_reason("fn f() {\n    unsafe { g() }\n}").len(), 1);
    assert_eq!(unsafe_without_reason("// A comment.\nunsafe impl Send for X {}").len(), 1);
    assert!(unsafe_without_reason("// SAFETY: g asks for nothing.\nunsafe { g() }").is_empty());
    assert!(unsafe_without_reason("// SAFETY: two\n// lines.\n#[inline]\nunsafe fn g() {}").is_empty());
    assert!(unsafe_without_reason("#![allow(unsafe_code)]\nlet text = \"unsafe\";").is_empty());
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    assert_tidy(all_code(), |path, text| if path.contains("fuzz") { Vec::new() } else { no_module_comment(text) });
    assert_eq!(no_module_comment("use std::fs;\n").len(), 1);
}

#[test]
fn apps_know_nothing_of_the_reactor() {
    let names_it = |text: &str| lines_where(code(text), |line| line.contains("reactor") || line.contains("Server"));
    let apps: Vec<_> = sources().into_iter().filter(|(path, _)| path.starts_with("src/apps")).collect();
    assert!(!apps.is_empty());
    assert_tidy(apps, |_, text| names_it(text));
    assert_eq!(names_it("use crate::Server;").len(), 1);
}

/// Whether a text has some words, and not only as a part of longer ones.
fn has_words(text: &str, words: &str) -> bool {
    let ends = |at: usize| !text[at + words.len()..].starts_with(char::is_alphabetic);
    text.match_indices(words).any(|(at, _)| ends(at))
}

/// Lines of prose with a turn of phrase that a reader has to take apart.
fn turns_of_phrase(text: &str) -> Vec<String> {
    let found = |line: &str| -> Option<&str> {
        // What stands in backquotes is as the program has it.
        let line = line.split('`').step_by(2).collect::<Vec<_>>().join("`").to_lowercase();
        if let Some((_, instead)) = TURNS.iter().find(|(turn, _)| has_words(&line, turn)) {
            return Some(instead);
        }
        let begins_with_who = line.trim_start_matches(['*', '-', '|', ' ']).starts_with("who ");
        if begins_with_who || [". who ", "; who ", ": who "].iter().any(|start| line.contains(start)) {
            return (!line.contains('?')).then_some("a client that, the process that");
        }
        let is_no = line.match_indices(" is no ").any(|(at, found)| {
            let after = &line[at + found.len()..];
            !line[..at].ends_with("there") && !after.starts_with("longer") && !after.starts_with("more")
        });
        is_no.then_some("is not a")
    };
    let lines = documents::prose(text).filter_map(|(number, line)| Some((number, line, found(line)?)));
    lines.map(|(number, line, instead)| format!("line {number}: {} (better: {instead})", line.trim())).collect()
}

#[test]
fn documents_are_in_plain_english() {
    let documents = documents::all().into_iter().map(|document| (document.path, document.text));
    assert_tidy(documents.collect(), |_, text| turns_of_phrase(text));

    for bad in [
        "Whoever connects is served.",
        "This is no URL.",
        "* Who sends more is closed.",
        "It is closed. Who sends more pays.",
        "At most so many messages.",
        "It is silent for so long.",
        "| a | What is refused is said |",
    ] {
        assert_eq!(turns_of_phrase(bad).len(), 1, "{bad}");
    }
    for good in [
        "There is no room, and it is no longer open.",
        "`nobody` is a user.",
        "A client that sends more is closed.",
        "```text\nnobody\n```\n",
        "    nobody\n",
        "Who may connect? Clients.",
        "A line for every event.",
    ] {
        assert!(turns_of_phrase(good).is_empty(), "{good}");
    }
}
