//! Snapshots: sealed states, for whoever is too far behind to come step by step.

use super::{Checkpoint, Event, Now, Output, State, enrol::tell_enrolled, state::Known};
use crate::{
    limits,
    message::{Snapshot, StateBytes, Step},
    seal::Seal,
    verdict::Reason,
    wire,
};
use heterotune_crypto::NodeId;
use serde_bytes::ByteBuf;
use std::sync::Arc;

impl State {
    /// The newest sealed state; of large ones, for a while, the one that others are fetching.
    pub(super) fn snapshot(&mut self, now: Now) -> Option<Snapshot> {
        let (_, seal) = self.seals.last_key_value().filter(|(step, _)| step.round() > 0)?;
        let state = self.sealed()?;
        let encode = || wire::encode(&**state, limits::STATE_BYTES_MAX).ok();
        // What always fits is not kept; what may not is not encoded for everyone who asks.
        if self.context.state_bytes_max() <= limits::STATE_INLINE_BYTES_MAX {
            return Some(Snapshot { seal: (**seal).clone(), state: StateBytes::Here(ByteBuf::from(encode()?)) });
        }
        let (seal, state) = (seal.clone(), state.clone());
        let encode = || wire::encode(&*state, limits::STATE_BYTES_MAX).ok();
        let (seal, blob) = self.fetches.offer(&seal, now, encode)?;
        let state = match blob.bytes().len() <= limits::STATE_INLINE_BYTES_MAX {
            true => StateBytes::Here(ByteBuf::from(blob.bytes())),
            false => StateBytes::Announced(blob.manifest().clone()),
        };
        Some(Snapshot { seal: (**seal).clone(), state })
    }

    /// Takes a sealed state from a peer: any peer's, since the sealers' votes vouch for it.
    pub(super) fn take_snapshot(
        &mut self,
        from: NodeId,
        snapshot: &Snapshot,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<bool, Reason> {
        let Snapshot { seal, state } = snapshot;
        let (Step::Round(_), Some(genesis)) = (seal.step, self.genesis) else { return Ok(false) };
        if seal.step <= self.unsealed || self.is_beyond_the_end(seal.step) {
            return Ok(false);
        }
        seal.check()?;
        if !self.context.certifies(&genesis, seal.step, &seal.certificate) {
            return Err(Reason::Seal { what: "a certificate that does not verify" });
        }
        match state {
            StateBytes::Here(bytes) => self.take_state(from, seal, bytes, now, out),
            StateBytes::Announced(manifest) => self.fetch_state(from, seal.clone(), manifest.clone(), now, out),
        }
    }

    /// Takes the state behind a seal that verified.
    pub(super) fn take_state(
        &mut self,
        from: NodeId,
        seal: &Seal,
        state: &[u8],
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<bool, Reason> {
        let (Step::Round(round), Some(genesis)) = (seal.step, self.genesis) else { return Ok(false) };
        if seal.step <= self.unsealed {
            return Ok(false);
        }
        let state: Checkpoint = wire::decode(state, self.context.state_bytes_max())?;
        let digest = state.digest();
        // As on the disk: what would not be found again must not be taken.
        let fits = Some(state.round) == round.checked_add(1)
            && state.genesis == genesis
            && state.mixture.fits(&self.context.layout);
        if digest != seal.value().state || !fits {
            return Err(Reason::Seal { what: "a snapshot of another state" });
        }
        let (state, seal) = (Arc::new(state), Arc::new(seal.clone()));
        let before = self.sealed().cloned();
        self.states = [(state.round, Known { state: state.clone(), digest })].into();
        self.unsealed = seal.step.next();
        self.seals.insert(seal.step, seal.clone());
        self.sealing = Default::default();
        self.dirty = None;
        self.trim();
        out.push(Output::Tell(Event::Snapshot { round, from }));
        let (view, updates, conflicts) = (seal.certificate.view, seal.ids.len(), Vec::new());
        out.push(Output::Tell(Event::Sealed { round, view, updates, conflicts, state: digest }));
        before.iter().for_each(|before| tell_enrolled(before, &state, out));
        out.push(Output::Checkpoint(state));
        out.push(Output::Seal { seal, forget_before: self.first_kept() });
        self.greet(now, out);
        if self.is_finished() {
            self.finish(now, out);
        } else {
            self.enter(self.unsealed, now, out);
        }
        Ok(true)
    }
}
