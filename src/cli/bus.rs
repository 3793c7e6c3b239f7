//! `percore bus`: shows a bus, publishes on it, and listens to it.

use super::units::{duration, mode};
use super::{Failure, output};
use crate::bus::event::BusEvent;
use crate::channel::presence::{Change, Presence};
use crate::channel::record::{Record, RecordKind};
use crate::net::id::Participant;
use crate::os::bus::{Bus, BusOptions, Folder};
use crate::telemetry::log::{counted, printable};
use clap::{Args, Subcommand};
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

#[derive(Subcommand, Debug)]
pub(super) enum BusCommand {
    /// Show participants (published, behind, lost) and the members of each channel
    Status(Place),
    /// Publish a message, or each line of standard input
    Publish(Publish),
    /// Print each published message (participant, channel, message), and participants and members that join or leave
    Tail(Tail),
}

#[derive(Args, Debug)]
pub(super) struct Place {
    /// Folder of the bus, as given to --bus
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Permissions of the bus, if shared with a group or all; otherwise only a bus of your own is used
    #[arg(long, env = "PERCORE_BUS_MODE", value_name = "MODE", default_value = "600", value_parser = mode)]
    bus_mode: u32,
}

impl Place {
    fn options(&self) -> BusOptions {
        BusOptions { mode: self.bus_mode, ..BusOptions::default() }
    }
}

#[derive(Args, Debug)]
pub(super) struct Publish {
    #[command(flatten)]
    place: Place,
    /// Channel
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// Message; without it, publish each line of standard input
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Tail {
    #[command(flatten)]
    place: Place,
    /// Only this channel
    #[arg(value_name = "CHANNEL")]
    channel: Option<String>,
    /// Stop after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Characters of a message to print at most.
const PRINTED_CHARACTERS: usize = 1024;
/// Channels to list at most: those with the most subscribers.
const LISTED_CHANNELS: usize = 100;

pub(super) fn run(command: BusCommand) -> Result<(), Failure> {
    match command {
        BusCommand::Status(place) => existing(&place).and_then(|()| status(&place)),
        BusCommand::Publish(order) => existing(&order.place).and_then(|()| publish(&order)),
        BusCommand::Tail(order) => existing(&order.place).and_then(|()| tail(&order)),
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Run(error.to_string())
}

/// Checks that the bus exists: a look at it must not create one.
fn existing(place: &Place) -> Result<(), Failure> {
    if place.folder.join("bus").exists() {
        return Ok(());
    }
    Err(Failure::Run(format!("there is no bus in {}", place.folder.display())))
}

fn status(place: &Place) -> Result<(), Failure> {
    let mut out = String::new();
    describe(place, &mut out).map_err(failed)?;
    output::print(&out)
}

fn describe(place: &Place, out: &mut String) -> io::Result<()> {
    let folder = Folder::existing(&place.folder, place.bus_mode)?;
    let (region, slots) = (folder.region(), folder.slots());
    let mut held = Vec::new();
    for slot in 0..slots {
        if folder.is_held(slot)? {
            held.push(slot);
        }
    }
    let mut presence = Presence::default();
    let _ = writeln!(out, "{} of {slots} slots taken, rings of {} bytes", held.len(), folder.ring_bytes());
    let _ = writeln!(
        out,
        "{:>11} {:>9} {:>12} {:>12} {:>14}",
        "participant", "process", "published", "lost", "bytes unread"
    );
    for &slot in &held {
        let own = region.slot(slot);
        let participant = Participant { slot: slot as u32, generation: own.generation().load(Relaxed) as u32 };
        // How far each participant is behind, at most over all the others.
        let unread = held.iter().filter(|other| **other != slot).map(|&other| {
            let head = region.ring(other).head.load(Relaxed);
            head.saturating_sub(region.cursor(slot, other).load(Relaxed)) * size_of::<u64>() as u64
        });
        let _ = writeln!(
            out,
            "{:>11} {:>9} {:>12} {:>12} {:>14}",
            participant.to_string(),
            own.pid().load(Relaxed),
            own.published().load(Relaxed),
            own.lost().load(Relaxed),
            unread.max().unwrap_or(0)
        );
        match folder.list(participant) {
            Ok(list) => presence.replace(participant, &list, |_| {}),
            Err(error) => output::say(&format!("cannot read the members of the channels of {participant}: {error}")),
        }
    }
    channels(&presence, out);
    Ok(())
}

fn channels(presence: &Presence, out: &mut String) {
    let mut all: Vec<(Reverse<u64>, &[u8])> =
        presence.channels().map(|channel| (Reverse(presence.subscribers(channel)), channel)).collect();
    if all.is_empty() {
        return;
    }
    all.sort_unstable();
    let _ = writeln!(out, "{:>11} {:>9} channel: names of its members", "subscribers", "members");
    for &(Reverse(subscribers), channel) in all.iter().take(LISTED_CHANNELS) {
        let members: Vec<&str> = presence.members(channel).collect();
        let channel = String::from_utf8_lossy(channel);
        let line = if members.is_empty() { channel.into_owned() } else { format!("{channel}: {}", members.join(", ")) };
        let _ = writeln!(out, "{subscribers:>11} {:>9} {}", members.len(), printable(&line, PRINTED_CHARACTERS));
    }
    let more = all.len().saturating_sub(LISTED_CHANNELS) as u64;
    if more > 0 {
        let _ = writeln!(out, "and {}", counted(more, "more channel*"));
    }
}

fn publish(order: &Publish) -> Result<(), Failure> {
    let Place { folder, .. } = &order.place;
    let mut bus = Bus::join(folder, order.place.options()).map_err(|error| Failure::Run(error.to_string()))?;
    let channel = order.channel.as_bytes();
    let publish = |bus: &mut Bus, message: &[u8]| {
        // Sent as binary if it is not valid UTF-8.
        let kind = if std::str::from_utf8(message).is_ok() { RecordKind::Text } else { RecordKind::Binary };
        bus.publish(Record { kind, channel, payload: message }).map_err(|error| Failure::Run(error.to_string()))
    };
    if let Some(message) = &order.message {
        publish(&mut bus, message.as_bytes())?;
        bus.flush();
        return Ok(());
    }
    let (mut input, mut line) = (BufReader::new(io::stdin()), Vec::new());
    while input.read_until(b'\n', &mut line).map_err(|error| Failure::Run(error.to_string()))? > 0 {
        let published = publish(&mut bus, line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
        // Flushed once for all events that arrived together.
        if published.is_err() || !input.buffer().contains(&b'\n') {
            bus.flush();
        }
        published?;
    }
    bus.flush();
    Ok(())
}

fn tail(order: &Tail) -> Result<(), Failure> {
    let mut bus = Bus::join(&order.place.folder, order.place.options()).map_err(failed)?;
    let end = order.timeout.map(|timeout| Instant::now() + timeout);
    let (mut left, mut written) = (order.count.unwrap_or(u64::MAX), Ok(()));
    let mut presence = Presence::default();
    let mut out = io::stdout().lock();
    output::written(writeln!(out, "# joined as {}", bus.me()).and_then(|()| out.flush()))?;
    loop {
        let more = bus.drain(|event| {
            let is_meant = |channel: &[u8]| order.channel.as_ref().is_none_or(|only| only.as_bytes() == channel);
            let mut print = |line: String| {
                if written.is_ok() {
                    written = writeln!(out, "{line}");
                }
            };
            let mut member = |Change { channel, member, entered }: Change<'_>| {
                if is_meant(channel.as_bytes()) {
                    let verb = if entered { "entered" } else { "left" };
                    let [member, channel] = [member, channel].map(|name| printable(name, PRINTED_CHARACTERS));
                    print(format!("# {member} {verb} {channel}"));
                }
            };
            match event {
                BusEvent::Record { from, record } if record.kind.is_presence() => {
                    presence.apply(from, record, &mut member);
                }
                BusEvent::Record { from, record: Record { channel, payload, .. } } => {
                    if left > 0 && is_meant(channel) {
                        left -= 1;
                        let [channel, text] = [channel, payload]
                            .map(|bytes| printable(&String::from_utf8_lossy(bytes), PRINTED_CHARACTERS));
                        print(format!("{from} {channel} {text}"));
                    }
                }
                BusEvent::Present { from, list } => presence.replace(from, list, &mut member),
                BusEvent::Joined(who) => print(format!("# {who} joined")),
                BusEvent::Left(who) => {
                    presence.remove(who, &mut member);
                    print(format!("# {who} left"));
                }
                BusEvent::Gap { from, lost } => print(format!("# {lost} lost of {from}")),
            }
        });
        output::written(std::mem::replace(&mut written, Ok(())).and_then(|()| out.flush()))?;
        while let Some(text) = bus.warning() {
            output::say(&text);
        }
        let sleep = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == 0 || sleep.is_some_and(|sleep| sleep.is_zero()) {
            return Ok(());
        }
        if !more {
            bus.wait(sleep).map_err(failed)?;
        }
    }
}
