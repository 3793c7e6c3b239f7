//! What either role sends, the other receives.

use super::*;
use crate::protocol::receiver::{Event, Receiver, Rules, Scratch};
use proptest::prelude::*;

const ID: ConnectionId = ConnectionId { node: 3, generation: 1, index: 0 };

impl Outbox {
    /// A connection for the tests of apps.
    #[cfg(feature = "cli")]
    pub(crate) fn open_plain(&mut self, id: ConnectionId) {
        self.queue.open(id.index, id.generation);
        self.begin_frames(id, Role::Server, None);
    }
}

/// An outbox with one connection on which we act as `role`.
fn outbox(role: Role, deflate: Option<Agreement>) -> Outbox {
    let rules = Deflate { min_bytes: 50, ..Deflate::default() };
    let mut outbox = Outbox::new(SendRules::default(), rules, ID.node, [5; 32]);
    outbox.queue.open(ID.index, ID.generation);
    outbox.begin_frames(ID, role, deflate);
    outbox
}

/// All waiting bytes, in whatever pieces.
fn written(outbox: &mut Outbox) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(key) = outbox.queue.next_dirty() {
        let mut slices = [std::io::IoSlice::new(&[]); crate::queue::MAX_SLICES];
        let count = outbox.queue.gather(key, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        outbox.queue.sent(key, bytes.len(), false);
        out.extend(bytes);
    }
    outbox.queue.end_flush();
    out
}

fn payload() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    prop_oneof![
        "\\PC{0,80}".prop_map(|text| (Kind::Text, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| (Kind::Binary, bytes)),
        (any::<u8>(), 60_000usize..70_000).prop_map(|(byte, length)| (Kind::Binary, vec![byte; length])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn encode_then_decode_is_identity(
        messages in prop::collection::vec((payload(), any::<prop::sample::Index>()), 1..8),
        client: bool, deflate: bool, takeover: bool, bits in 9u8..=15, piece in prop::sample::select(vec![7usize, 1000, 1 << 20])
    ) {
        let (role, peer) = if client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let agreed = Agreement { server_takeover: takeover, client_takeover: takeover, server_bits: bits, client_bits: bits };
        let mut outbox = outbox(role, deflate.then_some(agreed));
        for ((kind, payload), at) in &messages {
            let (first, second) = payload.split_at(at.index(payload.len() + 1));
            prop_assert_eq!(outbox.send(ID, *kind, &[first, second]), Delivery::Queued);
        }
        prop_assert_eq!(outbox.ping(ID, b"p"), Delivery::Queued);
        prop_assert_eq!(outbox.close(ID, CloseCode::Normal, "bye"), Delivery::Queued);
        prop_assert_eq!(outbox.send_text(ID, "after the Close"), Delivery::Closed);
        let mut bytes = written(&mut outbox);

        let rules = Rules { role: peer, max_message: 1 << 20, max_frame: usize::MAX, pieces_from: None };
        let (mut scratch, mut pool) = (Scratch::default(), crate::queue::pool::Pool::default());
        let window = takeover.then(|| Box::new(crate::protocol::deflate::Inflater::new()));
        let mut receiver = if deflate { Receiver::with_deflate(window) } else { Receiver::new() };
        let (mut got, mut ends) = (Vec::new(), Vec::new());
        for piece in bytes.chunks_mut(piece) {
            let mut used = 0;
            while used < piece.len() {
                let step = receiver.next(&mut piece[used..], &rules, &mut scratch, &mut pool);
                let (taken, event) = step.expect("what we send is no violation");
                used += taken;
                match event {
                    Some(Event::Message(mut message)) => got.push((message.kind(), message.payload().to_vec())),
                    Some(Event::Ping(payload)) => ends.push((0, payload.to_vec())),
                    Some(Event::Close(Some((code, reason)))) => ends.push((code.into(), reason.as_bytes().to_vec())),
                    Some(other) => panic!("{other:?} was not sent"),
                    None => {}
                }
            }
        }
        let sent: Vec<_> = messages.into_iter().map(|(message, _)| message).collect();
        prop_assert!(got == sent);
        prop_assert_eq!(ends, [(0u16, b"p".to_vec()), (1000, b"bye".to_vec())]);
    }

    /// A message that begins in another way for each connection: each reads its own, and what is the same lies there once.
    #[cfg(feature = "cli")]
    #[test]
    fn what_ends_alike_is_stored_once(
        heads in prop::collection::vec("[a-z]{0,300}", 2..5), end in "[a-d]{1000,3000}", deflate: bool, takeover: bool,
        bits in 9u8..=15
    ) {
        let agreed =
            Agreement { server_takeover: takeover, client_takeover: takeover, server_bits: bits, client_bits: bits };
        let mut outbox = Outbox::new(SendRules::default(), Deflate { min_bytes: 50, ..Deflate::default() }, ID.node, [5; 32]);
        let ids: Vec<ConnectionId> = (0..heads.len()).map(|index| ConnectionId { index: index as u32, ..ID }).collect();
        for id in &ids {
            outbox.queue.open(id.index, id.generation);
            outbox.begin_frames(*id, Role::Server, deflate.then_some(agreed));
        }
        let mut shared = shared::Shared::default();
        for (id, head) in ids.iter().zip(&heads) {
            let sent = outbox.send_headed(*id, Kind::Text, head.as_bytes(), end.as_bytes(), &mut shared);
            prop_assert_eq!(sent, Delivery::Queued);
        }
        let own: usize = heads.iter().map(|head| head.len() + 32).sum();
        let is_shared = !(deflate && takeover);
        prop_assert!(!is_shared || outbox.queue.pass_bytes() <= own + end.len());
        let rules = Rules { role: Role::Client, max_message: 1 << 20, max_frame: usize::MAX, pieces_from: None };
        let (mut scratch, mut pool) = (Scratch::default(), crate::queue::pool::Pool::default());
        let mut bytes = written(&mut outbox);
        let mut rest = &mut bytes[..];
        for head in &heads {
            let window = takeover.then(|| Box::new(crate::protocol::deflate::Inflater::new()));
            let mut receiver = if deflate { Receiver::with_deflate(window) } else { Receiver::new() };
            let (used, event) = receiver.next(rest, &rules, &mut scratch, &mut pool).expect("no violation");
            let Some(Event::Message(mut message)) = event else { panic!("no message for {head}") };
            prop_assert!(message.payload() == [head.as_bytes(), end.as_bytes()].concat());
            rest = &mut rest[used..];
        }
    }
}
