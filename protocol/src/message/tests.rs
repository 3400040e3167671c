//! What travels, to the byte.

use super::*;
use crate::{
    charter::Charter,
    limits,
    testing::{charter, identity},
    verdict::Reason,
    wire,
};
use proptest::prelude::*;

fn context() -> Context {
    Context::new(charter(3)).unwrap()
}

fn update(context: &Context, mantissa: i32) -> Message {
    let groups = context.layout.groups().iter();
    let groups =
        groups.map(|group| Group { exponent: -10, mantissas: vec![mantissa; group.values()].into() }).collect();
    context.say(&identity(0), Digest::ZERO, Step::Round(1), 7, Content::Update(groups)).unwrap()
}

/// These bytes are what other versions of this program read and write: whoever changes them changes the protocol's
/// version.
#[test]
fn the_bytes_on_the_wire_are_fixed() {
    let context = context();
    let message = update(&context, 5);
    let digest = |bytes: &[u8]| Digest::of("test", &[bytes]).to_string();
    assert_eq!(context.network.to_string(), "e44a2afc7d0fe0d2abea257167d3bc07a06d41159b59e8ef778e6dd02aff2c98");
    assert_eq!(digest(&message.bytes), "0f3ba80a17ee51b11576cafc978fa82ad82c1a22c4d50737ea783447f0cc0ce1");
    let head = Head { unsealed: Step::Round(3), sets: Digest::ZERO, state: Digest::ZERO };
    let head = context.say(&identity(1), Digest::ZERO, Step::Round(3), 8, Content::Head(head)).unwrap();
    assert_eq!(digest(&head.bytes), "9a6968ec96b95afb38cac721f8d8809263c706bedbf3a8705a202bcc5e243f4c");
    let pull = Request::Pull(Pull { step: Step::Statistics, have: vec![Digest::ZERO], want: vec![] });
    assert_eq!(
        digest(&wire::encode(&pull, limits::REQUEST_BYTES_MAX).unwrap()),
        "e8dbc8e6ffdb6dae549a16d15162c5481c8f50dbb1968544404735c4b5d24ac8"
    );
}

#[test]
fn what_is_said_is_read_and_its_bytes_are_kept() {
    let context = context();
    let said = update(&context, -3);
    assert!(said.bytes.len() - said.signed.payload().len() < limits::ENVELOPE_BYTES_MAX);
    let read = context.verify(context.open(&said.bytes).unwrap(), &said.bytes).unwrap();
    assert_eq!((read.signed.value(), &read.bytes), (said.signed.value(), &said.bytes));
    assert_eq!(read.id(), said.id());
}

#[test]
fn every_field_is_under_the_signature() {
    let context = context();
    let said = update(&context, 1);
    let envelope = context.open(&said.bytes).unwrap();
    let forged = |change: fn(&mut Envelope)| {
        let mut envelope = envelope.clone();
        change(&mut envelope);
        context.verify(envelope, &said.bytes).err()
    };
    assert_eq!(forged(|_| {}), None);
    assert_eq!(forged(|envelope| envelope.genesis = Digest::of("other", &[])), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.kind = Kind::Head), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.step = Step::Round(2)), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.author = identity(1).id()), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.sequence = 8), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.payload[0] ^= 1), Some(Reason::Forged));
    assert_eq!(forged(|envelope| envelope.signature[0] ^= 1), Some(Reason::Forged));
}

proptest! {
    /// Claimed lengths in short messages cost nothing, whatever else the bytes say.
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0x40u8..0xff, length: u64) {
        let mut claim = vec![head | 0x1b];
        claim.extend_from_slice(&length.to_be_bytes());
        claim.extend_from_slice(&bytes);
        for bytes in [&bytes, &claim] {
            prop_assert!(context().open(bytes).is_err());
            prop_assert!(Charter::decode(bytes).is_err());
            let _ = wire::decode::<Request>(bytes, limits::REQUEST_BYTES_MAX);
            let _ = wire::decode::<Response>(bytes, limits::RESPONSE_BYTES_MAX);
            let _ = wire::decode::<Update>(bytes, limits::PAYLOAD_BYTES_MAX);
            let _ = wire::decode::<crate::round::Checkpoint>(bytes, limits::PAYLOAD_BYTES_MAX);
        }
    }
}
