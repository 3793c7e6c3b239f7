//! `deploy/openapi.yaml` against the real binary: with schemathesis, which generates valid and invalid requests, and
//! with its own examples.

use crate::common::origin::{Gateway, Origin, request};
use crate::common::{TempDir, tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn description() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/openapi.yaml")
}

/// A gateway that wants a token, and a folder of its own.
fn start(origin: &Origin) -> (Gateway, TempDir) {
    let folder = TempDir::new();
    let token = folder.path("token");
    fs::write(&token, TOKEN).expect("written");
    (Gateway::start(origin, &["--service-token-file", token.to_str().expect("text")]), folder)
}

/// Runs schemathesis with all its checks; `more` are further flags.
fn explore(gateway: &Gateway, folder: &TempDir, config: &str, more: &[&str]) {
    let file = folder.path("schemathesis.toml");
    fs::write(&file, config).expect("written");
    let mut command = Command::new(tool("venv/bin/schemathesis"));
    command.current_dir(file.parent().expect("a folder")).arg("--config-file").arg(&file).arg("run").arg(description());
    let url = format!("http://{}", gateway.service);
    let header = format!("Authorization: Bearer {TOKEN}");
    command.args(["--url", &url, "--header", &header, "--checks", "all", "--max-examples", "15", "--seed", "1"]);
    let output = command.args(["--warnings", "off"]).args(more).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_service_does_what_its_description_says() {
    let origin = Origin::start(|_| 200);
    let (gateway, folder) = start(&origin);
    explore(&gateway, &folder, "", &[]);
}

/// The same about a connection that is there.
#[test]
fn the_service_does_so_for_a_connection_too() {
    let origin = Origin::start(|_| 200);
    let (gateway, folder) = start(&origin);
    // What it is sent is little enough to wait.
    let _client = gateway.server.open();
    let id = origin.first_id().replace('/', "_").replace('+', "-");
    let config = format!("[parameters]\n\"path.id\" = \"{id}\"\n");
    // What it would make wrong in an id is made good again by the one that is given: so only what is good.
    let which = ["--include-path-regex", "id", "--exclude-operation-id", "closeConnection"];
    let good = ["--mode", "positive", "--exclude-checks", "negative_data_rejection"];
    explore(&gateway, &folder, &config, &[which, good].concat());
}

/// Methods and paths that a description has.
fn routes(text: &str) -> Vec<(String, String)> {
    let (mut path, mut routes) = (String::new(), Vec::new());
    let paths = text.lines().skip_while(|line| *line != "paths:").take_while(|line| *line != "components:");
    for line in paths {
        if let Some(name) = line.strip_prefix("  /") {
            path = format!("/{}", name.trim_end_matches(':'));
        }
        let method = line.strip_prefix("    ").and_then(|line| line.strip_suffix(':'));
        if let Some(method) = method.filter(|name| ["get", "put", "post", "delete"].contains(name)) {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    routes
}

#[test]
fn each_route_exists_and_no_other_method_does() {
    let text = fs::read_to_string(description()).expect("the description");
    let routes = routes(&text);
    assert_eq!(routes.len(), 10, "{routes:?}");
    let origin = Origin::start(|_| 200);
    let (gateway, _folder) = start(&origin);
    let header = format!("Authorization: Bearer {TOKEN}\r\n");
    let mut paths: Vec<&str> = routes.iter().map(|(_, path)| path.as_str()).collect();
    paths.dedup();
    for path in paths {
        let filled = path.replace("{id}", "AAAA").replace("{label}", "l").replace("{channel}", "c");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let response = request(gateway.service, method, &filled, &header, "");
            let is_described = routes.contains(&(method.to_owned(), path.to_owned()));
            let is_json = response.header("content-type") == Some("application/json");
            assert!(is_json, "{method} {path}: {} {}", response.status, response.body);
            assert_eq!(response.status != 405, is_described, "{method} {path}");
            let refused = request(gateway.service, method, &filled, "", "");
            assert_eq!(refused.status, 401, "{method} {path} without the token");
        }
    }
}
