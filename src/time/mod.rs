//! Floor 0, time: the wheel of deadlines, dates, and when to try again. A point in time is an argument, given as the
//! `Duration` since the process began.

pub mod calendar;
pub mod retry;
pub mod wheel;
