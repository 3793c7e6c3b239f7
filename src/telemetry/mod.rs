//! Floor 0, what a process reports: counters, histograms, memory, log records, whether its loop goes on.

pub mod exposition;
pub mod histogram;
pub mod log;
pub mod memory;
pub mod pulse;
pub mod stats;
