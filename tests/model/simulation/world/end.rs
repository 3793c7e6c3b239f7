//! What must hold when a world has come to its end.

use super::World;
use crate::simulation::probe::Probe;
use percore::internal::telemetry::memory::MemoryKind;

impl World {
    pub(super) fn check_the_end(&mut self) {
        let counts = &self.sessions.app.counts;
        assert_eq!(counts.opened, counts.closed, "on_close once for each on_open");
        assert!(self.sessions.is_empty() && self.by_key.is_empty());
        assert!(self.links.iter().all(|link| link.gone));
        assert_eq!(self.sessions.stats().open, 0);
        let tally = self.sessions.tally();
        assert_eq!((tally.clients(), tally.waiting()), (0, 0), "a client is counted that has no connection");
        assert_eq!(self.sessions.queue().next_dirty(), None);
        self.sessions.queue().end_flush();
        assert!(self.sessions.app.counts.are_lively(), "a run in which hardly anything happened");
        let memory = self.sessions.memory();
        let kinds = [MemoryKind::Input, MemoryKind::Content, MemoryKind::Assembly, MemoryKind::Backlog];
        for kind in kinds.into_iter().chain([MemoryKind::Held, MemoryKind::Windows]) {
            assert_eq!(memory.of(kind), 0, "{kind:?} of nobody");
        }
        let Probe { accepted, debts, .. } = &self.sessions.app;
        assert!(accepted.is_empty(), "accepted, but on_open was not called: {accepted:?}");
        assert!(debts.iter().all(|debt| !self.sessions.outbox.awaits(debt.ticket)), "an answer to nobody is owed");
        // Empty slots of the wheel wake nobody.
        let (next, tick) = (self.sessions.next_deadline(), self.sessions.app.next_tick());
        assert_eq!(next, Some(tick));
    }
}
