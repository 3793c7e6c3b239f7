//! Channel membership: each process mirrors what all participants of a bus report.
//!
//! Invariants: only channels with subscribers or listening apps are kept; a participant's entries are found without
//! visiting those of others. Reports may repeat or arrive out of order.

use super::record::{Interest, Record, RecordKind, Records};
use crate::net::id::Participant;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A member joined a channel, or left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The member's name.
    pub member: &'a str,
    /// Whether the member joined.
    pub entered: bool,
}

/// One participant's subscribers and members on one channel.
#[derive(Default, Debug)]
struct Part {
    interest: Interest,
    members: BTreeSet<Box<str>>,
}

impl Part {
    fn is_empty(&self) -> bool {
        !self.interest.is_some() && self.members.is_empty()
    }

    fn apply(&mut self, record: Record<'_>, each: &mut impl FnMut(Change<'_>)) {
        if let Some(interest) = record.interest() {
            self.interest = interest;
        }
        // Names that are not valid UTF-8 come from other programs: no app here could be told of them.
        let names = (std::str::from_utf8(record.channel), std::str::from_utf8(record.payload));
        let (Ok(channel), Ok(member)) = names else { return };
        let entered = record.kind == RecordKind::Enter;
        let is_news = match record.kind {
            RecordKind::Enter => !self.members.contains(member) && self.members.insert(member.into()),
            RecordKind::Leave => self.members.remove(member),
            RecordKind::Count | RecordKind::Text | RecordKind::Binary => false,
        };
        if is_news {
            each(Change { channel, member, entered });
        }
    }

    fn turn_into(&mut self, new: Part, channel: &[u8], each: &mut impl FnMut(Change<'_>)) {
        let old = std::mem::replace(self, new);
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let gone = old.members.difference(&self.members).map(|member| Change { channel, member, entered: false });
        let came = self.members.difference(&old.members).map(|member| Change { channel, member, entered: true });
        gone.chain(came).for_each(each);
    }
}

/// The members and subscribers of each channel, of all participants.
///
/// ```
/// use percore::Presence;
/// use percore::{Participant, Record, RecordKind};
///
/// let (mut presence, from) = (Presence::default(), Participant { slot: 1, generation: 1 });
/// let enter = Record { kind: RecordKind::Enter, channel: b"room", payload: b"ann" };
/// presence.apply(from, enter, |change| assert!(change.entered));
/// presence.apply(from, enter, |_| unreachable!("she is there already"));
/// assert_eq!(presence.members(b"room").collect::<Vec<_>>(), ["ann"]);
/// presence.remove(from, |change| assert_eq!((change.member, change.entered), ("ann", false)));
/// ```
#[derive(Default, Debug)]
pub struct Presence {
    /// By channel, and then by participant; there are few of these.
    channels: HashMap<Arc<[u8]>, Vec<(Participant, Part)>>,
    /// The channels on which a participant has an entry.
    own: HashMap<Participant, HashSet<Arc<[u8]>>>,
}

impl Presence {
    /// Applies a participant's Count, Enter or Leave; other records are ignored. Calls `each` if a member joined or
    /// left, but not for what was known.
    pub fn apply(&mut self, from: Participant, record: Record<'_>, mut each: impl FnMut(Change<'_>)) {
        if record.kind.is_presence() {
            self.change(from, record.channel, |part| part.apply(record, &mut each));
        }
    }

    /// Replaces everything known of a participant with its complete list. Calls `each` for each difference.
    pub fn replace(&mut self, from: Participant, list: &Records, mut each: impl FnMut(Change<'_>)) {
        let mut new: BTreeMap<&[u8], Part> = BTreeMap::new();
        for record in list.iter().filter(|record| record.kind.is_presence()) {
            new.entry(record.channel).or_default().apply(record, &mut |_| {});
        }
        let old = self.own.get(&from).into_iter().flatten();
        let gone: Vec<Arc<[u8]>> = old.filter(|channel| !new.contains_key(&***channel)).cloned().collect();
        for channel in gone {
            self.change(from, &channel, |part| part.turn_into(Part::default(), &channel, &mut each));
        }
        for (channel, new) in new {
            self.change(from, channel, |part| part.turn_into(new, channel, &mut each));
        }
    }

    /// Forgets a participant that has left. Calls `each` for each of its members.
    pub fn remove(&mut self, from: Participant, each: impl FnMut(Change<'_>)) {
        self.replace(from, &Records::new(), each);
    }

    /// The number of connections subscribed to a channel, over all participants.
    pub fn subscribers(&self, channel: &[u8]) -> u64 {
        self.parts(channel).map(|part| u64::from(part.interest.subscribers)).fold(0, u64::saturating_add)
    }

    /// Returns whether any app or connection wants the publications of a channel.
    pub fn is_wanted(&self, channel: &[u8]) -> bool {
        self.parts(channel).any(|part| part.interest.is_some())
    }

    /// The participants whose apps listen to a channel.
    pub fn listeners(&self, channel: &[u8]) -> impl Iterator<Item = Participant> {
        let parts = self.channels.get(channel).into_iter().flatten();
        parts.filter(|(_, part)| part.interest.listens).map(|(who, _)| *who)
    }

    /// The members of a channel, sorted by name. A name of several participants is repeated for each.
    pub fn members(&self, channel: &[u8]) -> impl Iterator<Item = &str> {
        let mut members: Vec<&str> = self.parts(channel).flat_map(|part| &part.members).map(|name| &**name).collect();
        members.sort_unstable();
        members.into_iter()
    }

    /// The channels with subscribers or listening apps, in no particular order.
    pub fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.channels.keys().map(|channel| &**channel)
    }

    /// The complete list of a participant, as [`Presence::replace`] takes it.
    pub fn list(&self, of: Participant) -> Records {
        let mut list = Records::new();
        for channel in self.own.get(&of).into_iter().flatten() {
            let parts = self.channels.get(channel).into_iter().flatten();
            for (_, part) in parts.filter(|(who, _)| *who == of) {
                if part.interest.is_some() {
                    list.push(RecordKind::Count, channel, &[&part.interest.bytes()]);
                }
                part.members.iter().for_each(|member| list.push(RecordKind::Enter, channel, &[member.as_bytes()]));
            }
        }
        list
    }

    fn parts(&self, channel: &[u8]) -> impl Iterator<Item = &Part> {
        self.channels.get(channel).into_iter().flatten().map(|(_, part)| part)
    }

    /// Changes a participant's entry on a channel, and forgets it if it is then empty.
    fn change(&mut self, from: Participant, channel: &[u8], change: impl FnOnce(&mut Part)) {
        let known = self.channels.get_key_value(channel).map(|(channel, _)| channel.clone());
        let channel = known.unwrap_or_else(|| channel.into());
        let parts = self.channels.entry(channel.clone()).or_default();
        let index = parts.iter().position(|(who, _)| *who == from);
        let place = index.unwrap_or(parts.len());
        if index.is_none() {
            parts.push((from, Part::default()));
        }
        change(&mut parts[place].1);
        if !parts[place].1.is_empty() {
            if index.is_none() {
                self.own.entry(from).or_default().insert(channel);
            }
            return;
        }
        parts.swap_remove(place);
        if parts.is_empty() {
            self.channels.remove(&channel);
        }
        if let Some(own) = self.own.get_mut(&from) {
            own.remove(&channel);
            if own.is_empty() {
                self.own.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A participant's entry on a channel: its interest, and its members.
    type Model = BTreeMap<(Participant, Vec<u8>), (Interest, BTreeSet<String>)>;
    /// A record that owns its contents.
    type Owned = (RecordKind, Vec<u8>, Vec<u8>);

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Participant, Owned),
        Replace(Participant, Vec<Owned>),
        Remove(Participant),
    }

    fn record() -> impl Strategy<Value = Owned> {
        let channel = prop_oneof![4 => "[ab]".prop_map(String::into_bytes), 1 => Just(vec![0xff])];
        let count = prop_oneof![Just(0), Just(1), Just(u32::MAX)];
        let interest = (count, any::<bool>()).prop_map(|(subscribers, listens)| Interest { subscribers, listens });
        let told = prop_oneof![
            3 => interest.prop_map(|interest| (RecordKind::Count, interest.bytes().to_vec())),
            5 => "[xyz]".prop_map(|name| (RecordKind::Enter, name.into_bytes())),
            4 => "[xyz]".prop_map(|name| (RecordKind::Leave, name.into_bytes())),
            1 => Just((RecordKind::Enter, vec![0xff])),
            1 => Just((RecordKind::Count, vec![1, 2, 3])),
            1 => Just((RecordKind::Text, b"x".to_vec())),
        ];
        (channel, told).prop_map(|(channel, (kind, payload))| (kind, channel, payload))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let who = || (0u32..2, 1u32..3).prop_map(|(slot, generation)| Participant { slot, generation });
        let step = prop_oneof![
            8 => (who(), record()).prop_map(|(who, record)| Step::Apply(who, record)),
            2 => (who(), vec(record(), 0..8)).prop_map(|(who, list)| Step::Replace(who, list)),
            1 => who().prop_map(Step::Remove),
        ];
        vec(step, 0..60)
    }

    fn apply_to(model: &mut Model, from: Participant, (kind, channel, payload): &Owned) {
        let (interest, members) = model.entry((from, channel.clone())).or_default();
        let name = String::from_utf8(payload.clone()).ok().filter(|_| channel != b"\xff");
        match (kind, &payload[..], name) {
            (RecordKind::Count, &[a, b, c, d, listens], _) => {
                *interest = Interest { subscribers: u32::from_le_bytes([a, b, c, d]), listens: listens != 0 };
            }
            (RecordKind::Enter, _, Some(name)) => _ = members.insert(name),
            (RecordKind::Leave, _, Some(name)) => _ = members.remove(&name),
            _ => {}
        }
    }

    /// Every participant's members on every channel.
    fn members_of(model: &Model) -> BTreeSet<(Participant, String, String)> {
        let all = model.iter().flat_map(|((who, channel), (_, members))| {
            members.iter().map(|name| (*who, String::from_utf8_lossy(channel).into_owned(), name.clone()))
        });
        all.collect()
    }

    proptest! {
        #[test]
        fn it_is_what_was_told(steps in steps()) {
            let (mut presence, mut model) = (Presence::default(), Model::new());
            for step in &steps {
                let before = members_of(&model);
                let mut told = Vec::new();
                let each = |change: Change<'_>| {
                    told.push((change.entered, change.channel.to_owned(), change.member.to_owned()));
                };
                let (Step::Apply(from, _) | Step::Replace(from, _) | Step::Remove(from)) = *step;
                match step {
                    Step::Apply(_, record) => {
                        apply_to(&mut model, from, record);
                        presence.apply(from, Record { kind: record.0, channel: &record.1, payload: &record.2 }, each);
                    }
                    Step::Replace(_, records) => {
                        model.retain(|(who, _), _| *who != from);
                        let mut list = Records::new();
                        for record in records {
                            apply_to(&mut model, from, record);
                            list.push(record.0, &record.1, &[&record.2]);
                        }
                        presence.replace(from, &list, each);
                    }
                    Step::Remove(_) => {
                        model.retain(|(who, _), _| *who != from);
                        presence.remove(from, each);
                    }
                }
                model.retain(|_, (interest, members)| interest.is_some() || !members.is_empty());
                // Exactly the differences are reported, each once.
                let after = members_of(&model);
                let different = |one: &BTreeSet<(Participant, String, String)>, other, entered| -> Vec<_> {
                    one.difference(other).map(|(_, channel, name)| (entered, channel.clone(), name.clone())).collect()
                };
                let mut want = [different(&before, &after, false), different(&after, &before, true)].concat();
                want.sort();
                told.sort();
                prop_assert_eq!(told, want);
            }
            // Exactly the model's entries are kept.
            let keys: BTreeSet<&[u8]> = model.keys().map(|(_, channel)| &channel[..]).collect();
            prop_assert_eq!(presence.channels().collect::<BTreeSet<_>>(), keys);
            prop_assert_eq!(presence.own.values().map(HashSet::len).sum::<usize>(), model.len());
            prop_assert!(presence.own.values().all(|own| !own.is_empty()));
            for channel in [b"a", b"b", b"c", b"\xff"] {
                let parts: Vec<_> = model.iter().filter(|((_, name), _)| name == channel).map(|(_, part)| part).collect();
                let subscribers: u64 = parts.iter().map(|(interest, _)| u64::from(interest.subscribers)).sum();
                prop_assert_eq!(presence.subscribers(channel), subscribers);
                prop_assert_eq!(presence.is_wanted(channel), parts.iter().any(|(interest, _)| interest.is_some()));
                let mut names: Vec<&String> = parts.iter().flat_map(|(_, members)| members).collect();
                names.sort();
                prop_assert_eq!(presence.members(channel).collect::<Vec<_>>(), names);
            }
            // Each participant's list is complete.
            let all: Vec<Participant> = presence.own.keys().copied().collect();
            for from in all {
                let list = presence.list(from);
                presence.replace(from, &list, |change| panic!("{change:?} is no news"));
                let mut copy = Presence::default();
                copy.replace(from, &list, |_| {});
                for ((_, channel), (interest, members)) in model.iter().filter(|((who, _), _)| *who == from) {
                    prop_assert_eq!(copy.subscribers(channel), u64::from(interest.subscribers));
                    prop_assert_eq!(copy.is_wanted(channel), interest.is_some());
                    prop_assert_eq!(copy.members(channel).collect::<Vec<_>>(), members.iter().collect::<Vec<_>>());
                }
            }
        }
    }
}
