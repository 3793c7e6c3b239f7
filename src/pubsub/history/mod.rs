//! History that several processes have in common: a log, of which one process, the keeper, is the only writer.
//!
//! Workers hand the keeper what is to be published on channels with a history ([`ask`]). It numbers that, writes it to the log, and
//! then tells everyone ([`word`]). Each worker has the histories of all channels itself ([`replica`]), made of what the log holds in
//! the log's order, so that whatever is only read never reaches the keeper.
//!
//! * [`entry`] is what the log holds, as bytes with checksums; its files are of `os/history.rs`.
//! * [`ledger`] is what the entries come to: streams, whoever reads them.
//! * [`keeper`] decides what is written; the process around it is of `keeper`.
//!
//! Invariants: nothing is told that is not in the log; a position in the log is a number of bytes since its beginning, so two that have
//! read up to the same position have the same streams; and of one worker's publications each is in the log once at most, in the order
//! in which they were handed over.

pub mod ask;
pub mod entry;
pub mod fields;
pub mod keeper;
pub mod ledger;
pub mod replica;
pub mod word;
