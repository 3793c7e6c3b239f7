//! What the receivers of a process share.

use super::Assembly;
use crate::protocol::close::Violation;
use crate::protocol::deflate::{Inflater, Output};

/// Assemblies kept for the next partial message.
const SPARE_ASSEMBLIES: usize = 64;
/// A buffer for decompressed messages that grew beyond this is given back.
const KEPT_BYTES: usize = 64 * 1024;
/// A step of the decompressor costs about as much as this many bytes that come out of it.
pub const STEP_BYTES: u64 = 256;

/// What all receivers of a process share, as only one is at work at a time.
#[derive(Default)]
pub struct Scratch {
    /// What decompression took so far: a running sum of the bytes that came out, and [`STEP_BYTES`] for each step.
    pub inflated_total: u64,
    /// Memory of all messages of which a part has come.
    pub assembly_bytes: usize,
    /// For connections whose peer compresses without context takeover.
    inflater: Option<Inflater>,
    inflated: Output,
    pub(super) control: Vec<u8>,
    /// In boxes as receivers hold them, so that taking one moves a pointer.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Assembly>>,
}

impl Scratch {
    /// Memory of what is shared.
    pub fn memory(&self) -> usize {
        self.inflated.held_bytes() + self.spare.len() * size_of::<Assembly>()
    }

    /// Gives back what large messages needed. For the end of a pass: within one, the next is likely to be as large.
    pub fn trim(&mut self) {
        if self.inflated.held_bytes() > KEPT_BYTES {
            self.inflated = Output::new();
        }
    }

    /// Decompresses a message, with the window of its own connection if that has one.
    pub(super) fn inflate(
        &mut self,
        own: Option<&mut Inflater>,
        payload: &[u8],
        limit: usize,
    ) -> Result<&[u8], Violation> {
        let inflater = match own {
            Some(own) => own,
            None => {
                let shared = self.inflater.get_or_insert_with(Inflater::new);
                shared.reset();
                shared
            }
        };
        let result = inflater.inflate(payload, &mut self.inflated, limit);
        self.inflated_total += self.inflated.len() as u64 + inflater.steps() as u64 * STEP_BYTES;
        result.map(|()| &self.inflated[..])
    }

    pub(super) fn take_assembly(&mut self) -> Box<Assembly> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn give_assembly(&mut self, assembly: Box<Assembly>) {
        if self.spare.len() < SPARE_ASSEMBLIES {
            self.spare.push(assembly);
        }
    }
}
