//! What the sessions are given of what clients sent, in turns and steps.

use super::{Happening, World};
use std::time::Duration;

impl World {
    /// Gives the sessions the next piece of what a client sent, as a readable socket does.
    pub(super) fn deliver(&mut self, index: usize) {
        self.touched.insert(index);
        let link = &mut self.links[index];
        if link.gone || link.paused || self.sessions.generation(link.key) != Some(link.id.generation) {
            return;
        }
        if !self.sessions.wants_read(link.key) {
            if link.client.has_left() {
                // The kernel tells of an end also to who does not read.
                self.sessions.peer_shut(link.key, false);
            }
            return self.go_on(index);
        }
        if self.sessions.has_rest(link.key) {
            self.sessions.resume(link.key);
            return self.go_on(index);
        }
        let client = &mut link.client;
        let waiting = client.outgoing.len() - client.delivered;
        if waiting == 0 {
            if client.ends_stream {
                self.sessions.end_of_stream(link.key);
            }
            return;
        }
        // Small pieces are for small amounts, or a run would take hours.
        let longest = client.piece.max(waiting / 50);
        let length = self.random.size(1, longest.min(waiting));
        let mut piece = client.outgoing[client.delivered..client.delivered + length].to_vec();
        client.delivered += length;
        self.hear_of(index);
        let link = &mut self.links[index];
        if link.client.requests_delivered() {
            link.requested = self.now;
        }
        // As the loop does: step by step, and what is left when the turn ends is kept for the next.
        let (key, mut left) = (link.key, &mut piece[..]);
        while !left.is_empty() {
            if self.random.one_in(4) {
                self.sessions.keep(key, left);
                break;
            }
            let is_brief = self.random.one_in(4);
            self.sessions.set_brief(is_brief);
            let used = self.sessions.step(key, left);
            self.sessions.set_brief(false);
            let least = usize::from(!is_brief);
            assert!((least..=left.len()).contains(&used), "a step used {used} of {} bytes", left.len());
            left = &mut left[used..];
            if used == 0 || !self.sessions.wants_read(key) {
                self.sessions.keep(key, left);
                break;
            }
        }
        self.go_on(index);
    }

    /// After a step: writes, perhaps, and plans the next one.
    fn go_on(&mut self, index: usize) {
        if self.sessions.queue().pass_bytes() >= 32 * 1024 && self.random.one_in(2) {
            self.flush();
        }
        let link = &mut self.links[index];
        let rests = self.sessions.has_rest(link.key);
        if self.sessions.generation(link.key) == Some(link.id.generation) && !self.sessions.wants_read(link.key) {
            link.paused = true;
        } else if rests {
            self.schedule(Duration::ZERO, Happening::Deliver(index));
        } else if link.client.delivered < link.client.outgoing.len() || link.client.ends_stream {
            let gap = if self.random.one_in(4) { self.random.millis(0, 20) } else { Duration::ZERO };
            self.schedule(gap, Happening::Deliver(index));
        }
    }
}
