//! How a network begins, or comes back from the disk.

use super::{Checkpoint, Event, Now, Output, State, Work, state::Known};
use crate::{
    charter::{Alignment, Readout},
    genesis::{Reference, Start},
    message::Step,
    mixture::Mixture,
    seal::{Seal, Value},
};
use heterotune_crypto::Digest;
use std::sync::Arc;

fn half(of: &'static str, value: Value) -> Digest {
    Digest::of(of, &[value.set.as_bytes(), value.state.as_bytes()])
}

/// The digest of a starting mixture, by which the second half of genesis is sealed.
pub(super) fn start_digest(start: &Start) -> Digest {
    Mixture { groups: vec![start.readout.clone(), start.bias.clone()] }.digest()
}

impl State {
    pub(super) fn start(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.context.charter.adapter.alignment {
            Alignment::Anchors => self.begin(Step::Kernels, now, out),
            Alignment::Random => {
                out.push(Output::Train(Work::Align(None)));
                self.aligned(Digest::ZERO, now, out);
            }
        }
    }

    fn begin(&mut self, step: Step, now: Now, out: &mut Vec<Output>) {
        self.unsealed = step;
        self.enter(step, now, out);
        self.decide_by_saved();
    }

    /// The first half is sealed.
    pub(super) fn referenced(&mut self, seal: &Seal, reference: Arc<Reference>, now: Now, out: &mut Vec<Output>) {
        self.left_out.extend(&reference.left_out);
        out.push(Output::Train(Work::Align(Some(reference))));
        self.aligned(half("heterotune 2026 genesis, first half", seal.value()), now, out);
    }

    fn aligned(&mut self, first_half: Digest, now: Now, out: &mut Vec<Output>) {
        self.first_half = Some(first_half);
        match self.context.charter.adapter.readout {
            Readout::Statistics => self.begin(Step::Statistics, now, out),
            Readout::Trained => self.found(Mixture::zeros(&self.context.layout), Digest::ZERO, now, out),
        }
    }

    /// The second half is sealed.
    pub(super) fn started(&mut self, seal: &Seal, start: &Start, now: Now, out: &mut Vec<Output>) {
        let mut mixture = Mixture::zeros(&self.context.layout);
        let count = mixture.groups.len();
        for (group, start) in mixture.groups.iter_mut().skip(count - 2).zip([&start.readout, &start.bias]) {
            *group = start.clone();
        }
        self.left_out.extend(&start.left_out);
        self.found(mixture, half("heterotune 2026 genesis, second half", seal.value()), now, out);
    }

    /// Genesis is done: the network has its id and its first mixture.
    fn found(&mut self, mixture: Mixture, second_half: Digest, now: Now, out: &mut Vec<Output>) {
        let first_half = self.first_half.unwrap_or(Digest::ZERO);
        let parts: [&[u8]; 2] = [first_half.as_bytes(), second_half.as_bytes()];
        let genesis = Digest::of("heterotune 2026 genesis", &parts);
        self.genesis = Some(genesis);
        let left_out = std::mem::take(&mut self.left_out);
        out.push(Output::Tell(Event::Genesis { genesis_id: genesis, left_out }));
        self.sync.forget_heads();
        let first = Checkpoint::first(genesis, mixture);
        self.unsealed = Step::Round(1);
        self.states.insert(1, Known { digest: first.digest(), state: Arc::new(first) });
        let open = self.resume();
        self.greet(now, out);
        self.enter(Step::Round(open), now, out);
        if self.is_finished() {
            self.finish(now, out);
        }
        self.decide_by_saved();
    }

    /// Takes up what the disk holds of rounds: the newest sealed state, and the provisional ones that follow from it.
    /// The round to open.
    fn resume(&mut self) -> u64 {
        let (context, genesis) = (self.context.clone(), self.genesis.unwrap_or(Digest::ZERO));
        let saved = std::mem::take(&mut self.saved.checkpoints);
        let fits = |checkpoint: &Checkpoint| {
            checkpoint.genesis == genesis && checkpoint.round > 0 && checkpoint.mixture.fits(&context.layout)
        };
        let mut saved: Vec<_> = saved
            .into_iter()
            .filter(fits)
            .map(|state| Known { digest: state.digest(), state: Arc::new(state) })
            .collect();
        saved.sort_by_key(|known| known.state.round);
        for seal in &self.saved.seals {
            let Step::Round(round) = seal.step else { continue };
            if seal.check().is_ok() && context.certifies(&genesis, seal.step, &seal.certificate) {
                self.seals.insert(seal.step, Arc::new(seal.clone()));
                let after = |known: &&Known| {
                    known.state.round.checked_sub(1) == Some(round) && known.digest == seal.value().state
                };
                if let Some(known) = saved.iter().find(after)
                    && Step::Round(round) >= self.unsealed
                {
                    self.unsealed = Step::Round(known.state.round);
                    self.states = [(known.state.round, known.clone())].into();
                }
            }
        }
        self.seals.retain(|step, _| *step < self.unsealed);
        let mut open = self.unsealed.round();
        if !self.leads() {
            for known in saved {
                let follows = known.state.round == open + 1
                    && known.state.past.first() == self.states.get(&open).map(|known| &known.digest);
                if follows {
                    open += 1;
                    self.states.insert(open, known);
                }
            }
        }
        // A late update may have been kept and not yet folded in when the node stopped: all that can change is folded
        // again, at the next close.
        self.dirty = Some(self.unsealed.round()).filter(|first| *first < open);
        open
    }

    /// A saved seal decides its step without asking anybody.
    fn decide_by_saved(&mut self) {
        let unsealed = self.unsealed;
        let saved = std::mem::take(&mut self.saved.seals);
        let (now, later) = saved.into_iter().partition::<Vec<_>, _>(|seal| seal.step == unsealed);
        self.saved.seals = later.into_iter().filter(|seal| seal.step > unsealed).collect();
        now.into_iter().for_each(|seal| self.take_kept_seal(seal));
    }
}
