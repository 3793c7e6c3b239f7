//! The stages of a run.

use std::time::Duration;

/// The stage of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Connections are being opened.
    Connecting,
    /// Ready and waiting for the other processes, until this time, once it is known.
    Ready(Option<Duration>),
    /// The load runs without being measured, until this time.
    Warmup(Duration),
    /// The load is measured, until this time.
    Measuring(Duration),
    /// Nothing more is sent; waiting for outstanding answers, until this time.
    Waiting(Duration),
    /// Only the closing is left.
    Over,
}

impl Stage {
    /// Returns whether to keep up the load.
    pub fn is_loaded(self) -> bool {
        matches!(self, Stage::Warmup(_) | Stage::Measuring(_))
    }

    /// Returns whether answers count.
    pub fn is_measured(self) -> bool {
        matches!(self, Stage::Measuring(_))
    }

    /// Returns when it ends by itself.
    pub fn end(self) -> Option<Duration> {
        match self {
            Stage::Warmup(end) | Stage::Measuring(end) | Stage::Waiting(end) => Some(end),
            Stage::Ready(start) => start,
            Stage::Connecting | Stage::Over => None,
        }
    }

    /// Returns its number on the line to other processes.
    pub fn number(self) -> u64 {
        match self {
            Stage::Connecting => 0,
            Stage::Ready(_) => 1,
            Stage::Warmup(_) => 2,
            Stage::Measuring(_) => 3,
            Stage::Waiting(_) | Stage::Over => 4,
        }
    }
}
