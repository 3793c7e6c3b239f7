//! A supervisor with its workers.

use super::{Client, Server, TempDir, eventually, percore, process};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A service on a port of its own, its admin listener too.
pub struct Service {
    /// The supervisor.
    pub server: Server,
    /// Its admin listener.
    pub admin: SocketAddr,
}

impl Service {
    /// `percore serve echo`, with so many workers and further flags.
    pub fn start(workers: &str, flags: &[&str]) -> Service {
        Service::launch(percore(&[]), workers, flags)
    }

    /// The same by another binary.
    pub fn launch(mut command: Command, workers: &str, flags: &[&str]) -> Service {
        command.args(["serve", "echo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", workers]);
        let server = Server::launch(
            {
                command.args(flags);
                command
            },
            1,
        );
        Service { admin: server.admin(), server }
    }

    /// Its workers, in the order of their start.
    pub fn workers(&self) -> Vec<u32> {
        process::children(self.server.child().id())
    }

    /// Status and content of a path of the admin listener.
    pub fn get(&self, path: &str) -> (u16, String) {
        let response = Client::connect(self.admin).get(path);
        (response.status, response.body)
    }

    /// A metric's value, its labels as they are written.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Opens connections until each of two workers has some. Says which worker holds which.
    pub fn open_on_both(&self) -> [Vec<Client>; 2] {
        let mut by_worker = [Vec::new(), Vec::new()];
        eventually("connections on both workers", || {
            let before = self.metric("percore_connections_open{worker=\"0\"}");
            let client = self.server.open();
            let mut after = 0;
            eventually("the connection counts", || {
                after = self.metric("percore_connections_open{worker=\"0\"}");
                after + self.metric("percore_connections_open{worker=\"1\"}")
                    > by_worker.iter().map(|held: &Vec<Client>| held.len() as u64).sum()
            });
            by_worker[usize::from(after == before)].push(client);
            by_worker.iter().all(|clients| clients.len() >= 2)
        });
        by_worker
    }
}

/// A copy of the binary that a test may replace.
pub fn own_binary(folder: &TempDir) -> Command {
    let path = folder.path("percore");
    std::fs::copy(env!("CARGO_BIN_EXE_percore"), &path).expect("a copy");
    let mut command = percore(&[]);
    let mut own = Command::new(path);
    own.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    command = own;
    command
}

/// Puts another program in the place of the binary, as an upgrade does.
pub fn replace_binary(folder: &TempDir, by: &Path) {
    std::fs::copy(by, folder.path("new")).expect("a copy");
    std::fs::rename(folder.path("new"), folder.path("percore")).expect("renamed");
}
