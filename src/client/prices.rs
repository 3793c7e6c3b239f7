//! Prices of a ticker feed, one per line, and the latency of its answers to Pings.

use super::screen::{Screen, json_object};
use super::{Dial, Ending, SHOWN_CHARACTERS, is_good, signals};
use crate::apps::ticker::client::{Report, TickerClient, Wishes};
use crate::reactor::Outcome;
use crate::telemetry::log::{json_string, printable};
use crate::time::calendar::Utc;
use hdrhistogram::Histogram;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

/// Latencies are kept up to an hour, with three significant digits.
const LONGEST_NANOSECONDS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Shows prices.
struct Prices {
    screen: Screen,
    json: bool,
    /// As it was typed.
    url: String,
    /// In nanoseconds.
    latency: Histogram<u64>,
    ending: Ending,
}

impl Prices {
    fn show(&mut self, report: Report<'_>) -> ControlFlow<()> {
        let screen = &mut self.screen;
        let written = match report {
            Report::Connected => {
                screen.say(&format!("connected to {}", self.url));
                Ok(())
            }
            Report::Price(change) => screen.line(&if self.json {
                let symbol = json_string(&change.symbol);
                let (time, price) = (change.update_time.to_string(), change.price.to_string());
                json_object(&[("type", "\"price\"".into()), ("symbol", symbol), ("time", time), ("price", price)])
            } else {
                let (time, symbol) = (Utc::from_unix(change.update_time), printable(&change.symbol, SHOWN_CHARACTERS));
                format!("{}Z {symbol} {:.2}", time.seconds(), change.price)
            }),
            Report::Latency(latency) => {
                let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                self.latency.saturating_record(nanoseconds);
                screen.line(&if self.json {
                    json_object(&[("type", "\"latency\"".into()), ("seconds", seconds(nanoseconds))])
                } else {
                    format!("ping answered after {}", milliseconds(nanoseconds))
                })
            }
            Report::Lost { why, code, retry_in } => {
                let (url, why) = (&self.url, printable(why, SHOWN_CHARACTERS));
                match retry_in {
                    Some(wait) => screen.say(&format!("{url}: {why}; next attempt in {:.1} s", wait.as_secs_f64())),
                    None if code.is_some_and(is_good) => screen.say(&why),
                    None => self.ending = Err(format!("{url}: {why}")),
                }
                Ok(())
            }
            Report::Odd(what) => {
                screen.say(&format!("the server said: {}", printable(what, SHOWN_CHARACTERS)));
                Ok(())
            }
        };
        self.note(written)
    }

    /// Stops the feed if prices can no longer be shown.
    fn note(&mut self, written: io::Result<()>) -> ControlFlow<()> {
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.ending = unwritten(&error);
                ControlFlow::Break(())
            }
        }
    }

    /// Returns the latency of the answers to all Pings.
    fn summary(&self) -> String {
        let Prices { latency, .. } = self;
        let values = [latency.min(), latency.value_at_quantile(0.5), latency.max()];
        match (self.json, latency.len()) {
            (true, count) => {
                let [min, median, max] =
                    values.map(|value| if count == 0 { "null".to_owned() } else { seconds(value) });
                let fields = [("pings", count.to_string()), ("min", min), ("median", median), ("max", max)];
                let (mut all, kind) = (vec![("type", "\"summary\"".to_owned())], fields);
                all.extend(kind);
                json_object(&all)
            }
            (false, 0) => "no ping was answered".to_owned(),
            (false, count) => {
                let [min, median, max] = values.map(milliseconds);
                let pings = if count == 1 { "ping" } else { "pings" };
                format!("{count} {pings} answered after min {min}, median {median}, max {max}")
            }
        }
    }
}

/// A reader that closed the pipe has read enough; any other failure to write is an error.
fn unwritten(error: &io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(format!("standard output: {error}")),
    }
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.3} ms", nanoseconds as f64 / 1e6)
}

fn seconds(nanoseconds: u64) -> String {
    Duration::from_nanos(nanoseconds).as_secs_f64().to_string()
}

/// Shows prices until a signal, or until the feed is lost without a retry; then the latency of the Pings.
///
/// # Errors
/// When the loop cannot run.
pub fn run(dial: &Dial, wishes: Wishes, json: bool) -> io::Result<Ending> {
    let latency = Histogram::new_with_bounds(1, LONGEST_NANOSECONDS, DIGITS).map_err(io::Error::other)?;
    let mut prices = Prices { screen: Screen::plain(), json, url: dial.url.clone(), latency, ending: Ok(()) };
    let app = TickerClient::new(wishes, |report: Report<'_>| prices.show(report));
    signals::end_by_the_second(None)?;
    let (outcome, _) = dial.client(app).run()?;
    if matches!(outcome, Outcome::Interrupted(_)) {
        prices.ending = Err("interrupted before the connection was closed".to_owned());
    }
    let summary = prices.summary();
    // A failure to write has been reported already.
    if let (Err(error), Ok(())) = (prices.screen.line(&summary), &prices.ending) {
        prices.ending = unwritten(&error);
    }
    Ok(prices.ending)
}
