//! The memory of receivers, for the process's account, and how it is released.

use super::{Assembly, Receiver, Scratch};

impl Receiver {
    /// Memory of the partly received message.
    pub fn memory(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.buffer.capacity())
    }

    /// Whether the peer's window is kept between messages.
    pub fn keeps_window(&self) -> bool {
        self.inflater.is_some()
    }

    /// Ends the receiver: its partial message is no longer wanted.
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
