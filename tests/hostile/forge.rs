//! Messages that no honest node sends. They are put together by hand, as an attacker would.

use heterotune_crypto::{Digest, Identity, NodeId, Signed};
use heterotune_protocol::{
    codec::EncodedGroup,
    limits,
    message::{Context, Envelope, Kind, Message, Step, Update},
    wire,
};
use std::sync::Arc;

/// Larger than anything here.
const ANY_SIZE: usize = 1 << 20;

/// An update that `signer` signs as if it were `author`, whatever is in it.
pub(crate) fn update(
    context: &Context,
    signer: &Identity,
    author: NodeId,
    genesis: Digest,
    round: u64,
    groups: Vec<EncodedGroup>,
) -> Envelope {
    let payload = wire::encode(&Update::Groups(groups), ANY_SIZE).unwrap();
    // Beyond all sequence numbers of this author.
    let (step, sequence) = (Step::Round(round), 1_000_000 + round);
    let mut covered = limits::PROTOCOL_VERSION.to_le_bytes().to_vec();
    covered.extend(context.network.0.as_bytes());
    covered.extend(genesis.as_bytes());
    covered.extend(step.height().to_le_bytes());
    covered.extend(author.as_bytes());
    covered.extend(sequence.to_le_bytes());
    let signed = Signed::sign(signer, "update", &covered, (), payload.clone());
    Envelope {
        version: limits::PROTOCOL_VERSION,
        network: context.network,
        genesis,
        kind: Kind::Update,
        step,
        author,
        sequence,
        payload,
        signature: *signed.signature(),
    }
}

/// The groups of a valid update of zeros.
pub(crate) fn zeros(context: &Context) -> Vec<EncodedGroup> {
    let group =
        |values: usize| EncodedGroup { exponent: context.charter.codec.exponent_min, values: vec![0; 4 * values] };
    context.layout.groups().iter().map(|shape| group(shape.values())).collect()
}

/// An envelope's bytes.
pub(crate) fn bytes(envelope: &Envelope) -> Vec<u8> {
    wire::encode(envelope, ANY_SIZE).unwrap()
}

/// `bytes` in the skin of a message, so that a network's own way to publish sends them.
pub(crate) fn disguised(skin: &Message, bytes: Vec<u8>) -> Arc<Message> {
    let mut message = skin.clone();
    message.bytes = bytes;
    Arc::new(message)
}
