//! The commands of proxy/README.md: percore and nginx as in each row of its table.

use crate::common::client::upgrade_request;
use crate::common::nginx::{Nginx, Rendered, instances};
use crate::common::{Killed, Server, TempDir, eventually};
use std::process::{Command, Stdio};

/// The commands in the last cell of a row.
fn commands(readme: &str, file: &str) -> String {
    let row = readme.lines().find(|line| line.starts_with(&format!("| `{file}` |"))).expect("a row");
    let cell = row.trim_end_matches('|').rsplit('|').next().expect("a cell");
    cell.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(" && ")
}

#[test]
fn the_rows_of_unix_sockets_work_when_copied() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy/README.md")).expect("a file");
    for (file, sockets) in [("unix.conf", &["percore.sock"][..]), ("per-worker.conf", &["0.sock", "3.sock"])] {
        let folder = TempDir::new();
        let run = folder.path("run").display().to_string();
        let typed = commands(&readme, file);
        assert!(typed.contains("/run/percore") && typed.contains("percore serve"), "{typed}");
        // Without what a test must not touch: the machine's /run, other users, the admin listener's own port.
        let typed = typed.replace("/run/percore", &run).replace("sudo ", "").replace("$USER", "$(id -un)");
        let typed = typed.replace("percore serve", &format!("exec {} serve", env!("CARGO_BIN_EXE_percore")));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask 022; {typed}")]).env("PERCORE_ADMIN", "off");
        let _percore = Killed(shell.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
        eventually("the sockets", || sockets.iter().all(|name| folder.path("run").join(name).exists()));
        let nginx = Nginx::start(file, &[("/run/percore/", format!("{run}/"))]);
        eventually("that nginx reaches it", || nginx.connect().get("/healthz").status == 200);
        assert_eq!(nginx.open().echo(file), file);
    }
}

#[test]
fn what_upgrades_without_nginx_upgrades_behind_it() {
    let server = Server::start(&[]);
    let nginx = Rendered::new("nginx.conf", &instances(server.addr(), server.addr())).start();
    for path in ["/", "/ws"] {
        let mut client = nginx.connect();
        client.send(upgrade_request(path, ""));
        assert_eq!(client.head_response().status, 101, "{path}");
        assert_eq!(client.echo(path), path);
    }
}
