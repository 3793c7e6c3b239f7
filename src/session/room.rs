//! Whether there is room for another connection, and whom it costs.

use super::{Phase, Session, Sessions, milliseconds};
use crate::app::App;

/// Connections beyond `max_connections` that may still send a request, to be told 503 properly.
const EXTRA_CONNECTIONS: usize = 256;

impl<A: App> Sessions<A> {
    /// Whether another connection is taken; one that is silent may be ended for it.
    pub(super) fn makes_room(&mut self) -> bool {
        let settings = &self.settings;
        self.slab.len() < settings.max_connections.saturating_add(EXTRA_CONNECTIONS)
            && (self.slab.len() < settings.max_sockets || self.shed_one())
    }

    /// Ends the connection without an upgrade that has been silent longest, so that another one finds room. False when
    /// there is none, or there were enough in this pass, at the end of which their sockets are closed.
    fn shed_one(&mut self) -> bool {
        let now = milliseconds(self.now);
        let sheds = |session: &Session<_>| matches!(session.phase, Phase::Preface | Phase::Http | Phase::Lingering);
        let silent = self.slab.iter().filter(|(_, session)| sheds(session));
        let longest = silent.max_by_key(|(_, session)| now.wrapping_sub(session.heard)).map(|(key, _)| key as u32);
        match longest {
            Some(key) if self.ended.len() < self.settings.max_sockets => {
                self.outbox.stats.refused += 1;
                self.end(key);
                true
            }
            _ => false,
        }
    }
}
