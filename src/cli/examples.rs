//! Examples at the end of each command's help.

use clap::Command;

/// Each command, as it is typed after `percore`, with its examples. `tests/e2e/cli.rs` sees to it that they are right.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("percore serve echo", "serves ws://127.0.0.1:8080/"),
            ("percore client ws://127.0.0.1:8080/", "talks to it"),
            ("percore bench echo ws://127.0.0.1:8080/", "measures it"),
        ],
    ),
    ("serve", &[("percore serve echo", "each app has a help of its own: percore serve echo --help")]),
    (
        "bench",
        &[(
            "percore bench echo ws://127.0.0.1:8080/",
            "each workload has a help of its own: percore bench echo --help",
        )],
    ),
    ("bus", &[("percore bus tail /dev/shm/chat", "shows what is published, until Ctrl-C")]),
    (
        "serve echo",
        &[
            ("percore serve echo", "on 127.0.0.1:8080"),
            (
                "percore serve echo --listen 0.0.0.0:9000 --workers auto",
                "on all addresses, with a worker for each core",
            ),
            ("percore serve echo --listen unix:/run/percore/{worker}.sock --workers 2", "behind a proxy"),
        ],
    ),
    (
        "serve chat",
        &[
            ("percore serve chat --demo", "then open http://127.0.0.1:9001/ in two windows"),
            ("percore serve chat --bus /dev/shm/chat --listen 127.0.0.1:9000", "one of several servers of one chat"),
        ],
    ),
    (
        "serve channels",
        &[
            (
                "percore serve channels --history-size 100 --presence",
                "clients at 8000, backends at 9465, everyone may do everything",
            ),
            (
                "percore serve channels --config channels.toml --api-key-file api.key --insecure --listen 0.0.0.0:8000",
                "with rules for each namespace",
            ),
            (
                "percore serve channels --history-size 100 --workers auto --history-dir /var/lib/percore",
                "a worker for each core, and a history that outlives a restart",
            ),
        ],
    ),
    (
        "serve ticker",
        &[
            ("percore serve ticker --demo", "then open http://127.0.0.1:8080/"),
            ("percore serve ticker --prices prices.csv --tick 500ms --seed 7", "the same prices each time"),
        ],
    ),
    (
        "serve gateway",
        &[
            ("percore serve gateway --origin-url http://127.0.0.1:3000/", "clients at 8080, the application at 3000"),
            (
                "percore serve gateway --origin-url http://10.0.0.5/ --origin-url http://10.0.0.6/ --authorize --workers auto",
                "the application decides who comes in",
            ),
        ],
    ),
    (
        "bench echo",
        &[
            ("percore bench echo ws://127.0.0.1:8080/ -c 1000 --in-flight 8", "as fast as it goes"),
            ("percore bench echo ws://127.0.0.1:8080/ --rate 20000 --plot run.svg", "at a rate, with a plot"),
        ],
    ),
    (
        "bench idle",
        &[
            ("percore bench idle ws://127.0.0.1:8080/ -c 10000 --pid 4711", "memory of a connection"),
            (
                "percore bench idle ws://127.0.0.1:8080/ -c 100000 --workers auto -d 1m",
                "as many processes as that takes",
            ),
        ],
    ),
    ("bench connect", &[("percore bench connect ws://127.0.0.1:8080/ -c 100 -d 30s", "handshakes a second")]),
    (
        "bench fanout",
        &[("percore bench fanout ws://127.0.0.1:8080/ -c 1000 --rate 100", "one publishes, all others get it")],
    ),
    (
        "client",
        &[
            ("percore client wss://example.org/chat", "a conversation, line by line"),
            ("echo hello | percore client -E ws://127.0.0.1:8080/", "sends the input, then closes"),
            ("percore client ws://127.0.0.1:8080/ AAPL SPY", "prices of a ticker"),
        ],
    ),
    ("bus tail", &[("percore bus tail /dev/shm/chat --count 10", "the next ten records")]),
    ("bus publish", &[("percore bus publish /dev/shm/chat news 'hello everybody'", "one message")]),
    ("bus status", &[("percore bus status /dev/shm/chat", "who takes part, and who is on which channel")]),
    ("bridge", &[("percore bridge --bus /dev/shm/chat --redis redis://redis.example:6379", "")]),
    (
        "keeper",
        &[("percore keeper --bus /dev/shm/channels --history-dir /var/lib/percore", "for servers with the same --bus")],
    ),
    ("config", &[("percore config check channels.toml", "the first mistake and its line, or none")]),
    ("config check", &[("percore config check channels.toml", "")]),
    ("reload", &[("percore reload --admin 127.0.0.1:9464", "and waits until the new workers serve")]),
    ("healthcheck", &[("percore healthcheck http://127.0.0.1:8080/healthz", "exit code 0 when it answers 200")]),
    (
        "completions",
        &[
            ("percore completions bash > /usr/share/bash-completion/completions/percore", ""),
            ("percore completions zsh > \"${fpath[1]}/_percore\"", ""),
        ],
    ),
];

/// A command line with the examples.
pub(super) fn added_to(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let path: Vec<&str> = path.split(' ').filter(|word| !word.is_empty()).collect();
        add(command, &path, &text(examples))
    })
}

fn add(command: Command, path: &[&str], text: &str) -> Command {
    match path.split_first() {
        None => command.after_help(text.to_owned()),
        Some((first, rest)) => command.mut_subcommand(first, |command| add(command, rest, text)),
    }
}

/// A line an example, and what it does on the next.
fn text(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().flat_map(|(command, about)| {
        let about = if about.is_empty() { String::new() } else { format!("      {about}\n") };
        [format!("  {command}\n"), about]
    });
    format!("Examples:\n{}", lines.collect::<String>().trim_end())
}
