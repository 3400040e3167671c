//! The range of every setting.

use super::{Alignment, Charter, CharterError, Readout, Task};
use crate::{admission::Admission, limits};
use std::collections::BTreeSet;

impl Charter {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), CharterError> {
        let within = |field, value: i64, low: i64, high: i64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(CharterError::Range { field, value: value.to_string(), must: format!("from {low} to {high}") })
        };
        let refuse = |field, value: String, must: &str| Err(CharterError::Range { field, value, must: must.into() });
        let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);

        within("protocol", self.protocol.into(), limits::PROTOCOL_VERSION.into(), limits::PROTOCOL_VERSION.into())?;
        within("the length of name", size(self.name.len()), 1, size(limits::NAME_BYTES_MAX))?;
        within("the number of founders", size(self.founders.len()), 1, size(limits::FOUNDERS_MAX))?;
        within(
            "the number of founders and members",
            size(self.founders.len() + self.members.len()),
            1,
            size(limits::MEMBERS_MAX),
        )?;
        let mut keys = BTreeSet::new();
        for key in self.founders.iter().chain(&self.members) {
            if !keys.insert(key) {
                return refuse("founders or members", format!("{key} twice"), "a list of different keys");
            }
            if !key.is_valid() {
                return refuse("founders or members", key.to_string(), "a list of ed25519 public keys");
            }
        }
        if let Admission::Invited { admins } = &self.admission {
            within("the number of admission.admins", size(admins.len()), 1, size(limits::ADMINS_MAX))?;
            if admins.iter().collect::<BTreeSet<_>>().len() != admins.len() {
                return refuse("admission.admins", "a list with the same key twice".into(), "a list of different keys");
            }
            if let Some(key) = admins.iter().find(|key| !key.is_valid()) {
                return refuse("admission.admins", key.to_string(), "a list of ed25519 public keys");
            }
        }
        within("the number of sealers", size(self.sealers.len()), 1, size(limits::SEALERS_MAX))?;
        if self.sealers.iter().collect::<BTreeSet<_>>().len() != self.sealers.len() {
            return refuse("sealers", "a list with the same key twice".into(), "a list of different keys");
        }
        if let Some(stranger) = self.sealers.iter().find(|sealer| !self.founders.contains(sealer)) {
            return refuse("sealers", stranger.to_string(), "a list of founders");
        }
        self.task.check()?;
        within("anchors.count", self.anchors.count.into(), size(limits::ANCHORS_MIN), size(limits::ANCHORS_MAX))?;

        let adapter = &self.adapter;
        let anchors = i64::from(self.anchors.count);
        within("adapter.slots", adapter.slots.into(), 1, size(limits::SLOTS_MAX))?;
        within("adapter.branches", adapter.branches.into(), 0, size(limits::BRANCHES_MAX))?;
        // The anchors span the spaces, unless those are drawn.
        let spanned = if adapter.alignment == Alignment::Random { i64::MAX } else { anchors - 1 };
        within("adapter.rank", adapter.rank.into(), 1, size(limits::RANK_MAX).min(spanned))?;
        within(
            "adapter.readout_rank",
            adapter.readout_rank.into(),
            1,
            size(limits::READOUT_RANK_MAX).min(anchors - 1),
        )?;
        if adapter.alignment == Alignment::Random && adapter.readout == Readout::Statistics {
            return refuse(
                "adapter.readout",
                "statistics".into(),
                "trained where adapter.alignment is random: class means of unaligned spaces have nothing to do with each other",
            );
        }
        if matches!(self.task, Task::CausalLm { .. }) && adapter.readout == Readout::Statistics {
            return refuse(
                "adapter.readout",
                "statistics".into(),
                "trained where the task is causal-lm: tokens have no class statistics",
            );
        }
        let values = crate::mixture::Layout::new(self).values();
        within("the number of shared values", size(values), 1, size(limits::MIXTURE_VALUES_MAX))?;
        let spaces = usize::from(adapter.slots);
        let kernel_bytes = spaces * usize::from(self.anchors.count) * (usize::from(self.anchors.count) + 1);
        within(
            "the bytes of the anchor kernels (from adapter.slots and anchors.count)",
            size(kernel_bytes),
            0,
            size(limits::PAYLOAD_BYTES_MAX) - 512,
        )?;

        if adapter.readout == Readout::Statistics {
            let bytes = crate::genesis::Statistics::bytes_max(self);
            within(
                "the bytes of the class statistics (from adapter.readout_rank and labels)",
                size(bytes),
                0,
                size(limits::PAYLOAD_BYTES_MAX),
            )?;
        }

        within("fusion.max_liars_ppm", self.fusion.max_liars_ppm.into(), 0, 500_000)?;
        let codec = &self.codec;
        within(
            "codec.exponent_min",
            codec.exponent_min.into(),
            limits::EXPONENT_LOWEST.into(),
            limits::EXPONENT_HIGHEST.into(),
        )?;
        let exponent_highest = limits::EXPONENT_HIGHEST.min(codec.exponent_min + limits::EXPONENT_RANGE_MAX);
        within("codec.exponent_max", codec.exponent_max.into(), codec.exponent_min.into(), exponent_highest.into())?;
        within("rounds.contributors", self.rounds.contributors.into(), 1, size(limits::CONTRIBUTORS_MAX))?;
        let contributors = (self.founders.len() + self.members.len()).min(self.rounds.contributors.into());
        within("rounds.quorum", self.rounds.quorum.into(), 1, size(contributors))?;
        within(
            "rounds.deadline_ms",
            i64::try_from(self.rounds.deadline_ms).unwrap_or(i64::MAX),
            100,
            7 * 24 * 3_600_000,
        )?;
        within("rounds.horizon", self.rounds.horizon.into(), 1, limits::HORIZON_MAX as i64)?;
        within(
            "the bytes of the updates that nodes hold (from the shared values, codec.kind, rounds.contributors and rounds.horizon)",
            i64::try_from(self.updates_bytes()).unwrap_or(i64::MAX),
            0,
            limits::UPDATES_BYTES_MAX as i64,
        )
    }
}

impl Task {
    /// What a task must be, as [`Charter::check`] says it.
    fn check(&self) -> Result<(), CharterError> {
        let within = |field, value: usize, low: usize, high: usize| match (low..=high).contains(&value) {
            true => Ok(()),
            false => {
                Err(CharterError::Range { field, value: value.to_string(), must: format!("from {low} to {high}") })
            }
        };
        let twice = |field, what: &str| {
            let value = format!("a list with the same {what} twice");
            Err(CharterError::Range { field, value, must: format!("a list of different {what}s") })
        };
        match self {
            Self::TextClassification { labels } | Self::ImageClassification { labels } => {
                within("the number of task.labels", labels.len(), 2, limits::LABELS_MAX)?;
                for label in labels {
                    within("the length of a label", label.len(), 1, limits::NAME_BYTES_MAX)?;
                }
                if labels.iter().collect::<BTreeSet<_>>().len() != labels.len() {
                    return twice("task.labels", "label");
                }
            }
            Self::CausalLm { vocabularies } => {
                within("the number of task.vocabularies", vocabularies.len(), 0, limits::VOCABULARIES_MAX)?;
                for vocabulary in vocabularies {
                    within("tokens of a vocabulary", vocabulary.tokens as usize, 2, limits::MIXTURE_VALUES_MAX)?;
                }
                if vocabularies.iter().map(|v| v.tokenizer).collect::<BTreeSet<_>>().len() != vocabularies.len() {
                    return twice("task.vocabularies", "tokenizer");
                }
            }
        }
        Ok(())
    }
}
