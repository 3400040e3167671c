//! Saying and reading messages.

use super::{Content, Envelope, Kind, Message, Opened, Step, Update};
use crate::{
    admission::Admission,
    charter::{Charter, CharterError, NetworkId},
    codec::{self, EncodedGroup, Group},
    enrolment::Enrolment,
    limits,
    manifest::Blob,
    memo::Memo,
    mixture::Layout,
    seal::{Certificate, Vote},
    verdict::Reason,
    wire,
};
use heterotune_crypto::{Digest, Identity, NodeId, Signed};
use std::{collections::BTreeSet, sync::Arc};

/// What stands still while a node talks: its charter, in the forms that messages need.
#[derive(Debug)]
pub struct Context {
    /// The charter.
    pub charter: Charter,
    /// Its layout.
    pub layout: Layout,
    /// Its id.
    pub network: NetworkId,
    /// The charter's founders and members. Others may be enrolled later.
    pub members: BTreeSet<NodeId>,
    /// What verified before, where a process holds many nodes.
    pub(crate) memo: Option<Memo>,
}

impl Context {
    /// The context of a checked charter.
    ///
    /// # Errors
    /// What is wrong with the charter.
    pub fn new(charter: Charter) -> Result<Self, CharterError> {
        charter.check()?;
        let members = charter.founders.iter().chain(&charter.members).copied().collect();
        Ok(Self { layout: Layout::new(&charter), network: charter.id()?, members, memo: None, charter })
    }

    /// The same, with a memory of what verified, for all nodes that share this context.
    #[must_use]
    pub fn with_memo(self, memo: Memo) -> Self {
        Self { memo: Some(memo), ..self }
    }

    /// What a signature covers beside the kind and the payload.
    fn signing_context(&self, genesis: &Digest, step: Step, author: &NodeId, sequence: u64) -> Vec<u8> {
        let mut bytes = limits::PROTOCOL_VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.network.0.as_bytes());
        bytes.extend_from_slice(genesis.as_bytes());
        bytes.extend_from_slice(&step.height().to_le_bytes());
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
        step: Step,
        sequence: u64,
        content: Content,
    ) -> Result<Message, wire::WireError> {
        let kind = content.kind();
        let (payload, body) = self.encode(&content)?;
        let context = self.signing_context(&genesis, step, &identity.id(), sequence);
        let signed = Signed::sign(identity, kind.tag(), &context, content, payload);
        let envelope = Envelope {
            version: limits::PROTOCOL_VERSION,
            network: self.network,
            genesis,
            kind,
            step,
            author: identity.id(),
            sequence,
            payload: signed.payload().to_vec(),
            signature: *signed.signature(),
        };
        let bytes = wire::encode(&envelope, limits::MESSAGE_BYTES_MAX)?;
        Ok(Message { body, ..Message::new(&envelope, signed, bytes) })
    }

    /// The payload, and what it only announces.
    fn encode(&self, content: &Content) -> Result<(Vec<u8>, Option<Arc<Blob>>), wire::WireError> {
        let most = limits::PAYLOAD_BYTES_MAX;
        let payload = match content {
            Content::Update(groups) => return self.encode_update(groups),
            Content::Announced(manifest) => wire::encode(&Update::Announced(manifest.clone()), most),
            Content::Kernels(kernels) => wire::encode(kernels, most),
            Content::Statistics(statistics) => wire::encode(statistics, most),
            Content::Enrolment(enrolment) => wire::encode(enrolment, limits::ENROLMENT_BYTES_MAX),
            Content::Head(head) => wire::encode(head, most),
            Content::List(list) => wire::encode(list, most),
            Content::Proposal(proposal) => wire::encode(proposal, most),
            Content::Vote(vote) => wire::encode(vote, most),
        };
        Ok((payload?, None))
    }

    fn encode_update(&self, groups: &[Group]) -> Result<(Vec<u8>, Option<Arc<Blob>>), wire::WireError> {
        let groups = groups.iter().map(|group| codec::encode(&self.charter.codec, group)).collect();
        let bytes = wire::encode(&Update::Groups(groups), limits::UPDATE_BYTES_MAX)?;
        if bytes.len() <= limits::PAYLOAD_BYTES_MAX {
            return Ok((bytes, None));
        }
        let body = Blob::new(bytes);
        let payload = wire::encode(&Update::Announced(body.manifest().clone()), limits::PAYLOAD_BYTES_MAX)?;
        Ok((payload, Some(Arc::new(body))))
    }

    /// Reads an envelope and checks what costs little: size, form, version, network, that the author may be a member,
    /// and that the kind fits the step.
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
        let Envelope { kind, step, author, .. } = envelope;
        let named = self.members.contains(&author);
        if !named && self.charter.admission == Admission::Allowlist {
            return Err(Reason::NotAMember { author });
        }
        if !kind.belongs_to(step) {
            return Err(Reason::WrongStep { kind, step });
        }
        if kind == Kind::Enrolment {
            let (bytes, most) = (envelope.payload.len(), limits::ENROLMENT_BYTES_MAX);
            if named {
                return Err(Reason::Enrolled { author });
            }
            if bytes > most {
                return Err(wire::WireError::TooLong { bytes, most }.into());
            }
        }
        let by_sealers = matches!(kind, Kind::List | Kind::Proposal | Kind::Vote);
        if by_sealers && !self.charter.sealers.contains(&envelope.author) {
            return Err(Reason::NotASealer { author: envelope.author });
        }
        Ok(envelope)
    }

    /// Verifies an opened envelope's signature, and only then decodes its payload and checks its shape and range.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, mut envelope: Envelope, bytes: &[u8]) -> Result<Message, Reason> {
        let Envelope { kind, step, author, signature, .. } = envelope;
        let context = self.signing_context(&envelope.genesis, step, &author, envelope.sequence);
        let payload = std::mem::take(&mut envelope.payload);
        let decode = |payload: &[u8]| self.decode(kind, &author, payload);
        let signed = Signed::verify(author, kind.tag(), &context, payload, signature, decode)?;
        Ok(Message::new(&envelope, signed, bytes.to_vec()))
    }

    /// [`Context::open`], but for bytes that verified before.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_or_recall(&self, bytes: &[u8]) -> Result<Opened, Reason> {
        match self.memo.as_ref().and_then(|memo| memo.message(bytes)) {
            Some(message) => Ok(Opened::Known(message)),
            None => Ok(Opened::New(Box::new(self.open(bytes)?))),
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
                let message = Arc::new(self.verify(*envelope, bytes)?);
                self.memo.iter().for_each(|memo| memo.keep(&message));
                Ok(message)
            }
        }
    }

    /// The message that `announcement` announces, whose body's bytes these are.
    ///
    /// # Errors
    /// Other bytes, or such as no update has.
    pub fn complete(&self, announcement: &Message, bytes: Vec<u8>) -> Result<Message, Reason> {
        let body = Blob::new(bytes);
        if announcement.announces() != Some(body.manifest()) {
            return Err(Reason::OtherBody);
        }
        let Update::Groups(groups) = wire::decode(body.bytes(), self.update_bytes_max())? else {
            return Err(Reason::OtherBody);
        };
        let signed = announcement.signed.clone().with(Content::Update(self.decode_groups(&groups)?));
        Ok(Message { signed, body: Some(Arc::new(body)), ..announcement.clone() })
    }

    fn decode_groups(&self, groups: &[EncodedGroup]) -> Result<Vec<Group>, Reason> {
        Ok(codec::decode(&self.charter.codec, &self.layout, groups)?)
    }

    /// The largest update of this layout: its values, and what CBOR adds to each group.
    fn update_bytes_max(&self) -> usize {
        let groups = self.layout.groups().len();
        codec::width(self.charter.codec.kind) * self.layout.values() + 64 * (groups + 1)
    }

    /// The largest state of this layout: a CBOR integer of 9 bytes a value, and what does not grow with it.
    pub(crate) fn state_bytes_max(&self) -> usize {
        limits::STATE_BYTES_MAX - 9 * (limits::MIXTURE_VALUES_MAX - self.layout.values())
    }

    fn decode(&self, kind: Kind, author: &NodeId, payload: &[u8]) -> Result<Content, Reason> {
        let most = limits::PAYLOAD_BYTES_MAX;
        Ok(match kind {
            Kind::Kernels => {
                let kernels: crate::genesis::Kernels = wire::decode(payload, most)?;
                kernels.check(&self.charter)?;
                Content::Kernels(kernels)
            }
            Kind::Statistics => {
                let statistics: crate::genesis::Statistics = wire::decode(payload, most)?;
                statistics.check(&self.charter)?;
                Content::Statistics(statistics)
            }
            Kind::Update => match wire::decode(payload, most)? {
                Update::Groups(groups) => Content::Update(self.decode_groups(&groups)?),
                Update::Announced(manifest) => {
                    manifest.check(limits::PAYLOAD_BYTES_MAX + 1, self.update_bytes_max())?;
                    Content::Announced(manifest)
                }
            },
            Kind::Enrolment => {
                let enrolment: Enrolment = wire::decode(payload, limits::ENROLMENT_BYTES_MAX)?;
                self.charter.admission.admits(&self.network, author, enrolment.membership.as_ref())?;
                Content::Enrolment(enrolment)
            }
            Kind::Head => Content::Head(wire::decode(payload, most)?),
            Kind::List => {
                let list: crate::seal::List = wire::decode(payload, most)?;
                list.check()?;
                Content::List(list)
            }
            Kind::Proposal => {
                let proposal: crate::seal::Proposal = wire::decode(payload, most)?;
                proposal.check()?;
                Content::Proposal(proposal)
            }
            Kind::Vote => {
                let vote: Vote = wire::decode(payload, most)?;
                vote.check()?;
                Content::Vote(vote)
            }
        })
    }

    /// Whether a certificate holds the votes of a quorum of sealers for what it says, in `step` under `genesis`.
    pub fn certifies(&self, genesis: &Digest, step: Step, certificate: &Certificate) -> bool {
        let vote = Vote { view: certificate.view, stage: certificate.stage, value: Some(certificate.value) };
        let Ok(payload) = wire::encode(&vote, limits::PAYLOAD_BYTES_MAX) else { return false };
        let sealers: BTreeSet<_> = certificate.ballots.iter().map(|ballot| ballot.sealer).collect();
        let quorum = crate::seal::quorum(self.charter.sealers.len());
        if sealers.len() != certificate.ballots.len() || sealers.len() < quorum {
            return false;
        }
        certificate.ballots.iter().all(|ballot| {
            let context = self.signing_context(genesis, step, &ballot.sealer, ballot.sequence);
            self.charter.sealers.contains(&ballot.sealer)
                && Memo::once(self.memo.as_ref(), &[&context, &payload, &ballot.signature], || {
                    let decode = |_: &[u8]| Ok::<_, Reason>(());
                    let tag = Kind::Vote.tag();
                    Signed::verify(ballot.sealer, tag, &context, payload.clone(), ballot.signature, decode).is_ok()
                })
        })
    }
}
