//! What travels, to the byte.

use super::*;
use crate::{
    admission::{Admission, Membership},
    charter::Charter,
    limits,
    seal::{Ballot, Certificate, Seal, Stage, Value},
    testing::{charter, identity},
    verdict::Reason,
    wire::{self, WireError},
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::{collections::BTreeSet, ops::Range};

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
    let head = Head { unsealed: Step::Round(3), sets: Digest::ZERO, state: Digest::ZERO };
    let head = context.say(&identity(1), Digest::ZERO, Step::Round(3), 8, Content::Head(head)).unwrap();
    let membership = Membership::sign(&identity(2), &context.network, identity(9).id(), 1 << 40).ok();
    let enrolment = Content::Enrolment(Enrolment { membership });
    let enrolment = context.say(&identity(9), Digest::ZERO, Step::Round(3), 8, enrolment).unwrap();
    let manifest = Manifest::of(&[7; 300_000]);
    let blob = manifest.digest();
    let announced = context.say(&identity(1), Digest::ZERO, Step::Round(3), 8, Content::Announced(manifest)).unwrap();
    let pull = Request::Pull(Pull { step: Step::Statistics, have: vec![Digest::ZERO], want: vec![] });
    let piece = Piece { bytes: Some(vec![7; 9].into()), held: vec![3].into() };
    let [pull, fetch] = [pull, Request::Fetch(Fetch { blob, piece: 2 })]
        .map(|request| wire::encode(&request, limits::REQUEST_BYTES_MAX).unwrap());
    let piece = wire::encode(&Response::Piece(piece), limits::RESPONSE_BYTES_MAX).unwrap();
    let said = [&message, &head, &enrolment, &announced].map(|message| digest(&message.bytes));
    let asked = [pull, fetch, piece].map(|bytes| digest(&bytes));
    assert_eq!(
        (
            context.network.to_string().as_str(),
            said.each_ref().map(String::as_str),
            asked.each_ref().map(String::as_str)
        ),
        (
            "0491e09dc74b7c83a7ef2beda74be34ec2ed03b0399781455ff87c986e7be988",
            [
                "4b9378c9db77c12631a5d7b74140cc191329e20d951d3c4147f980181ee5b834",
                "08e33c8acdc5e835d455595a0d334bf41eb0f6d043c8ac65e4063ea31ed84076",
                "4f8b76103c6050444bd610f24bf9bfa93947b17119b5a13bddbf4536ae147e5a",
                "0b662ee166425f848576cc14306ada5f685440816840a5b8cc2c1f3b8b5a3cd9",
            ],
            [
                "e8dbc8e6ffdb6dae549a16d15162c5481c8f50dbb1968544404735c4b5d24ac8",
                "b669bdfc27125d60bcaad2d0475f2816a3e2de67202951b092ee776b6af81c98",
                "9eb5ad117337a991d73b67528f7925305366d74df4c15c7a7d7686fbd431583e",
            ]
        )
    );
}

/// Of an enrolment the membership is checked too: it is its author's, and by an admin of this network.
#[test]
fn an_enrolment_is_its_author_s() {
    let invited = Charter { admission: Admission::Invited { admins: vec![identity(2).id()] }, ..charter(3) };
    let context = Context::new(invited).unwrap();
    let read = |author: usize, membership: Option<Membership>| {
        let content = Content::Enrolment(Enrolment { membership });
        let said = context.say(&identity(author), Digest::ZERO, Step::Round(1), 1, content.clone()).unwrap();
        let read = context.verify(context.open(&said.bytes)?, &said.bytes)?;
        assert_eq!((read.signed.value(), read.id()), (&content, said.id()));
        Ok(())
    };
    let invitation = |node: usize| Membership::sign(&identity(2), &context.network, identity(node).id(), 5).ok();
    let not_admitted = |result| matches!(result, Err(Reason::NotAdmitted(_)));
    assert_eq!(read(9, invitation(9)), Ok(()));
    assert!(not_admitted(read(9, invitation(8))));
    assert!(not_admitted(read(9, None)));
    assert_eq!(read(1, invitation(1)), Err(Reason::Enrolled { author: identity(1).id() }));
    let wrong =
        context.say(&identity(9), Digest::ZERO, Step::Kernels, 1, Content::Enrolment(Enrolment { membership: None }));
    let (kind, step) = (Kind::Enrolment, Step::Kernels);
    assert_eq!(context.open(&wrong.unwrap().bytes), Err(Reason::WrongStep { kind, step }));
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

/// The network and the version are signed, and not only written on the envelope: whoever rewrites the envelope of
/// another network, in which the same keys may speak, forges.
#[test]
fn the_network_and_the_version_are_under_the_signature() {
    let context = context();
    let other = Context::new(Charter { nonce: context.charter.nonce + 1, ..context.charter.clone() }).unwrap();
    let envelope = other.open(&update(&other, 1).bytes).unwrap();
    let read = |envelope: &Envelope| {
        let bytes = wire::encode(envelope, limits::MESSAGE_BYTES_MAX).unwrap();
        context.verify(context.open(&bytes)?, &bytes).map(|message| message.author())
    };
    assert_eq!(read(&envelope), Err(Reason::OtherNetwork { network: other.network }));
    let rewritten = Envelope { network: context.network, ..envelope };
    assert_eq!(read(&rewritten), Err(Reason::Forged));

    // What members sign, byte by byte.
    let signed_for = |version: u16, network: NetworkId| {
        let Envelope { genesis, step, author, sequence, payload, .. } = rewritten.clone();
        let (version, height, sequence) = (version.to_le_bytes(), step.height().to_le_bytes(), sequence.to_le_bytes());
        let parts: [&[u8]; 6] =
            [&version, network.0.as_bytes(), genesis.as_bytes(), &height, author.as_bytes(), &sequence];
        let signed = Signed::sign(&identity(0), "update", &parts.concat(), (), payload);
        Envelope { signature: *signed.signature(), ..rewritten.clone() }
    };
    let version = limits::PROTOCOL_VERSION;
    assert_eq!(read(&signed_for(version, context.network)), Ok(identity(0).id()));
    assert_eq!(read(&signed_for(version, other.network)), Err(Reason::Forged));
    assert_eq!(read(&signed_for(version - 1, context.network)), Err(Reason::Forged));
    let of_other_version = Envelope { version: version + 1, ..signed_for(version + 1, context.network) };
    assert_eq!(read(&of_other_version), Err(Reason::OtherVersion { version: version + 1 }));
}

/// Where the arrays, maps, texts and byte strings of canonical CBOR have their headers, and the lengths that they name.
fn headers(bytes: &[u8]) -> Vec<(Range<usize>, u64)> {
    let (mut headers, mut at) = (Vec::new(), 0);
    while let Some(first) = bytes.get(at) {
        let (major, info) = (first >> 5, first & 0x1f);
        let wide = if info < 24 { 0 } else { 1 << (info - 24) };
        let end = at + 1 + wide;
        let argument = bytes[at + 1..end].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let length = if wide == 0 { info.into() } else { argument };
        if (2..=5).contains(&major) {
            headers.push((at..end, length));
        }
        // Elements follow their header, and are walked over like everything else.
        at = end + if matches!(major, 2 | 3) { length as usize } else { 0 };
    }
    headers
}

/// Writes a value, and has each of its headers claim lengths that are not there.
fn claim<T: Serialize + DeserializeOwned>(value: &T, kinds: &[u8]) {
    let bytes = wire::encode(value, limits::RESPONSE_BYTES_MAX).unwrap();
    let headers = headers(&bytes);
    let found: BTreeSet<u8> = headers.iter().map(|(at, _)| bytes[at.start] >> 5).collect();
    assert_eq!(found, kinds.iter().copied().collect());
    for (at, length) in headers {
        let read = |length: u64| {
            let header = [&[bytes[at.start] & 0xe0 | 27], &length.to_be_bytes()[..]].concat();
            let bytes = [&bytes[..at.start], &header, &bytes[at.end..]].concat();
            wire::decode::<T>(&bytes, limits::RESPONSE_BYTES_MAX).err()
        };
        assert_eq!(read(length), Some(WireError::NotCanonical), "the same at {at:?}, but wide");
        // Whoever made room for 2^50 of anything would end the process.
        for length in [1 << 31, 1 << 50, 1 << 63, u64::MAX] {
            assert!(matches!(read(length), Some(WireError::Unreadable(_))), "{length} at {at:?}");
        }
    }
}

/// Lengths within a message are claims: nothing is allocated for them, whatever they stand before.
#[test]
fn claimed_lengths_cost_nothing() {
    let context = context();
    let update = update(&context, 1);
    let envelope = context.open(&update.bytes).unwrap();
    let (step, ids) = (Step::Round(1), vec![Digest::ZERO, envelope.id()]);
    let value = Value { set: Digest::ZERO, state: Digest::ZERO };
    let ballot = |at| Ballot { sealer: identity(at).id(), sequence: 1 << 40, signature: [3; 64] };
    let certificate = Certificate { view: 0, stage: Stage::Prevote, value, ballots: (0..3).map(ballot).collect() };
    let lists = vec![ByteBuf::from(update.bytes.clone()); 2];
    let seal = Seal { step, ids: ids.clone(), certificate: certificate.clone() };
    let messages = vec![ByteBuf::from(vec![1; 300]), ByteBuf::new()];
    let snapshot = Some(Box::new(Snapshot { seal: seal.clone(), state: StateBytes::Here(vec![2; 70_000].into()) }));
    let batch = Batch {
        step,
        open: step,
        unsealed: Step::Kernels,
        more: false,
        messages,
        seal: Some(Box::new(seal.clone())),
        snapshot,
    };
    let (bytes, text, array, map) = (2, 3, 4, 5);
    claim(&envelope, &[bytes, text, map]);
    claim(&wire::decode::<Update>(&envelope.payload, limits::PAYLOAD_BYTES_MAX).unwrap(), &[bytes, text, array, map]);
    claim(&Request::Pull(Pull { step, have: ids.clone(), want: ids.clone() }), &[bytes, text, array, map]);
    claim(&Response::Batch(batch), &[bytes, text, array, map]);
    claim(&List { ids }, &[bytes, text, array, map]);
    let membership = Membership::sign(&identity(2), &context.network, identity(9).id(), 1 << 40).ok();
    claim(&Enrolment { membership }, &[bytes, text, map]);
    claim(&Proposal { view: 1, value, polka: Some(certificate), lists }, &[bytes, text, array, map]);
    claim(&seal, &[bytes, text, array, map]);
}

/// What is too long is not even read.
#[test]
fn the_size_comes_first() {
    let broken = [0xff; 9];
    assert_eq!(wire::decode::<List>(&broken, 8), Err(WireError::TooLong { bytes: 9, most: 8 }));
    assert!(matches!(wire::decode::<List>(&broken, 9), Err(WireError::Unreadable(_))));
    let long = vec![0xff; limits::MESSAGE_BYTES_MAX + 1];
    let too_long = WireError::TooLong { bytes: long.len(), most: limits::MESSAGE_BYTES_MAX };
    assert_eq!(context().open(&long), Err(Reason::Malformed(too_long)));
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
