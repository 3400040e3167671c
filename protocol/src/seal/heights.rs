//! The engine's names for our types: its "height" is our step, its "round" our view. Signatures are made and verified
//! before the engine sees a vote; it only carries them.

use super::Value;
use heterotune_crypto::NodeId;
use malachitebft_core_types as bft;
use malachitebft_core_types::{NilOrVal, Round, VoteType};
use std::fmt;

/// The engine's names for our types. Its "round" is our view, its "height" our step.
#[derive(Clone, Debug)]
pub(super) struct Heights;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Height(pub(super) u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl bft::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(0);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(pub(super) NodeId);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl bft::Address for Address {}

/// What a vote's envelope adds to the vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) signature: Vec<u8>,
}

/// Signatures are made and verified before the engine sees a vote; it only carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Carried;

impl bft::SigningScheme for Carried {
    type DecodingError = &'static str;
    type Signature = Mark;
    type PublicKey = Address;
    type PrivateKey = ();

    fn decode_signature(_: &[u8]) -> Result<Mark, &'static str> {
        Err("signatures are decoded with their messages")
    }

    fn encode_signature(signature: &Mark) -> Vec<u8> {
        signature.signature.clone()
    }

    fn decode_public_key(_: &[u8]) -> Result<Address, &'static str> {
        Err("keys come from the charter")
    }

    fn encode_public_key(key: &Address) -> Vec<u8> {
        key.0.as_bytes().to_vec()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealer(pub(super) Address);

impl bft::Validator<Heights> for Sealer {
    fn address(&self) -> &Address {
        &self.0
    }

    fn public_key(&self) -> &Address {
        &self.0
    }

    fn voting_power(&self) -> u64 {
        1
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealers(pub(super) Vec<Sealer>);

impl bft::ValidatorSet<Heights> for Sealers {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.0.len() as u64
    }

    fn get_by_address(&self, address: &Address) -> Option<&Sealer> {
        self.0.iter().find(|sealer| sealer.0 == *address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Sealer> {
        self.0.get(index)
    }
}

impl bft::Value for Value {
    type Id = Value;

    fn id(&self) -> Value {
        *self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) height: Height,
    pub(super) view: Round,
    pub(super) value: Value,
    pub(super) earlier: Round,
    pub(super) leader: Address,
}

impl bft::Proposal<Heights> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.view
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.earlier
    }

    fn validator_address(&self) -> &Address {
        &self.leader
    }
}

/// Proposals travel whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoPart;

impl bft::ProposalPart<Heights> for NoPart {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ballotted {
    pub(super) height: Height,
    pub(super) view: Round,
    pub(super) value: NilOrVal<Value>,
    pub(super) stage: VoteType,
    pub(super) sealer: Address,
}

impl bft::Vote<Heights> for Ballotted {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.view
    }

    fn value(&self) -> &NilOrVal<Value> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Value> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.stage
    }

    fn validator_address(&self) -> &Address {
        &self.sealer
    }

    fn extension(&self) -> Option<&bft::SignedExtension<Heights>> {
        None
    }

    fn take_extension(&mut self) -> Option<bft::SignedExtension<Heights>> {
        None
    }

    fn extend(self, _: bft::SignedExtension<Heights>) -> Self {
        self
    }
}

impl bft::Context for Heights {
    type Address = Address;
    type Height = Height;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Sealer;
    type ValidatorSet = Sealers;
    type Timeouts = bft::LinearTimeouts;
    type Value = Value;
    type Vote = Ballotted;
    type Extension = ();
    type SigningScheme = Carried;

    /// Never asked: each view's proposer is given to the driver.
    fn select_proposer<'a>(&self, sealers: &'a Sealers, _: Height, _: Round) -> &'a Sealer {
        &sealers.0[0]
    }

    fn new_proposal(&self, height: Height, view: Round, value: Value, earlier: Round, leader: Address) -> Proposal {
        Proposal { height, view, value, earlier, leader }
    }

    fn new_prevote(&self, height: Height, view: Round, value: NilOrVal<Value>, sealer: Address) -> Ballotted {
        Ballotted { height, view, value, stage: VoteType::Prevote, sealer }
    }

    fn new_precommit(&self, height: Height, view: Round, value: NilOrVal<Value>, sealer: Address) -> Ballotted {
        Ballotted { height, view, value, stage: VoteType::Precommit, sealer }
    }
}
