//! The charter: what all nodes of a network must agree on, before anything else.
//!
//! It is authored as TOML and travels as the CBOR bytes whose digest is the network's id. A node whose charter
//! differs in one bit is in another network.

mod check;

use crate::{admission::Admission, limits, wire};
use heterotune_crypto::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A network's id: the digest of its charter's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub Digest);

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the nodes of a network agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The protocol's version, [`limits::PROTOCOL_VERSION`].
    pub protocol: u16,
    /// What people call the network.
    pub name: String,
    /// Makes the network another one when it is founded anew with the same settings.
    pub nonce: u64,
    /// The keys of the members that take part in genesis.
    pub founders: Vec<NodeId>,
    /// The keys of further members, who may come when the network is founded.
    pub members: Vec<NodeId>,
    /// Who else may join.
    pub admission: Admission,
    /// The keys of the founders whose votes seal rounds: more than two thirds of them seal, so n of them bear
    /// (n - 1) / 3 that lie or are away.
    pub sealers: Vec<NodeId>,
    /// What is learnt.
    pub task: Task,
    /// The public, unlabelled inputs that backbones are aligned by.
    pub anchors: Anchors,
    /// The shape of what is shared.
    pub adapter: Adapter,
    /// How updates become one.
    pub fusion: Fusion,
    /// How updates are written.
    pub codec: Codec,
    /// When rounds close.
    pub rounds: Rounds,
}

/// What a network learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Which of the labels a text has. Anchors are texts.
    TextClassification {
        /// In the order of the readout's columns.
        labels: Vec<String>,
    },
    /// Which of the labels an image has. Anchors are images.
    ImageClassification {
        /// In the order of the readout's columns.
        labels: Vec<String>,
    },
    /// The next token of a text. Anchors are beginnings of texts. Nodes with any tokenizer share branches; those whose
    /// tokenizer has a readout here share that too.
    CausalLm {
        /// The tokenizers that have a shared readout.
        vocabularies: Vec<Vocabulary>,
    },
}

/// A tokenizer whose nodes share a readout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// What tells the tokenizer from others.
    pub tokenizer: Digest,
    /// How many tokens it has: the readout's columns.
    pub tokens: u32,
}

impl Task {
    /// The labels of a classification.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::TextClassification { labels } | Self::ImageClassification { labels } => labels,
            Self::CausalLm { .. } => &[],
        }
    }

    /// How many columns each readout has.
    pub fn readouts(&self) -> Vec<usize> {
        match self {
            Self::TextClassification { labels } | Self::ImageClassification { labels } => vec![labels.len()],
            Self::CausalLm { vocabularies } => vocabularies.iter().map(|v| v.tokens as usize).collect(),
        }
    }
}

/// The anchor set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// The digest of the anchor file's bytes ([`Anchors::digest_of`]).
    pub digest: Digest,
    /// How many anchors it holds.
    pub count: u16,
}

impl Anchors {
    /// The digest of an anchor file's bytes.
    pub fn digest_of(bytes: &[u8]) -> Digest {
        Digest::of("heterotune 2026 anchors", &[bytes])
    }
}

/// The shape of the shared adapters and readout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Depth positions S that every backbone has: slot s sits after block ceil((s+1) L / S).
    pub slots: u8,
    /// Branches M in a slot; 0 shares the readout alone.
    pub branches: u8,
    /// Inner width r of a branch.
    pub rank: u16,
    /// Width of the readout's input.
    pub readout_rank: u16,
    /// How private projections are made.
    pub alignment: Alignment,
    /// Where the readout starts.
    pub readout: Readout,
    /// Seeds the gates, which are the same on every node.
    pub seed: u64,
}

/// How a node makes its private projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// Fitted to the network's reference over the anchors.
    Anchors,
    /// Random, each node its own: the control that shows what alignment is worth.
    Random,
}

/// Where the shared readout starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// From the network's exact class statistics. They show class counts and class means in the aligned space.
    Statistics,
    /// At zero.
    Trained,
}

/// How updates become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fusion {
    /// The rule.
    pub rule: Rule,
    /// CMGA's way to reconcile directions; the other rules ignore it.
    pub align: Align,
    /// Which norms aligned updates have; again CMGA's alone.
    pub norms: Norms,
    /// Whether senders that keep opposing the others are left out; the plain mean takes everyone.
    pub screen: bool,
    /// Whether class statistics that contradict the others' are left out of the starting readout.
    pub statistics_screen: bool,
    /// The largest share of senders that the screen may leave out, and that the trimmed mean drops at either end, in
    /// parts per million.
    pub max_liars_ppm: u32,
}

/// A fusion rule. Every one but the plain mean is screened; CMGA, the geometric median and TIES are clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Cross-model gradient alignment: clip, screen, align.
    Cmga,
    /// The plain mean.
    Mean,
    /// The mean of each coordinate without its smallest and largest values.
    Trimmed,
    /// The geometric median, tensor group by tensor group.
    Geomedian,
    /// TIES-merging: each update's largest values elect a sign and are averaged where they agree with it.
    Ties,
}

/// How CMGA reconciles the directions of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// Every update loses its components against the others it conflicts with.
    Pcgrad,
    /// The Nash bargaining solution's weights.
    Nash,
    /// Not at all.
    None,
}

/// Which norms updates have when they are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norms {
    /// Their own, after clipping.
    Kept,
    /// One and the same.
    Equal,
}

/// How updates are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codec {
    /// The width of a value.
    pub kind: CodecKind,
    /// The smallest power of two that a group's values may be multiples of.
    pub exponent_min: i16,
    /// The largest.
    pub exponent_max: i16,
}

/// The width of a value in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodecKind {
    /// 4 bytes: finite f32 bits that are a 24-bit integer times the group's power of two.
    F32,
    /// 1 byte: -127 to 127 times the group's power of two. What rounding loses, the sender adds to its next update.
    Q8,
    /// 4.1 bits: -7 to 7 times a scale that 64 values share.
    Q4,
    /// 1.1 bits: a sign, and a size that 64 values share.
    Sign,
    /// Half a bit: the largest one of 32 values, in 8 bits, and where it is.
    #[serde(rename = "topk")]
    TopK,
}

/// When rounds close, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounds {
    /// Rounds to run; 0 means no end.
    pub total: u64,
    /// Updates that a round needs to close at its deadline.
    pub quorum: u16,
    /// How long a round waits for the slowest member, in ms.
    pub deadline_ms: u64,
    /// Closed rounds for which late updates still count.
    pub horizon: u8,
    /// Updates in a round. With more members than that, each round's contributors are drawn.
    pub contributors: u16,
    /// Who closes a round.
    pub closing: Closing,
}

/// Who closes a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    /// Every node by itself, provisionally; the seal follows, by up to the horizon.
    Everyone,
    /// The round's elected leader proposes its updates; the next round begins when the sealers have sealed it.
    Leader,
}

/// What is wrong with a charter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CharterError {
    /// A value out of its range.
    #[error("charter: {field} is {value}, but must be {must}")]
    Range {
        /// The setting, as it is written in TOML.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        must: String,
    },
    /// Not a charter's bytes.
    #[error("charter: {0}")]
    Wire(#[from] wire::WireError),
}

impl Charter {
    /// A charter with the default settings for a task among `founders`.
    pub fn new(name: &str, founders: Vec<NodeId>, task: Task, anchors: Anchors) -> Self {
        // More than two thirds of the members.
        let quorum = u16::try_from(founders.len() * 2 / 3 + 1).unwrap_or(u16::MAX);
        let readout = match task {
            Task::CausalLm { .. } => Readout::Trained,
            _ => Readout::Statistics,
        };
        let sealers = founders.iter().take(limits::SEALERS_MAX).copied().collect();
        Self {
            protocol: limits::PROTOCOL_VERSION,
            name: name.into(),
            nonce: 0,
            founders,
            members: Vec::new(),
            admission: Admission::Allowlist,
            sealers,
            task,
            anchors,
            adapter: Adapter {
                slots: 2,
                branches: 4,
                rank: 16,
                readout_rank: 64,
                alignment: Alignment::Anchors,
                readout,
                seed: 0,
            },
            fusion: Fusion {
                rule: Rule::Cmga,
                align: Align::Pcgrad,
                norms: Norms::Kept,
                screen: true,
                statistics_screen: true,
                max_liars_ppm: 333_334,
            },
            codec: Codec { kind: CodecKind::Q8, exponent_min: -40, exponent_max: 8 },
            rounds: Rounds {
                total: 10,
                quorum,
                deadline_ms: 600_000,
                horizon: 4,
                contributors: 64,
                closing: Closing::Everyone,
            },
        }
    }

    /// The canonical CBOR bytes, the form in which a charter travels and is hashed.
    ///
    /// # Errors
    /// Only where the charter is too large to be one.
    pub fn encode(&self) -> Result<Vec<u8>, CharterError> {
        Ok(wire::encode(self, limits::CHARTER_BYTES_MAX)?)
    }

    /// A charter from its bytes, checked.
    ///
    /// # Errors
    /// Bytes that are not a canonical charter, or a setting out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, CharterError> {
        let charter: Self = wire::decode(bytes, limits::CHARTER_BYTES_MAX)?;
        charter.check()?;
        Ok(charter)
    }

    /// The network's id.
    ///
    /// # Errors
    /// As [`Charter::encode`].
    pub fn id(&self) -> Result<NetworkId, CharterError> {
        Ok(NetworkId(Digest::of("heterotune 2026 charter", &[&self.encode()?])))
    }

    /// What the updates that a node holds take at most: of every round in the horizon and two more, as they travelled and
    /// as integers.
    pub fn updates_bytes(&self) -> u64 {
        let named = self.founders.len() + self.members.len();
        let members = if self.admission == Admission::Allowlist { named } else { limits::MEMBERS_MAX };
        let contributors = members.min(self.rounds.contributors.into()) as u64;
        let layout = crate::mixture::Layout::new(self);
        let integers = if self.codec.kind == CodecKind::Q8 { 1 } else { 4 } * layout.values();
        let update = (crate::codec::update_bytes(self.codec.kind, &layout) + integers) as u64;
        update * contributors * (u64::from(self.rounds.horizon) + 2)
    }
}
