//! What a participant was told, held against what was really published.

use super::Shown;
use percore::internal::bus::event::BusEvent;
use percore::{Participant, Presence};

/// What one participant was told of one slot.
#[derive(Default)]
struct OfSlot {
    /// Which of the records that were shown is next.
    next: usize,
    present: Option<u32>,
    last: u32,
    list_is_due: bool,
    /// Whether records were lost since the last that was heard.
    lapped: bool,
    /// The last record that was heard.
    heard: Option<usize>,
}

#[derive(Default)]
pub struct Heard {
    me: String,
    slots: Vec<OfSlot>,
    presence: Presence,
    is_damaged: bool,
    pub records: u64,
    pub lost: u64,
}

impl Heard {
    /// Begins with what is shown from now on.
    pub fn new(me: Participant, shown: &[Vec<Shown>], is_damaged: bool) -> Heard {
        let of_slot = |shown: &Vec<Shown>| OfSlot { next: shown.len(), ..OfSlot::default() };
        Heard { me: me.to_string(), slots: shown.iter().map(of_slot).collect(), is_damaged, ..Heard::default() }
    }

    /// Something was told. `overwritten` says up to where each ring has been.
    pub fn event(&mut self, event: BusEvent<'_>, shown: &[Vec<Shown>], overwritten: &[u64]) {
        let me = &self.me;
        match event {
            BusEvent::Joined(who) => {
                let slot = &mut self.slots[who.slot as usize];
                assert_eq!(slot.present, None, "{me}: {who} joins in the place of one who is there");
                assert!(who.generation > slot.last, "{me}: {who} joins after {}", slot.last);
                (slot.present, slot.last, slot.list_is_due) = (Some(who.generation), who.generation, true);
            }
            BusEvent::Left(who) => {
                let slot = &mut self.slots[who.slot as usize];
                assert_eq!(slot.present, Some(who.generation), "{me}: {who} leaves and is there");
                (slot.present, slot.list_is_due) = (None, false);
                self.presence.remove(who, |_| {});
            }
            BusEvent::Present { from, list } => {
                let slot = &mut self.slots[from.slot as usize];
                assert_eq!(slot.present, Some(from.generation), "{me}: a list of {from}");
                assert!(std::mem::take(&mut slot.list_is_due), "{me}: a list of {from}, which is not due");
                self.presence.replace(from, list, |_| {});
            }
            BusEvent::Gap { from, lost } => {
                let (index, shown) = (from.slot as usize, &shown[from.slot as usize]);
                let slot = &mut self.slots[index];
                assert_eq!(slot.present, Some(from.generation), "{me}: lost of {from}");
                let last = shown.get(slot.next + lost as usize - 1);
                if !self.is_damaged {
                    assert!(last.is_some(), "{me}: {lost} lost of {from} that were never shown");
                    // The first was overwritten; the others up to the checkpoint are passed over.
                    let is_needed = slot.lapped || shown[slot.next].position < overwritten[index];
                    assert!(is_needed, "{me}: {lost} lost of {from} without need");
                    slot.lapped = true;
                }
                self.lost += lost;
                (slot.next, slot.list_is_due) = (slot.next + lost as usize, true);
            }
            BusEvent::Record { from, record } => {
                let shown = &shown[from.slot as usize];
                let slot = &mut self.slots[from.slot as usize];
                assert_eq!(slot.present, Some(from.generation), "{me}: a record of {from}");
                let is_it = |shown: &Shown| shown.generation == from.generation && shown.payload == record.payload;
                if shown.get(slot.next).is_some_and(is_it) {
                    slot.heard = Some(slot.next);
                } else {
                    assert!(
                        self.is_damaged,
                        "{me}: {:?} of {from} is heard in the place of {:?}",
                        record.payload,
                        shown.get(slot.next)
                    );
                    // Of a damaged record nobody knows what it was; any other comes later than those before it.
                    if let Some(index) = shown.iter().position(is_it) {
                        assert!(
                            slot.heard.is_none_or(|heard| index > heard),
                            "{me}: a record of {from} twice, or late"
                        );
                        // Right after a lap a damaged number tells more lost than were.
                        assert!(index < slot.next, "{me}: records of {from} are neither heard nor counted");
                        (slot.next, slot.heard) = (index, Some(index));
                    }
                }
                slot.lapped = false;
                slot.next += 1;
                self.records += 1;
                self.presence.apply(from, record, |_| {});
            }
            _ => panic!("{me}: {event:?}"),
        }
    }

    pub fn is_there(&self, who: Participant) -> bool {
        self.slots[who.slot as usize].present == Some(who.generation)
    }

    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// All of a slot that was shown was heard or counted. Of one that nobody owns the last may be lost with who could mend its ring.
    pub fn check_end(&self, slot: usize, shown: &[Shown], may_lack: bool) {
        let heard = &self.slots[slot];
        assert!(!heard.list_is_due, "{}: the list of slot {slot} is known", self.me);
        if may_lack {
            assert!(heard.next <= shown.len(), "{}: more of slot {slot} than was shown", self.me);
        } else {
            assert_eq!(heard.next, shown.len(), "{}: all of slot {slot} is heard or counted", self.me);
        }
    }
}
