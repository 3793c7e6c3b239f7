//! Channels: which connections of a process are subscribed to which channels.
//!
//! Invariant: a connection's list of subscriptions and the channels' lists of subscribers agree, and each subscription
//! knows its index in the other list.

use super::record::Interest;
use slab::Slab;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

struct Channel {
    name: Rc<[u8]>,
    /// Connections, by key.
    subscribers: Vec<u32>,
    /// Names under which connections are listed, and how many under each.
    members: HashMap<Rc<str>, u32>,
    /// Whether the app itself listens to the channel.
    listens: bool,
    /// The interest last reported.
    told: Interest,
    /// Whether it is in `changed`.
    changed: bool,
}

impl Channel {
    fn interest(&self) -> Interest {
        Interest { subscribers: self.subscribers.len() as u32, listens: self.listens }
    }

    /// Removes one use of this name. Returns whether it was the last.
    fn give_up(&mut self, member: &Rc<str>) -> bool {
        let Some(count) = self.members.get_mut(member) else { return false };
        *count -= 1;
        *count == 0 && self.members.remove(member).is_some()
    }
}

struct Subscription {
    channel: u32,
    /// Index in the channel's list of subscribers.
    place: u32,
    /// The name under which the connection is a member there.
    member: Option<Rc<str>>,
}

/// Changes of names that others must learn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// A name that no connection has any more.
    pub left: Option<Rc<str>>,
    /// Whether no connection had the new name before.
    pub entered: bool,
}

/// See the module comment.
#[derive(Default)]
pub struct Channels {
    names: HashMap<Rc<[u8]>, u32>,
    slab: Slab<Channel>,
    /// The subscriptions of each connection that has any, ordered by channel number.
    subscriptions: HashMap<u32, Vec<Subscription>>,
    /// Channels whose interest may differ from the reported one.
    changed: Vec<u32>,
    /// The number of subscriptions, and the length of all names.
    entries: usize,
    name_bytes: usize,
}

impl Channels {
    /// Approximate memory of the lists.
    pub fn memory(&self) -> usize {
        let entry = size_of::<Subscription>() + size_of::<u32>() + size_of::<(Rc<str>, u32)>();
        let channel = size_of::<Channel>() + size_of::<(Rc<[u8]>, u32)>();
        self.entries * entry + self.slab.len() * channel + 2 * self.name_bytes
    }

    /// The number of a channel in use. Valid until [`Channels::take_changes`].
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The channels in use.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }

    /// The subscribers of a channel.
    #[inline]
    pub fn subscribers(&self, channel: u32) -> &[u32] {
        &self.slab[channel as usize].subscribers
    }

    /// Whether the app itself listens to a channel.
    #[inline]
    pub fn listens(&self, channel: u32) -> bool {
        self.slab[channel as usize].listens
    }

    /// The number of connections on a channel.
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
            members: HashMap::new(),
            listens: false,
            told: Interest::default(),
            changed: false,
        };
        let channel = self.slab.insert(channel) as u32;
        self.name_bytes += name.len();
        self.names.insert(name, channel);
        channel
    }

    /// Sets whether the app itself listens to a channel.
    pub fn listen(&mut self, name: &[u8], listens: bool) {
        let channel = self.place(name);
        self.slab[channel as usize].listens = listens;
        self.change(channel);
    }

    /// Subscribes a connection to a channel. Returns false if it already was.
    pub fn subscribe(&mut self, key: u32, name: &[u8]) -> bool {
        let channel = self.place(name);
        let own = self.subscriptions.entry(key).or_default();
        let Err(at) = own.binary_search_by_key(&channel, |subscription| subscription.channel) else { return false };
        // Most connections are on one channel, and there may be very many connections.
        own.reserve_exact(usize::from(own.is_empty()));
        let subscribers = &mut self.slab[channel as usize].subscribers;
        own.insert(at, Subscription { channel, place: subscribers.len() as u32, member: None });
        subscribers.push(key);
        self.entries += 1;
        self.change(channel);
        true
    }

    fn subscription(&mut self, key: u32, channel: u32) -> Option<&mut Subscription> {
        let own = self.subscriptions.get_mut(&key)?;
        let at = own.binary_search_by_key(&channel, |subscription| subscription.channel).ok()?;
        Some(&mut own[at])
    }

    /// Whether a connection is on a channel.
    pub fn is_subscribed(&mut self, key: u32, name: &[u8]) -> bool {
        self.find(name).is_some_and(|channel| self.subscription(key, channel).is_some())
    }

    /// Makes a subscriber a member of the channel under a name. Returns the changes that others must learn; `None` if
    /// it already had the name, or is not subscribed.
    pub fn list(&mut self, key: u32, name: &[u8], member: &str) -> Option<Listed> {
        let channel = self.find(name)?;
        let new: Rc<str> = match self.slab[channel as usize].members.get_key_value(member) {
            Some((member, _)) => Rc::clone(member),
            None => member.into(),
        };
        let slot = &mut self.subscription(key, channel)?.member;
        if slot.as_ref() == Some(&new) {
            return None;
        }
        let former = slot.replace(Rc::clone(&new));
        let entry = &mut self.slab[channel as usize];
        let left = former.filter(|former| entry.give_up(former));
        let count = entry.members.entry(new).or_default();
        *count += 1;
        Some(Listed { left, entered: *count == 1 })
    }

    /// The number of channels that a connection is on.
    pub fn of(&self, key: u32) -> usize {
        self.subscriptions.get(&key).map_or(0, Vec::len)
    }

    /// Unsubscribes a connection from a channel. Returns its name there, if no other has it; `None` if it was not
    /// subscribed.
    pub fn unsubscribe(&mut self, key: u32, name: &[u8]) -> Option<Option<Rc<str>>> {
        let channel = self.find(name)?;
        let Entry::Occupied(mut own) = self.subscriptions.entry(key) else { return None };
        let at = own.get().binary_search_by_key(&channel, |subscription| subscription.channel).ok()?;
        let subscription = own.get_mut().remove(at);
        if own.get().is_empty() {
            own.remove();
        }
        Some(self.remove(subscription))
    }

    /// Unsubscribes a connection from all its channels, and reports each name that no other connection has there.
    pub fn unsubscribe_all(&mut self, key: u32, mut each: impl FnMut(&[u8], &str)) {
        for subscription in self.subscriptions.remove(&key).into_iter().flatten() {
            let channel = subscription.channel;
            if let Some(member) = self.remove(subscription) {
                each(&self.slab[channel as usize].name, &member);
            }
        }
    }

    /// Removes a subscription from the channel's list; the last one takes its place. Returns its name if no other has
    /// it.
    fn remove(&mut self, subscription: Subscription) -> Option<Rc<str>> {
        let Subscription { channel, place, member } = subscription;
        self.entries -= 1;
        let entry = &mut self.slab[channel as usize];
        entry.subscribers.swap_remove(place as usize);
        let gone = member.filter(|member| entry.give_up(member));
        if let Some(&moved) = entry.subscribers.get(place as usize)
            && let Some(moved) = self.subscription(moved, channel)
        {
            moved.place = place;
        }
        self.change(channel);
        gone
    }

    fn change(&mut self, channel: u32) {
        let entry = &mut self.slab[channel as usize];
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(channel);
        }
    }

    /// Whether [`Channels::take_changes`] may have something to report.
    #[inline]
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Reports each channel whose interest differs from the last report, and forgets unused channels.
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
                self.name_bytes -= gone.name.len();
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
        /// Against a set of pairs: both lists match it, and the reports add up.
        #[test]
        fn lists_agree(steps in prop::collection::vec((0u8..6, 0u32..6, 0u8..6), 0..200)) {
            let (mut channels, mut model) = (Channels::default(), BTreeSet::new());
            // By channel and key.
            let mut names: BTreeMap<(u8, u32), String> = BTreeMap::new();
            let has = |names: &BTreeMap<(u8, u32), String>, channel: u8, name: &str| {
                names.iter().any(|((c, _), member)| *c == channel && member == name)
            };
            let mut listened = BTreeSet::new();
            let mut told: BTreeMap<u8, Interest> = BTreeMap::new();
            for (step, key, channel) in steps {
                let name = [channel];
                match step {
                    0 | 1 => prop_assert_eq!(channels.subscribe(key, &name), model.insert((channel, key))),
                    2 => {
                        let member = channels.unsubscribe(key, &name);
                        let had = names.remove(&(channel, key)).filter(|name| !has(&names, channel, name));
                        prop_assert_eq!(member, model.remove(&(channel, key)).then_some(had.map(|name| name.into())));
                    }
                    3 => {
                        let mut gone = BTreeSet::new();
                        channels.unsubscribe_all(key, |channel, member| {
                            gone.insert((channel[0], member.to_owned()));
                        });
                        let had: Vec<_> = names.iter().filter(|((_, k), _)| *k == key).map(|(a, b)| (a.0, b.clone())).collect();
                        names.retain(|(_, k), _| *k != key);
                        model.retain(|(_, k)| *k != key);
                        prop_assert_eq!(gone, had.into_iter().filter(|(c, name)| !has(&names, *c, name)).collect());
                    }
                    4 => {
                        // Few names, so that several connections share them.
                        let member = if key % 2 == 0 { "even" } else { "any" };
                        let member = if channel % 3 == 0 { "all" } else { member };
                        let listed = channels.list(key, &name, member);
                        let is_there = model.contains(&(channel, key));
                        prop_assert_eq!(channels.is_subscribed(key, &name), is_there);
                        let former = names.get(&(channel, key)).cloned();
                        prop_assert_eq!(listed.is_some(), is_there && former.as_deref() != Some(member));
                        if let Some(listed) = listed {
                            let entered = !has(&names, channel, member);
                            names.insert((channel, key), member.to_owned());
                            let left = former.filter(|name| !has(&names, channel, name)).map(|name| name.into());
                            prop_assert_eq!(listed, Listed { left, entered });
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
