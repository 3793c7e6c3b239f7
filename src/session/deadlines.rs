//! What happens with time: the app's tick, and each connection's one deadline.

use super::drain::Retirement;
use super::{Phase, Sessions};
use crate::app::{App, ConnectError, Error};
use std::time::Duration;

/// Extra time for peers to meet a deadline after the process was held up.
const GRACE: Duration = Duration::from_secs(1);

impl<A: App> Sessions<A> {
    /// Calls `on_tick` if it is due, and acts on every expired deadline.
    pub fn expire(&mut self) {
        if self.next_tick().is_some_and(|at| at <= self.now) {
            self.outbox.tick_by = None;
            self.next_tick = self.app.on_tick(self.now, &mut self.outbox);
            self.settle();
        }
        if self.outbox.pacing.next_deadline().is_some_and(|at| at <= self.now) {
            self.outbox.carry_on();
        }
        if self.retirement.is_some() {
            self.retire_due();
        }
        if self.refusals.next_deadline().is_some() {
            self.report_refusals();
        }
        self.log_shortage();
        self.wheel.advance(self.now, &mut self.expired);
        if !self.expired.is_empty() {
            let mut expired = std::mem::take(&mut self.expired);
            for key in expired.drain(..) {
                self.expire_one(key);
            }
            self.expired = expired;
        }
    }

    fn next_tick(&self) -> Option<Duration> {
        self.next_tick.into_iter().chain(self.outbox.tick_by).min()
    }

    fn expire_one(&mut self, key: u32) {
        let Some(session) = self.slab.get(key as usize) else { return };
        // Handling another deadline may have given this connection a new one.
        if self.wheel.is_armed(key) {
            return;
        }
        if let Some(awake_since) = self.awake_since
            && session.phase != Phase::Open
            && self.now < awake_since + GRACE
        {
            return self.wheel.arm(key, awake_since + GRACE);
        }
        match session.phase {
            Phase::Open => self.heartbeat(key),
            Phase::Http => self.handshake_expired(key),
            Phase::Awaiting => self.answer_expired(key),
            Phase::Preface => self.preface_expired(key),
            Phase::Connecting => self.connect_failed(key, ConnectError::Timeout),
            Phase::Closing => self.break_off(key, Error::CloseTimeout),
            Phase::Lingering | Phase::Finishing => self.end(key),
            Phase::Ended => {}
        }
    }

    /// Deadline of the next pass: at once if [`Sessions::end_pass`] made an app queue something.
    pub fn next_deadline(&self) -> Option<Duration> {
        let waits = !self.outbox.orders.is_empty() || !self.outbox.broadcast.outgoing.is_empty();
        let waits = waits || !self.outbox.resumed.is_empty();
        if self.outbox.queue.pass_bytes() > 0 || waits || self.outbox.stops {
            return Some(self.now);
        }
        let retirement = self.retirement.as_ref().map(Retirement::next_deadline);
        let reports = [self.refusals.next_deadline(), self.shortage.next_deadline(), self.outbox.log.next_deadline()];
        let others = [self.next_tick(), self.wheel.next_deadline(), retirement, self.rates.next_deadline()];
        others.into_iter().chain(reports).chain([self.outbox.pacing.next_deadline()]).flatten().min()
    }
}
