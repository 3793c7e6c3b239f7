//! Which process listens on an address, as far as this one may see: its own user's processes, or all for root.

use super::other_end::{mapped, text_of};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

/// The state of a listening socket in the kernel's tables.
const LISTENS: &str = "0A";

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    name: String,
}

impl Holder {
    /// The process with this number, if it is visible.
    pub fn process(pid: u32) -> Option<Holder> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
        Some(Holder { pid, name })
    }

    /// The process that listens on `addr`, or on an address that overlaps it. If several share a socket, their parent.
    pub fn of(addr: SocketAddr) -> Option<Holder> {
        let sockets = listening(addr);
        let mut holders = BTreeMap::new();
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(open) = fs::read_dir(entry.path().join("fd")) else { continue };
            let mut links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            if links.any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link))) {
                holders.insert(pid, parent(pid));
            }
        }
        let first = holders.iter().find(|(_, parent)| parent.is_none_or(|parent| !holders.contains_key(&parent)));
        Holder::process(*first?.0)
    }

    /// Whether it is this process.
    pub fn is_us(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Its command line.
    pub fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = self.name.chars().filter(|c| !c.is_control()).collect();
        write!(f, "process {} ({name})", self.pid)
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may contain anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The sockets that listen on `addr`, as named by the links in `/proc/PID/fd`.
fn listening(addr: SocketAddr) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|table| File::open(table).ok());
    // Listening sockets come first in a table, which may be long.
    let listening = |line: &String| line.split_whitespace().nth(3).is_some_and(|state| state == LISTENS);
    let of = |table| BufReader::new(table).lines().map_while(Result::ok).skip(1).take_while(listening);
    let numbers = tables.flat_map(of).filter_map(|line| socket_at(&line, addr));
    numbers.map(|number| format!("socket:[{number}]")).collect()
}

/// The socket in a line of the kernel's table, if it listens on `addr`.
fn socket_at(line: &str, addr: SocketAddr) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (*words.get(1)?, *words.get(3)?);
    let (ip, port) = local.split_once(':')?;
    let wanted = [addr, mapped(addr)].map(text_of);
    let is_port = wanted[0].ends_with(&format!(":{port}"));
    let overlaps = addr.ip().is_unspecified() || ip.bytes().all(|digit| digit == b'0');
    let is_there = is_port && (overlaps || wanted.iter().any(|wanted| wanted == local));
    words.get(9)?.parse().ok().filter(|_| is_there && state == LISTENS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let everywhere = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        for addr in [addr, everywhere] {
            let holder = Holder::of(addr).expect("this process");
            assert!(holder.is_us(), "{holder}");
            assert!(!holder.arguments().is_empty());
        }
        drop(listener);
        assert_eq!(Holder::of(addr), None);
    }

    #[test]
    fn lines_of_the_table() {
        let line = |local: &str, state: &str| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0"
            )
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0x1F90));
        let own = text_of(addr);
        let zeros = "0".repeat(32);
        for (line, found) in [
            (line(&own, "0A"), true),
            (line(&own, "01"), false),
            (line("00000000:1F90", "0A"), true),
            (line(&format!("{zeros}:1F90"), "0A"), true),
            (line(&text_of(mapped(addr)), "0A"), true),
            (line("00000000:1F91", "0A"), false),
            (line(&text_of(SocketAddr::from(([127, 0, 0, 2], 0x1F90))), "0A"), false),
            ("  sl  local_address rem_address   st".to_owned(), false),
        ] {
            assert_eq!(socket_at(&line, addr), found.then_some(4711), "{line}");
        }
    }
}
