//! Bytes from the wire: what is decoded is written as the same bytes, and bears being computed with.

use super::cast::{Cast, MEMBERS, STRANGERS, identity, kernels, key, statistics};
use heterotune_crypto::{Digest, Signed};
use heterotune_protocol::{
    charter::Charter,
    limits,
    manifest::Pieces,
    message::{Content, Context, Envelope, Kind, Message, Request, Response, Step},
    mixture::Mixture,
    round::{Checkpoint, Job, RoundSet},
    seal::Seal,
    wire,
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The kinds of payload.
const KINDS: [Kind; 8] = [
    Kind::Kernels,
    Kind::Statistics,
    Kind::Update,
    Kind::Head,
    Kind::List,
    Kind::Proposal,
    Kind::Vote,
    Kind::Enrolment,
];

/// The context that messages are read in: of a network that anyone may join.
fn context() -> Arc<Context> {
    Cast::of(1 << 6).context()
}

/// The first byte says what the rest is.
pub fn decoders(bytes: &[u8]) {
    let Some((what, bytes)) = bytes.split_first() else { return };
    match what % 14 {
        0 => drop(message(bytes)),
        1 => {
            if let Ok(charter) = Charter::decode(bytes) {
                assert_eq!(charter.encode().as_deref().ok(), Some(bytes));
                assert!(Context::new(charter).is_ok());
            }
        }
        2 => drop(decoded::<Request>(bytes, limits::REQUEST_BYTES_MAX)),
        3 => {
            if let Some(Response::Piece(piece)) = decoded(bytes, limits::RESPONSE_BYTES_MAX) {
                let held = Pieces::from_bytes(&piece.held);
                let again: Pieces = (0..limits::PIECES_MAX as u32).filter(|number| held.has(*number)).collect();
                assert!((0..=limits::PIECES_MAX as u32).all(|number| again.has(number) == held.has(number)));
            }
        }
        4 => {
            if let Some(state) = decoded::<Checkpoint>(bytes, limits::STATE_BYTES_MAX) {
                let _ = (state.digest(), state.mixture.fits(&context().layout));
            }
        }
        5 => {
            if let Some(seal) = decoded::<Seal>(bytes, limits::SEAL_BYTES_MAX) {
                let certified = context().certifies(&Digest::ZERO, seal.step, &seal.certificate);
                assert!(!certified, "nobody has voted");
                let _ = seal.check();
            }
        }
        // What a member has signed: else no payload would ever be read.
        kind => {
            let kind = KINDS[usize::from(kind) - 6];
            if let Some(message) = message(&signed(kind, bytes)) {
                compute(message);
            }
        }
    }
}

/// The value, if it is one.
fn decoded<T: Serialize + DeserializeOwned>(bytes: &[u8], most: usize) -> Option<T> {
    let value = wire::decode(bytes, most).ok()?;
    assert_eq!(wire::encode(&value, most).as_deref(), Ok(bytes));
    Some(value)
}

/// The message, if it is one: its author would say it in the same bytes.
fn message(bytes: &[u8]) -> Option<Message> {
    let context = context();
    let message = context.verify(context.open(bytes).ok()?, bytes).ok()?;
    let author = identity((0..MEMBERS + STRANGERS).find(|member| key(*member) == message.author())?);
    let content = message.signed.value().clone();
    let again = context.say(author, message.genesis, message.step, message.sequence, content).expect("it was said");
    assert_eq!((&again.bytes, again.id()), (&message.bytes, message.id()));
    Some(message)
}

/// An envelope around any payload, signed by a member as the protocol has it.
fn signed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let author = identity(if kind == Kind::Enrolment { MEMBERS } else { 0 });
    let (network, genesis, sequence) = (context().network, Digest::ZERO, 1);
    let step = [Step::Round(1), Step::Kernels, Step::Statistics].into_iter().find(|step| kind.belongs_to(*step));
    let step = step.unwrap_or(Step::Kernels);
    let mut under = limits::PROTOCOL_VERSION.to_le_bytes().to_vec();
    under.extend_from_slice(network.0.as_bytes());
    under.extend_from_slice(genesis.as_bytes());
    under.extend_from_slice(&step.height().to_le_bytes());
    under.extend_from_slice(author.id().as_bytes());
    under.extend_from_slice(&u64::to_le_bytes(sequence));
    let signed = Signed::sign(author, &kind.to_string(), &under, (), payload.to_vec());
    let envelope = Envelope {
        version: limits::PROTOCOL_VERSION,
        network,
        genesis,
        kind,
        step,
        author: author.id(),
        sequence,
        payload: payload.to_vec(),
        signature: *signed.signature(),
    };
    wire::encode(&envelope, usize::MAX).expect("an envelope can be written")
}

/// What was accepted can be computed with, beside what an honest node says.
fn compute(message: Message) {
    let (context, author, other) = (context(), message.author(), key(1));
    let job = match message.signed.value().clone() {
        Content::Kernels(said) => {
            let honest = kernels(&context.charter, 1, 0).map(|kernels| (other, kernels));
            Job::Reference(context, honest.into_iter().chain([(author, said)]).collect())
        }
        Content::Statistics(said) => {
            let honest = statistics(&context.charter, 1, 0).map(|statistics| (other, statistics));
            Job::Start(context, honest.into_iter().chain([(author, said)]).collect())
        }
        Content::Update(_) => {
            let state = Checkpoint::first(Digest::ZERO, Mixture::zeros(&context.layout));
            let updates = vec![Arc::new(message)];
            let (conflicts, newcomers) = Default::default();
            let set = RoundSet { round: 1, set: Digest::ZERO, updates, conflicts, newcomers };
            Job::Fold(context, Arc::new(state), vec![set])
        }
        _ => return,
    };
    job.run(1);
}
