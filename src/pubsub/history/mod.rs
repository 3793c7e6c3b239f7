//! History shared by several processes: a log with a single writer, the keeper.
//!
//! Workers send the keeper what they want to publish on channels with a history ([`ask`]). It numbers each
//! publication, writes it to the log, and then tells everyone ([`word`]). Each worker holds the histories of all
//! channels itself ([`replica`]), built from the log in the log's order, so reads never reach the keeper.
//!
//! * [`entry`] encodes the contents of the log with checksums; `os/history.rs` owns the files.
//! * [`ledger`] turns entries into streams, for any reader.
//! * [`keeper`] decides what is written; the process around it is in `keeper`.
//!
//! Invariants: nothing is announced that is not in the log; a position is a number of bytes since the beginning of the
//! log, so two readers at the same position have the same streams; the log holds each publication of a worker at most
//! once, in the order in which the worker sent them.

pub mod ask;
pub mod entry;
pub mod fields;
pub mod keeper;
pub mod ledger;
pub mod replica;
pub mod word;
