//! One connection to Redis, without its socket: bytes to write, unanswered commands, and the time of the last data. The
//! time is an argument.

use super::resp::{Replies, command};
use std::collections::VecDeque;
use std::time::Duration;

/// Capacity to keep for later output.
const KEPT_BYTES: usize = 1 << 20;

/// The purpose of a command that gets its own reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// User and password.
    Login,
    /// A check whether it is a master.
    Role,
    /// A PING.
    Ping,
    /// A message from the bus.
    Message,
    /// A message between bridges.
    Presence,
}

/// What the silence of a peer calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Nothing yet.
    Bearable,
    /// A PING.
    Ask,
    /// Dropping the connection.
    TooLong,
}

/// A connection.
pub struct Line {
    /// Received replies.
    pub replies: Replies,
    out: Vec<u8>,
    written: usize,
    /// Unanswered commands, in order, as runs with their lengths.
    due: VecDeque<(Sent, u64)>,
    heard: Duration,
    asked: bool,
}

impl Line {
    /// Makes a connection that is opened now.
    pub fn new(max_bulk: usize, now: Duration) -> Line {
        let replies = Replies::new(max_bulk);
        Line { replies, out: Vec::new(), written: 0, due: VecDeque::new(), heard: now, asked: false }
    }

    /// Queues a command whose reply [`Line::answered`] counts.
    pub fn send(&mut self, sent: Sent, arguments: &[&[&[u8]]]) {
        self.send_unanswered(arguments);
        match self.due.back_mut() {
            Some((last, count)) if *last == sent => *count += 1,
            _ => self.due.push_back((sent, 1)),
        }
    }

    /// Queues a command without a reply of its own.
    pub fn send_unanswered(&mut self, arguments: &[&[&[u8]]]) {
        command(&mut self.out, arguments);
    }

    /// Counts a reply, and returns the purpose of its command.
    pub fn answered(&mut self) -> Option<Sent> {
        let (sent, count) = self.due.front_mut()?;
        let sent = *sent;
        *count -= 1;
        if *count == 0 {
            self.due.pop_front();
        }
        Some(sent)
    }

    /// Returns the number of unanswered messages.
    pub fn unanswered_messages(&self) -> u64 {
        self.due.iter().filter(|(sent, _)| *sent == Sent::Message).map(|(_, count)| count).sum()
    }

    /// Returns whether every command has been answered.
    pub fn is_answered(&self) -> bool {
        self.due.is_empty()
    }

    /// Bytes to write.
    pub fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// This many of them were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
            self.written = 0;
        } else if self.written > self.out.len() / 2 {
            // Moves no more bytes than were written.
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Notes that data came.
    pub fn heard(&mut self, now: Duration) {
        (self.heard, self.asked) = (now, false);
    }

    /// Returns what the silence since `heard` calls for. A caller that sends the PING records that with [`Line::asks`].
    pub fn silence(&self, now: Duration, timeout: Duration) -> Silence {
        if now >= self.heard + timeout {
            Silence::TooLong
        } else if !self.asked && now >= self.heard + timeout / 3 {
            Silence::Ask
        } else {
            Silence::Bearable
        }
    }

    /// Records that a PING was sent.
    pub fn asks(&mut self) {
        self.asked = true;
    }

    /// Returns when silence will call for something else.
    pub fn next_deadline(&self, timeout: Duration) -> Duration {
        self.heard + if self.asked { timeout } else { timeout / 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order() {
        let mut line = Line::new(100, Duration::ZERO);
        line.send(Sent::Ping, &[&[b"PING"]]);
        (0..3).for_each(|_| line.send(Sent::Message, &[&[b"PUBLISH"], &[b"c"], &[b"x"]]));
        line.send(Sent::Presence, &[&[b"PING"]]);
        assert_eq!((line.answered(), line.unanswered_messages()), (Some(Sent::Ping), 3));
        assert_eq!((line.answered(), line.unanswered_messages()), (Some(Sent::Message), 2));
        assert_eq!([line.answered(), line.answered()], [Some(Sent::Message); 2]);
        assert!(!line.is_answered());
        assert_eq!((line.answered(), line.answered(), line.is_answered()), (Some(Sent::Presence), None, true));
    }

    #[test]
    fn what_is_written_in_pieces_is_written_once() {
        let (mut line, mut all) = (Line::new(100, Duration::ZERO), Vec::new());
        for turn in 0..100usize {
            line.send(Sent::Message, &[&[turn.to_string().as_bytes()]]);
            let piece = line.pending().len().min(7 + turn % 5);
            all.extend_from_slice(&line.pending()[..piece]);
            line.wrote(piece);
        }
        all.extend_from_slice(line.pending());
        let wanted: String = (0..100).map(|turn| format!("*1\r\n${}\r\n{turn}\r\n", turn.to_string().len())).collect();
        assert_eq!(String::from_utf8_lossy(&all), wanted);
    }

    #[test]
    fn silence_is_asked_about_once_and_then_too_long() {
        let (mut line, timeout) = (Line::new(100, Duration::ZERO), Duration::from_secs(15));
        let at = Duration::from_secs;
        assert_eq!((line.silence(at(4), timeout), line.next_deadline(timeout)), (Silence::Bearable, at(5)));
        assert_eq!(line.silence(at(5), timeout), Silence::Ask);
        line.asks();
        assert_eq!((line.silence(at(14), timeout), line.next_deadline(timeout)), (Silence::Bearable, at(15)));
        assert_eq!(line.silence(at(15), timeout), Silence::TooLong);
        line.heard(at(14));
        assert_eq!((line.silence(at(15), timeout), line.next_deadline(timeout)), (Silence::Bearable, at(19)));
    }
}
