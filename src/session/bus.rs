//! What arrives over a bus and what goes out on it, and wake-ups from other threads.

use super::Sessions;
use crate::app::App;
use crate::bus::event::BusEvent;
use crate::channel::presence::Change;
use crate::channel::record::{Record, RecordKind, Records};
use crate::net::id::Participant;
use crate::outbox::channels::{Broadcast, Place, add_news};
use crate::protocol::message::Kind;
use crate::telemetry::log::Level;
use std::time::Duration;

/// Losses are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Lost records, and when they were last logged.
#[derive(Default)]
pub(super) struct Losses {
    unlogged: u64,
    logged: Option<Duration>,
}

impl<A: App> Sessions<A> {
    /// Joins a bus as `me`; a record's channel and payload together have at most `limit` bytes. Must be called first.
    pub fn join_bus(&mut self, me: Participant, limit: usize) {
        self.outbox.broadcast.place = Some(Place { me, limit });
    }

    /// The records to publish; the caller publishes and clears them.
    pub fn outgoing(&mut self) -> &mut Records {
        self.outbox.tell_changes();
        &mut self.outbox.broadcast.outgoing
    }

    /// Another thread has woken the loop: calls the app.
    pub fn wake(&mut self) {
        self.app.on_wake(&mut self.outbox);
        self.settle();
    }

    /// Handles an event of the bus.
    pub fn receive_bus(&mut self, event: BusEvent<'_>) {
        match event {
            BusEvent::Record { from, record } => {
                self.outbox.stats.bus_received += 1;
                match record.kind {
                    RecordKind::Text => self.receive_published(from, Kind::Text, record),
                    RecordKind::Binary => self.receive_published(from, Kind::Binary, record),
                    RecordKind::Count | RecordKind::Enter | RecordKind::Leave => {
                        let Broadcast { presence, news, .. } = &mut self.outbox.broadcast;
                        presence.apply(from, record, |change| add_news(news, change));
                    }
                }
            }
            BusEvent::Gap { from, lost } => {
                self.outbox.stats.bus_lost += lost;
                self.losses.unlogged += lost;
                self.log_losses();
                self.app.on_gap(from, lost, &mut self.outbox);
            }
            BusEvent::Present { from, list } => {
                let Broadcast { presence, news, .. } = &mut self.outbox.broadcast;
                presence.replace(from, list, |change| add_news(news, change));
            }
            BusEvent::Joined(who) => {
                self.outbox.stats.bus_participants += 1;
                self.log.push(Level::Debug, "bus", &[("participant", &who)], format!("{who} joined the bus"));
            }
            BusEvent::Left(who) => {
                self.outbox.stats.bus_participants = self.outbox.stats.bus_participants.saturating_sub(1);
                self.log.push(Level::Debug, "bus", &[("participant", &who)], format!("{who} left the bus"));
                let Broadcast { presence, news, .. } = &mut self.outbox.broadcast;
                presence.remove(who, |change| add_news(news, change));
                self.app.on_left(who, &mut self.outbox);
            }
        }
        self.outbox.demand_news();
        if !self.outbox.demands.is_empty() {
            self.settle();
        }
    }

    fn receive_published(&mut self, from: Participant, kind: Kind, record: Record<'_>) {
        let Some(channel) = self.outbox.broadcast.channels.find(record.channel) else { return };
        // Another program may have published it.
        if kind == Kind::Text && simdutf8::basic::from_utf8(record.payload).is_err() {
            self.outbox.stats.bus_invalid += 1;
            return;
        }
        self.outbox.deliver(channel, kind, &[record.payload]);
        if self.outbox.broadcast.channels.listens(channel) {
            self.app.on_bus(from, record, &mut self.outbox);
        }
    }

    /// Logs lost records, if that is due.
    pub(super) fn log_losses(&mut self) {
        let Losses { unlogged, logged } = &mut self.losses;
        if *unlogged == 0 || logged.is_some_and(|last| self.now < last + LOG_EVERY) {
            return;
        }
        *logged = Some(self.now);
        let lost = std::mem::take(unlogged);
        let text = format!("{lost} records of the bus were overwritten before they were read (a larger --bus-size)");
        self.log.push(Level::Warn, "lapped", &[("lost", &lost)], text);
    }

    /// Tells the app which members joined and left channels.
    pub(super) fn tell_news(&mut self) {
        let news = std::mem::take(&mut self.outbox.broadcast.news);
        for Record { kind, channel, payload } in news.iter() {
            if let (Ok(channel), Ok(member)) = (std::str::from_utf8(channel), std::str::from_utf8(payload)) {
                let change = Change { channel, member, entered: kind == RecordKind::Enter };
                self.app.on_presence(change, &mut self.outbox);
            }
        }
    }
}
