//! Webhooks: reports channels, members and client events to the app's backend as Pusher does: several events in a
//! POST, signed with the app's secret, one POST at a time and in order.
//!
//! A failed POST is repeated, after waits that double, for five minutes. Waiting events are bounded in bytes; those
//! given up are counted. `channel_vacated` is held back for 3 s, and dropped if a client subscribes again by then.

use super::sign::hex_signature;
use super::{LEAVE_HOLD, PusherApp};
use crate::gateway::call::{Call, Callee, Outcome, Returned};
use crate::gateway::codec::Post;
use crate::outbox::Outbox;
use crate::pubsub::json::push_string;
use crate::telemetry::log::Level;
use crate::time::retry::Retry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Events are gathered for at most this long, and at most this many, before they are sent together.
const GATHERED_FOR: Duration = Duration::from_millis(50);
const MOST_EVENTS: usize = 100;
/// The most bytes that may wait.
const MOST_BYTES: usize = 4 << 20;
/// The waits between attempts, and how long to keep trying.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const TRIED_FOR: Duration = Duration::from_secs(300);

/// The kinds of events that a backend can receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] =
        [Kind::ChannelOccupied, Kind::ChannelVacated, Kind::MemberAdded, Kind::MemberRemoved, Kind::ClientEvent];

    /// Its name in a webhook.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ChannelOccupied => "channel_occupied",
            Kind::ChannelVacated => "channel_vacated",
            Kind::MemberAdded => "member_added",
            Kind::MemberRemoved => "member_removed",
            Kind::ClientEvent => "client_event",
        }
    }
}

/// Events that are sent together.
struct Batch {
    body: String,
    events: u64,
    /// When it was first sent.
    since: Option<Duration>,
    retry: Retry,
    /// When to send it next.
    due: Duration,
}

/// The webhooks of an app, and the events that wait.
pub struct Webhooks {
    key: String,
    secret: String,
    wanted: Vec<Kind>,
    call: Box<dyn FnMut(Call)>,
    /// Connections on each channel.
    occupied: HashMap<Rc<str>, u32>,
    /// Channels without a client, and when to report them.
    vacated: BTreeSet<(Duration, Rc<str>)>,
    vacated_at: HashMap<Rc<str>, Duration>,
    /// Gathered events, and when they are due.
    gathered: Vec<String>,
    gathered_until: Duration,
    batches: VecDeque<Batch>,
    bytes: usize,
    serial: u64,
    /// Whether the first batch is in flight.
    is_under_way: bool,
    /// Events are no longer held back.
    is_ending: bool,
}

impl Webhooks {
    /// Webhooks for an app; there is at most one `call` at a time.
    pub fn new(app: &PusherApp, call: impl FnMut(Call) + 'static) -> Webhooks {
        Webhooks {
            key: app.key.clone(),
            secret: app.secret.clone(),
            wanted: app.webhook_events.clone(),
            call: Box::new(call),
            occupied: HashMap::new(),
            vacated: BTreeSet::new(),
            vacated_at: HashMap::new(),
            gathered: Vec::new(),
            gathered_until: Duration::ZERO,
            batches: VecDeque::new(),
            bytes: 0,
            serial: 0,
            is_under_way: false,
            is_ending: false,
        }
    }

    /// A connection joined a channel.
    pub fn came(&mut self, channel: &str, out: &mut Outbox) {
        if let Some(count) = self.occupied.get_mut(channel) {
            *count += 1;
            return;
        }
        self.occupied.insert(channel.into(), 1);
        match self.vacated_at.remove_entry(channel) {
            Some((channel, at)) => drop(self.vacated.remove(&(at, channel))),
            None => self.tell(Kind::ChannelOccupied, channel, &[], out),
        }
    }

    /// A connection left a channel.
    pub fn left(&mut self, channel: &str, out: &mut Outbox) {
        let Some(count) = self.occupied.get_mut(channel) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let Some((channel, _)) = self.occupied.remove_entry(channel) else { return };
        if self.is_ending {
            return self.tell(Kind::ChannelVacated, &channel, &[], out);
        }
        let at = out.now() + LEAVE_HOLD;
        self.vacated.insert((at, Rc::clone(&channel)));
        self.vacated_at.insert(channel, at);
        out.tick_by(at);
    }

    /// Reports an event on a channel, with further text fields.
    pub fn tell(&mut self, kind: Kind, channel: &str, fields: &[(&str, &str)], out: &mut Outbox) {
        if !self.wanted.contains(&kind) {
            return;
        }
        let mut event = format!("{{\"name\":\"{}\",\"channel\":", kind.name());
        push_string(&mut event, channel);
        for (name, value) in fields {
            event.push_str(&format!(",\"{name}\":"));
            push_string(&mut event, value);
        }
        event.push('}');
        if self.bytes + event.len() > MOST_BYTES {
            return give_up(1, "too much waits to be sent", out);
        }
        if self.gathered.is_empty() {
            self.gathered_until = out.now() + GATHERED_FOR;
            out.tick_by(self.gathered_until);
        }
        self.bytes += event.len();
        self.gathered.push(event);
        if self.gathered.len() >= MOST_EVENTS {
            self.close_batch(out);
            self.send(out);
        }
    }

    /// Makes a batch of the gathered events.
    fn close_batch(&mut self, out: &Outbox) {
        let events = std::mem::take(&mut self.gathered);
        let body = format!("{{\"time_ms\":{},\"events\":[{}]}}", out.unix_time().as_millis(), events.join(","));
        self.bytes = self.bytes + body.len() - events.iter().map(String::len).sum::<usize>();
        let retry = Retry::new(FIRST_WAIT, LONGEST_WAIT);
        self.batches.push_back(Batch { body, events: events.len() as u64, since: None, retry, due: out.now() });
    }

    /// Sends the first batch, if it is due and none is in flight.
    fn send(&mut self, out: &Outbox) {
        let Some(batch) = self.batches.front_mut().filter(|batch| !self.is_under_way && batch.due <= out.now()) else {
            return;
        };
        batch.since.get_or_insert(out.now());
        self.is_under_way = true;
        let headers = vec![
            ("X-Pusher-Key".to_owned(), self.key.clone()),
            ("X-Pusher-Signature".to_owned(), hex_signature(&self.secret, &batch.body)),
        ];
        let post = Post { media_type: "application/json", headers, body: batch.body.clone().into_bytes() };
        (self.call)(Call {
            key: self.serial,
            to: Callee::Origin(0),
            aim: None,
            event_id: self.serial.to_string(),
            post,
        });
    }

    /// A call has ended.
    pub fn returned(&mut self, returned: Returned, dice: f64, out: &mut Outbox) {
        self.is_under_way = false;
        let Some(batch) = self.batches.front_mut() else { return };
        let why = match returned.outcome {
            Outcome::Answered(reply) if (200..300).contains(&reply.status) => {
                out.stats.channels_webhook_events += batch.events;
                None
            }
            Outcome::Answered(reply) => Some(format!("it was answered by {}", reply.status)),
            Outcome::Unsent(why) | Outcome::Failed(why) => Some(why),
        };
        let now = out.now();
        match why {
            Some(why) if batch.since.is_none_or(|since| now.saturating_sub(since) < TRIED_FOR) => {
                let text = format_args!("a webhook with {} events is sent again: {why}", batch.events);
                out.log(Level::Warn, "webhook", None, text);
                batch.due = now + batch.retry.failed(Duration::ZERO, dice);
                out.tick_by(batch.due);
                return;
            }
            Some(why) => give_up(batch.events, &why, out),
            None => {}
        }
        self.serial += 1;
        if let Some(done) = self.batches.pop_front() {
            self.bytes -= done.body.len();
        }
        self.send(out);
    }

    /// Does what is due.
    pub fn expire(&mut self, out: &mut Outbox) {
        while let Some((at, _)) = self.vacated.first()
            && (*at <= out.now() || self.is_ending)
            && let Some((_, channel)) = self.vacated.pop_first()
        {
            self.vacated_at.remove(&channel);
            self.tell(Kind::ChannelVacated, &channel, &[], out);
        }
        if !self.gathered.is_empty() && self.gathered_until <= out.now() {
            self.close_batch(out);
        }
        self.send(out);
    }

    /// When [`Webhooks::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let vacated = self.vacated.first().map(|(at, _)| *at);
        let gathered = (!self.gathered.is_empty()).then_some(self.gathered_until);
        let due = self.batches.front().filter(|_| !self.is_under_way).map(|batch| batch.due);
        [vacated, gathered, due].into_iter().flatten().min()
    }

    /// Stops holding events back, as the process is about to end.
    pub fn end(&mut self, out: &mut Outbox) {
        self.is_ending = true;
        out.tick_by(out.now());
    }

    /// Whether everything was sent.
    pub fn is_finished(&self) -> bool {
        self.vacated.is_empty() && self.gathered.is_empty() && self.batches.is_empty()
    }

    /// Gives up what was not sent.
    pub fn abandon(&mut self, out: &mut Outbox) {
        let left = self.gathered.len() as u64 + self.batches.iter().map(|batch| batch.events).sum::<u64>();
        if left > 0 {
            give_up(left, "the server ends", out);
        }
    }
}

fn give_up(events: u64, why: &str, out: &mut Outbox) {
    out.stats.channels_webhook_events_lost += events;
    out.log(Level::Error, "webhook", None, format_args!("{events} events of webhooks are given up: {why}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Reply;
    use crate::outbox::SendRules;
    use std::cell::RefCell;

    type Calls = Rc<RefCell<Vec<Call>>>;

    fn webhooks(wanted: &[Kind]) -> (Webhooks, Calls, Outbox) {
        let app = PusherApp {
            id: "7".into(),
            key: "app-key".into(),
            secret: "app-secret".into(),
            client_events: true,
            webhook: Some("http://localhost/".into()),
            webhook_events: wanted.to_vec(),
        };
        let calls = Calls::default();
        let sent = Rc::clone(&calls);
        let webhooks = Webhooks::new(&app, move |call| sent.borrow_mut().push(call));
        (webhooks, calls, Outbox::new(SendRules::default(), crate::Deflate::default(), 0, [1; 32]))
    }

    /// Advances the time to `until`, stopping at each deadline.
    fn pass(webhooks: &mut Webhooks, until: Duration, out: &mut Outbox) {
        while let Some(at) = webhooks.next_deadline().filter(|at| *at <= until) {
            out.now = out.now.max(at);
            webhooks.expire(out);
        }
        out.now = until;
    }

    /// Answers the call in flight, and returns its content.
    fn answer(webhooks: &mut Webhooks, calls: &Calls, status: u16, out: &mut Outbox) -> Vec<String> {
        let call = calls.borrow_mut().pop().expect("a call");
        assert!(calls.borrow().is_empty(), "one at a time");
        let reply = Reply { status, headers: Vec::new(), body: Vec::new() };
        let outcome = Outcome::Answered(reply);
        webhooks.returned(Returned { key: call.key, outcome, took: Duration::ZERO }, 0.0, out);
        let body: serde_json::Value = serde_json::from_slice(&call.post.body).expect("JSON");
        let text = |event: &serde_json::Value| {
            format!("{} {}", event["name"].as_str().unwrap_or(""), event["channel"].as_str().unwrap_or(""))
        };
        body["events"].as_array().expect("events").iter().map(text).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_channel_that_is_left_for_a_moment_is_not_vacated() {
        let (mut webhooks, calls, mut out) = webhooks(&Kind::ALL);
        webhooks.came("a", &mut out);
        webhooks.came("a", &mut out);
        pass(&mut webhooks, SECOND, &mut out);
        assert_eq!(answer(&mut webhooks, &calls, 200, &mut out), ["channel_occupied a"]);
        webhooks.left("a", &mut out);
        webhooks.left("a", &mut out);
        pass(&mut webhooks, SECOND * 3, &mut out);
        webhooks.came("a", &mut out);
        pass(&mut webhooks, SECOND * 10, &mut out);
        assert!(calls.borrow().is_empty() && webhooks.is_finished());
        webhooks.left("a", &mut out);
        pass(&mut webhooks, SECOND * 12, &mut out);
        assert!(calls.borrow().is_empty() && !webhooks.is_finished());
        pass(&mut webhooks, SECOND * 14, &mut out);
        assert_eq!(answer(&mut webhooks, &calls, 204, &mut out), ["channel_vacated a"]);
        assert_eq!((out.stats.channels_webhook_events, webhooks.bytes), (2, 0));
    }

    #[test]
    fn what_fails_is_sent_again_in_order_until_it_is_given_up() {
        let (mut webhooks, calls, mut out) = webhooks(&[Kind::ChannelOccupied]);
        webhooks.came("a", &mut out);
        pass(&mut webhooks, SECOND, &mut out);
        webhooks.came("b", &mut out);
        let (mut attempts, mut now) = (0, SECOND);
        while out.stats.channels_webhook_events_lost == 0 {
            now += SECOND;
            pass(&mut webhooks, now, &mut out);
            if !calls.borrow().is_empty() {
                attempts += 1;
                assert_eq!(answer(&mut webhooks, &calls, 500, &mut out), ["channel_occupied a"]);
            }
            assert!(now < SECOND * 400);
        }
        assert!((8..15).contains(&attempts) && now >= TRIED_FOR, "{attempts} attempts in {now:?}");
        assert_eq!(answer(&mut webhooks, &calls, 200, &mut out), ["channel_occupied b"]);
        assert!(webhooks.is_finished() && webhooks.bytes == 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut webhooks, calls, mut out) = webhooks(&Kind::ALL);
        let data = "x".repeat(10_000);
        for _ in 0..1000 {
            webhooks.tell(Kind::ClientEvent, "a", &[("data", &data)], &mut out);
        }
        let kept = 1000 - out.stats.channels_webhook_events_lost;
        assert!(webhooks.bytes <= MOST_BYTES && (300..500).contains(&kept), "{kept}");
        pass(&mut webhooks, SECOND, &mut out);
        let mut told = 0;
        while !calls.borrow().is_empty() {
            told += answer(&mut webhooks, &calls, 200, &mut out).len() as u64;
        }
        assert_eq!((told, out.stats.channels_webhook_events, webhooks.bytes), (kept, kept, 0));
    }
}
