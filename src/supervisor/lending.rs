//! The listeners of slots that nobody serves: who accepts by them meanwhile.

use super::Supervisor;
use crate::data::log::Level;
use std::rc::Rc;
use std::time::Duration;

/// A worker that has just started is let to serve by itself.
const PATIENCE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Sees to it that somebody accepts for each slot.
    pub(super) fn lend(&mut self) {
        if self.stopping {
            return;
        }
        let serving = self.serving();
        for number in 0..self.slots.len() {
            let lent_to = self.slots[number].lent_to;
            let still = lent_to.filter(|borrower| serving.contains(borrower) && self.needs_help(number));
            if lent_to.is_some() && still.is_none() {
                self.take_back(number);
            }
            if still.is_none() && self.needs_help(number) {
                self.lend_to_one_of(&serving, number);
            }
        }
    }

    /// The workers that serve: their slots and processes.
    fn serving(&self) -> Vec<(usize, u32)> {
        let workers = self.slots.iter().filter_map(|slot| slot.worker.as_ref());
        let serving = workers.filter(|worker| worker.serves(self.plan.hang_timeout));
        serving.map(|worker| (worker.slot, worker.pid())).collect()
    }

    fn needs_help(&self, number: usize) -> bool {
        match &self.slots[number].worker {
            None => true,
            Some(worker) if worker.ready => !worker.serves(self.plan.hang_timeout),
            Some(worker) => worker.pulse.stood() >= PATIENCE,
        }
    }

    fn take_back(&mut self, number: usize) {
        let Some((borrower, pid)) = self.slots[number].lent_to.take() else { return };
        if let Some(worker) = self.slots[borrower].worker.as_ref().filter(|worker| worker.pid() == pid) {
            worker.take_back(number);
            let text = format!("worker {borrower} accepts no more for worker {number}");
            self.log.push(Level::Debug, "lend", &[("worker", &number), ("to", &borrower)], text);
        }
    }

    /// Lends to the worker that has least of others.
    fn lend_to_one_of(&mut self, serving: &[(usize, u32)], number: usize) {
        let lent = |borrower: &(usize, u32)| self.slots.iter().filter(|slot| slot.lent_to == Some(*borrower)).count();
        let Some(&(borrower, pid)) = serving.iter().min_by_key(|borrower| lent(borrower)) else { return };
        let Some(worker) = &self.slots[borrower].worker else { return };
        let own = &self.plan.listeners[borrower];
        let is_shared = |listener: &&Rc<_>| own.iter().any(|other| Rc::ptr_eq(other, listener));
        let others = self.plan.listeners[number].iter().filter(|listener| !is_shared(listener));
        let others: Vec<_> = others.map(|listener| &**listener).collect();
        // One that does not take the order now is asked again at the next look.
        if others.is_empty() || worker.lend(number, &others).is_err() {
            return;
        }
        self.slots[number].lent_to = Some((borrower, pid));
        let text = format!("worker {borrower} accepts for worker {number} until that serves");
        self.log.push(Level::Debug, "lend", &[("worker", &number), ("to", &borrower)], text);
    }
}
