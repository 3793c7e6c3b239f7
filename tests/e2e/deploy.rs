//! Checks `deploy/`, `proxy/` and the compose files: manifests against their schemas, units with systemd, and all names
//! and times with percore itself.

use crate::common::{TempDir, percore, run, tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// With this variable set, systemd's own checks are left out, where there is no systemd-analyze.
const WITHOUT_SYSTEMD: &str = "PERCORE_TEST_WITHOUT_SYSTEMD";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Every file below a folder, and a file itself.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| files(&entry.path(), found)),
        Err(_) => found.push(path.to_owned()),
    }
}

/// `deploy/`, `proxy/` and the compose files, each with its text. The man pages are made by percore itself.
fn configurations() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root().join("deploy"), &mut found);
    files(&root().join("proxy"), &mut found);
    let compose = ["docker-compose.yml", "docker-compose.swarm.yml"].map(|name| root().join(name));
    found.extend(compose.into_iter().filter(|path| path.exists()));
    found.retain(|path| !path.starts_with(root().join("deploy/man")));
    assert!(found.len() > 15, "the files are there to be read: {found:?}");
    let text = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("a configuration is text"));
    found.into_iter().map(text).collect()
}

fn help() -> String {
    let helps = ["echo", "gateway", "channels"].map(|app| {
        let (code, help, _) = run(percore(&["serve", app, "--help"]));
        assert_eq!(code, 0);
        help
    });
    helps.concat()
}

/// Words of a text that begin so, each up to what no name has.
fn words<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let all = text.match_indices(start).filter(|(at, _)| !text[..*at].ends_with(is_name));
    let word = |at: usize| {
        let rest = &text[at + start.len()..];
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        text[at..at + start.len() + length].trim_end_matches(['-', '_'])
    };
    all.map(|(at, _)| word(at)).collect()
}

/// Flags and variables in a file that percore does not have. Lines with docker's own commands are passed over, in
/// documents all without percore's, and what compose puts in itself: `${NAME}`.
fn unknown_flags(path: &Path, text: &str, help: &str) -> Vec<String> {
    let is_document = path.extension().is_some_and(|ending| ending == "md");
    let text: String = text.lines().filter(|line| !line.contains("docker ")).flat_map(|line| [line, "\n"]).collect();
    let text = text.replace("${PERCORE_", "${");
    let lines = text.lines().filter(|line| !is_document || line.contains("percore serve"));
    let flags = lines.flat_map(|line| words(line, "--")).filter(|flag| flag.len() > 2);
    let flags = flags.filter(|flag| !words(help, "--").contains(flag));
    let variables = words(&text, "PERCORE_").into_iter().filter(|name| !words(help, "PERCORE_").contains(name));
    flags.chain(variables).map(str::to_owned).collect()
}

#[test]
fn every_flag_exists() {
    let help = help();
    for (path, text) in configurations() {
        let unknown = unknown_flags(&path, &text, &help);
        assert!(unknown.is_empty(), "{}: percore has no {unknown:?}", path.display());
    }
    let bad =
        "# --path, --listen=1, --nonsense and PERCORE_LISTEN, PERCORE_NONSENSE, ${PERCORE_IMAGE}\n# docker x --file";
    assert_eq!(unknown_flags(Path::new("x.conf"), bad, &help), ["--nonsense", "PERCORE_NONSENSE"]);
    assert_eq!(unknown_flags(Path::new("x.md"), bad, &help), ["PERCORE_NONSENSE"]);
}

#[test]
fn every_metric_exists() {
    let mut sources = Vec::new();
    files(&root().join("src"), &mut sources);
    let sources: String = sources.iter().map(read).collect();
    let mut seen = 0;
    for (path, text) in configurations() {
        for metric in words(&text, "percore_") {
            seen += 1;
            // A histogram is served as several.
            let ending = ["_bucket", "_sum", "_count"].iter().find_map(|ending| metric.strip_suffix(ending));
            let metric = ending.unwrap_or(metric);
            assert!(sources.contains(metric), "{}: {metric}", path.display());
        }
    }
    assert!(seen > 0, "the autoscaler has one");
}

/// What a manifest's check says of files, which a test may have changed.
fn manifests(what: &str, paths: &[PathBuf]) -> (i32, String) {
    let mut python = Command::new(tool("venv/bin/python"));
    python.arg(root().join("tests/deploy/manifests.py")).arg(what).args(paths).stderr(Stdio::piped());
    let (code, said, errors) = run(python);
    (code, said + &errors)
}

/// Whether a folder of manifests passes, and that it does not with any of these changes.
fn check_manifests(what: &str, folder: &str, changes: &[(&str, &str, &str)]) {
    let mut paths = Vec::new();
    files(&root().join(folder), &mut paths);
    let (code, said) = manifests(what, &paths);
    assert_eq!(code, 0, "{said}");
    let changed = TempDir::new();
    for (from, to, complaint) in changes {
        let mut count = 0;
        let copies: Vec<PathBuf> = paths
            .iter()
            .map(|path| {
                let text = read(path);
                count += text.matches(from).count();
                let copy = changed.path(&path.file_name().expect("a file").to_string_lossy());
                fs::write(&copy, text.replace(from, to)).expect("a copy");
                copy
            })
            .collect();
        assert!(count > 0, "nothing says {from}");
        let (code, said) = manifests(what, &copies);
        assert!(code == 1 && said.contains(complaint), "{from} as {to} gets: {said}");
    }
}

#[test]
fn kubernetes() {
    check_manifests(
        "kubernetes",
        "deploy/kubernetes",
        &[
            ("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 35", "a grace period of 35 s"),
            ("readinessProbe", "readynessProbe", "Kubernetes 1.30: "),
            ("containerPort: 9464", "containerPort: 9465", "ports"),
            ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem is False"),
            ("maxUnavailable: 1", "maxUnavailable: 2", "no pod is left"),
            ("memory: 1Gi", "memory: 512Mi", "a memory limit of 512 MiB"),
            ("        - port: websocket\n    - from", "        - port: admin\n    - from", "everybody reaches"),
        ],
    );
}

#[test]
fn knative() {
    check_manifests(
        "knative",
        "deploy/knative",
        &[
            ("containerConcurrency: 4000", "containerConcurrency: 1000", "more than a pod takes"),
            ("containerPort: 8080", "containerPort: web", "Kubernetes 1.30: "),
            ("timeoutSeconds: 600", "timeoutSeconds: \"600\"", "timeoutSeconds: '600'"),
            ("\"echo\",", "\"echo\", \"--listen=0.0.0.0:8080\",", "PORT"),
            ("scale-down-delay", "scale-down-wait", "unknown annotations"),
        ],
    );
}

/// A time as nginx, systemd and percore's help write it: `90s`.
fn time(text: &str) -> Duration {
    let seconds = text.strip_suffix('s').and_then(|digits| digits.parse().ok());
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("'{text}' is no time in seconds")))
}

/// What follows `name` in a text, up to a space or one of `;]`, wherever it stands.
fn all_after<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.match_indices(name)
        .map(|(at, _)| text[at + name.len()..].split([' ', ';', ']', '\n']).next().unwrap_or_default())
        .collect()
}

/// The default of a flag in the help.
fn default_of(flag: &str) -> Duration {
    let help = help();
    let about = help.split_once(&format!("\n      {flag} ")).expect("the flag").1;
    time(all_after(about, "[default: ")[0])
}

#[test]
fn nginx_waits_longer_than_percore_for_a_silent_client() {
    let heartbeat = default_of("--heartbeat-timeout");
    assert_eq!(heartbeat, Duration::from_secs(75));
    let http = read("proxy/include/http.conf");
    let stream = read("proxy/proxy-protocol.conf");
    let timeouts =
        ["\nproxy_read_timeout ", "\nproxy_send_timeout ", "\nsend_timeout "].map(|name| all_after(&http, name));
    for timeout in timeouts.iter().chain([&all_after(&stream, "proxy_timeout ")]) {
        assert!(timeout.len() == 1 && time(timeout[0]) > heartbeat, "{timeout:?}");
    }
}

#[test]
fn systemd_waits_longer_than_percore_drains() {
    let unit = read("deploy/systemd/percore.service");
    let limit = time(all_after(&unit, "\nTimeoutStopSec=")[0]);
    assert!(limit > default_of("--drain-timeout") && !all_after(&unit, "ExecStart=")[0].contains("--drain-timeout"));
}

/// systemd-analyze with the unit files, in which the program is the one under test. `None` when it is to be left out.
fn systemd_analyze(args: &[&str], replace: &[(&str, &str)], units: &[&str]) -> Option<(i32, String)> {
    if std::env::var_os(WITHOUT_SYSTEMD).is_some() {
        eprintln!("LEFT OUT, as {WITHOUT_SYSTEMD} says: systemd-analyze {}", args.join(" "));
        return None;
    }
    let folder = TempDir::new();
    for name in ["percore.service", "percore.socket"] {
        let mut text =
            read(format!("deploy/systemd/{name}")).replace("/usr/local/bin/percore", env!("CARGO_BIN_EXE_percore"));
        for (from, to) in replace {
            text = text.replace(from, to);
        }
        fs::write(folder.path(name), text).expect("a unit");
    }
    let mut command = Command::new("systemd-analyze");
    command.args(args).args(units.iter().map(|unit| folder.path(unit))).stderr(Stdio::piped());
    assert!(
        Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_ok(),
        "systemd-analyze is missing: run tests/run, which installs it, or set {WITHOUT_SYSTEMD}"
    );
    let (code, said, errors) = run(command);
    Some((code, said + &errors))
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    let verify = |replace: &[(&str, &str)]| {
        systemd_analyze(
            &["verify", "--man=no", "--recursive-errors=no"],
            replace,
            &["percore.service", "percore.socket"],
        )
    };
    let Some((code, said)) = verify(&[]) else { return };
    assert!(code == 0 && said.trim().is_empty(), "{said}");
    let (_, said) = verify(&[("ProtectHome=", "ProtectHouse=")]).expect("not left out");
    assert!(said.contains("ProtectHouse"), "{said}");
}

/// By systemd's default the end of one worker for want of memory is the end of the service.
#[test]
fn a_worker_that_is_out_of_memory_does_not_stop_the_unit() {
    assert_eq!(all_after(&read("deploy/systemd/percore.service"), "\nOOMPolicy="), ["continue"]);
}

#[test]
fn the_unit_exposes_little() {
    let security = |replace: &[(&str, &str)]| {
        systemd_analyze(&["security", "--offline=true", "--threshold=15", "--no-pager"], replace, &["percore.service"])
    };
    let Some((code, said)) = security(&[]) else { return };
    assert_eq!(code, 0, "{said}");
    assert_ne!(security(&[("CapabilityBoundingSet=", "")]).expect("not left out").0, 0);
}
