//! What follows from the result of a call.

use super::*;

impl Core {
    /// The first event of a line was taken.
    pub(super) fn taken(&mut self, serial: u64, effects: Effects) {
        let mut effects = effects;
        effects.channels.retain(|channel| is_channel(channel));
        let opening = self.lines.get(&serial).is_some_and(|line| matches!(line.events[0].event, Event::Connect(_)));
        if let Some(connection) = self.find(serial) {
            let id = connection.id;
            for label in &effects.labels {
                self.labels.put(serial, label);
            }
            match id {
                Some(id) => {
                    self.orders.extend(effects.channels.into_iter().map(|channel| Order::Subscribe(id, channel)));
                    let messages = effects.messages.into_iter();
                    self.orders.extend(messages.map(|(kind, payload)| Order::Send(id, kind, payload)));
                }
                None if opening => {
                    if !effects.channels.is_empty() {
                        self.joins.insert(serial, effects.channels);
                    }
                    self.orders.push_back(Order::Admit(serial, effects.subprotocol));
                }
                None => {}
            }
        }
        self.advance(serial);
    }

    /// The first event of a line was refused.
    pub(super) fn refused(&mut self, serial: u64, refusal: Refusal, now: Duration) {
        let Some(line) = self.lines.get(&serial) else { return };
        match &line.events[0].event {
            Event::Closed(_) => self.try_again(serial, &refusal.reason, now),
            Event::Connect(_) => self.turn_away(serial, refusal),
            event => {
                let is_answer = event.is_opening() && refusal.status < 500;
                self.undelivered(serial, &refusal.reason, !is_answer);
            }
        }
    }

    /// The first event of a line could not be delivered; `sent` when the origin may have it all the same.
    pub(super) fn failed(&mut self, serial: u64, reason: &str, sent: bool, now: Duration) {
        let Some(line) = self.lines.get(&serial) else { return };
        match &line.events[0].event {
            Event::Closed(_) => return self.try_again(serial, reason, now),
            Event::Connect(_) => {
                let status = if sent { 504 } else { 503 };
                let refusal = Refusal { status, reason: "The application does not answer.".into() };
                if !sent {
                    return self.turn_away(serial, refusal);
                }
                // The origin may have accepted it.
                let waits = self.find(serial).is_some();
                self.orders.extend(waits.then_some(Order::Refuse(serial, refusal)));
                self.closed(serial, 1006, reason, now);
                return self.advance(serial);
            }
            _ => {}
        }
        let subject = self.subject(serial, now);
        let event = self.lines.get(&serial).map(|line| &line.events[0].event);
        match event.zip(subject).and_then(|(event, subject)| self.codec.failed(event, &subject)) {
            Some(effects) => {
                self.counts.dropped += 1;
                self.taken(serial, effects);
            }
            None => self.undelivered(serial, reason, true),
        }
    }

    /// A message, or the news that a connection is open, was not taken: the connection is closed, unless it may be kept.
    fn undelivered(&mut self, serial: u64, reason: &str, may_keep: bool) {
        self.counts.dropped += 1;
        if may_keep && self.rules.on_failure == OnFailure::Keep {
            return self.advance(serial);
        }
        let place = self.places.get(&serial).and_then(|place| self.connections.get_mut(*place));
        if let Some(connection) = place
            && !std::mem::replace(&mut connection.closing, true)
        {
            self.orders.extend(connection.id.map(|id| Order::Close(id, reason.to_owned())));
        }
        let Some(line) = self.lines.get_mut(&serial) else { return };
        let (events, bytes) = line.keep_ending();
        self.counts.dropped += events.saturating_sub(1) as u64;
        self.waiting_events -= events;
        self.waiting_bytes -= bytes;
        self.go_on(serial);
    }

    /// A client whose handshake waits is refused; the origin knows nothing of its connection.
    fn turn_away(&mut self, serial: u64, refusal: Refusal) {
        let connection = self.forget(serial);
        self.orders.extend(connection.map(|_| Order::Refuse(serial, refusal)));
        self.drop_line(serial);
    }

    /// The first event of a line was not sent, or has to be sent again. It is, for as long as there is patience.
    pub(super) fn try_again(&mut self, serial: u64, reason: &str, now: Duration) {
        let Some(line) = self.lines.get_mut(&serial) else { return };
        let is_ending = matches!(line.events[0].event, Event::Closed(_));
        let patience = if is_ending { self.rules.closed_retry } else { self.rules.patience };
        let end = *line.since.get_or_insert(now) + patience;
        if now < end {
            let at = (now + line.back_off()).min(end);
            line.state = State::Later(at);
            self.later.insert((at, serial));
            return;
        }
        if is_ending {
            self.counts.closed_given_up += 1;
            return self.drop_line(serial);
        }
        self.failed(serial, reason, false, now);
    }

    /// The first event of a line is over.
    fn advance(&mut self, serial: u64) {
        let Some(line) = self.lines.get_mut(&serial) else { return };
        self.waiting_events -= 1;
        self.waiting_bytes -= line.pop();
        self.go_on(serial);
    }

    /// Whatever is first in a line now is to be sent.
    fn go_on(&mut self, serial: u64) {
        let is_starved = self.is_full();
        let Some(line) = self.lines.get_mut(&serial) else { return };
        let has_room = line.messages <= self.rules.queue_messages / 2 && line.bytes <= self.rules.queue_bytes / 2;
        if line.paused && has_room && !is_starved {
            line.paused = false;
            let id = self.places.get(&serial).and_then(|place| self.connections[*place].id);
            self.orders.extend(id.map(Order::Resume));
        }
        if line.events.is_empty() {
            if line.paused {
                // It waits for all the others, and is resumed with them.
                self.starved.push(serial);
            }
            self.drop_line(serial);
        } else {
            line.state = State::Ready;
            self.ready.push_back(serial);
        }
        self.feed();
    }

    /// Forgets a line with all that is in it.
    pub(super) fn drop_line(&mut self, serial: u64) {
        if !self.places.contains_key(&serial) {
            // Nothing more will be told of it.
            self.orders.push_back(Order::Strike(serial));
        }
        let Some(line) = self.lines.remove(&serial) else { return };
        self.waiting_events -= line.events.len();
        self.waiting_bytes -= line.bytes;
        self.closed_lines -= usize::from(line.gone.is_some());
        self.shrink();
        self.feed();
    }

    /// Those that were not read from because of what all others had waiting are, once there is room.
    fn feed(&mut self) {
        if self.starved.is_empty() || self.held_bytes() > self.rules.total_bytes / 4 * 3 {
            return;
        }
        for serial in std::mem::take(&mut self.starved) {
            let own_fault = self.lines.get_mut(&serial).is_some_and(|line| {
                let is_full = line.messages >= self.rules.queue_messages || line.bytes >= self.rules.queue_bytes;
                line.paused &= is_full;
                is_full
            });
            let id = self.find(serial).and_then(|connection| connection.id);
            if !own_fault {
                self.orders.extend(id.map(Order::Resume));
            }
        }
    }

    /// The labels of connections.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Gives a connection a label. Returns `false` for one that may not be, or is one too many.
    pub fn label(&mut self, serial: u64, label: &str) -> bool {
        self.places.contains_key(&serial) && self.labels.put(serial, label)
    }

    /// Takes a label away from a connection.
    pub fn unlabel(&mut self, serial: u64, label: &str) {
        self.labels.take(serial, label);
    }

    /// Asserts what always holds, for tests: what is counted is what is there.
    pub fn check_invariants(&self) {
        let events: usize = self.lines.values().map(|line| line.events.len()).sum();
        let bytes: usize = self.lines.values().map(|line| line.bytes).sum();
        assert_eq!((events, bytes), (self.waiting_events, self.waiting_bytes));
        assert_eq!(self.lines.values().filter(|line| line.gone.is_some()).count(), self.closed_lines);
        assert_eq!(self.places.len(), self.connections.len());
        assert_eq!(self.connections.iter().map(|(_, one)| one.kept_bytes()).sum::<usize>(), self.kept_bytes);
        assert!(self.joins.keys().all(|serial| self.places.contains_key(serial)));
        assert_eq!(self.under_way.len(), self.origins.calls());
        assert_eq!(self.under_way.values().map(|(.., bytes)| bytes).sum::<usize>(), self.bytes_under_way);
        for (serial, line) in &self.lines {
            assert!(!line.events.is_empty(), "a line has a first event");
            let sum: usize = line.events.iter().map(|waiting| waiting.event.bytes()).sum();
            assert_eq!(sum, line.bytes);
            assert!(line.gone.is_some() != self.places.contains_key(serial), "a line is of a connection");
            match line.state {
                State::Later(at) => assert!(self.later.contains(&(at, *serial))),
                State::Ready => assert!(self.ready.contains(serial)),
                State::UnderWay => {}
            }
        }
    }
}
