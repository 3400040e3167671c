//! A network of real nodes on the hosts of a lab.

use super::{
    inputs::{backbone, digits},
    lab::Lab,
    process::{Node, events, has, heterotune, wait_for},
};
use heterotune_crypto::NodeId;
use heterotune_protocol::charter::{Charter, Task};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The port that nodes listen on.
const PORT: u16 = 4001;

const BACKBONES: [&str; 6] = ["vit-d32-l2", "vit-d48-l3", "vit-d64-l4", "vit-d32-l4", "vit-d64-l3", "vit-d96-l2"];

/// The hosts, and the nodes on them.
pub(crate) struct Hosts {
    /// What is between them.
    pub(crate) lab: Lab,
    /// The nodes, by host, as far as they have been started.
    pub(crate) nodes: BTreeMap<usize, Node>,
    /// What they run, host by host and round again.
    pub(crate) backbones: &'static [&'static str],
    home: PathBuf,
}

impl Hosts {
    /// So many hosts, each with a key, data and the charter; all are founders. `change` is what the test needs to be
    /// otherwise in the charter.
    pub(crate) fn new(lab: Lab, home: &Path, hosts: usize, change: impl FnOnce(&mut Charter)) -> Self {
        let network = Self { lab, nodes: BTreeMap::new(), backbones: &BACKBONES, home: home.into() };
        let key = |host| -> NodeId {
            let key = heterotune().arg("init").arg("--state").arg(network.state(host)).output().unwrap();
            String::from_utf8(key.stdout).unwrap().lines().next().unwrap().trim().parse().unwrap()
        };
        let founders: Vec<_> = (0..hosts).map(key).collect();
        let rows = |host: usize| 40 * host..40 * (host + 1);
        let data = |host| digits(&network.folder("data", host), rows(host), 500..530, 600..630);
        let anchors: Vec<_> = (0..hosts).map(data).collect();
        let labels = (0..10).map(|label| label.to_string()).collect();
        let mut charter = Charter::new("hosts", founders, Task::ImageClassification { labels }, anchors[0].clone());
        (charter.adapter.slots, charter.adapter.branches) = (1, 2);
        (charter.adapter.rank, charter.adapter.readout_rank) = (4, 8);
        (charter.rounds.total, charter.rounds.deadline_ms) = (0, 3_000);
        change(&mut charter);
        fs::write(home.join("charter.toml"), toml::to_string(&charter).unwrap()).unwrap();
        network
    }

    fn folder(&self, what: &str, host: usize) -> PathBuf {
        self.home.join(format!("{what}-{host}"))
    }

    /// A host's state folder.
    pub(crate) fn state(&self, host: usize) -> PathBuf {
        self.folder("state", host)
    }

    /// Where a host's node listens.
    pub(crate) fn address(&self, host: usize) -> String {
        format!("/ip4/{}/tcp/{PORT}", self.lab.address(host))
    }

    /// Starts a host's node, which knows the addresses of `peers`.
    pub(crate) fn start(&mut self, host: usize, peers: &[usize], flags: &[&str]) {
        let command = self.lab.on(host, Path::new(heterotune().get_program()));
        let node = Node::start_with(command, &self.state(host), |command| {
            command.arg("--charter").arg(self.home.join("charter.toml"));
            self.settings(host, command);
            command.args(peers.iter().flat_map(|peer| ["--peer".into(), self.address(*peer)])).args(flags);
        });
        self.nodes.insert(host, node);
    }

    /// Starts a host's node by an invite.
    pub(crate) fn join(&mut self, host: usize, invite: &str) {
        let mut command = self.lab.on(host, Path::new(heterotune().get_program()));
        command.args(["join", invite, "--state"]).arg(self.state(host));
        self.settings(host, &mut command);
        self.nodes.insert(host, Node::of(command, &self.state(host)));
    }

    fn settings(&self, host: usize, command: &mut Command) {
        command.arg("--data").arg(self.folder("data", host));
        command.arg("--backbone").arg(backbone(self.backbones[host % self.backbones.len()]));
        command.args(["--listen", &format!("/ip4/0.0.0.0/tcp/{PORT}"), "--threads", "1", "--steps", "1"]);
    }

    /// What a host's node has logged, in all its lives.
    pub(crate) fn events(&self, host: usize) -> Vec<Value> {
        events(&self.state(host))
    }

    /// What of each round a host's node says in `field` of its events of one kind.
    pub(crate) fn rounds(&self, host: usize, kind: &str, field: &str) -> BTreeMap<u64, String> {
        let events = self.events(host);
        let told = events.iter().filter(|event| has(event, kind, None));
        told.map(|event| (event["round"].as_u64().unwrap(), event[field].as_str().unwrap().into())).collect()
    }

    /// The last round that a host's node knows to be sealed.
    pub(crate) fn sealed(&self, host: usize) -> u64 {
        self.rounds(host, "sealed", "state").last_key_value().map_or(0, |(round, _)| *round)
    }

    /// The last round that any of these knows to be sealed.
    pub(crate) fn furthest(&self, hosts: &[usize]) -> u64 {
        hosts.iter().map(|host| self.sealed(*host)).max().unwrap_or(0)
    }

    /// Waits until all of these know a round to be sealed.
    pub(crate) fn wait_for_seal(&mut self, hosts: &[usize], round: u64, what: &str) {
        for host in hosts {
            wait_for(&format!("round {round} sealed at host {host} ({what})"), || {
                if let Some(node) = self.nodes.get_mut(host) {
                    let ended = node.process.ended();
                    assert!(ended.is_none(), "host {host} ended: {ended:?}");
                }
                (self.sealed(*host) >= round).then_some(())
            });
        }
    }

    /// How many deadlines have passed at a host without contributors, or without a seal.
    pub(crate) fn deadlines_missed(&self, host: usize) -> usize {
        let missed = |event: &&Value| has(event, "deadline_missed", None) || has(event, "seal_overdue", None);
        self.events(host).iter().filter(missed).count()
    }

    /// Fails unless all of these tell of the same state for each round that more than one tells of.
    pub(crate) fn assert_one_history(&self, hosts: &[usize]) {
        let mut history = BTreeMap::new();
        for host in hosts {
            for (round, state) in self.rounds(*host, "sealed", "state") {
                let first = history.entry(round).or_insert_with(|| state.clone());
                assert_eq!(*first, state, "host {host}, round {round}");
            }
            assert!(!self.events(*host).iter().any(|event| has(event, "miscomputes", None)), "host {host}");
        }
    }
}
