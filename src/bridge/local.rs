//! The channels of this host and their members, as its processes report on the bus: which members other hosts must
//! know, and which channels to subscribe. No sockets, no clock.

use super::names::Names;
use crate::bus::event::BusEvent;
use crate::channel::presence::{Change, Presence};
use crate::channel::record::{RecordKind, Records};
use std::collections::HashSet;

/// This host.
#[derive(Default)]
pub struct Local {
    presence: Presence,
    /// The members of all its processes.
    pub names: Names,
    /// Members that joined or left since the last report to other hosts.
    pub changes: Records,
    /// Channels that may have become wanted or unwanted.
    touched: HashSet<Box<[u8]>>,
    /// Whether any channel may have.
    recheck: bool,
}

impl Local {
    /// Takes presence events; ignores others.
    pub fn apply(&mut self, event: BusEvent<'_>) {
        let (names, changes) = (&mut self.names, &mut self.changes);
        let each = |change: Change<'_>| {
            if names.change(change.channel, change.member, change.entered) {
                push_change(changes, change);
            }
        };
        match event {
            BusEvent::Joined(_) | BusEvent::Gap { .. } => {}
            BusEvent::Left(who) => {
                self.presence.remove(who, each);
                self.recheck = true;
            }
            BusEvent::Present { from, list } => {
                self.presence.replace(from, list, each);
                self.recheck = true;
            }
            BusEvent::Record { from, record } => {
                self.presence.apply(from, record, each);
                if record.kind == RecordKind::Count && !self.touched.contains(record.channel) {
                    self.touched.insert(record.channel.into());
                }
            }
        }
    }

    /// Marks all channels for checking, as nothing is subscribed.
    pub fn forget_subscriptions(&mut self, subscribed: &mut HashSet<Box<[u8]>>) {
        subscribed.clear();
        self.touched.clear();
        self.recheck = true;
    }

    /// Brings the set of subscribed channels up to date. Calls `each` with a channel and whether to subscribe to it. A
    /// channel that came and went in the meantime is skipped.
    pub fn update(&mut self, subscribed: &mut HashSet<Box<[u8]>>, mut each: impl FnMut(&[u8], bool)) {
        if std::mem::take(&mut self.recheck) {
            self.touched.extend(self.presence.channels().map(Box::from));
            self.touched.extend(subscribed.iter().cloned());
        }
        for channel in self.touched.drain() {
            let is_wanted = self.presence.is_wanted(&channel);
            if is_wanted == subscribed.contains(&channel) {
                continue;
            }
            each(&channel, is_wanted);
            if is_wanted {
                subscribed.insert(channel);
            } else {
                subscribed.remove(&channel);
            }
        }
    }
}

/// Appends a change as a record.
pub fn push_change(records: &mut Records, Change { channel, member, entered }: Change<'_>) {
    let kind = if entered { RecordKind::Enter } else { RecordKind::Leave };
    records.push(kind, channel.as_bytes(), &[member.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::record::{Interest, Record};
    use crate::net::id::Participant;

    fn who(slot: u32) -> Participant {
        Participant { slot, generation: 1 }
    }

    fn count(local: &mut Local, slot: u32, channel: &str, subscribers: u32, listens: bool) {
        let payload = Interest { subscribers, listens }.bytes();
        let record = Record { kind: RecordKind::Count, channel: channel.as_bytes(), payload: &payload };
        local.apply(BusEvent::Record { from: who(slot), record });
    }

    fn updates(local: &mut Local, subscribed: &mut HashSet<Box<[u8]>>) -> Vec<String> {
        let mut all = Vec::new();
        local.update(subscribed, |channel, is_wanted| {
            all.push(format!("{}{}", if is_wanted { '+' } else { '-' }, String::from_utf8_lossy(channel)));
        });
        all.sort();
        all
    }

    #[test]
    fn a_channel_is_subscribed_for_the_first_and_left_after_the_last() {
        let (mut local, mut subscribed) = (Local::default(), HashSet::new());
        count(&mut local, 1, "a", 1, false);
        count(&mut local, 2, "b", 0, true);
        assert_eq!(updates(&mut local, &mut subscribed), ["+a", "+b"]);
        count(&mut local, 2, "a", 5, false);
        count(&mut local, 1, "a", 0, false);
        count(&mut local, 1, "c", 1, false);
        count(&mut local, 1, "c", 0, false);
        assert!(updates(&mut local, &mut subscribed).is_empty());
        local.apply(BusEvent::Left(who(2)));
        assert_eq!(updates(&mut local, &mut subscribed), ["-a", "-b"]);
        count(&mut local, 1, "a", 1, false);
        assert_eq!(updates(&mut local, &mut subscribed), ["+a"]);
        local.forget_subscriptions(&mut subscribed);
        assert_eq!(updates(&mut local, &mut subscribed), ["+a"], "on a new connection");
    }

    #[test]
    fn a_member_makes_no_channel_wanted_and_is_told_once() {
        let (mut local, mut subscribed) = (Local::default(), HashSet::new());
        for slot in [1, 2] {
            let record = Record { kind: RecordKind::Enter, channel: b"room", payload: b"ann" };
            local.apply(BusEvent::Record { from: who(slot), record });
        }
        assert!(updates(&mut local, &mut subscribed).is_empty());
        local.apply(BusEvent::Left(who(1)));
        assert_eq!(local.changes.iter().count(), 1);
        local.apply(BusEvent::Present { from: who(2), list: &Records::new() });
        let kinds: Vec<RecordKind> = local.changes.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [RecordKind::Enter, RecordKind::Leave]);
    }
}
