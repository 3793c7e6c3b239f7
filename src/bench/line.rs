//! The messages between the processes of one run, a line each: [`Order`]s go to a worker's standard input, [`Word`]s
//! come from its standard output. Times count from a moment that all processes share.

use super::record::{Record, Times};
use super::report::Server;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// An order to a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Its number, the number of workers, and the beginning, in nanoseconds of the monotonic clock.
    Start(usize, usize, u64),
    /// When the load begins, in nanoseconds since the beginning, and the number of subscribers of each process.
    Go(u64, Vec<u64>),
    /// The number of messages published, in total.
    Published(u32),
    /// To the publisher: this process (by number) had this many deliveries.
    Came(usize, u64),
    /// To the publisher: a subscriber of this process is gone, after this many messages.
    Gone(usize, u32),
    /// To the publisher: this process is gone.
    Died(usize),
    /// Close all connections and end.
    Stop,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Start(index, workers, beginning) => write!(f, "start {index} {workers} {beginning}"),
            Order::Go(at, subscribers) => {
                write!(f, "go {at}")?;
                subscribers.iter().try_for_each(|number| write!(f, " {number}"))
            }
            Order::Published(count) => write!(f, "published {count}"),
            Order::Came(worker, count) => write!(f, "came {worker} {count}"),
            Order::Gone(worker, answered) => write!(f, "gone {worker} {answered}"),
            Order::Died(worker) => write!(f, "died {worker}"),
            Order::Stop => f.write_str("stop"),
        }
    }
}

impl Order {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Order> {
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let numbers = rest.split_terminator(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(match (word, numbers.as_slice()) {
            ("start", [index, workers, beginning]) => Order::Start(*index as usize, *workers as usize, *beginning),
            ("go", [at, subscribers @ ..]) => Order::Go(*at, subscribers.to_vec()),
            ("published", [count]) => Order::Published(u32::try_from(*count).ok()?),
            ("came", [worker, count]) => Order::Came(*worker as usize, *count),
            ("gone", [worker, answered]) => Order::Gone(*worker as usize, u32::try_from(*answered).ok()?),
            ("died", [worker]) => Order::Died(*worker as usize),
            ("stop", []) => Order::Stop,
            _ => return None,
        })
    }
}

/// A report of a worker.
#[derive(Clone, PartialEq, Debug)]
pub enum Word {
    /// Its connections are open; the number of subscribers among them.
    Ready(u64),
    /// A second has passed, or the rest of the last one.
    Progress(Second),
    /// The number of messages published, in total.
    Published(u32),
    /// Deliveries to its subscribers since the last report.
    Came(u64),
    /// A subscriber is gone, after this many messages.
    Gone(u32),
    /// The result; the last report.
    Report(Value),
}

/// Progress in a second.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Second {
    /// Its stage: 0 connects, 1 is ready, 2 warms up, 3 measures, 4 waits.
    pub stage: u64,
    /// Connections open now.
    pub open: u64,
    /// Errors so far.
    pub errors: u64,
    /// While measuring: the end in nanoseconds since measuring began, the length, and the times counted, as pairs of a
    /// time and its count.
    pub interval: Option<(u64, u64, Vec<u64>)>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Ready(subscribers) => write!(f, "ready {subscribers}"),
            Word::Progress(Second { stage, open, errors, interval }) => {
                write!(f, "progress {stage} {open} {errors}")?;
                let Some((end, length, pairs)) = interval else { return Ok(()) };
                write!(f, " {end} {length}")?;
                pairs.iter().try_for_each(|number| write!(f, " {number}"))
            }
            Word::Published(count) => write!(f, "published {count}"),
            Word::Came(count) => write!(f, "came {count}"),
            Word::Gone(answered) => write!(f, "gone {answered}"),
            Word::Report(report) => write!(f, "report {report}"),
        }
    }
}

impl Word {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Word> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        if word == "report" {
            return serde_json::from_str(rest).ok().map(Word::Report);
        }
        let numbers = rest.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(match (word, numbers.as_slice()) {
            ("ready", [subscribers]) => Word::Ready(*subscribers),
            ("progress", [stage, open, errors, rest @ ..]) => {
                let interval = match rest {
                    [end, length, pairs @ ..] => Some((*end, *length, pairs.to_vec())),
                    _ => None,
                };
                Word::Progress(Second { stage: *stage, open: *open, errors: *errors, interval })
            }
            ("published", [count]) => Word::Published(u32::try_from(*count).ok()?),
            ("came", [count]) => Word::Came(*count),
            ("gone", [answered]) => Word::Gone(u32::try_from(*answered).ok()?),
            _ => return None,
        })
    }
}

/// The result of a worker, besides the intervals, which it has reported before.
pub struct Outcome {
    /// Connections that were open when the load began.
    pub connected: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// Whether any subscriber received a message.
    pub delivered: bool,
    /// The number of subscribers that miss the last messages, and the number of messages missed.
    pub undelivered: (u64, u64),
    /// Messages published while measuring.
    pub published: u64,
    /// What the server used, from the process that measures it.
    pub server: Option<Server>,
}

impl Outcome {
    /// Returns it as JSON, with the record.
    pub fn to_json(&self, record: &Record) -> Value {
        let errors = record.errors.iter().map(|(kind, (count, said))| json!([kind, count, said]));
        json!({
            "connected": self.connected,
            "interrupted": self.interrupted,
            "delivered": self.delivered,
            "undelivered": self.undelivered,
            "published": self.published,
            "server": self.server.map(|server| {
                json!([server.cpu.as_nanos() as u64, server.memory_before, server.memory_after])
            }),
            "late": record.late.pairs(),
            "handshake": record.handshake.pairs(),
            "errors": errors.collect::<Vec<Value>>(),
        })
    }

    /// Adds a worker's report to a record; `None` if the report is invalid.
    pub fn add(report: &Value, record: &mut Record) -> Option<Outcome> {
        let number = |name: &str| report[name].as_u64();
        add_times(&report["late"], &mut record.late)?;
        add_times(&report["handshake"], &mut record.handshake)?;
        for error in report["errors"].as_array()? {
            let (kind, said) = (error[0].as_str()?.to_owned(), error[2].as_str()?);
            record.errors(kind, error[1].as_u64()?, || said.to_owned());
        }
        record.published += number("published")?;
        let server = report["server"].as_array().map(|_| &report["server"]).and_then(|server| {
            Some(Server {
                cpu: Duration::from_nanos(server[0].as_u64()?),
                memory_before: server[1].as_u64()?,
                memory_after: server[2].as_u64()?,
            })
        });
        Some(Outcome {
            connected: number("connected")?,
            interrupted: report["interrupted"].as_bool()?,
            delivered: report["delivered"].as_bool()?,
            undelivered: (report["undelivered"][0].as_u64()?, report["undelivered"][1].as_u64()?),
            published: number("published")?,
            server,
        })
    }
}

fn add_times(told: &Value, times: &mut Times) -> Option<()> {
    let pairs = told.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()?;
    times.add_pairs(&pairs);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_and_words_as_lines() {
        for order in [
            Order::Start(3, 54, u64::MAX),
            Order::Go(5, vec![]),
            Order::Go(5, vec![0, 7]),
            Order::Published(u32::MAX),
            Order::Came(1, 2),
            Order::Gone(1, 2),
            Order::Died(9),
            Order::Stop,
        ] {
            assert_eq!(Order::parse(&format!("{order}\n")), Some(order));
        }
        let interval = Some((1_000_000_000, 999_999_999, vec![5, 1, 7, 2]));
        for word in [
            Word::Ready(3),
            Word::Progress(Second { stage: 2, open: 3, errors: 4, interval: None }),
            Word::Progress(Second { stage: 3, open: 3, errors: 0, interval }),
            Word::Published(4),
            Word::Came(5),
            Word::Gone(6),
            Word::Report(json!({"a": [1, "b c"]})),
        ] {
            assert_eq!(Word::parse(&format!("{word}\n")), Some(word));
        }
    }

    #[test]
    fn an_outcome_and_its_record() {
        let mut record = Record::new();
        record.late.add(7);
        record.handshake.add(9);
        record.errors("refused", 3, || "by \"whom\"\n".into());
        let server = Some(Server { cpu: Duration::from_millis(5), memory_before: 6, memory_after: 7 });
        let outcome =
            Outcome { connected: 1, interrupted: true, delivered: true, undelivered: (2, 3), published: 4, server };
        let Some(Word::Report(told)) = Word::parse(&Word::Report(outcome.to_json(&record)).to_string()) else {
            panic!("not a report")
        };
        let mut sum = Record::new();
        for times in 1..=2 {
            let outcome = Outcome::add(&told, &mut sum).expect("it makes sense");
            assert!(
                outcome.interrupted && outcome.delivered && outcome.undelivered == (2, 3) && outcome.connected == 1
            );
            assert_eq!(outcome.server.expect("told").memory_after, 7);
            assert_eq!((sum.late.count(), sum.handshake.count(), sum.published), (times, times, 4 * times));
            assert_eq!(sum.errors["refused"], (3 * times, "by \"whom\"\n".into()));
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "(start|go|ready|progress|report|came|gone|died|published|stop)? ?[-0-9 a-z{}\\[\\]\",:]{0,40}") {
            let _ = (Order::parse(&line), Word::parse(&line));
            if let Some(Word::Report(report)) = Word::parse(&line) {
                let _ = Outcome::add(&report, &mut Record::new());
            }
        }
    }
}
