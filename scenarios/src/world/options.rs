//! What a world is made of, as it is said on the command line.

use super::liars::{self, Kind};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    admission::Admission,
    charter::{Alignment, Anchors, Charter, CharterError, Closing, Readout, Task},
    limits,
};
use std::str::FromStr;

/// Why there is no such world.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// An option that can't be.
    #[error("{option} is '{value}', but must be {must}")]
    Option {
        /// Which one.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        must: String,
    },
    /// Options that make no charter.
    #[error(transparent)]
    Charter(#[from] CharterError),
}

fn refuse(option: &'static str, value: impl ToString, must: impl Into<String>) -> WorldError {
    WorldError::Option { option, value: value.to_string(), must: must.into() }
}

/// A world: how many nodes, what befalls them, and the seed of it all.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes.
    pub nodes: usize,
    /// Nodes beside them, which the charter does not name: they come while the network runs, and enrol.
    pub newcomers: usize,
    /// Whether anyone may join; else only whom the admin has invited.
    pub open: bool,
    /// Rounds to run.
    pub rounds: u64,
    /// The same seed, the same world.
    pub seed: u64,
    /// The share of parcels lost between two nodes, each by itself.
    pub loss: f64,
    /// How long a parcel takes from one node to the next.
    pub delay: Delay,
    /// When the network falls apart, and into what.
    pub partition: Option<Partition>,
    /// The chance that a node crashes, per deadline. It comes back within the next.
    pub crash: f64,
    /// The chance that a node goes away, per deadline. It comes back after some of them.
    pub churn: f64,
    /// Who lies, and how.
    pub liars: Vec<Lie>,
    /// Clocks are off by up to so many seconds either way.
    pub skew_s: f64,
    /// Who closes rounds.
    pub closing: Closing,
    /// Updates in a round.
    pub contributors: u16,
    /// The first nodes seal the rounds; as many as there are nodes, at most.
    pub sealers: usize,
    /// The first nodes found the network; the sealers, at least.
    pub founders: usize,
    /// Whether peers answer each other's pulls.
    pub anti_entropy: bool,
    /// Whether the network begins with a reference and class statistics, or with nothing.
    pub genesis: bool,
    /// A round's deadline.
    pub deadline_ms: u64,
    /// Threads to compute with. They change the time it takes, nothing else.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 8,
            newcomers: 0,
            open: false,
            rounds: 10,
            seed: 0,
            loss: 0.0,
            delay: Delay { low_ms: 10, high_ms: 100 },
            partition: None,
            crash: 0.0,
            churn: 0.0,
            liars: Vec::new(),
            skew_s: 0.0,
            closing: Closing::Everyone,
            contributors: limits::CONTRIBUTORS_MAX as u16,
            sealers: 7,
            founders: 0,
            anti_entropy: true,
            genesis: false,
            deadline_ms: 10_000,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Options {
    /// Checks every option against its range.
    ///
    /// # Errors
    /// The first one out of it.
    pub fn check(&self) -> Result<(), WorldError> {
        let most = limits::MEMBERS_MAX;
        if !(1..=most).contains(&self.nodes) {
            return Err(refuse("the number of nodes", self.nodes, format!("from 1 to {most}")));
        }
        if self.newcomers > most - self.nodes {
            return Err(refuse("the number of newcomers", self.newcomers, format!("at most {}", most - self.nodes)));
        }
        if !(1..=100_000).contains(&self.rounds) {
            return Err(refuse("the number of rounds", self.rounds, "from 1 to 100000"));
        }
        let shares = [("the loss", self.loss), ("the crash rate", self.crash), ("the churn rate", self.churn)];
        for (option, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(refuse(option, share, "from 0 to 1, as in 0.2"));
            }
        }
        if !(0.0..=86_400.0).contains(&self.skew_s) {
            return Err(refuse("the clock skew", self.skew_s, "from 0 to 86400 seconds"));
        }
        let liars: f64 = self.liars.iter().map(|lie| lie.share).sum();
        if liars > 1.0 + 1e-9 {
            return Err(refuse("the share of all liars", liars, "at most 1"));
        }
        self.delay.check(&format!("{}..{}", self.delay.low_ms, self.delay.high_ms))?;
        if self.sealers == 0 {
            return Err(refuse("the number of sealers", 0, format!("from 1 to {}", limits::SEALERS_MAX)));
        }
        Ok(())
    }

    /// All nodes; the newcomers are the last.
    pub(super) fn population(&self) -> usize {
        self.nodes + self.newcomers
    }

    /// Who invites newcomers.
    pub(super) fn admin(&self) -> Identity {
        Identity::from_seed(self.seed, "world admin")
    }

    /// The identity of each node.
    pub(super) fn identities(&self) -> Vec<Identity> {
        (0..self.population()).map(|node| Identity::from_seed(self.seed, &format!("world {node}"))).collect()
    }

    /// What the nodes agree on: one small slot, `[1, 1, 4, 4]`, and a readout of two labels.
    pub(super) fn charter(&self, identities: &[Identity]) -> Result<Charter, WorldError> {
        let keys: Vec<_> = identities.iter().take(self.nodes).map(Identity::id).collect();
        let (founders, members) = keys.split_at(self.founders.max(self.sealers).min(keys.len()));
        let anchors = Anchors { digest: Digest::ZERO, count: 12 };
        let mut charter = Charter::new(
            "world",
            founders.to_vec(),
            Task::ImageClassification { labels: vec!["no".into(), "yes".into()] },
            anchors,
        );
        charter.members = members.to_vec();
        charter.admission = match (self.open, self.newcomers) {
            (true, _) => Admission::Open,
            (false, 0) => Admission::Allowlist,
            (false, _) => Admission::Invited { admins: vec![self.admin().id()] },
        };
        charter.sealers = founders.iter().take(self.sealers).copied().collect();
        let adapter = &mut charter.adapter;
        (adapter.slots, adapter.branches, adapter.rank, adapter.readout_rank) = (1, 1, 4, 2);
        if !self.genesis {
            (adapter.alignment, adapter.readout) = (Alignment::Random, Readout::Trained);
        }
        let rounds = &mut charter.rounds;
        (rounds.total, rounds.deadline_ms, rounds.closing) = (self.rounds, self.deadline_ms, self.closing);
        rounds.contributors = self.contributors;
        // More than two thirds of those who contribute.
        rounds.quorum = self.contributors.min(self.nodes as u16) * 2 / 3 + 1;
        charter.check()?;
        Ok(charter)
    }

    /// Reads who closes rounds.
    ///
    /// # Errors
    /// Neither `everyone` nor `leader`.
    pub fn closing(text: &str) -> Result<Closing, WorldError> {
        match text {
            "everyone" => Ok(Closing::Everyone),
            "leader" => Ok(Closing::Leader),
            _ => Err(refuse("the closing mode", text, "everyone or leader")),
        }
    }
}

/// How long a parcel takes from one node to the next: anything from `low_ms` to `high_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// At least so long.
    pub low_ms: u64,
    /// At most so long.
    pub high_ms: u64,
}

impl Delay {
    /// What `text` says, or that it can't be.
    fn check(self, text: &str) -> Result<Self, WorldError> {
        let fits = self.low_ms >= 1 && self.low_ms <= self.high_ms && self.high_ms <= 60_000;
        let must = "LO..HI in whole ms, with 1 <= LO <= HI <= 60000, as in 10..100";
        if fits { Ok(self) } else { Err(refuse("the delay", text, must)) }
    }
}

impl FromStr for Delay {
    type Err = WorldError;

    fn from_str(text: &str) -> Result<Self, WorldError> {
        let number = |text: &str| text.parse().unwrap_or(0);
        let (low, high) = text.split_once("..").unwrap_or_default();
        Self { low_ms: number(low), high_ms: number(high) }.check(text)
    }
}

/// A time in which the network is in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// When it falls apart, in deadlines from the start.
    pub from: f64,
    /// When it is whole again.
    pub to: f64,
    /// The parts' shares of the nodes.
    pub parts: Vec<f64>,
}

impl FromStr for Partition {
    type Err = WorldError;

    fn from_str(text: &str) -> Result<Self, WorldError> {
        let wrong = || {
            let must = "FROM..TO:PART|PART, FROM and TO in deadlines, FROM < TO, the parts adding up to 1, as in 10..16:0.5|0.5";
            refuse("the partition", text, must)
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| (0.0..1e6).contains(n)).ok_or_else(wrong);
        let (time, parts) = text.split_once(':').ok_or_else(wrong)?;
        let (from, to) = time.split_once("..").ok_or_else(wrong)?;
        let parts = parts.split('|').map(number).collect::<Result<Vec<_>, _>>()?;
        let partition = Self { from: number(from)?, to: number(to)?, parts };
        let sum: f64 = partition.parts.iter().sum();
        let fits = partition.from < partition.to && partition.parts.len() >= 2 && (sum - 1.0).abs() < 1e-6;
        if fits { Ok(partition) } else { Err(wrong()) }
    }
}

/// A share of the nodes that lie in one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lie {
    /// How.
    pub kind: Kind,
    /// How many of all nodes, from 0 to 1. Of the sealers no more lie than seals can bear.
    pub share: f64,
}

impl FromStr for Lie {
    type Err = WorldError;

    fn from_str(text: &str) -> Result<Self, WorldError> {
        let wrong = || {
            let kinds: Vec<_> = liars::KINDS.iter().map(|(name, ..)| *name).collect();
            let must = format!(
                "KIND:SHARE, as in equivocate:0.1, with a share from 0 to 1 and KIND one of {}",
                kinds.join(", ")
            );
            refuse("the lie", text, must)
        };
        let (name, share) = text.split_once(':').ok_or_else(wrong)?;
        let (_, kind, _) = liars::KINDS.iter().find(|(known, ..)| *known == name).ok_or_else(wrong)?;
        let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)?;
        Ok(Self { kind: *kind, share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        assert_eq!("10..100".parse::<Delay>().unwrap(), Delay { low_ms: 10, high_ms: 100 });
        let partition = Partition { from: 10.0, to: 16.5, parts: vec![0.25, 0.5, 0.25] };
        assert_eq!("10..16.5:0.25|0.5|0.25".parse::<Partition>().unwrap(), partition);
        assert_eq!("sign-flip:0.1".parse::<Lie>().unwrap(), Lie { kind: Kind::SignFlip, share: 0.1 });
        assert_eq!(Options::closing("leader").unwrap(), Closing::Leader);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_to_mend_it() {
        for text in ["", "10", "0..5", "9..5", "1..99999999", "a..b", "1..", "-1..5"] {
            let said = text.parse::<Delay>().unwrap_err().to_string();
            assert!(said.contains(&format!("'{text}'")) && said.contains("as in 10..100"), "{said}");
        }
        for text in
            ["10..16", "16..10:0.5|0.5", "1..2:1", "1..2:0.5|0.6", "x..2:0.5|0.5", "1..NaN:0.5|0.5", "1..2:0.5|-1"]
        {
            let said = text.parse::<Partition>().unwrap_err().to_string();
            assert!(said.contains("as in 10..16:0.5|0.5"), "{said}");
        }
        for text in ["equivocate", "equivocat:0.1", "noise:1.5", "noise:NaN", ":0.1"] {
            let said = text.parse::<Lie>().unwrap_err().to_string();
            assert!(said.contains("as in equivocate:0.1") && said.contains("withhold"), "{said}");
        }
        assert!(Options::closing("nobody").is_err());
        let wrong: [fn(&mut Options); 9] = [
            |options| options.newcomers = 1_000_000,
            |options| options.delay.low_ms = 0,
            |options| options.nodes = 0,
            |options| options.nodes = 1_000_000,
            |options| options.rounds = 0,
            |options| options.loss = f64::NAN,
            |options| options.churn = 1.5,
            |options| options.sealers = 0,
            |options| options.liars = vec!["noise:0.6".parse().unwrap(), "tiny:0.6".parse().unwrap()],
        ];
        for change in wrong {
            let mut options = Options::default();
            change(&mut options);
            assert!(options.check().is_err(), "{options:?}");
        }
        assert!(Options::default().check().is_ok());
    }

    #[test]
    fn the_first_nodes_found_and_seal() {
        let options = Options { nodes: 20, sealers: 4, founders: 6, genesis: true, ..Options::default() };
        let charter = options.charter(&options.identities()).unwrap();
        assert_eq!((charter.founders.len(), charter.members.len(), charter.sealers.len()), (6, 14, 4));
        assert_eq!(charter.rounds.quorum, 14);
        let too_many = Options { nodes: 100, founders: 65, ..Options::default() };
        assert!(matches!(too_many.charter(&too_many.identities()), Err(WorldError::Charter(_))));
    }
}
