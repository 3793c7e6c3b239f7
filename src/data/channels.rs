//! Channels: which connections of a process are subscribed to what.
//!
//! Invariant: a connection's list of subscriptions and the channels' lists of subscribers say the same, and each
//! subscription knows its place in the other list.

use super::record::Interest;
use slab::Slab;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

struct Channel {
    name: Rc<[u8]>,
    /// Connections, by key.
    subscribers: Vec<u32>,
    /// Whether the app itself wants what others publish here.
    listens: bool,
    /// What was told of it last.
    told: Interest,
    /// Whether it stands in `changed`.
    changed: bool,
}

impl Channel {
    fn interest(&self) -> Interest {
        Interest { subscribers: self.subscribers.len() as u32, listens: self.listens }
    }
}

struct Subscription {
    channel: u32,
    /// Where the channel's subscribers have it.
    place: u32,
    /// The name under which the connection is listed there.
    member: Option<Box<str>>,
}

/// See the module.
#[derive(Default)]
pub struct Channels {
    names: HashMap<Rc<[u8]>, u32>,
    slab: Slab<Channel>,
    /// Of each connection that has any, in the order of the channels' numbers.
    subscriptions: HashMap<u32, Vec<Subscription>>,
    /// Channels whose interest may be another than what was told.
    changed: Vec<u32>,
}

impl Channels {
    /// The number of a channel that somebody is on. It holds until [`Channels::take_changes`].
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Who is on a channel.
    #[inline]
    pub fn subscribers(&self, channel: u32) -> &[u32] {
        &self.slab[channel as usize].subscribers
    }

    /// Whether the app itself listens to a channel.
    #[inline]
    pub fn listens(&self, channel: u32) -> bool {
        self.slab[channel as usize].listens
    }

    /// How many connections are on a channel.
    pub fn count(&self, name: &[u8]) -> usize {
        self.find(name).map_or(0, |channel| self.subscribers(channel).len())
    }

    fn place(&mut self, name: &[u8]) -> u32 {
        if let Some(channel) = self.find(name) {
            return channel;
        }
        let name: Rc<[u8]> = name.into();
        let channel = Channel {
            name: Rc::clone(&name),
            subscribers: Vec::new(),
            listens: false,
            told: Interest::default(),
            changed: false,
        };
        let channel = self.slab.insert(channel) as u32;
        self.names.insert(name, channel);
        channel
    }

    /// Has the app itself listen to a channel, or not.
    pub fn listen(&mut self, name: &[u8], listens: bool) {
        let channel = self.place(name);
        self.slab[channel as usize].listens = listens;
        self.change(channel);
    }

    /// Puts a connection on a channel; false when it is there.
    pub fn subscribe(&mut self, key: u32, name: &[u8]) -> bool {
        let channel = self.place(name);
        let own = self.subscriptions.entry(key).or_default();
        let Err(at) = own.binary_search_by_key(&channel, |subscription| subscription.channel) else { return false };
        let subscribers = &mut self.slab[channel as usize].subscribers;
        own.insert(at, Subscription { channel, place: subscribers.len() as u32, member: None });
        subscribers.push(key);
        self.change(channel);
        true
    }

    /// The name under which a connection is listed on a channel; `None` when it is not there.
    pub fn member(&mut self, key: u32, name: &[u8]) -> Option<&mut Option<Box<str>>> {
        let channel = self.find(name)?;
        let own = self.subscriptions.get_mut(&key)?;
        let at = own.binary_search_by_key(&channel, |subscription| subscription.channel).ok()?;
        Some(&mut own[at].member)
    }

    /// How many channels a connection is on.
    pub fn of(&self, key: u32) -> usize {
        self.subscriptions.get(&key).map_or(0, Vec::len)
    }

    /// Takes a connection off a channel: its name there, if it was listed; `None` when it was not there.
    pub fn unsubscribe(&mut self, key: u32, name: &[u8]) -> Option<Option<Box<str>>> {
        let channel = self.find(name)?;
        let Entry::Occupied(mut own) = self.subscriptions.entry(key) else { return None };
        let at = own.get().binary_search_by_key(&channel, |subscription| subscription.channel).ok()?;
        let subscription = own.get_mut().remove(at);
        if own.get().is_empty() {
            own.remove();
        }
        self.remove(&subscription);
        Some(subscription.member)
    }

    /// Takes a connection off all its channels, and tells of each on which it was listed, and as whom.
    pub fn unsubscribe_all(&mut self, key: u32, mut each: impl FnMut(&[u8], Box<str>)) {
        for mut subscription in self.subscriptions.remove(&key).into_iter().flatten() {
            if let Some(member) = subscription.member.take() {
                each(&self.slab[subscription.channel as usize].name, member);
            }
            self.remove(&subscription);
        }
    }

    /// Takes a subscription out of the channel's list, where the last one takes its place.
    fn remove(&mut self, subscription: &Subscription) {
        let Subscription { channel, place, .. } = *subscription;
        let subscribers = &mut self.slab[channel as usize].subscribers;
        subscribers.swap_remove(place as usize);
        let moved = subscribers.get(place as usize).and_then(|key| self.subscriptions.get_mut(key));
        if let Some(own) = moved
            && let Ok(at) = own.binary_search_by_key(&channel, |subscription| subscription.channel)
        {
            own[at].place = place;
        }
        self.change(channel);
    }

    fn change(&mut self, channel: u32) {
        let entry = &mut self.slab[channel as usize];
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(channel);
        }
    }

    /// Whether [`Channels::take_changes`] may have something to tell.
    #[inline]
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Tells of each channel on which there are others, or more or fewer, than was told; and forgets those that nobody is
    /// on.
    pub fn take_changes(&mut self, mut each: impl FnMut(&[u8], Interest)) {
        for channel in self.changed.drain(..) {
            let entry = &mut self.slab[channel as usize];
            entry.changed = false;
            let interest = entry.interest();
            if interest != entry.told {
                entry.told = interest;
                each(&entry.name, interest);
            }
            if !interest.is_some() {
                let gone = self.slab.remove(channel as usize);
                self.names.remove(&gone.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        /// Against a set of pairs: the same are where they should be, and what is told adds up.
        #[test]
        fn lists_agree(steps in prop::collection::vec((0u8..6, 0u32..6, 0u8..6), 0..200)) {
            let (mut channels, mut model) = (Channels::default(), BTreeSet::new());
            let mut names: BTreeMap<(u32, u8), String> = BTreeMap::new();
            let mut listened = BTreeSet::new();
            let mut told: BTreeMap<u8, Interest> = BTreeMap::new();
            for (step, key, channel) in steps {
                let name = [channel];
                match step {
                    0 | 1 => prop_assert_eq!(channels.subscribe(key, &name), model.insert((channel, key))),
                    2 => {
                        let member = channels.unsubscribe(key, &name);
                        let had = names.remove(&(key, channel));
                        prop_assert_eq!(member, model.remove(&(channel, key)).then_some(had.map(String::into)));
                    }
                    3 => {
                        let mut gone = BTreeSet::new();
                        channels.unsubscribe_all(key, |channel, member| {
                            gone.insert((key, channel[0], String::from(member)));
                        });
                        let had = names.iter().filter(|((k, _), _)| *k == key);
                        prop_assert_eq!(&gone, &had.map(|((k, c), member)| (*k, *c, member.clone())).collect());
                        names.retain(|(k, _), _| *k != key);
                        model.retain(|(_, k)| *k != key);
                    }
                    4 => {
                        let member = channels.member(key, &name);
                        prop_assert_eq!(member.is_some(), model.contains(&(channel, key)));
                        if let Some(member) = member {
                            *member = Some("someone".into());
                            names.insert((key, channel), "someone".into());
                        }
                    }
                    _ => {
                        channels.listen(&name, key % 2 == 0);
                        if key % 2 == 0 { listened.insert(channel); } else { listened.remove(&channel); }
                    }
                }
                if channel == 0 {
                    channels.take_changes(|name, interest| { told.insert(name[0], interest); });
                    prop_assert!(!channels.has_changes());
                    for channel in 0..6 {
                        let on = model.iter().filter(|(c, _)| *c == channel).count() as u32;
                        let want = Interest { subscribers: on, listens: listened.contains(&channel) };
                        prop_assert_eq!(told.get(&channel).copied().unwrap_or_default(), want);
                        prop_assert_eq!(channels.find(&[channel]).is_some(), want.is_some());
                    }
                }
                for channel in 0..6 {
                    let on: BTreeSet<u32> = model.iter().filter(|(c, _)| *c == channel).map(|(_, key)| *key).collect();
                    prop_assert_eq!(channels.count(&[channel]), on.len());
                    let subscribers = channels.find(&[channel]).map(|channel| channels.subscribers(channel).to_vec());
                    prop_assert_eq!(subscribers.unwrap_or_default().into_iter().collect::<BTreeSet<_>>(), on);
                }
                for key in 0..6 {
                    prop_assert_eq!(channels.of(key), model.iter().filter(|(_, k)| *k == key).count());
                }
            }
        }
    }
}
