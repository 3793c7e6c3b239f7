//! Counters of a process: whatever is received, sent, refused, cut short or thrown away is counted here.
//!
//! Each is declared once, with its name in the log and its metric: name by Prometheus's conventions, label, help.

use super::histogram::Histogram;
use super::memory::MEMORY_KINDS;
use crate::telemetry::log::counted;
use std::fmt::{self, Write};

/// Index of the counters of an opcode.
pub const TEXT: usize = 0;
/// Index of the counters of an opcode.
pub const BINARY: usize = 1;
/// Index of the counters of an opcode.
pub const CLOSE: usize = 2;
/// Index of the counters of an opcode.
pub const PING: usize = 3;
/// Index of the counters of an opcode.
pub const PONG: usize = 4;

/// The opcodes as label values, by index.
pub const OPCODES: [&str; 5] = ["text", "binary", "close", "ping", "pong"];

/// Statuses with which percore itself refuses requests, as label values; the last is any other, which an app chose.
pub(crate) const STATUSES: [&str; 18] = [
    "400", "401", "403", "404", "405", "408", "411", "413", "414", "417", "426", "429", "431", "501", "503", "504",
    "505", "other",
];

/// Close codes as label values (RFC 6455, section 7.4); the last is any other.
const CODES: [&str; 14] =
    ["1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "other"];

/// What becomes of calls to an origin, as label values.
const CALL_OUTCOMES: [&str; 4] = ["taken", "refused", "failed", "unsent"];

/// What becomes of messages from the application, as label values.
const DELIVERIES: [&str; 5] = ["queued", "gone", "dropped", "unreachable", "forged"];

/// Whether clients got all that they had missed, as label values.
const RECOVERIES: [&str; 2] = ["recovered", "unrecoverable"];

/// What a metric is, in Prometheus's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket, in seconds.
    Histogram,
}

/// A metric's name, help and labels.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// By Prometheus's conventions.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// What it counts.
    pub help: &'static str,
    /// The label that tells its values apart, empty for a single value.
    pub label: &'static str,
    /// The label's values.
    pub values: &'static [&'static str],
}

/// A counter, or several that differ in a label: `u64` words in a row.
trait Words {
    fn words(&self) -> &[u64];
    fn words_mut(&mut self) -> &mut [u64];
}

impl Words for u64 {
    fn words(&self) -> &[u64] {
        std::slice::from_ref(self)
    }

    fn words_mut(&mut self) -> &mut [u64] {
        std::slice::from_mut(self)
    }
}

impl<const N: usize> Words for [u64; N] {
    fn words(&self) -> &[u64] {
        self
    }

    fn words_mut(&mut self) -> &mut [u64] {
        self
    }
}

impl Words for Histogram {
    fn words(&self) -> &[u64] {
        &self.0
    }

    fn words_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

/// Declares the counters once.
macro_rules! stats {
    ($(
        #[doc = $help:literal]
        $field:ident: $type:ty = $kind:ident $name:literal $($label:literal $values:expr)?;
    )+) => {
        /// Counts since the process began, but for what is a level: `open` and `draining`. Handlers read it by
        /// [`Outbox::stats`](crate::Outbox::stats), and [`Server::run`](crate::Server::run) ends with it.
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub struct Stats {
            $(#[doc = $help] pub $field: $type,)+
        }

        impl Stats {
            /// Words in [`Stats::words`].
            pub const WORDS: usize = size_of::<Stats>() / size_of::<u64>();

            /// Each counter's name and value, in the order of the fields: the sum, where a label tells several apart (of opcodes
            /// that of text and binary messages), and the number of observations of a histogram.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), total(MetricKind::$kind, concat!($($label)?), self.$field.words())),)+]
            }

            /// Each metric with its words, in the order of the fields.
            #[doc(hidden)]
            pub fn metrics(&self) -> Vec<(Metric, &[u64])> {
                vec![$((
                    Metric {
                        name: $name,
                        kind: MetricKind::$kind,
                        help: $help.trim_ascii(),
                        label: concat!($($label)?),
                        values: values(&[$(&$values)?]),
                    },
                    self.$field.words(),
                ),)+]
            }

            /// Every number, in the order of the fields.
            pub fn words(&self) -> impl Iterator<Item = u64> {
                [$(self.$field.words(),)+].into_iter().flatten().copied()
            }

            /// The counters of which these are the [`Stats::words`]; what is missing is 0.
            pub fn from_words(words: &[u64]) -> Stats {
                let (mut stats, mut words) = (Stats::default(), words.iter());
                $(for word in stats.$field.words_mut() {
                    *word = words.next().copied().unwrap_or_default();
                })+
                stats
            }

            /// Adds what another process counted; levels are left alone, since a process that has ended has none.
            pub fn add(&mut self, other: &Stats) {
                $(if MetricKind::$kind != MetricKind::Gauge {
                    add_words(self.$field.words_mut(), other.$field.words());
                })+
            }

            /// Adds the levels of another process, which lives. Two processes that both drain, or both see the same
            /// participants of a bus, count no more of that than the one that counts most.
            pub fn add_levels(&mut self, other: &Stats) {
                let most = (
                    self.draining.max(other.draining),
                    self.bus_participants.max(other.bus_participants),
                );
                $(if MetricKind::$kind == MetricKind::Gauge {
                    add_words(self.$field.words_mut(), other.$field.words());
                })+
                (self.draining, self.bus_participants) = most;
            }
        }
    };
}

stats! {
    /// Connections accepted from a listener.
    accepted: u64 = Counter "percore_connections_accepted_total";
    /// Connections accepted and closed at once: out of descriptors, or far beyond `--max-connections`, and none to shed.
    refused: u64 = Counter "percore_connections_refused_total";
    /// Connections that were no open WebSocket and were closed to make room for newer ones.
    shed: u64 = Counter "percore_http_connections_shed_total";
    /// Accept calls that failed for want of descriptors (EMFILE, ENFILE).
    accept_errors: u64 = Counter "percore_accept_errors_total";
    /// WebSocket connections open now.
    open: u64 = Gauge "percore_connections_open";
    /// Whether the process is draining: 1 from then on.
    draining: u64 = Gauge "percore_draining";
    /// Upgrades answered with 101.
    upgrades: u64 = Counter "percore_upgrades_total";
    /// Requests answered with a status of 400 or more.
    rejected: [u64; STATUSES.len()] = Counter "percore_requests_rejected_total" "status" STATUSES;
    /// Upgrades answered with 429, beyond `--max-connections-per-ip`.
    limited_per_ip: u64 = Counter "percore_limited_per_ip_total";
    /// Connections closed because they did not begin with a PROXY protocol header that we take (`--proxy-protocol`).
    proxy_errors: u64 = Counter "percore_proxy_errors_total";
    /// Requests answered or upgraded.
    requests: u64 = Counter "percore_requests_total";
    /// Messages and control frames received.
    received: [u64; OPCODES.len()] = Counter "percore_messages_received_total" "opcode" OPCODES;
    /// Payload bytes of what was received, after decompression.
    received_bytes: [u64; OPCODES.len()] = Counter "percore_received_bytes_total" "opcode" OPCODES;
    /// Messages and control frames queued for sending.
    sent: [u64; OPCODES.len()] = Counter "percore_messages_sent_total" "opcode" OPCODES;
    /// Payload bytes of what was queued for sending, before compression.
    sent_bytes: [u64; OPCODES.len()] = Counter "percore_sent_bytes_total" "opcode" OPCODES;
    /// Messages that apps published on channels.
    published: u64 = Counter "percore_published_total";
    /// Records published on the bus.
    bus_published: u64 = Counter "percore_bus_records_published_total";
    /// Records that other participants published on the bus.
    bus_received: u64 = Counter "percore_bus_records_received_total";
    /// Records of others that were overwritten before they could be read.
    bus_lost: u64 = Counter "percore_bus_records_lost_total";
    /// Records of others that could not be used: text that is not UTF-8.
    bus_invalid: u64 = Counter "percore_bus_records_invalid_total";
    /// Other participants of the bus now.
    bus_participants: u64 = Gauge "percore_bus_participants";
    /// WebSocket connections that ended, by close code: 1005 for a Close frame without one, 1006 for no Close frame.
    closes: [u64; CODES.len()] = Counter "percore_closes_total" "code" CODES;
    /// Connections that ended without a closing handshake.
    unclean_closes: u64 = Counter "percore_unclean_closes_total";
    /// Connections ended because nothing came for the heartbeat timeout.
    heartbeat_timeouts: u64 = Counter "percore_heartbeat_timeouts_total";
    /// Connections that did not finish their request in time.
    handshake_timeouts: u64 = Counter "percore_handshake_timeouts_total";
    /// Connections ended because their backlog was full (`--slow-consumer close`).
    slow_consumers_closed: u64 = Counter "percore_slow_consumers_closed_total";
    /// Messages not queued because a backlog was full (`--slow-consumer drop`).
    messages_dropped: u64 = Counter "percore_messages_dropped_total";
    /// Times a connection was not read from for a while because it had sent too much (`--rate-messages`, `--rate-bytes`).
    rate_pauses: u64 = Counter "percore_rate_pauses_total";
    /// Publications that had to wait because their channel carried as much as it may (`--rate-channel`).
    publishes_delayed: u64 = Counter "percore_publishes_delayed_total";
    /// Writes of what many connections are sent that were left to a later pass, so that others need not wait for all of them.
    writes_postponed: u64 = Counter "percore_writes_postponed_total";
    /// Bytes that the process holds for its connections, by what for; together at most `--max-memory`.
    memory: [u64; MEMORY_KINDS.len()] = Gauge "percore_memory_bytes" "kind" MEMORY_KINDS;
    /// The bound on these bytes, 0 for none (`--max-memory`).
    max_memory: u64 = Gauge "percore_memory_limit_bytes";
    /// Connections ended because all together held more than that.
    memory_closed: u64 = Counter "percore_memory_closed_total";
    /// Connections ended for breaking the protocol.
    protocol_errors: u64 = Counter "percore_protocol_errors_total";
    /// Calls to origins, and events for which there was none, by what became of them.
    origin_calls: [u64; CALL_OUTCOMES.len()] = Counter "percore_origin_calls_total" "outcome" CALL_OUTCOMES;
    /// Events that were tried again after no origin had taken them.
    origin_retries: u64 = Counter "percore_origin_retries_total";
    /// Time from the order of a call to an origin to its result.
    origin_latency: Histogram = Histogram "percore_origin_call_seconds";
    /// Calls to origins under way.
    origin_in_flight: u64 = Gauge "percore_origin_calls_in_flight";
    /// Origins that are left out because they fail.
    origins_out: u64 = Gauge "percore_origins_out";
    /// Events that no origin has taken yet.
    gateway_events: u64 = Gauge "percore_gateway_events_waiting";
    /// Bytes of messages among them.
    gateway_event_bytes: u64 = Gauge "percore_gateway_event_bytes_waiting";
    /// Events that were dropped because no origin took them.
    gateway_events_dropped: u64 = Counter "percore_gateway_events_dropped_total";
    /// Times a connection was not read from for a while because of its events that waited.
    gateway_pauses: u64 = Counter "percore_gateway_pauses_total";
    /// Closed connections of which no origin knows yet.
    gateway_closed_pending: u64 = Gauge "percore_gateway_closed_pending";
    /// Closed connections of which no origin was told in time.
    gateway_closed_given_up: u64 = Counter "percore_gateway_closed_given_up_total";
    /// Other nodes that are left out because they fail.
    gateway_nodes_out: u64 = Gauge "percore_gateway_nodes_out";
    /// Clients that were refused for want of a good token.
    gateway_tokens_refused: u64 = Counter "percore_gateway_tokens_refused_total";
    /// Messages from the application, by what became of them.
    gateway_deliveries: [u64; DELIVERIES.len()] = Counter "percore_gateway_deliveries_total" "outcome" DELIVERIES;
    /// Clients that have said who they are, on connections that are open now.
    channels_clients: u64 = Gauge "percore_channels_clients";
    /// Channels that such clients are on.
    channels_active: u64 = Gauge "percore_channels_active";
    /// Commands of clients.
    channels_commands: u64 = Counter "percore_channels_commands_total";
    /// Requests of backends.
    channels_api_requests: u64 = Counter "percore_channels_api_requests_total";
    /// Commands and requests that were answered by an error.
    channels_errors: u64 = Counter "percore_channels_errors_total";
    /// Connections that were closed for a reason of the protocol, or for a backend.
    channels_disconnects: u64 = Counter "percore_channels_disconnects_total";
    /// Clients that asked for what they had missed, by what became of it.
    channels_recoveries: [u64; RECOVERIES.len()] = Counter "percore_channels_recoveries_total" "outcome" RECOVERIES;
    /// Channels with a history.
    channels_streams: u64 = Gauge "percore_channels_streams";
    /// Bytes of all histories.
    channels_history_bytes: u64 = Gauge "percore_channels_history_bytes";
    /// Histories that were given up for want of space.
    channels_evicted: u64 = Counter "percore_channels_evicted_total";
    /// Events of webhooks that a backend took.
    channels_webhook_events: u64 = Counter "percore_channels_webhook_events_total";
    /// Events of webhooks that were given up.
    channels_webhook_events_lost: u64 = Counter "percore_channels_webhook_events_lost_total";
    /// Whether the keeper of the history is at work: 1 while it is.
    history_keeper: u64 = Gauge "percore_history_keeper_up";
    /// Bytes of the history's files.
    history_file_bytes: u64 = Gauge "percore_history_file_bytes";
    /// Times that the history could not be written.
    history_write_errors: u64 = Counter "percore_history_write_errors_total";
    /// Publications that the keeper refused, because they came too late or could not be written.
    history_refused: u64 = Counter "percore_history_refused_total";
    /// Publications that wait for the keeper.
    history_pending: u64 = Gauge "percore_history_pending";
    /// Publications that the keeper did not number, for whatever reason.
    history_failed: u64 = Counter "percore_history_failed_total";
    /// Times that a process read from the history's files what it had not heard.
    history_refills: u64 = Counter "percore_history_refills_total";
    /// Lines of the log that were left out: standard error was not read in time, or there were too many at once.
    log_lines_dropped: u64 = Counter "percore_log_lines_dropped_total";
    /// Time that a pass of the loop took, sleep left out.
    passes: Histogram = Histogram "percore_loop_pass_seconds";
    /// Time from the wake-up that found a message to the end of the writing that followed.
    message_latency: Histogram = Histogram "percore_message_latency_seconds";
}

impl Stats {
    /// Tells apart what [`Stats::words`] mean to different versions.
    pub fn layout() -> u64 {
        let mut names = String::new();
        for (metric, words) in Stats::default().metrics() {
            let _ = write!(names, "{} {} {};", metric.name, metric.values.join(" "), words.len());
        }
        // FNV-1a: the same in every version, as the standard library's hashes are not.
        names.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Text and binary messages received.
    pub fn messages_in(&self) -> u64 {
        self.received[TEXT] + self.received[BINARY]
    }

    /// Text and binary messages queued for sending.
    pub fn messages_out(&self) -> u64 {
        self.sent[TEXT] + self.sent[BINARY]
    }

    /// How many messages and requests came, and how many bytes of payload.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.messages_in() + self.requests, self.received_bytes[TEXT] + self.received_bytes[BINARY])
    }

    /// A message or control frame came, of so many bytes.
    #[inline(always)]
    pub(crate) fn receive(&mut self, opcode: usize, bytes: usize) {
        self.received[opcode] += 1;
        self.received_bytes[opcode] += bytes as u64;
    }

    /// A message or control frame is queued, of so many bytes.
    #[inline(always)]
    pub(crate) fn send(&mut self, opcode: usize, bytes: usize) {
        self.sent[opcode] += 1;
        self.sent_bytes[opcode] += bytes as u64;
    }

    /// A request is answered with a status of 400 or more.
    pub(crate) fn reject(&mut self, status: u16) {
        self.rejected[index_of(&STATUSES, status)] += 1;
    }

    /// A WebSocket connection ended.
    pub(crate) fn close(&mut self, code: u16) {
        self.closes[index_of(&CODES, code)] += 1;
    }
}

fn add_words(words: &mut [u64], others: &[u64]) {
    for (word, more) in words.iter_mut().zip(others) {
        *word += more;
    }
}

/// Where a number stands among label values, of which the last is any other.
fn index_of(values: &[&str], number: u16) -> usize {
    values.iter().position(|value| value.parse() == Ok(number)).unwrap_or(values.len() - 1)
}

fn total(kind: MetricKind, label: &str, words: &[u64]) -> u64 {
    match kind {
        MetricKind::Histogram => Histogram::count(words),
        _ if label == "opcode" => words[TEXT] + words[BINARY],
        MetricKind::Counter | MetricKind::Gauge => words.iter().sum(),
    }
}

/// The one list of label values, or none.
fn values(lists: &[&'static [&'static str]]) -> &'static [&'static str] {
    lists.first().copied().unwrap_or_default()
}

impl fmt::Display for Stats {
    /// What was counted at all, for a line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, messages) = (counted(self.upgrades, "connection*"), counted(self.messages_in(), "message*"));
        write!(f, "{connections}, {messages} in, {} out", self.messages_out())?;
        let losses = [
            (self.refused, "connection* refused"),
            (self.shed, "HTTP connection* shed"),
            (self.rejected.iter().sum(), "request* rejected"),
            (self.proxy_errors, "PROXY header* missing"),
            (self.limited_per_ip, "upgrade* beyond the limit per address"),
            (self.handshake_timeouts, "handshake timeout*"),
            (self.heartbeat_timeouts, "heartbeat timeout*"),
            (self.protocol_errors, "protocol error*"),
            (self.slow_consumers_closed, "slow consumer* closed"),
            (self.messages_dropped, "message* dropped"),
            (self.memory_closed, "connection* closed for want of memory"),
            (self.bus_lost, "record* of the bus lost"),
            (self.bus_invalid, "record* of the bus invalid"),
            (self.unclean_closes, "unclean close*"),
            (self.log_lines_dropped, "log line* left out"),
        ];
        for (count, what) in losses.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {}", counted(*count, what))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        let mut stats = Stats { open: 3, ..Stats::default() };
        stats.receive(BINARY, 125);
        stats.reject(426);
        stats.reject(402);
        stats.close(1001);
        stats.close(4711);
        stats.passes.observe(1_000, 2);
        let words: Vec<u64> = stats.words().collect();
        assert_eq!(words.len(), Stats::WORDS);
        assert_eq!(Stats::from_words(&words), stats);
        assert_eq!(Stats::from_words(&[]), Stats::default());
        assert_eq!((stats.rejected[10], stats.rejected[17], stats.closes[1], stats.closes[13]), (1, 1, 1, 1));
    }

    #[test]
    fn a_line_of_the_log_agrees_with_itself() {
        let mut stats = Stats::default();
        [TEXT, BINARY, BINARY, PING, PONG, CLOSE].into_iter().for_each(|opcode| stats.receive(opcode, 10));
        let fields = stats.fields();
        assert!(fields.contains(&("received", 3)) && fields.contains(&("received_bytes", 30)), "{fields:?}");
        assert!(stats.to_string().contains(" 3 messages in,"), "{stats}");
    }

    #[test]
    fn levels_end_with_their_process() {
        let mut sum = Stats { open: 1, upgrades: 1, ..Stats::default() };
        sum.add(&Stats { open: 5, upgrades: 5, ..Stats::default() });
        assert_eq!((sum.open, sum.upgrades), (1, 6));
        let other = Stats { open: 2, draining: 1, bus_participants: 3, upgrades: 9, ..Stats::default() };
        sum.add_levels(&other);
        sum.add_levels(&Stats { open: 2, bus_participants: 2, ..other });
        assert_eq!((sum.open, sum.draining, sum.bus_participants, sum.upgrades), (5, 1, 3, 6));
    }
}
