//! Every command in the documents exists: its program, its subcommand, its flags, and the files it names. Those that
//! need only this machine are run verbatim in `documented_sessions.rs`.

use crate::common::commands::{Words, commands};
use crate::common::documents::{self, Block};
use crate::common::{percore, run};
use std::process::{Command, Stdio};

/// Programs that want root, Docker, a cluster or the network: their commands are not looked into.
const ELSEWHERE: [&str; 9] =
    ["docker", "kubectl", "systemctl", "apt-get", "nginx", "websocat", "perf", "RUSTC_BOOTSTRAP", "git"];
/// Programs of every machine, which the tests of sessions run where they stand.
const USUAL: [&str; 22] = [
    "cat",
    "cd",
    "chmod",
    "cp",
    "curl",
    "echo",
    "grep",
    "install",
    "kill",
    "ls",
    "mkdir",
    "node",
    "openssl",
    "printf",
    "python3",
    "redis-cli",
    "redis-server",
    "rm",
    "sleep",
    "test",
    "valgrind",
    "wait",
];
/// What stands in documents for a value of the reader's.
const PLACEHOLDERS: [(&str, &str); 8] = [
    ("URL", "http://127.0.0.1:1/"),
    ("DIR", "/dev/shm/x"),
    ("$(pidof percore)", "1"),
    ("FD", "3"),
    ("APP", "echo"),
    ("COMMAND", "serve"),
    ("WORKLOAD", "echo"),
    ("SHELL", "bash"),
];

/// The script of a block: all of a shell's, what follows the prompts of a console, and of an indented block or of one
/// without a language the lines that begin with our program.
fn script(block: &Block) -> String {
    let prompts = |line: &str| line.strip_prefix("$ ").map(str::to_owned);
    let ours = |line: &str| {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        ["percore ", "cargo ", "benches/", "tests/"]
            .iter()
            .any(|start| line.starts_with(start))
            .then(|| line.to_owned())
    };
    let lines = block.text.lines();
    match block.language.as_str() {
        "sh" | "bash" => block.text.clone(),
        "console" => lines.filter_map(prompts).collect::<Vec<_>>().join("\n"),
        "" => lines.filter_map(ours).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// Runs our program with `--help` at the end: it reads all that stands before, and does nothing.
fn percore_takes(arguments: &[String]) -> Result<(), String> {
    if arguments.last().is_some_and(|word| ["help", "--help", "--version"].contains(&word.as_str())) {
        return percore_takes(&arguments[..arguments.len() - 1]);
    }
    let value = |word: &String| {
        let known = PLACEHOLDERS.iter().find(|(placeholder, _)| placeholder == word);
        known.map_or(word.clone(), |(_, value)| (*value).to_owned())
    };
    let arguments: Vec<String> = arguments.iter().map(value).chain(["--help".to_owned()]).collect();
    let (code, _, err) = run({
        let mut command = percore(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stderr(Stdio::piped());
        command
    });
    if code == 0 { Ok(()) } else { Err(err.trim().to_owned()) }
}

/// Whether a script of the repository has all flags.
fn script_takes(path: &str, arguments: &[String]) -> Result<(), String> {
    let file = documents::root().join(path);
    if !file.exists() {
        return Err(format!("there is no {path}"));
    }
    let flags: Vec<&String> = arguments.iter().filter(|word| word.starts_with("--")).collect();
    if flags.is_empty() {
        return Ok(());
    }
    let output = Command::new(&file).arg("--help").stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_there = |flag: &&&String| !help.contains(flag.split('=').next().unwrap_or(flag));
    match flags.iter().find(is_there) {
        Some(flag) => Err(format!("{path} has no {flag}")),
        None => Ok(()),
    }
}

/// The word after a flag.
fn after<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}

fn cargo_takes(words: &[String]) -> Result<(), String> {
    let exists = |path: String| {
        let path = documents::root().join(path);
        if path.exists() { Ok(()) } else { Err(format!("there is no {}", path.display())) }
    };
    let targets = [("--example", "examples/NAME.rs"), ("--bench", "benches/NAME.rs")];
    for (flag, path) in targets {
        after(words, flag).map_or(Ok(()), |name| exists(path.replace("NAME", name)))?;
    }
    if let Some(name) = after(words, "--test") {
        exists(format!("tests/{name}.rs")).or_else(|_| exists(format!("tests/{name}/main.rs")))?;
    }
    if words.first().is_some_and(|word| word == "fuzz") {
        return words.get(2).map_or(Ok(()), |name| exists(format!("fuzz/fuzz_targets/{name}.rs")));
    }
    let is_run = words.first().is_some_and(|word| word == "run") && after(words, "--example").is_none();
    match words.iter().position(|word| word == "--") {
        Some(at) if is_run => percore_takes(&words[at + 1..]),
        _ => Ok(()),
    }
}

/// Whether a command would be taken; an error says why not.
fn check(words: &Words) -> Result<(), String> {
    let (program, arguments) = (words[0].as_str(), &words[1..]);
    match program {
        "percore" => percore_takes(arguments),
        "cargo" => cargo_takes(arguments),
        "taskset" => check(&words[3..].to_vec()),
        _ if USUAL.contains(&program) || ELSEWHERE.contains(&program) || program == "[" => Ok(()),
        _ if program.contains('/') && !program.starts_with("target/") => script_takes(program, arguments),
        _ => Err(format!("a program that no list here has: {program}")),
    }
}

/// What of a block would not be taken.
fn wrong(block: &Block) -> Vec<String> {
    let all = commands(&script(block));
    all.iter().filter_map(|words| Some(format!("{}: {}", words.join(" "), check(words).err()?))).collect()
}

#[test]
fn every_command_exists() {
    let (mut count, mut found) = (0, Vec::new());
    for document in documents::all() {
        for block in documents::blocks(&document.text) {
            count += commands(&script(&block)).len();
            found.extend(wrong(&block).into_iter().map(|what| format!("{}:{}: {what}", document.path, block.line)));
        }
    }
    for document in documents::all() {
        for (line, span) in documents::commands_in_prose(&document.text) {
            let wrong = wrong(&Block { language: "sh".into(), line, text: span });
            found.extend(wrong.into_iter().map(|what| format!("{}:{line}: {what}", document.path)));
        }
    }
    assert!(found.is_empty(), "commands that do not work:\n{}", found.join("\n"));
    assert!(count > 100, "{count} commands are found");
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let block = |language: &str, text: &str| Block { language: language.into(), line: 1, text: text.into() };
    for bad in [
        "percore serve echo --no-such-flag",
        "percore nothing",
        "FOO=1 percore bench echo ws://h/ --rate fast | cat",
        "cargo run --release -- serve nothing",
        "cargo run --example nothing",
        "cargo bench --bench nothing",
        "cargo nextest run --test nothing",
        "benches/nothing",
        "benches/compare --no-such-flag",
        "no-such-program",
    ] {
        assert_eq!(wrong(&block("sh", bad)).len(), 1, "{bad}");
    }
    assert_eq!(wrong(&block("console", "$ percore serve nothing\npercore: no command\n")).len(), 1);
    assert_eq!(wrong(&block("", "percore serve nothing\nno-such-program\n")).len(), 1);
    assert!(wrong(&block("text", "percore serve nothing")).is_empty());
    assert!(wrong(&block("sh", "percore serve echo --max-message 1M &\nbenches/compare --quick\n")).is_empty());
}
