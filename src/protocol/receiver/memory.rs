//! What receivers hold, for the process's account, and how it is given back.

use super::{Assembly, Receiver, Scratch};

impl Receiver {
    /// Memory of the message that is under way.
    pub fn memory(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.buffer.capacity())
    }

    /// Whether the peer's window is kept between messages.
    pub fn keeps_window(&self) -> bool {
        self.inflater.is_some()
    }

    /// Ends the receiver: what is under way is not wanted any more.
    pub fn discard(mut self, scratch: &mut Scratch) {
        scratch.assembly_bytes -= self.memory();
        if let Some(assembly) = &mut self.assembly {
            **assembly = Assembly::default();
        }
        self.release(scratch);
    }

    pub(super) fn release(&mut self, scratch: &mut Scratch) {
        if let Some(mut assembly) = self.assembly.take() {
            assembly.frame = None;
            assembly.message = None;
            scratch.give_assembly(assembly);
        }
    }
}
