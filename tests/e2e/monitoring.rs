//! `deploy/monitoring/`: a real service serves every metric that the dashboard and the alerts name, and Prometheus's
//! own tool accepts the metrics, the rules, and each query of the dashboard.

use crate::common::service::Service;
use crate::common::{TempDir, eventually, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/monitoring/dashboard.json")).expect("the dashboard is JSON")
}

/// promtool, which is to succeed; what it says.
fn promtool(args: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is on PATH (tests/run installs it)");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}

/// Every value of a key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| all(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

/// The queries of the dashboard, without Grafana's variables.
fn queries() -> Vec<String> {
    let (dashboard, mut found) = (dashboard(), Vec::new());
    all(&dashboard, "expr", &mut found);
    let text = |query: &Value| query.as_str().expect("a query").replace("$__rate_interval", "1m");
    found.into_iter().map(text).collect()
}

/// Metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("percore_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

/// A service with everything that a service may have.
fn service() -> Service {
    let service = Service::start("2", &[]);
    eventually("both workers", || service.get("/readyz").0 == 200);
    service
}

#[test]
fn every_metric_of_dashboard_and_alerts_is_served() {
    let service = service();
    let (_, metrics) = service.get("/metrics");
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let served: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let queries = queries().concat() + &dashboard()["templating"].to_string();
    for text in [queries, read("deploy/monitoring/rules.yml")] {
        let names = named(&text);
        assert!(names.len() > 10, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !served.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "nobody serves {missing:?}");
    }
}

#[test]
fn each_worker_tells_what_its_process_uses() {
    let service = service();
    let mut client = service.server.open();
    assert_eq!(client.echo("a"), "a");
    let (_, metrics) = service.get("/metrics");
    let value = |name: &str, worker: usize| -> f64 {
        let start = format!("{name}{{worker=\"{worker}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok());
        found.unwrap_or_else(|| panic!("no {start} in\n{metrics}"))
    };
    let workers = service.workers();
    assert_eq!(workers.len(), 2);
    for worker in 0..2 {
        let started = value("process_start_time_seconds", worker);
        assert!(started > 1.7e9 && value("process_cpu_seconds_total", worker) < 60.0, "{metrics}");
        assert!(value("process_resident_memory_bytes", worker) > 1e6, "{metrics}");
        let open = value("process_open_fds", worker);
        assert!(open > 3.0 && open < value("process_max_fds", worker), "{metrics}");
    }
    // A worker that is replaced is told of as the new one is.
    let before = value("process_start_time_seconds", 0);
    let (code, _, _) = run({
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &workers[0].to_string()]);
        kill
    });
    assert_eq!(code, 0);
    let is_new = |line: &str| {
        let started: Option<f64> =
            line.strip_prefix("process_start_time_seconds{worker=\"0\"} ").and_then(|text| text.parse().ok());
        started.is_some_and(|started| started > before)
    };
    eventually("the new worker", || service.get("/metrics").1.lines().any(is_new));
}

#[test]
fn prometheus_takes_what_is_served() {
    promtool(&["check", "metrics"], &service().get("/metrics").1);
}

#[test]
fn prometheus_takes_rules_and_configuration() {
    promtool(&["check", "rules", &path("deploy/monitoring/rules.yml").display().to_string()], "");
    let configuration = path("deploy/monitoring/prometheus.yml").display().to_string();
    promtool(&["check", "config", "--syntax-only", &configuration], "");
    // The rules are found beside their tests.
    let folder = TempDir::new();
    for (from, to) in [("deploy/monitoring/rules.yml", "rules.yml"), ("tests/monitoring/alerts.yml", "alerts.yml")] {
        fs::write(folder.path(to), read(from)).expect("a copy");
    }
    promtool(&["test", "rules", &folder.path("alerts.yml").display().to_string()], "");
}

#[test]
fn prometheus_takes_each_query_of_the_dashboard() {
    let queries = queries();
    assert!(queries.len() > 30, "{queries:?}");
    let quoted = |query: &String| serde_json::to_string(query).expect("a text");
    let rules =
        queries.iter().enumerate().map(|(at, query)| format!("  - {{record: q{at}, expr: {}}}\n", quoted(query)));
    let folder = TempDir::new();
    let file = folder.path("queries.yml");
    fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{}", rules.collect::<String>())).expect("a file");
    promtool(&["check", "rules", &file.display().to_string()], "");
}

/// What Grafana shows wrongly or not at all, and does not complain of.
#[test]
fn the_dashboard_is_laid_out() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["uid"] == "percore", "{dashboard}");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variables: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, ["datasource", "instance", "worker"]);
    let mut sources = Vec::new();
    all(&dashboard["panels"], "datasource", &mut sources);
    assert!(sources.iter().all(|source| source["uid"] == "${datasource}"), "{sources:?}");

    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels have an id: {panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "two panels are at {cell:?}: {panel}");
        }
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}: no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}: no queries");
        let letters: BTreeSet<_> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
        assert_eq!(letters.len(), targets.len(), "{title}: two queries have a letter");
        for target in targets {
            assert!(target["legendFormat"].as_str().is_some_and(|text| !text.is_empty()), "{title}: no legend");
            assert!(
                target["expr"].as_str().is_some_and(|query| query.contains("$instance")),
                "{title}: of all instances"
            );
        }
        if panel["type"] == "timeseries" {
            assert_eq!(panel["options"]["legend"]["showLegend"], true, "{title}");
        }
    }
    // No gaps either: each row is filled to its end, but for the last panels of one.
    let height = taken.iter().map(|(_, y)| y + 1).max();
    assert_eq!(height, Some(taken.len() as u64 / 24), "there are gaps");
}
