//! What must hold after each pass, of all connections together and of each, and when one ends.

use super::World;
use crate::simulation::address::check_tally;
use crate::simulation::probe::{ASKED, KICKED};
use std::time::Duration;

/// Every so many passes all connections are looked at, not only those something happened to.
const SWEEP_PASSES: u64 = 50;

impl World {
    pub(super) fn check(&mut self) {
        let stats = *self.sessions.stats();
        let counts = &self.sessions.app.counts;
        assert_eq!(self.sessions.len(), self.by_key.len());
        assert_eq!(stats.open, counts.opened - counts.closed);
        assert_eq!(stats.open as usize, self.sessions.app.open.len());
        assert_eq!(stats.open as usize + self.sessions.tally().waiting(), self.sessions.len());
        assert_eq!(stats.upgrades, counts.opened);
        assert_eq!(stats.accepted, self.links.len() as u64);
        assert_eq!(stats.refused, self.refused);
        assert_eq!((stats.messages_in(), stats.messages_out()), (counts.received, counts.queued));
        assert!(stats.messages_dropped >= counts.dropped);
        let next = self.sessions.next_deadline().expect("a tick is always to come");
        assert!(self.sessions.queue().pass_bytes() == 0 || next <= self.now, "queued, and asleep until {next:?}");
        let mut due = std::mem::take(&mut self.touched);
        if self.passes.is_multiple_of(SWEEP_PASSES) {
            due.extend(self.by_key.values());
            let clients = self.by_key.values().map(|link| self.links[*link].counts_as(&self.sessions.app));
            check_tally(&self.sessions, self.settings.max_connections_per_ip, clients);
        }
        for index in due {
            if !self.links[index].gone {
                self.check_alive(index);
            }
        }
        // Nobody sleeps past a deadline.
        assert!(next <= self.now + Duration::from_secs(3600 * 24), "asleep for {next:?}");
    }

    /// What holds of a connection that is there after a pass.
    pub(super) fn check_alive(&mut self, index: usize) {
        let (now, settings, link) = (self.now, &self.settings, &self.links[index]);
        let asleep = self.sessions.next_deadline().is_none_or(|next| next > now);
        let lane = self.sessions.queue().lane_at(link.key);
        assert!(lane.is_blocked() == link.blocked, "the queue thinks otherwise of a socket");
        assert!(lane.queued_bytes() == 0 || link.blocked || !asleep, "{} bytes are forgotten", lane.queued_bytes());
        let app = &self.sessions.app;
        assert!(app.peers.get(&link.id).is_none_or(|peer| *peer == link.client.who.address), "taken for another");
        let overdue = |since: Duration, timeout: Duration| now > since + timeout + self.slack;
        if let Some(ending) = app.endings.get(&link.id) {
            assert!(!overdue(ending.at, settings.close_timeout), "alive after its close deadline");
        } else if let Some(closing) = app.closing.get(&link.id) {
            assert!(!overdue(*closing, settings.close_timeout), "alive though it did not answer a Close");
        } else if app.open.contains(&link.id) {
            let is_dead = !app.is_paused(link.id) && overdue(link.heard, settings.heartbeat_timeout);
            assert!(!is_dead, "alive after its heartbeat timeout");
        } else {
            let patience = link.client.patience(settings);
            let limit = patience + settings.close_timeout + self.slack;
            assert!(!overdue(link.requested, limit), "alive after its handshake and close deadlines");
            let told = link.client.heard_last || link.blocked || link.client.ends_stream;
            let late = overdue(link.requested, patience);
            assert!(told || !late || self.draining, "not told that its handshake took too long");
        }
    }

    /// What holds of a connection when its socket is closed.
    pub(super) fn check_ending(&mut self, index: usize) {
        let (now, link, app) = (self.now, &self.links[index], &self.sessions.app);
        assert!(!app.open.contains(&link.id), "closed without on_close");
        // One that made room for another may have had something to say.
        let may_be_shed = self.sessions.stats().shed > self.shed_before;
        let whole = !link.broken && !link.blocked && !self.draining && !may_be_shed;
        let Some(ending) = app.endings.get(&link.id) else {
            assert_eq!(link.upgraded, None, "upgraded, but on_open and on_close were not called");
            // As below: its deadline may have come with the event.
            if whole && link.unblocked < now {
                link.client.judge_end();
            }
            return;
        };
        assert!(now <= ending.at + self.settings.close_timeout + self.slack, "it took too long to close");
        if let Some(closing) = app.closing.get(&link.id) {
            assert!(ending.at <= *closing + self.settings.close_timeout + self.slack);
            let at_once = ending.reason.reason == "Close frame not answered in time" && !self.draining;
            assert!(!at_once || ending.at >= *closing + self.settings.close_timeout, "no time to answer a Close");
        }
        let silent = ending.reason.reason.starts_with("nothing came");
        assert!(
            !silent || ending.at + self.slack >= link.heard + self.settings.heartbeat_timeout,
            "a timeout came early"
        );
        let code = u16::from(ending.reason.code);
        let told = ending.reason.clean || silent || link.client.violation == Some(code);
        // A socket that takes bytes again when the deadline has come gets nothing any more.
        let in_time = now < ending.at + self.settings.close_timeout;
        if whole && told && in_time {
            let closed = link.client.heard_close;
            assert!(closed.is_some(), "ended with {code} and no Close frame");
            let ours = matches!(closed, Some(Some(KICKED | ASKED | 1001 | 1011)));
            assert!(ours || silent || closed == Some(Some(code)) || code == 1005, "{closed:?} is not {code}");
            link.client.judge_end();
        }
        let counted = !link.was_blocked && !link.broken && !self.draining;
        if let (Some(upgraded), true) = (link.upgraded, counted) {
            let until = app.closing.get(&link.id).copied().unwrap_or(ending.at).min(ending.at);
            let open = until.saturating_sub(upgraded);
            let period = self.settings.heartbeat + self.slack;
            let least = (open.as_millis() / period.as_millis()) as u64;
            let most = (open.as_millis() / self.settings.heartbeat.as_millis()) as u64 + 1;
            assert!((least..=most).contains(&link.client.pings), "{} pings instead of {least}", link.client.pings);
        }
    }
}
