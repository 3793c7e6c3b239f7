//! The limits of AWS on how long a connection lives and may be silent, for those who want them too.

use super::*;

/// Connections are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Core {
    /// A message was sent to a connection.
    pub fn touch(&mut self, serial: u64, now: Duration) {
        if self.rules.limits.is_some()
            && let Some(connection) = self.places.get(&serial).and_then(|place| self.connections.get_mut(*place))
        {
            connection.reached = now;
        }
    }

    /// Ends the connections that have lived or been silent for as long as they may.
    pub(super) fn enforce_limits(&mut self, now: Duration) {
        let Some(limits) = self.rules.limits.filter(|_| self.next_look <= now) else { return };
        self.next_look = now + LOOK_EVERY;
        for (_, connection) in &mut self.connections {
            let active = connection.heard.max(connection.reached);
            let is_over = now.saturating_sub(connection.opened) >= limits.lifetime
                || now.saturating_sub(active) >= limits.silence;
            if let Some(id) = connection.id.filter(|_| is_over && !connection.closing) {
                connection.closing = true;
                self.orders.push_back(Order::SendAway(id));
            }
        }
    }

    /// When [`Core::enforce_limits`] has something to look at.
    pub(super) fn next_limit(&self) -> Option<Duration> {
        let limited = self.rules.limits.is_some() && !self.connections.is_empty();
        limited.then_some(self.next_look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::codec::json::Json;
    use crate::gateway::rules::Limits;

    fn sent_away(core: &mut Core, now: u64) -> usize {
        core.tick(Duration::from_secs(now));
        let mut number = 0;
        while let Some(order) = core.next_order() {
            number += usize::from(matches!(order, Order::SendAway(_)));
        }
        number
    }

    #[test]
    fn connections_end_after_two_hours_and_ten_minutes_of_silence() {
        let rules = Rules { limits: Some(Limits::OF_AWS), ..Rules::default() };
        let mut core = Core::new(rules, Box::new(Json), 1);
        assert_eq!(core.next_deadline(), None);
        let id = |index| ConnectionId { node: 0, generation: 0, index };
        let start = Duration::ZERO;
        let [busy, heard, reached, silent] =
            [0, 1, 2, 3].map(|index| core.open(id(index), Opening::default(), Peer::UNIX, None, start));
        assert!(core.next_deadline().is_some());
        for minute in 1..120u64 {
            let now = Duration::from_secs(60 * minute);
            core.message(busy, Kind::Text, Vec::new(), now);
            if minute == 5 {
                core.message(heard, Kind::Text, Vec::new(), now);
                core.touch(reached, now);
            }
            let expected = match minute {
                10 => 1,
                15 => 2,
                _ => 0,
            };
            assert_eq!(sent_away(&mut core, 60 * minute), expected, "minute {minute}");
        }
        assert_eq!(sent_away(&mut core, 7200), 1);
        for serial in [busy, heard, reached, silent] {
            core.closed(serial, 1001, "Going away", Duration::from_secs(7201));
        }
        core.check_invariants();
        assert_eq!(sent_away(&mut core, 8000), 0);
        let without = Core::new(Rules::default(), Box::new(Json), 1);
        assert_eq!(without.next_limit(), None);
    }
}
