//! Channels: what is published on one goes to every connection that is subscribed, in this process and, over a bus, in all
//! others.
//!
//! A frame is encoded once, whoever gets it, and what is published on one channel without a pause is queued for its
//! subscribers in one go: that costs each subscriber the same for a hundred messages as for one.

use super::{Demand, FRAMES, MASKED, MID_FRAME, Outbox, TAKEOVER};
use crate::channel::presence::{Change, Presence};
use crate::channel::record::{MAX_CHANNEL_BYTES, PublishError, Record, RecordKind, Records};
use crate::channel::subscriptions::{Channels, Listed};
use crate::net::id::{ConnectionId, Participant};
use crate::protocol::frame::{self, MAX_HEADER_BYTES};
use crate::protocol::message::Kind;

/// What a process has of channels.
#[derive(Default)]
pub(crate) struct Broadcast {
    pub channels: Channels,
    /// Who is on channels, in all processes; of our own, the named members only.
    pub presence: Presence,
    /// Members that came and went, of whom the app has not been told yet.
    pub news: Records,
    /// Our place on a bus.
    pub place: Option<Place>,
    /// What is to be published there.
    pub outgoing: Records,
    pending: Pending,
}

/// A place on a bus.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub me: Participant,
    /// The longest record, channel and payload together, in bytes.
    pub limit: usize,
}

/// Frames of one channel that are not queued for its subscribers yet: the end of the queue's common bytes.
#[derive(Clone, Copy, Default)]
struct Pending {
    channel: Option<u32>,
    start: usize,
    /// Messages and bytes of each kind.
    messages: [u64; 2],
    bytes: [u64; 2],
}

impl Outbox {
    /// Puts a connection on a channel: from now on it gets what is published there. The channel exists as long as somebody
    /// is on it, and a connection that ends leaves all its channels by itself. False when it is there already, or gone.
    pub fn subscribe(&mut self, id: ConnectionId, channel: &str) -> bool {
        if channel.len() > MAX_CHANNEL_BYTES || !self.may_subscribe(id) {
            return false;
        }
        self.end_fanout();
        self.broadcast.channels.subscribe(id.index, channel.as_bytes())
    }

    /// The same under a name, by which it stands among the channel's [`members`](Outbox::members) in every process, and of
    /// which every app is told: [`App::on_presence`](crate::App::on_presence). Several connections may have the same name; it
    /// is there from the first to the last of them. False when this one is there already under this name, or gone.
    pub fn subscribe_as(&mut self, id: ConnectionId, channel: &str, member: &str) -> bool {
        self.subscribe(id, channel);
        if !self.may_subscribe(id) {
            return false;
        }
        let channel = channel.as_bytes();
        let Some(Listed { left, entered }) = self.broadcast.channels.list(id.index, channel, member) else {
            return false;
        };
        if let Some(left) = left {
            self.tell(RecordKind::Leave, channel, &left);
        }
        if entered {
            self.tell(RecordKind::Enter, channel, member);
        }
        true
    }

    /// Takes a connection off a channel. False when it is not there.
    pub fn unsubscribe(&mut self, id: ConnectionId, channel: &str) -> bool {
        if !self.may_subscribe(id) {
            return false;
        }
        self.end_fanout();
        match self.broadcast.channels.unsubscribe(id.index, channel.as_bytes()) {
            Some(Some(member)) => {
                self.tell(RecordKind::Leave, channel.as_bytes(), &member);
                true
            }
            Some(None) => true,
            None => false,
        }
    }

    /// Whether a connection is on a channel.
    pub fn is_subscribed(&mut self, id: ConnectionId, channel: &str) -> bool {
        self.may_subscribe(id) && self.broadcast.channels.is_subscribed(id.index, channel.as_bytes())
    }

    /// On how many channels a connection is.
    pub fn subscriptions(&mut self, id: ConnectionId) -> usize {
        if self.may_subscribe(id) { self.broadcast.channels.of(id.index) } else { 0 }
    }

    /// Whether the app itself wants what other processes publish on a channel: [`App::on_bus`](crate::App::on_bus).
    pub fn listen(&mut self, channel: &str, listens: bool) {
        if channel.len() <= MAX_CHANNEL_BYTES {
            self.end_fanout();
            self.broadcast.channels.listen(channel.as_bytes(), listens);
        }
    }

    /// Other processes whose apps listen to a channel.
    pub fn listeners(&self, channel: &str) -> impl Iterator<Item = Participant> {
        self.broadcast.presence.listeners(channel.as_bytes())
    }

    /// Our place on the bus; `None` without one.
    pub fn participant(&self) -> Option<Participant> {
        self.broadcast.place.map(|place| place.me)
    }

    /// Sends a message, made of `parts`, to everyone on a channel: in this process at once, in all others over the bus.
    /// Returns how many in this process.
    ///
    /// What a subscriber's full backlog means is for [`SendRules::slow_consumer`](super::SendRules::slow_consumer) to
    /// say; the others do not wait for it.
    ///
    /// Where clients publish more than [`RateRules::channel`](crate::net::rate::RateRules::channel) allows, a message that is published
    /// in a call about a connection waits for its turn, and with it all that this connection sends next.
    ///
    /// # Errors
    /// When it is too long for the bus; then nobody gets it.
    pub fn publish(&mut self, channel: &str, kind: Kind, parts: &[&[u8]]) -> Result<usize, PublishError> {
        if channel.len() > MAX_CHANNEL_BYTES {
            return Err(PublishError::ChannelTooLong);
        }
        if let Some(Place { limit, .. }) = self.broadcast.place
            && channel.len() + length(parts) > limit
        {
            return Err(PublishError::TooLong { limit });
        }
        if let Some(publisher) = self.publisher {
            let subscribers = self.broadcast.channels.count(channel.as_bytes());
            if !self.pacing.admit(channel.as_bytes(), length(parts), subscribers, self.now) {
                self.pacing.hold(channel.as_bytes(), kind, parts, subscribers, publisher);
                self.stats.publishes_delayed += 1;
                self.yields = true;
                return Ok(subscribers);
            }
        }
        Ok(self.carry(channel.as_bytes(), kind, parts))
    }

    /// Publishes text: [`Outbox::publish`] with one part.
    ///
    /// # Errors
    /// When it is too long for the bus.
    pub fn publish_text(&mut self, channel: &str, text: &str) -> Result<usize, PublishError> {
        self.publish(channel, Kind::Text, &[text.as_bytes()])
    }

    /// Publishes bytes: [`Outbox::publish`] with one part.
    ///
    /// # Errors
    /// When there are too many for the bus.
    pub fn publish_binary(&mut self, channel: &str, payload: &[u8]) -> Result<usize, PublishError> {
        self.publish(channel, Kind::Binary, &[payload])
    }

    fn carry(&mut self, channel: &[u8], kind: Kind, parts: &[&[u8]]) -> usize {
        if self.broadcast.place.is_some() {
            self.broadcast.outgoing.push(kind.into(), channel, parts);
        }
        self.stats.published += 1;
        let reached = match self.broadcast.channels.find(channel) {
            Some(channel) => self.deliver(channel, kind, parts),
            None => 0,
        };
        self.note_queued();
        reached
    }

    /// Publishes what waited and may go now, until so much is queued that it is to be written first.
    pub(crate) fn carry_on(&mut self) {
        while !self.is_full()
            && let Some((channel, held)) = self.pacing.next(self.now)
        {
            self.carry(&channel, held.kind, &[&held.payload]);
        }
    }

    /// Publishes all that waits, and lets nothing wait any more.
    pub(crate) fn carry_all(&mut self) {
        self.pacing.end();
        while let Some((channel, held)) = self.pacing.next(self.now) {
            self.carry(&channel, held.kind, &[&held.payload]);
        }
    }

    /// The longest record that the bus takes, channel and payload together: a quarter of its ring; 0 without one.
    #[cfg(feature = "cli")]
    pub(crate) fn longest_record(&self) -> usize {
        self.broadcast.place.map_or(0, |place| place.limit)
    }

    /// Has the other processes hear something that their apps listen to, at once and whoever is the reason for it.
    #[cfg(feature = "cli")]
    pub(crate) fn publish_away(&mut self, channel: &str, payload: &[u8]) -> Result<(), PublishError> {
        match self.broadcast.place {
            Some(Place { limit, .. }) if channel.len() + payload.len() <= limit => {
                self.broadcast.outgoing.push(RecordKind::Binary, channel.as_bytes(), &[payload]);
                Ok(())
            }
            place => Err(PublishError::TooLong { limit: place.map_or(0, |place| place.limit) }),
        }
    }

    /// Sends a message to everyone on a channel in this process, and says how many. For what each process tells its own
    /// connections by itself.
    pub fn publish_here(&mut self, channel: &str, kind: Kind, parts: &[&[u8]]) -> usize {
        match self.broadcast.channels.find(channel.as_bytes()) {
            Some(channel) => self.deliver(channel, kind, parts),
            None => 0,
        }
    }

    /// Whether a channel carries so many bytes more of what clients publish: one that does not is to be published on later. What
    /// is not published in a call about a connection is always carried.
    #[cfg(feature = "cli")]
    pub(crate) fn carries(&mut self, channel: &str, bytes: usize) -> bool {
        let subscribers = self.broadcast.channels.count(channel.as_bytes());
        self.publisher.is_none() || self.pacing.admit(channel.as_bytes(), bytes, subscribers, self.now)
    }

    /// What is published from now on counts as in a call about this connection, or about none: for an app that took its time.
    #[cfg(feature = "cli")]
    pub(crate) fn act_for(&mut self, id: Option<ConnectionId>) {
        self.publisher = id.filter(|_| self.pacing.is_limited()).map(|id| (id.index, id.generation));
    }

    /// The connections of this process on a channel, by index.
    #[cfg(feature = "cli")]
    pub(crate) fn subscribers_here(&self, channel: &str) -> Vec<u32> {
        let channels = &self.broadcast.channels;
        channels.find(channel.as_bytes()).map_or(Vec::new(), |number| channels.subscribers(number).to_vec())
    }

    /// The channels that somebody is on, or that an app listens to, in all processes on the bus; some may come twice.
    #[cfg(feature = "cli")]
    pub(crate) fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.broadcast.channels.names().chain(self.broadcast.presence.channels())
    }

    /// How many connections are on a channel, in all processes on the bus.
    pub fn subscribers(&self, channel: &str) -> u64 {
        let channel = channel.as_bytes();
        self.broadcast.channels.count(channel) as u64 + self.broadcast.presence.subscribers(channel)
    }

    /// The names under which connections are on a channel, in all processes on the bus and, by a bridge, on other hosts.
    pub fn members(&self, channel: &str) -> impl Iterator<Item = &str> {
        self.broadcast.presence.members(channel.as_bytes())
    }

    fn may_subscribe(&mut self, id: ConnectionId) -> bool {
        id.node == self.node
            && self.queue.lane(id.index, id.generation).is_some_and(|lane| lane.mode & (FRAMES | MASKED) == FRAMES)
    }

    /// Takes a connection that is over off all its channels.
    pub(crate) fn unsubscribe_all(&mut self, key: u32) {
        if self.broadcast.channels.of(key) == 0 {
            return;
        }
        self.end_fanout();
        let mut left = Vec::new();
        self.broadcast
            .channels
            .unsubscribe_all(key, |channel, member| left.push((channel.to_vec(), member.to_owned())));
        for (channel, member) in left {
            self.tell(RecordKind::Leave, &channel, &member);
        }
    }

    /// A member of ours came or went.
    fn tell(&mut self, kind: RecordKind, channel: &[u8], member: &str) {
        let Broadcast { presence, news, place, outgoing, .. } = &mut self.broadcast;
        let me = place.map_or_else(Participant::default, |place| place.me);
        let record = Record { kind, channel, payload: member.as_bytes() };
        presence.apply(me, record, |change| add_news(news, change));
        if place.is_some() {
            outgoing.push(kind, channel, &[member.as_bytes()]);
        }
        self.demand_news();
    }

    /// Has the app told of what is in the news.
    pub(crate) fn demand_news(&mut self) {
        if !self.broadcast.news.is_empty() {
            self.demand(u32::MAX, Demand::News);
        }
    }

    /// Tells the other processes how many are on the channels where that changed, and forgets channels that nobody is on.
    #[inline(always)]
    pub(crate) fn tell_changes(&mut self) {
        if self.broadcast.channels.has_changes() {
            self.take_changes();
        }
    }

    #[inline(never)]
    fn take_changes(&mut self) {
        self.end_fanout();
        let Broadcast { channels, place, outgoing, .. } = &mut self.broadcast;
        channels.take_changes(|name, interest| {
            if place.is_some() {
                outgoing.push(RecordKind::Count, name, &[&interest.bytes()]);
            }
        });
    }

    /// Queues a message for the subscribers of a channel, and says how many they are.
    pub(crate) fn deliver(&mut self, channel: u32, kind: Kind, parts: &[&[u8]]) -> usize {
        let payload_bytes = length(parts);
        let subscribers = self.broadcast.channels.subscribers(channel).len();
        if subscribers == 0 {
            return 0;
        }
        if (self.deflate.min_bytes.max(1)..=self.deflate.max_bytes).contains(&payload_bytes) {
            self.end_fanout();
            self.deliver_compressed(channel, kind, parts);
            return subscribers;
        }
        if self.broadcast.pending.channel != Some(channel) {
            self.end_fanout();
            let start = self.queue.common_bytes();
            self.broadcast.pending = Pending { channel: Some(channel), start, ..Pending::default() };
        }
        self.extend_common(kind, false, payload_bytes, parts);
        let pending = &mut self.broadcast.pending;
        pending.messages[kind.index()] += 1;
        pending.bytes[kind.index()] += payload_bytes as u64;
        self.note_queued();
        subscribers
    }

    fn extend_common(&mut self, kind: Kind, compressed: bool, payload_bytes: usize, parts: &[&[u8]]) {
        let mut header = [0; MAX_HEADER_BYTES];
        let end = frame::encode(&mut header, kind.opcode(), compressed, payload_bytes, None);
        self.queue.extend_common(&header[..end]);
        parts.iter().for_each(|part| self.queue.extend_common(part));
    }

    /// Queues what was published for each of its subscribers. To be called before anything else is queued for anyone, and
    /// before anything is written.
    #[inline(always)]
    pub(crate) fn end_fanout(&mut self) {
        if self.broadcast.pending.channel.is_some() {
            self.fan_out();
        }
    }

    #[inline(never)]
    fn fan_out(&mut self) {
        let Pending { channel, start, messages, bytes } = std::mem::take(&mut self.broadcast.pending);
        let Some(channel) = channel else { return };
        let end = self.queue.common_bytes();
        let mut reached = 0;
        for place in 0..self.broadcast.channels.subscribers(channel).len() {
            let key = self.broadcast.channels.subscribers(channel)[place];
            let Some(mode) = self.admit_at(key, messages.iter().sum()) else { continue };
            reached += 1;
            if mode & MID_FRAME != 0 {
                self.hold(key, |held, queue| held.extend_from_slice(queue.common(start, end)));
            } else {
                self.queue.push_common(key, start, end);
            }
        }
        self.note_queued();
        for kind in 0..messages.len() {
            self.stats.sent[kind] += messages[kind] * reached;
            self.stats.sent_bytes[kind] += bytes[kind] * reached;
        }
    }

    /// A message that may be compressed, for each as agreed: once for each window size, and for each connection that keeps
    /// its window by itself.
    fn deliver_compressed(&mut self, channel: u32, kind: Kind, parts: &[&[u8]]) {
        let payload_bytes = length(parts);
        let mut spans: [Option<(usize, usize)>; 16] = [None; 16];
        for place in 0..self.broadcast.channels.subscribers(channel).len() {
            let key = self.broadcast.channels.subscribers(channel)[place];
            let Some(mode) = self.admit_at(key, 1) else { continue };
            let bits = self.window_bits(mode, payload_bytes);
            if mode & MID_FRAME != 0 || (bits != 0 && mode & TAKEOVER != 0) {
                self.push_message(key, mode, kind, parts);
                continue;
            }
            let (start, end) = match spans[bits] {
                Some(span) => span,
                None => {
                    let start = self.queue.common_bytes();
                    self.extend_common_for(bits, kind, payload_bytes, parts);
                    *spans[bits].insert((start, self.queue.common_bytes()))
                }
            };
            self.stats.send(kind.index(), payload_bytes);
            self.queue.push_common(key, start, end);
        }
        self.note_queued();
    }

    /// The frame for those who agreed to a window of so many bits; 0 for no compression.
    pub(super) fn extend_common_for(&mut self, bits: usize, kind: Kind, payload_bytes: usize, parts: &[&[u8]]) {
        if bits == 0 {
            return self.extend_common(kind, false, payload_bytes, parts);
        }
        let mut deflated = std::mem::take(&mut self.deflated);
        self.shared_deflater(bits).deflate(parts, &mut deflated);
        if deflated.len() < payload_bytes {
            self.extend_common(kind, true, deflated.len(), &[&deflated]);
        } else {
            self.extend_common(kind, false, payload_bytes, parts);
        }
        self.give_deflated(deflated);
    }
}

fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Adds a change to the news.
pub(crate) fn add_news(news: &mut Records, change: Change<'_>) {
    let kind = if change.entered { RecordKind::Enter } else { RecordKind::Leave };
    news.push(kind, change.channel.as_bytes(), &[change.member.as_bytes()]);
}

#[cfg(test)]
mod tests;
