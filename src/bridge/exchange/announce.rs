//! What a bridge tells the others: the members of its host, and signs of life.

use super::super::wire::{self, Kind, PRESENCE_CHANNEL};
use super::{ANSWER_AFTER, Exchange, Sent};
use crate::channel::record::RecordKind;
use std::time::Duration;

impl Exchange {
    /// Tells other hosts our members.
    pub(super) fn announce(&mut self, now: Duration) {
        if self.publisher.pending().len() > self.rules.max_backlog {
            // Changes are then not sent one by one, but as a list once Redis accepts data again.
            if !self.local.changes.is_empty() || self.list_due.is_some() {
                self.list_due = Some(now + ANSWER_AFTER);
            }
        } else if self.list_due.is_some_and(|due| now >= due) {
            self.list_due = None;
            self.tell_list();
        } else if !self.local.changes.is_empty() {
            let changes = std::mem::take(&mut self.local.changes);
            let records = changes.iter().map(|record| (record.kind, record.channel, record.payload));
            let last = wire::in_parts(records, |part| self.publish_presence(Kind::Changes, part.bytes()));
            self.publish_presence(Kind::Changes, last.bytes());
        }
        for host in std::mem::take(&mut self.asks) {
            self.publish_presence(Kind::Ask, host.to_string().as_bytes());
        }
        if now >= self.alive_due {
            self.alive_due = now + self.rules.host_timeout / 3;
            self.publish_presence(Kind::Alive, &[]);
        }
    }

    fn tell_list(&mut self) {
        self.publish_presence(Kind::ListBegins, &[]);
        let names = std::mem::take(&mut self.local.names);
        let records = names.iter().map(|(channel, member)| (RecordKind::Enter, channel.as_bytes(), member.as_bytes()));
        let last = wire::in_parts(records, |part| self.publish_presence(Kind::ListGoesOn, part.bytes()));
        self.publish_presence(Kind::ListEnds, last.bytes());
        self.local.names = names;
    }

    pub(super) fn publish_presence(&mut self, kind: Kind, payload: &[u8]) {
        let head = wire::head(self.me, kind);
        let dialect = &self.rules.dialect;
        let words: [&[&[u8]]; 3] = [&[dialect.publish()], &[dialect.prefix(), PRESENCE_CHANNEL], &[&head, payload]];
        self.publisher.send(Sent::Presence, &words);
    }
}
