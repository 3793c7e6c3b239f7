//! Other hosts and their members, as reported by their bridges. No sockets; the time is an argument.
//!
//! Invariant: the changes handed out add up to the members of all known hosts. Input is not trusted: hosts, names and
//! lists are bounded, and what exceeds the bounds is counted and dropped.

use super::names::Names;
use super::wire::{HostId, Kind};
use crate::channel::presence::{Change, Presence};
use crate::channel::record::{RecordKind, Records};
use crate::net::id::Participant;
use std::collections::HashMap;
use std::time::Duration;

/// The most hosts to know.
const MAX_HOSTS: usize = 1024;
/// The most bytes for the names of a host's members and their channels.
const MAX_BYTES: usize = 32 << 20;
/// The most bytes for the names of all hosts.
const MAX_TOTAL_BYTES: usize = 128 << 20;
/// The cost of a name besides its letters.
const NAME_BYTES: usize = 64;

/// The response that a message calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing.
    None,
    /// Send our list.
    Tell,
    /// Ask that host for its list: we do not have it.
    AskFor(HostId),
}

struct Host {
    /// Its key in [`Presence`].
    key: Participant,
    heard: Duration,
    /// An incomplete list.
    list: Option<Records>,
    /// Bytes of the names on that list, and of the current ones.
    listed: usize,
    bytes: usize,
}

/// All other hosts.
#[derive(Default)]
pub struct Hosts {
    hosts: HashMap<HostId, Host>,
    /// Counts all hosts so far.
    last: u32,
    presence: Presence,
    names: Names,
    /// Messages and names dropped.
    pub ignored: u64,
}

impl Hosts {
    /// Returns the number of known hosts.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Notes that a message of any kind came from a host.
    pub fn heard(&mut self, from: HostId, now: Duration) {
        if let Some(host) = self.hosts.get_mut(&from) {
            host.heard = now;
        }
    }

    /// Takes a presence message. Calls `each` for members that joined or left by it.
    pub fn receive(
        &mut self,
        from: HostId,
        kind: Option<Kind>,
        payload: &[u8],
        now: Duration,
        mut each: impl FnMut(Change<'_>),
    ) -> Answer {
        let is_known = self.hosts.contains_key(&from);
        self.heard(from, now);
        match kind {
            Some(Kind::Hello | Kind::Ask) => return Answer::Tell,
            Some(Kind::Goodbye) => self.forget(from, &mut each),
            Some(Kind::Alive | Kind::Changes) if !is_known => return Answer::AskFor(from),
            Some(Kind::Alive) => {}
            Some(Kind::Changes) => self.change(from, payload, &mut each),
            Some(Kind::ListBegins) if is_known || self.add(from, now) => self.list(from, payload, true),
            Some(Kind::ListGoesOn) => self.list(from, payload, false),
            Some(Kind::ListEnds) => {
                self.list(from, payload, false);
                self.replace(from, &mut each);
            }
            Some(Kind::ListBegins | Kind::Text | Kind::Binary) | None => self.ignored += 1,
        }
        Answer::None
    }

    /// Forgets hosts that were silent for `timeout`. Calls `gone` for each host, and `each` for its members.
    pub fn expire(
        &mut self,
        now: Duration,
        timeout: Duration,
        mut gone: impl FnMut(HostId),
        mut each: impl FnMut(Change<'_>),
    ) {
        let is_silent = |host: &Host| now >= host.heard + timeout;
        let silent: Vec<HostId> = self.hosts.iter().filter(|(_, host)| is_silent(host)).map(|(id, _)| *id).collect();
        for id in silent {
            gone(id);
            self.forget(id, &mut each);
        }
    }

    /// Returns when the next host will have been silent for `timeout`.
    pub fn next_deadline(&self, timeout: Duration) -> Option<Duration> {
        self.hosts.values().map(|host| host.heard + timeout).min()
    }

    fn add(&mut self, id: HostId, now: Duration) -> bool {
        if self.hosts.len() >= MAX_HOSTS {
            return false;
        }
        self.last = self.last.wrapping_add(1);
        let key = Participant { slot: self.last, generation: 1 };
        self.hosts.insert(id, Host { key, heard: now, list: None, listed: 0, bytes: 0 });
        true
    }

    fn list(&mut self, from: HostId, payload: &[u8], begins: bool) {
        let mut room = self.room();
        let Some(host) = self.hosts.get_mut(&from) else { return };
        if begins {
            (host.list, host.listed) = (Some(Records::new()), 0);
        }
        let Some(list) = &mut host.list else { return };
        for record in Records::from_bytes(payload.to_vec()).iter() {
            let bytes = bytes_of(record.channel, record.payload);
            if record.kind != RecordKind::Enter || host.listed + bytes > MAX_BYTES || bytes > room {
                self.ignored += 1;
                continue;
            }
            (host.listed, room) = (host.listed + bytes, room - bytes);
            list.push(record.kind, record.channel, &[record.payload]);
        }
    }

    fn replace(&mut self, from: HostId, each: &mut impl FnMut(Change<'_>)) {
        let Some(host) = self.hosts.get_mut(&from) else { return };
        let Some(list) = host.list.take() else { return };
        host.bytes = std::mem::take(&mut host.listed);
        let names = &mut self.names;
        self.presence.replace(host.key, &list, |change| tell(names, change, each));
    }

    /// Bytes left for more names.
    fn room(&self) -> usize {
        MAX_TOTAL_BYTES.saturating_sub(self.hosts.values().map(|host| host.bytes + host.listed).sum())
    }

    fn change(&mut self, from: HostId, payload: &[u8], each: &mut impl FnMut(Change<'_>)) {
        let mut room = self.room();
        let Some(host) = self.hosts.get_mut(&from) else { return };
        for record in Records::from_bytes(payload.to_vec()).iter() {
            let is_enter = record.kind == RecordKind::Enter;
            let (names, bytes) = (&mut self.names, bytes_of(record.channel, record.payload));
            let fits = host.bytes + bytes <= MAX_BYTES && bytes <= room;
            if !(record.kind == RecordKind::Leave || is_enter && fits) {
                self.ignored += 1;
                continue;
            }
            self.presence.apply(host.key, record, |change| {
                host.bytes = if is_enter { host.bytes + bytes } else { host.bytes.saturating_sub(bytes) };
                room = if is_enter { room.saturating_sub(bytes) } else { room + bytes };
                tell(names, change, each);
            });
        }
    }

    fn forget(&mut self, id: HostId, each: &mut impl FnMut(Change<'_>)) {
        let Some(host) = self.hosts.remove(&id) else { return };
        let names = &mut self.names;
        self.presence.remove(host.key, |change| tell(names, change, each));
    }
}

fn bytes_of(channel: &[u8], member: &[u8]) -> usize {
    channel.len() + member.len() + NAME_BYTES
}

/// Hands a change on, if it changes the members of all hosts together.
fn tell(names: &mut Names, change: Change<'_>, each: &mut impl FnMut(Change<'_>)) {
    if names.change(change.channel, change.member, change.entered) {
        each(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: HostId = HostId(1);
    const TWO: HostId = HostId(2);

    fn records(all: &[(RecordKind, &str)]) -> Records {
        let mut records = Records::new();
        all.iter().for_each(|(kind, name)| records.push(*kind, b"room", &[name.as_bytes()]));
        records
    }

    /// The result of a message: changes as `+ann -bob`, and the response it calls for.
    fn receive(hosts: &mut Hosts, from: HostId, kind: Kind, payload: &Records, now: u64) -> (String, Answer) {
        let mut changes = Vec::new();
        let answer = hosts.receive(from, Some(kind), payload.bytes(), Duration::from_secs(now), |change| {
            changes.push(format!("{}{}", if change.entered { '+' } else { '-' }, change.member));
        });
        changes.sort();
        (changes.join(" "), answer)
    }

    use RecordKind::{Enter, Leave};

    #[test]
    fn lists_changes_and_a_name_on_two_hosts() {
        let mut hosts = Hosts::default();
        let none = Records::new();
        let list = records(&[(Enter, "ann"), (Enter, "bob")]);
        assert_eq!(receive(&mut hosts, ONE, Kind::Hello, &none, 0), (String::new(), Answer::Tell));
        assert_eq!(receive(&mut hosts, ONE, Kind::ListBegins, &list, 0).0, "", "not before it is complete");
        assert_eq!(receive(&mut hosts, ONE, Kind::ListEnds, &records(&[(Enter, "cat")]), 0).0, "+ann +bob +cat");
        let list = records(&[(Enter, "ann")]);
        receive(&mut hosts, TWO, Kind::ListBegins, &list, 0);
        assert_eq!(receive(&mut hosts, TWO, Kind::ListEnds, &none, 0).0, "", "she is known");
        let changes = records(&[(Leave, "ann"), (Leave, "bob"), (Enter, "dan"), (Leave, "nobody")]);
        assert_eq!(receive(&mut hosts, ONE, Kind::Changes, &changes, 1).0, "+dan -bob");
        // The same list again changes nothing; another one yields the difference.
        receive(&mut hosts, ONE, Kind::ListBegins, &records(&[(Enter, "dan"), (Enter, "eve")]), 1);
        assert_eq!(receive(&mut hosts, ONE, Kind::ListEnds, &none, 1).0, "+eve -cat");
        assert_eq!(receive(&mut hosts, TWO, Kind::Goodbye, &none, 1).0, "-ann");
        assert_eq!((hosts.len(), hosts.ignored), (1, 0));
    }

    #[test]
    fn silent_hosts_are_gone_and_asked_when_they_are_back() {
        let (mut hosts, none) = (Hosts::default(), Records::new());
        assert_eq!(receive(&mut hosts, ONE, Kind::Alive, &none, 0).1, Answer::AskFor(ONE));
        receive(&mut hosts, ONE, Kind::ListBegins, &records(&[(Enter, "ann")]), 0);
        receive(&mut hosts, ONE, Kind::ListEnds, &none, 0);
        receive(&mut hosts, TWO, Kind::ListBegins, &none, 1);
        receive(&mut hosts, TWO, Kind::ListEnds, &none, 1);
        let timeout = Duration::from_secs(15);
        assert_eq!(hosts.next_deadline(timeout), Some(timeout));
        hosts.heard(TWO, Duration::from_secs(5));
        let (mut silent, mut left) = (Vec::new(), Vec::new());
        hosts.expire(timeout, timeout, |id| silent.push(id), |change| left.push(change.member.to_owned()));
        assert_eq!((silent, left), (vec![ONE], vec!["ann".to_owned()]));
        assert_eq!(hosts.next_deadline(timeout), Some(Duration::from_secs(20)));
        let changes = records(&[(Enter, "ann")]);
        assert_eq!(receive(&mut hosts, ONE, Kind::Changes, &changes, 16), (String::new(), Answer::AskFor(ONE)));
    }

    #[test]
    fn what_has_no_bounds_is_left_out() {
        let (mut hosts, none) = (Hosts::default(), Records::new());
        for id in 0..MAX_HOSTS as u64 + 10 {
            receive(&mut hosts, HostId(id), Kind::ListBegins, &none, 0);
        }
        assert_eq!((hosts.len(), hosts.ignored), (MAX_HOSTS, 10));
        let long = "x".repeat(1 << 20);
        let names: Vec<String> = (0..40).map(|n| format!("{n}{long}")).collect();
        for name in &names {
            receive(&mut hosts, ONE, Kind::Changes, &records(&[(Enter, name)]), 0);
        }
        assert_eq!(hosts.ignored, 10 + 9);
        for name in &names {
            receive(&mut hosts, TWO, Kind::ListGoesOn, &records(&[(Enter, name)]), 0);
        }
        assert_eq!(hosts.ignored, 10 + 9 + 9);
        receive(&mut hosts, ONE, Kind::Changes, &records(&[(RecordKind::Count, "12345"), (RecordKind::Text, "x")]), 0);
        assert_eq!(hosts.ignored, 10 + 9 + 9 + 2);
        // For short names, the cost besides their letters counts.
        let short: Vec<String> = (0..600_000).map(|n| n.to_string()).collect();
        let short: Vec<_> = short.iter().map(|name| (Enter, &name[..])).collect();
        hosts.ignored = 0;
        receive(&mut hosts, HostId(3), Kind::ListGoesOn, &records(&short), 0);
        assert!((100_000..300_000).contains(&hosts.ignored), "{}", hosts.ignored);
        // There is also a limit for all together: 31 of them once more, and 2.
        hosts.ignored = 0;
        for id in [HostId(4), HostId(5)] {
            for name in &names {
                receive(&mut hosts, id, Kind::ListGoesOn, &records(&[(Enter, name)]), 0);
            }
        }
        assert_eq!(hosts.ignored, 9 + 38);
    }
}
