//! Completions, man pages and `--help`.

use crate::common::{TempDir, percore, run};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn help_of(words: &[&str]) -> String {
    let (code, help, errors) = run(percore(&[words, &["--help"]].concat()));
    assert_eq!((code, errors.as_str()), (0, ""), "{words:?}");
    help
}

/// The commands that a help names.
fn commands_in(help: &str) -> Vec<&str> {
    let after = help.split_once("\nCommands:\n").map_or("", |(_, after)| after);
    let lines = after.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    // That one prints the helps of the others.
    names.filter(|name| *name != "help").collect()
}

/// Every command with its help, and whether it has commands of its own.
fn all_commands() -> Vec<(String, String, bool)> {
    fn visit(words: &[&str], found: &mut Vec<(String, String, bool)>) {
        let help = help_of(words);
        let below = commands_in(&help);
        for name in &below {
            visit(&[words, &[name]].concat(), found);
        }
        let has_commands = !below.is_empty();
        found.push((words.join(" "), help, has_commands));
    }
    let mut found = Vec::new();
    visit(&[], &mut found);
    assert!(found.len() > 12, "{found:?}");
    found
}

/// Examples in a help.
fn examples_in(help: &str) -> Vec<&str> {
    let after = help.split_once("\nExamples:\n").map_or("", |(_, after)| after);
    after.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).map(str::trim).collect()
}

#[test]
fn each_help_ends_with_examples_of_flags_that_it_has() {
    for (command, help, has_commands) in all_commands() {
        let examples = examples_in(&help);
        assert!(!examples.is_empty(), "no examples in {command} --help");
        // The flags are those of the command below.
        for example in examples.into_iter().filter(|_| !has_commands) {
            let (_, arguments) =
                example.split_once(&format!("percore {command}")).unwrap_or_else(|| panic!("{example}"));
            for flag in arguments.split(' ').filter(|word| word.starts_with('-')) {
                let is_there = |line: &str| line.trim_start().split([' ', ',', '[', '=']).any(|word| word == flag);
                assert!(help.lines().any(is_there), "{example}: {command} has no {flag}");
            }
        }
    }
}

/// What bash offers after some words, the last of which has just begun.
fn completed_by_bash(words: &[&str]) -> Vec<String> {
    let folder = TempDir::new();
    let script = folder.path("percore.bash");
    let (code, text, errors) = run(percore(&["completions", "bash"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    fs::write(&script, text).expect("a script");
    let ask = "set -eu; source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _percore percore \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask, "bash"]).arg(script).args(words).stderr(Stdio::piped());
    let (code, offered, errors) = run(bash);
    assert_eq!((code, errors.as_str()), (0, ""), "{words:?}");
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    assert_eq!(completed_by_bash(&["percore", "ser"]), ["serve"]);
    assert_eq!(completed_by_bash(&["percore", "serve", "cha"]), ["chat", "channels"]);
    assert_eq!(completed_by_bash(&["percore", "serve", "chat", "--dem"]), ["--demo"]);
    assert_eq!(completed_by_bash(&["percore", "serve", "echo", "--slow-consumer", "d"]), ["drop"]);
    // What only a supervisor runs is offered to nobody.
    let all = completed_by_bash(&["percore", ""]);
    assert!(all.contains(&"serve".to_owned()) && !all.iter().any(|word| word == "worker" || word == "man"), "{all:?}");
}

#[test]
fn other_shells_get_scripts_too() {
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        let (code, script, errors) = run(percore(&["completions", shell]));
        assert_eq!((code, errors.as_str()), (0, ""), "{shell}");
        assert!(script.contains("serve") && script.contains("slow-consumer"), "{shell}: {script}");
    }
    let (code, _, errors) = run(percore(&["completions", "tcsh"]));
    assert!(code == 2 && errors.contains("bash"), "{errors}");
}

/// Names and texts of the files in a folder.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let text = |path: &Path| fs::read_to_string(path).expect("a text");
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), text(&entry.path()))).collect()
}

#[test]
fn the_man_pages_say_what_help_says() {
    let folder = TempDir::new();
    let pages = folder.path("man");
    fs::create_dir(&pages).expect("a folder");
    let mut command = percore(&["man"]);
    let (code, _, errors) = run({
        command.arg(&pages);
        command
    });
    assert_eq!((code, errors.as_str()), (0, ""));
    let (new, committed) = (texts(&pages), texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/man")));
    assert!(new.keys().eq(committed.keys()), "{:?} and {:?}", new.keys(), committed.keys());
    for (command, ..) in all_commands() {
        let name = format!("percore {command}").trim_end().replace(' ', "-");
        assert!(new.contains_key(&format!("{name}.1")), "no page of {command}");
    }
    let old: Vec<_> =
        new.iter().filter(|(name, text)| committed.get(*name) != Some(*text)).map(|(name, _)| name).collect();
    assert!(old.is_empty(), "out of date, run 'percore man deploy/man': {old:?}");
    let (code, _, errors) = run(percore(&["man", "/no/such/folder"]));
    assert!(code == 1 && errors.contains("/no/such/folder"), "{errors}");
}
