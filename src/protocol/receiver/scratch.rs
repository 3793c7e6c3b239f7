//! Resources that the receivers of a process share.

use super::Assembly;
use crate::protocol::close::Violation;
use crate::protocol::deflate::{Inflater, Output};

/// Assemblies kept for the next partial message.
const SPARE_ASSEMBLIES: usize = 64;
/// A buffer for decompressed messages that grew beyond this is freed.
const KEPT_BYTES: usize = 64 * 1024;
/// The cost of a decompressor step, in bytes of output.
pub const STEP_BYTES: u64 = 256;

/// Resources that all receivers of a process share, as only one works at a time.
#[derive(Default)]
pub struct Scratch {
    /// Total cost of decompression: a running sum of the bytes output, and [`STEP_BYTES`] for each step.
    pub inflated_total: u64,
    /// Memory of all partly received messages.
    pub assembly_bytes: usize,
    /// For connections whose peer compresses without context takeover.
    inflater: Option<Inflater>,
    inflated: Output,
    pub(super) control: Vec<u8>,
    /// Boxed as receivers hold them, so that taking one moves a pointer.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Assembly>>,
}

impl Scratch {
    /// Memory of the shared resources.
    pub fn memory(&self) -> usize {
        self.inflated.held_bytes() + self.spare.len() * size_of::<Assembly>()
    }

    /// Releases what large messages needed. For the end of a pass: within one, the next is likely to be as large.
    pub fn trim(&mut self) {
        if self.inflated.held_bytes() > KEPT_BYTES {
            self.inflated = Output::new();
        }
    }

    /// Decompresses a message, with its connection's own window if there is one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::Deflater;

    #[test]
    fn what_a_large_message_needed_is_given_back() {
        let (mut scratch, mut small) = (Scratch::default(), Output::new());
        Deflater::new(1, 15, false).deflate(&[&[b'x'; 1_000_000]], &mut small);
        assert_eq!(scratch.inflate(None, &small, 1_000_000).map(<[u8]>::len), Ok(1_000_000));
        assert!((1_000_000..=1_000_001).contains(&scratch.inflated.held_bytes()));
        scratch.trim();
        assert_eq!(scratch.inflated.held_bytes(), 0);
        Deflater::new(1, 15, false).deflate(&[&[b'x'; 10_000]], &mut small);
        assert_eq!(scratch.inflate(None, &small, 1_000_000).map(<[u8]>::len), Ok(10_000));
        scratch.trim();
        assert!(scratch.inflated.held_bytes() >= 10_000, "a small one is kept");
    }

    /// Empty blocks take time as well.
    #[test]
    fn what_decompression_took_is_told() {
        let (mut scratch, mut small) = (Scratch::default(), Output::new());
        Deflater::new(1, 15, false).deflate(&[&[b'x'; 1000]], &mut small);
        scratch.inflate(None, &small, 1000).expect("our own output");
        let first = scratch.inflated_total;
        assert!((1000..1000 + 6 * STEP_BYTES).contains(&first), "{first}");
        let empty = [0, 0, 0, 0xff, 0xff].repeat(200);
        assert_eq!(scratch.inflate(None, &empty, 1000), Ok(&[][..]));
        assert!(scratch.inflated_total - first >= 200 * STEP_BYTES);
        let before = scratch.inflated_total;
        assert_eq!(scratch.inflate(None, &small, 999), Err(Violation::TooBig { limit: 999 }));
        assert!(scratch.inflated_total - before >= 1000, "also of a message that is refused");
    }
}
