//! What nodes tell each other: signed messages for everyone, and requests between two peers.
//!
//! A gossiped message is an [`Envelope`]: where it belongs, who says it, the payload's bytes and a signature over all
//! of that. The payload's bytes are kept, hashed and sent on as they arrived.

use crate::{
    charter::{Charter, NetworkId},
    codec::{self, EncodedGroup, Group},
    genesis::{Kernels, Statistics},
    limits,
    memo::Memo,
    mixture::Layout,
    verdict::Reason,
    wire,
};
use heterotune_crypto::{Digest, Identity, NodeId, Signed};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// A step of the network's life. Every message but a head belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Genesis, first half: the founders' anchor kernels become the reference.
    Kernels,
    /// Genesis, second half: the founders' class statistics become the starting readout.
    Statistics,
    /// A round of training, from 1.
    Round(u64),
}

impl Step {
    /// The round's number; 0 in genesis.
    pub fn round(self) -> u64 {
        match self {
            Step::Kernels | Step::Statistics => 0,
            Step::Round(round) => round,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Kernels => f.write_str("kernels"),
            Step::Statistics => f.write_str("statistics"),
            Step::Round(round) => write!(f, "round {round}"),
        }
    }
}

/// What kind of message an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Kernels`], in genesis.
    Kernels,
    /// [`Statistics`], in genesis.
    Statistics,
    /// An [`Update`] of a round.
    Update,
    /// A [`Head`].
    Head,
}

impl Kind {
    /// The signature's domain tag, so that no payload of one kind passes for another.
    fn tag(self) -> &'static str {
        match self {
            Kind::Kernels => "kernels",
            Kind::Statistics => "statistics",
            Kind::Update => "update",
            Kind::Head => "head",
        }
    }

    /// The step that a message of this kind belongs to; none for heads.
    pub fn step(self, round: u64) -> Option<Step> {
        match self {
            Kind::Kernels => Some(Step::Kernels),
            Kind::Statistics => Some(Step::Statistics),
            Kind::Update => Some(Step::Round(round)),
            Kind::Head => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

/// A message as it travels. Everything but the signature is under the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The protocol's version.
    pub version: u16,
    /// The network it belongs to.
    pub network: NetworkId,
    /// What the network's genesis had made of itself when this was said: zero while the kernels are gathered, the
    /// reference's digest while the statistics are, the genesis id in the rounds.
    pub genesis: Digest,
    /// What it is.
    pub kind: Kind,
    /// The round it belongs to; 0 in genesis.
    pub round: u64,
    /// Who says it.
    pub author: NodeId,
    /// Grows with everything that the author says, so that the same thing said again is a new message.
    pub sequence: u64,
    /// The bytes of a [`Content`].
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// The author's signature, 64 bytes.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

/// What was said, decoded and checked against the charter.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A founder's anchor kernels.
    Kernels(Kernels),
    /// A founder's class statistics.
    Statistics(Statistics),
    /// A round's update.
    Update(Vec<Group>),
    /// Where a node is.
    Head(Head),
}

/// A round's update as it travels: one node's mixture after its local steps, minus the round's base mixture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The groups, in the layout's order.
    pub groups: Vec<EncodedGroup>,
}

/// Where a node is: "the step open to me is .., the rounds before it hold these sets, and my state is that".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The open step; after the last round, one round more.
    pub step: Step,
    /// The digest of the sets of the closed rounds that late updates may still change.
    pub closed: Digest,
    /// The digest of the state that the closed rounds made.
    pub state: Digest,
}

/// A message that verified: who said what, and the bytes to pass on.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The round it belongs to.
    pub round: u64,
    /// The genesis it was said under.
    pub genesis: Digest,
    /// The author's running number.
    pub sequence: u64,
    /// The author, the content, and the payload's own bytes.
    pub signed: Signed<Content>,
    /// The envelope's bytes, as they arrived.
    pub bytes: Vec<u8>,
    digest: Digest,
}

impl Message {
    fn new(envelope: &Envelope, signed: Signed<Content>, bytes: Vec<u8>) -> Self {
        let Envelope { kind, round, genesis, sequence, .. } = *envelope;
        let digest = Digest::of("heterotune 2026 payload", &[signed.payload()]);
        Self { kind, round, genesis, sequence, signed, bytes, digest }
    }

    /// The digest that the ledger knows the payload by.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// An envelope on its way through the checks.
#[derive(Clone, Debug)]
pub enum Opened {
    /// It verified before.
    Known(Arc<Message>),
    /// Its signature is still to be verified.
    New(Envelope),
}

impl Opened {
    /// Its kind, round, author and genesis.
    pub fn header(&self) -> (Kind, u64, NodeId, Digest) {
        match self {
            Opened::Known(message) => (message.kind, message.round, message.signed.author(), message.genesis),
            Opened::New(envelope) => (envelope.kind, envelope.round, envelope.author, envelope.genesis),
        }
    }

    /// Its payload's bytes.
    pub fn payload(&self) -> &[u8] {
        match self {
            Opened::Known(message) => message.signed.payload(),
            Opened::New(envelope) => &envelope.payload,
        }
    }
}

/// What stands still while a node talks: its charter, in the forms that messages need.
#[derive(Clone, Debug)]
pub struct Context {
    /// The charter.
    pub charter: Charter,
    /// Its layout.
    pub layout: Layout,
    /// Its id.
    pub network: NetworkId,
    /// The keys that may speak: founders and members.
    pub members: BTreeSet<NodeId>,
    /// What verified before, where a process holds many nodes.
    memo: Option<Arc<Memo>>,
}

impl Context {
    /// The context of a checked charter.
    ///
    /// # Errors
    /// What is wrong with the charter.
    pub fn new(charter: Charter) -> Result<Self, crate::charter::CharterError> {
        charter.check()?;
        let members = charter.founders.iter().chain(&charter.members).copied().collect();
        Ok(Self { layout: Layout::new(&charter), network: charter.id()?, members, charter, memo: None })
    }

    /// The same, with a memory of what verified, for all nodes that share this context.
    #[must_use]
    pub fn with_memo(self, memo: Memo) -> Self {
        Self { memo: Some(Arc::new(memo)), ..self }
    }

    /// What a signature covers beside the kind and the payload.
    fn signing_context(&self, genesis: &Digest, round: u64, author: &NodeId, sequence: u64) -> Vec<u8> {
        let mut bytes = limits::PROTOCOL_VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.network.0.as_bytes());
        bytes.extend_from_slice(genesis.as_bytes());
        bytes.extend_from_slice(&round.to_le_bytes());
        bytes.extend_from_slice(author.as_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes
    }

    /// Signs and packs something to say.
    ///
    /// # Errors
    /// Content that is too large for a message.
    pub fn say(
        &self,
        identity: &Identity,
        genesis: Digest,
        round: u64,
        sequence: u64,
        content: Content,
    ) -> Result<Message, wire::WireError> {
        let most = limits::PAYLOAD_BYTES_MAX;
        let (kind, payload) = match &content {
            Content::Kernels(kernels) => (Kind::Kernels, wire::encode(kernels, most)?),
            Content::Statistics(statistics) => (Kind::Statistics, wire::encode(statistics, most)?),
            Content::Update(groups) => {
                let codec = &self.charter.codec;
                let groups = groups.iter().map(|group| codec::encode(codec, group)).collect();
                (Kind::Update, wire::encode(&Update { groups }, most)?)
            }
            Content::Head(head) => (Kind::Head, wire::encode(head, most)?),
        };
        let context = self.signing_context(&genesis, round, &identity.id(), sequence);
        let signed = Signed::sign(identity, kind.tag(), &context, content, payload);
        let envelope = Envelope {
            version: limits::PROTOCOL_VERSION,
            network: self.network,
            genesis,
            kind,
            round,
            author: identity.id(),
            sequence,
            payload: signed.payload().to_vec(),
            signature: *signed.signature(),
        };
        let bytes = wire::encode(&envelope, limits::MESSAGE_BYTES_MAX)?;
        Ok(Message::new(&envelope, signed, bytes))
    }

    /// Reads an envelope and checks what costs little: size, form, version, network, and that the author is a member.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(&self, bytes: &[u8]) -> Result<Envelope, Reason> {
        let envelope: Envelope = wire::decode(bytes, limits::MESSAGE_BYTES_MAX)?;
        if envelope.version != limits::PROTOCOL_VERSION {
            return Err(Reason::OtherVersion { version: envelope.version });
        }
        if envelope.network != self.network {
            return Err(Reason::OtherNetwork { network: envelope.network });
        }
        if !self.members.contains(&envelope.author) {
            return Err(Reason::NotAMember { author: envelope.author });
        }
        Ok(envelope)
    }

    /// Verifies an opened envelope's signature, and only then decodes its payload and checks its shape and range.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, mut envelope: Envelope, bytes: &[u8]) -> Result<Message, Reason> {
        let Envelope { kind, round, author, signature, .. } = envelope;
        let context = self.signing_context(&envelope.genesis, round, &author, envelope.sequence);
        let payload = std::mem::take(&mut envelope.payload);
        let signed = Signed::verify(author, kind.tag(), &context, payload, signature, |payload| {
            self.decode(kind, round, payload)
        })?;
        Ok(Message::new(&envelope, signed, bytes.to_vec()))
    }

    /// [`Context::open`], but for bytes that verified before.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_or_recall(&self, bytes: &[u8]) -> Result<Opened, Reason> {
        match self.memo.as_ref().and_then(|memo| memo.get(bytes)) {
            Some(message) => Ok(Opened::Known(message)),
            None => Ok(Opened::New(self.open(bytes)?)),
        }
    }

    /// [`Context::verify`], but for what verified before.
    ///
    /// # Errors
    /// As [`Context::verify`].
    pub fn verify_opened(&self, opened: Opened, bytes: &[u8]) -> Result<Arc<Message>, Reason> {
        match opened {
            Opened::Known(message) => Ok(message),
            Opened::New(envelope) => {
                let message = Arc::new(self.verify(envelope, bytes)?);
                self.memo.iter().for_each(|memo| memo.put(&message));
                Ok(message)
            }
        }
    }

    fn decode(&self, kind: Kind, round: u64, payload: &[u8]) -> Result<Content, Reason> {
        let most = limits::PAYLOAD_BYTES_MAX;
        if (kind == Kind::Update) != (round > 0) && kind != Kind::Head {
            return Err(Reason::WrongRound { kind, round });
        }
        Ok(match kind {
            Kind::Kernels => {
                let kernels: Kernels = wire::decode(payload, most)?;
                kernels.check(&self.charter)?;
                Content::Kernels(kernels)
            }
            Kind::Statistics => {
                let statistics: Statistics = wire::decode(payload, most)?;
                statistics.check(&self.charter)?;
                Content::Statistics(statistics)
            }
            Kind::Update => {
                let update: Update = wire::decode(payload, most)?;
                Content::Update(codec::decode(&self.charter.codec, &self.layout, &update.groups)?)
            }
            Kind::Head => Content::Head(wire::decode(payload, most)?),
        })
    }
}

/// What one peer asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// "This is who I am; who are you, and whom do you know?"
    Hello(Hello),
    /// "Give me what you have of this step and I lack."
    Pull(Pull),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// To a hello.
    Hello(Hello),
    /// To a pull.
    Batch(Batch),
}

/// How peers introduce themselves. Not signed: the connection authenticates them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The protocol's version.
    pub version: u16,
    /// The network's id.
    pub network: NetworkId,
    /// The charter's bytes, so that a difference can be named; none if they are many
    /// ([`limits::HELLO_CHARTER_BYTES_MAX`]).
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// Addresses of members that the sender is connected to, as multiaddr texts.
    pub peers: Vec<String>,
}

/// A request for what the sender lacks of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// The step.
    pub step: Step,
    /// The payloads that the sender holds, by digest.
    pub have: Vec<Digest>,
}

/// Envelopes of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The step.
    pub step: Step,
    /// The sender's open step.
    pub open: Step,
    /// All payloads that the sender holds of the step, by digest.
    pub ids: Vec<Digest>,
    /// Whether there is more than fitted.
    pub more: bool,
    /// The envelopes' bytes.
    pub messages: Vec<serde_bytes::ByteBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{charter, identity};
    use proptest::prelude::*;

    fn context() -> Context {
        Context::new(charter(3)).unwrap()
    }

    fn update(context: &Context, mantissa: i32) -> Message {
        let groups = context.layout.groups().iter();
        let groups = groups.map(|group| Group { exponent: -10, mantissas: vec![mantissa; group.values()] }).collect();
        context.say(&identity(0), Digest::ZERO, 1, 7, Content::Update(groups)).unwrap()
    }

    /// These bytes are what other versions of this program read and write: whoever changes them changes the protocol's
    /// version.
    #[test]
    fn the_bytes_on_the_wire_are_fixed() {
        let context = context();
        let message = update(&context, 5);
        let digest = |bytes: &[u8]| Digest::of("test", &[bytes]).to_string();
        assert_eq!(context.network.to_string(), "35cd76afd981ffa50831eebd6811caf5fdc3f915eddd35f3522fbb5d2039ba9c");
        assert_eq!(digest(&message.bytes), "81e0c896da7afc1a7ef9abedad4ad8495b19f8e8071b17892a192ff78052fcaa");
        let head = Head { step: Step::Round(3), closed: Digest::ZERO, state: Digest::ZERO };
        let head = context.say(&identity(1), Digest::ZERO, 3, 8, Content::Head(head)).unwrap();
        assert_eq!(digest(&head.bytes), "1fbebeaa55077f7544037b6fafdcd04aa61a923915e3708c810bdc85a62c63cc");
        let pull = Request::Pull(Pull { step: Step::Statistics, have: vec![Digest::ZERO] });
        assert_eq!(
            digest(&wire::encode(&pull, limits::REQUEST_BYTES_MAX).unwrap()),
            "e977f5d1146f74163e0fd4d07209beeaf71a7e3fa21b3c89b06438c0502041db"
        );
    }

    #[test]
    fn what_is_said_is_read_and_its_bytes_are_kept() {
        let context = context();
        let said = update(&context, -3);
        assert!(said.bytes.len() - said.signed.payload().len() < limits::ENVELOPE_BYTES_MAX);
        let read = context.verify(context.open(&said.bytes).unwrap(), &said.bytes).unwrap();
        assert_eq!((read.signed.value(), &read.bytes), (said.signed.value(), &said.bytes));
        assert_eq!(read.digest(), said.digest());
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
        assert_eq!(forged(|envelope| envelope.round = 2), Some(Reason::Forged));
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
}
