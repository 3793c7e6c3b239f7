//! Lends the listeners of slots without a worker to other workers meanwhile. [`decide`] decides, without any I/O.
//!
//! Invariant: while any worker serves, the listeners of each slot that does not serve are lent to one that does, and
//! those of a serving slot are not lent.

use super::Supervisor;
use super::worker::Worker;
use crate::telemetry::log::Level;
use std::time::Duration;

/// How long to wait for a new worker to serve by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// The worker of a slot: the slot, and its process.
type Borrower = (usize, u32);

/// The state of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct View {
    /// The process that serves it.
    serves: Option<u32>,
    /// Whether another worker must accept for it.
    needs_help: bool,
    /// The worker that accepts for it.
    lent_to: Option<Borrower>,
}

/// An action on the listeners of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Lend { slot: usize, to: Borrower },
    TakeBack { slot: usize, from: Borrower },
}

/// Returns the actions to take, in order. The slots of others are spread evenly over the workers that serve.
fn decide(slots: &[View]) -> Vec<Act> {
    let serving = || slots.iter().enumerate().filter_map(|(slot, view)| view.serves.map(|pid| (slot, pid)));
    let is_serving = |(slot, pid): Borrower| slots.get(slot).is_some_and(|view| view.serves == Some(pid));
    let mut lent = vec![0; slots.len()];
    let (mut acts, mut alone) = (Vec::new(), Vec::new());
    for (slot, view) in slots.iter().enumerate() {
        match view.lent_to {
            Some(to) if view.needs_help && is_serving(to) => lent[to.0] += 1,
            Some(from) => acts.push(Act::TakeBack { slot, from }),
            None => {}
        }
        if view.needs_help && !view.lent_to.is_some_and(is_serving) {
            alone.push(slot);
        }
    }
    for slot in alone {
        if let Some(to) = serving().min_by_key(|(borrower, _)| lent[*borrower]) {
            lent[to.0] += 1;
            acts.push(Act::Lend { slot, to });
        }
    }
    acts
}

impl Supervisor {
    /// Makes sure that a worker accepts for each slot.
    pub(super) fn lend(&mut self) {
        if self.stopping {
            return;
        }
        let views: Vec<View> = (0..self.slots.len()).map(|number| self.view(number)).collect();
        for act in decide(&views) {
            match act {
                Act::Lend { slot, to } => self.lend_to(slot, to),
                Act::TakeBack { slot, from } => self.take_back(slot, from),
            }
        }
    }

    fn view(&self, number: usize) -> View {
        let slot = &self.slots[number];
        let serving = slot.worker.as_ref().filter(|worker| worker.serves(self.plan.hang_timeout));
        let needs_help = match &slot.worker {
            None => true,
            Some(worker) if worker.ready => serving.is_none(),
            // It may die again before it serves.
            Some(worker) => slot.lent_to.is_some() || worker.pulse.stood() >= PATIENCE,
        };
        View { serves: serving.map(Worker::pid), needs_help, lent_to: slot.lent_to }
    }

    fn take_back(&mut self, number: usize, (borrower, pid): Borrower) {
        self.slots[number].lent_to = None;
        if let Some(worker) = self.slots[borrower].worker.as_ref().filter(|worker| worker.pid() == pid) {
            worker.take_back(number);
            let text = format!("worker {borrower} no longer accepts for worker {number}");
            self.log.push(Level::Debug, "lend", &[("worker", &number), ("to", &borrower)], text);
        }
    }

    fn lend_to(&mut self, number: usize, (borrower, pid): Borrower) {
        let Some(worker) = &self.slots[borrower].worker else { return };
        let others = self.plan.listeners[number].without(&self.plan.listeners[borrower]);
        // A worker that does not take the order now gets it again next time.
        if others.all().next().is_none() || worker.lend(number, &others).is_err() {
            return;
        }
        self.slots[number].lent_to = Some((borrower, pid));
        let text = format!("worker {borrower} accepts for worker {number} until it serves");
        self.log.push(Level::Debug, "lend", &[("worker", &number), ("to", &borrower)], text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// An event of a worker: it serves, dies, hangs, or another one starts and serves.
    fn befalls() -> impl Strategy<Value = (usize, u8)> {
        (0usize..4, 0u8..4)
    }

    proptest! {
        #[test]
        fn nobody_waits_while_anybody_serves(count in 1usize..5, steps in vec(befalls(), 0..60)) {
            let new = View { serves: None, needs_help: false, lent_to: None };
            let (mut slots, mut next_pid) = (vec![new; count], 1);
            for (slot, what) in steps {
                let view = &mut slots[slot % count];
                (view.serves, view.needs_help) = match what {
                    // Dying and hanging are the same here.
                    0 | 1 => (None, true),
                    // It starts.
                    2 => (None, false),
                    _ => (Some(next_pid), false),
                };
                next_pid += 1;
                for act in decide(&slots) {
                    match act {
                        Act::TakeBack { slot, from } => {
                            prop_assert_eq!(slots[slot].lent_to, Some(from));
                            slots[slot].lent_to = None;
                        }
                        Act::Lend { slot, to } => {
                            prop_assert_eq!(slots[slot].lent_to, None, "lent to one alone");
                            slots[slot].lent_to = Some(to);
                        }
                    }
                }
                prop_assert!(decide(&slots).is_empty(), "all is done: {:?}", slots);
                let serving: Vec<Borrower> = (0..count).filter_map(|slot| Some((slot, slots[slot].serves?))).collect();
                for view in &slots {
                    let lent_to = view.lent_to;
                    prop_assert_eq!(lent_to.is_some(), view.needs_help && !serving.is_empty(), "{:?}", &slots);
                    prop_assert!(lent_to.is_none_or(|to| serving.contains(&to)), "{:?}", &slots);
                }
            }
        }
    }

    #[test]
    fn the_dead_are_shared_out() {
        let dead = View { serves: None, needs_help: true, lent_to: None };
        let serves = |pid| View { serves: Some(pid), needs_help: false, lent_to: None };
        let acts = decide(&[dead, serves(7), dead, serves(8)]);
        assert_eq!(acts, [Act::Lend { slot: 0, to: (1, 7) }, Act::Lend { slot: 2, to: (3, 8) }]);
    }
}
