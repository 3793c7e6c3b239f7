//! The stages of a run.

use std::time::Duration;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Connections are being opened.
    Connecting,
    /// All is ready, and the other processes are waited for, until this time, once it is known.
    Ready(Option<Duration>),
    /// Load is on, and not measured yet, until this time.
    Warmup(Duration),
    /// It is measured, until this time.
    Measuring(Duration),
    /// Nothing more is sent, and what is out is waited for, until this time.
    Waiting(Duration),
    /// All is done but the closing.
    Over,
}

impl Stage {
    /// Whether load is to be kept up.
    pub fn is_loaded(self) -> bool {
        matches!(self, Stage::Warmup(_) | Stage::Measuring(_))
    }

    /// Whether what comes counts.
    pub fn is_measured(self) -> bool {
        matches!(self, Stage::Measuring(_))
    }

    /// When it ends by itself.
    pub fn end(self) -> Option<Duration> {
        match self {
            Stage::Warmup(end) | Stage::Measuring(end) | Stage::Waiting(end) => Some(end),
            Stage::Ready(start) => start,
            Stage::Connecting | Stage::Over => None,
        }
    }

    /// As other processes are told it.
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
