//! Other nodes: how much is under way to each, and whether it is called at all while it does not answer.

use crate::gateway::origins::{Origins, Pick};
use crate::gateway::rules::Balance;
use std::collections::HashMap;
use std::time::Duration;

/// Requests under way to one node, and their bytes.
const MOST_CALLS: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;
/// Nodes that are remembered though nothing is under way to them.
const MOST_NODES: usize = 1024;

struct Node {
    /// It is left out while it fails as an origin is, and tried again by a single request.
    breaker: Origins,
    bytes: usize,
}

/// All that requests are under way to, or that failed of late; by address.
#[derive(Default)]
pub(in crate::gateway) struct Nodes {
    all: HashMap<String, Node>,
    bytes: usize,
}

impl Nodes {
    /// A request of this length is to be made. Returns whether it may: `false` while the node fails, or has too much to do.
    pub fn begin(&mut self, address: &str, bytes: usize, now: Duration) -> bool {
        if !self.all.contains_key(address) && self.all.len() >= MOST_NODES {
            self.all.retain(|_, node| node.breaker.calls() > 0);
            if self.all.len() >= MOST_NODES {
                return false;
            }
        }
        let fresh = || Node { breaker: Origins::new(1, Balance::Least, MOST_CALLS), bytes: 0 };
        let node = self.all.entry(address.to_owned()).or_insert_with(fresh);
        // One request is taken, however long.
        let has_room = node.bytes == 0 || node.bytes + bytes <= MOST_BYTES;
        if !has_room || node.breaker.pick(now) != Pick::Origin(0) {
            return false;
        }
        node.bytes += bytes;
        self.bytes += bytes;
        true
    }

    /// A request is over; `answered` whether the node answered, whatever it was.
    pub fn end(&mut self, address: &str, bytes: usize, answered: bool, now: Duration) {
        let Some(node) = self.all.get_mut(address) else { return };
        node.bytes -= bytes;
        self.bytes -= bytes;
        node.breaker.done(0, answered, now);
        if node.breaker.calls() == 0 && answered {
            self.all.remove(address);
        }
    }

    /// Bytes under way to all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nodes that are left out because they fail.
    pub fn out(&self) -> usize {
        self.all.values().map(|node| node.breaker.out()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_that_fails_is_left_out_and_tried_again() {
        let mut nodes = Nodes::default();
        for _ in 0..3 {
            assert!(nodes.begin("a", 10, Duration::ZERO));
            nodes.end("a", 10, false, Duration::ZERO);
        }
        assert!(!nodes.begin("a", 10, 99 * MS) && nodes.begin("b", 10, 99 * MS), "others are called");
        assert_eq!((nodes.out(), nodes.bytes()), (1, 10));
        assert!(nodes.begin("a", 10, 100 * MS) && !nodes.begin("a", 10, 100 * MS), "one request tries it");
        nodes.end("a", 10, true, 101 * MS);
        assert!(nodes.begin("a", 10, 101 * MS) && nodes.begin("a", 10, 101 * MS));
        for node in ["a", "a", "b"] {
            nodes.end(node, 10, true, 102 * MS);
        }
        assert_eq!((nodes.bytes(), nodes.all.len()), (0, 0));
    }

    #[test]
    fn what_is_under_way_to_one_is_bounded() {
        let mut nodes = Nodes::default();
        assert!(nodes.begin("a", MOST_BYTES + 1, Duration::ZERO), "one of any length");
        assert!(!nodes.begin("a", 1, Duration::ZERO) && nodes.begin("b", MOST_BYTES, Duration::ZERO));
        nodes.end("a", MOST_BYTES + 1, true, Duration::ZERO);
        assert!(nodes.begin("a", 1, Duration::ZERO));
        for n in 0..2 * MOST_NODES {
            let name = format!("{n}");
            if nodes.begin(&name, 1, Duration::ZERO) {
                nodes.end(&name, 1, false, Duration::ZERO);
            }
        }
        assert!(nodes.all.len() <= MOST_NODES);
    }
}
