//! A process that shares a load with others: its line to its parent, over standard input and output.

use super::fanout::Elsewhere;
use super::line::{Order, Outcome, Second, Word};
use super::load::Load;
use super::stage::Stage;
use crate::os::patient::Patient;
use crate::outbox::Outbox;
use crate::reactor::Waker;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// The line to the parent process.
pub struct Line {
    orders: Receiver<Order>,
}

/// The first order of a worker.
pub struct Begin {
    /// Its number.
    pub index: usize,
    /// The number of workers.
    pub workers: usize,
    /// The zero of all their clocks, on the monotonic clock.
    pub beginning: Duration,
}

impl Line {
    /// Waits for the first order, and starts a thread that waits for the others and wakes the loop.
    ///
    /// # Errors
    /// When standard input is not a line to a process that shares a load, or the thread cannot be started.
    pub fn open(waker: Waker) -> io::Result<(Begin, Line)> {
        let mut input = BufReader::new(Patient(io::stdin()));
        let mut first = String::new();
        input.read_line(&mut first)?;
        let Some(Order::Start(index, workers @ 1.., beginning)) = Order::parse(&first) else {
            return Err(io::Error::other("'percore bench-worker' is run by 'percore bench --workers N' only"));
        };
        let (sender, orders) = channel();
        let thread = std::thread::Builder::new().name("orders".into());
        thread.spawn(move || listen(input, &sender, &waker))?;
        Ok((Begin { index, workers, beginning: Duration::from_nanos(beginning) }, Line { orders }))
    }

    /// Sends a report. If the parent is gone, our orders have ended, too.
    pub(super) fn say(&self, word: &Word) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{word}").and_then(|()| out.flush());
    }
}

/// Hands over orders; their end means to stop.
fn listen(input: impl BufRead, sender: &Sender<Order>, waker: &Waker) {
    let orders = input.lines().map_while(Result::ok).map_while(|line| Order::parse(&line));
    for order in orders.chain([Order::Stop]) {
        if sender.send(order).is_err() {
            return;
        }
        waker.wake();
    }
}

impl Load {
    /// Sends a report to the parent process, if there is one.
    pub(super) fn say(&self, word: &Word) {
        if let Some(line) = &self.line {
            line.say(word);
        }
    }

    /// Carries out the orders that have arrived.
    pub(super) fn take_orders(&mut self, out: &mut Outbox) {
        while let Some(order) = self.line.as_ref().and_then(|line| line.orders.try_recv().ok()) {
            match order {
                Order::Start(..) => {}
                Order::Go(at, subscribers) => self.go(at, &subscribers),
                Order::Published(count) => self.hear_published(count, out),
                Order::Came(..) | Order::Gone(..) | Order::Died(_) => self.hear_of(&order, out),
                Order::Stop => {
                    self.interrupt(out);
                    out.stop();
                }
            }
        }
    }

    fn go(&mut self, at: u64, subscribers: &[u64]) {
        if matches!(self.stage, Stage::Ready(_)) {
            self.stage = Stage::Ready(Some(Duration::from_nanos(at)));
            if self.plan.rate.is_some() {
                return;
            }
            let own = self.plan.share.index;
            let subscribers = subscribers.iter().enumerate();
            let elsewhere = subscribers.map(|(index, subscribers)| if index == own { 0 } else { *subscribers });
            self.elsewhere = elsewhere.map(|subscribers| Elsewhere { subscribers, out: 0 }).collect();
        }
    }

    /// Reports progress, with the times measured since the last report.
    pub(super) fn say_progress(&self, interval: Option<(Duration, Duration, Vec<u64>)>) {
        let interval = interval.map(|(end, length, pairs)| (end.as_nanos() as u64, length.as_nanos() as u64, pairs));
        let (stage, open, errors) = (self.stage.number(), self.open as u64, self.record.error_count());
        self.say(&Word::Progress(Second { stage, open, errors, interval }));
    }

    /// Reports the result.
    pub(super) fn say_report(&self) {
        let outcome = Outcome {
            connected: self.flights.len() as u64,
            interrupted: self.interrupted,
            delivered: self.delivered,
            undelivered: if self.knows_published() { self.undelivered() } else { (0, 0) },
            published: self.record.published,
            server: self.server(),
        };
        self.say(&Word::Report(outcome.to_json(&self.record)));
    }
}
