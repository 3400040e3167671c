//! Seven sealers on hosts of their own, of whom five seal: one lies throughout, hosts are cut off, die and come back,
//! and nobody ever holds another seal than the others.

mod common;
#[allow(dead_code, reason = "it plays more elsewhere")]
#[path = "hostile/members.rs"]
mod members;

use common::{
    inputs::{backbone, digits},
    lab::Lab,
    process::{Node, events, has, heterotune, wait_for},
};
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    charter::{Charter, Closing, Task},
    message::{Context, Message, Step},
};
use members::Member;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The honest sealers, each a process on a host of its own. The seventh is the test's.
const HONEST: usize = 6;

const BACKBONES: [&str; HONEST] = ["vit-d32-l2", "vit-d48-l3", "vit-d64-l4", "vit-d32-l4", "vit-d64-l3", "vit-d96-l2"];

struct Network {
    lab: Lab,
    home: PathBuf,
    nodes: Vec<Node>,
}

impl Network {
    fn start(lab: Lab, home: &Path, closing: Closing) -> (Self, Arc<Context>, NodeId) {
        let key = |host: usize| {
            let key = heterotune().arg("init").arg("--state").arg(home.join(format!("state-{host}"))).output().unwrap();
            String::from_utf8(key.stdout).unwrap().trim().parse::<NodeId>().unwrap()
        };
        let mut founders: Vec<_> = (0..HONEST).map(key).collect();
        let first = founders[0];
        founders.push(Identity::from_seed(1, "liar").id());
        let rows = |host: usize| 40 * host..40 * (host + 1);
        let data = |host| digits(&home.join(format!("data-{host}")), rows(host), 300..330, 400..430);
        let anchors: Vec<_> = (0..HONEST).map(data).collect();
        let labels = (0..10).map(|label| label.to_string()).collect();
        let mut charter = Charter::new("seven", founders, Task::ImageClassification { labels }, anchors[0].clone());
        (charter.adapter.slots, charter.adapter.branches) = (1, 2);
        (charter.adapter.rank, charter.adapter.readout_rank) = (4, 8);
        let rounds = &mut charter.rounds;
        (rounds.total, rounds.deadline_ms, rounds.closing) = (0, 3_000, closing);
        fs::write(home.join("charter.toml"), toml::to_string(&charter).unwrap()).unwrap();
        let mut network = Self { lab, home: home.into(), nodes: Vec::new() };
        network.nodes = (0..HONEST).map(|host| network.run(host)).collect();
        (network, Arc::new(Context::new(charter).unwrap()), first)
    }

    fn run(&self, host: usize) -> Node {
        let command = self.lab.on(host, Path::new(heterotune().get_program()));
        let peers = (0..HONEST).filter(|other| *other != host).map(|other| self.multiaddr(other));
        Node::start_with(command, &self.home.join(format!("state-{host}")), |command| {
            command.arg("--charter").arg(self.home.join("charter.toml"));
            command.arg("--data").arg(self.home.join(format!("data-{host}")));
            command.arg("--backbone").arg(backbone(BACKBONES[host])).args(["--listen", &self.multiaddr(host)]);
            command.args(peers.flat_map(|peer| ["--peer".into(), peer])).args(["--threads", "1", "--steps", "1"]);
        })
    }

    fn multiaddr(&self, host: usize) -> String {
        format!("/ip4/{}/tcp/4001", self.lab.address(host))
    }

    /// The seals that a node has told of: the state of each round.
    fn seals(&self, host: usize) -> BTreeMap<u64, String> {
        let events = events(&self.nodes[host].state);
        let sealed = events.iter().filter(|event| has(event, "sealed", None));
        sealed.map(|event| (event["round"].as_u64().unwrap(), event["state"].as_str().unwrap().into())).collect()
    }

    fn sealed(&self, host: usize) -> u64 {
        self.seals(host).last_key_value().map_or(0, |(round, _)| *round)
    }

    fn furthest(&self) -> u64 {
        (0..HONEST).map(|host| self.sealed(host)).max().unwrap()
    }

    /// Waits until all of these hosts have sealed a round.
    fn wait_for(&mut self, hosts: &[usize], round: u64, what: &str) {
        for host in hosts {
            wait_for(&format!("round {round} sealed at host {host} ({what})"), || {
                let ended = self.nodes[*host].process.ended();
                assert!(ended.is_none(), "host {host} ended: {ended:?}");
                (self.sealed(*host) >= round).then_some(())
            });
        }
    }

    /// How many deadlines have passed at a host without contributors, or without a seal.
    fn deadlines_missed(&self, host: usize) -> usize {
        let missed = |event: &&Value| has(event, "deadline_missed", None) || has(event, "seal_overdue", None);
        events(&self.nodes[host].state).iter().filter(missed).count()
    }
}

/// A member that takes part in genesis, and then says two different things in every round, to everybody; as a sealer
/// it says nothing.
async fn lie(mut liar: Member, context: Arc<Context>, first: NodeId) {
    let genesis = |held: &[Arc<Message>]| held.iter().find(|message| message.author() == first).unwrap().genesis;
    for step in [Step::Kernels, Step::Statistics] {
        let held = liar.pull(first, step).await;
        let content = match step {
            Step::Kernels => members::kernels(&context.charter, 7),
            _ => members::statistics(&context.charter, 7),
        };
        let said = liar.say(genesis(&held), step, content);
        liar.publish(said);
    }
    for round in 1.. {
        let held = liar.pull(first, Step::Round(round)).await;
        for seed in [2 * round, 2 * round + 1] {
            let said = liar.say(genesis(&held), Step::Round(round), members::update(&context, seed));
            liar.publish(said);
        }
    }
}

async fn seven_sealers(subnet: u8, closing: Closing) {
    let Some(lab) = Lab::or_skip(subnet, HONEST, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    let (mut network, context, first) = Network::start(lab, home.path(), closing);
    network.nodes[0].wait_for("listening", |event| has(event, "listening", None));
    let liar = Member::join(Identity::from_seed(1, "liar"), context.clone(), &network.multiaddr(0));
    let lying = tokio::spawn(lie(liar, context, first));
    let all: Vec<usize> = (0..HONEST).collect();
    network.wait_for(&all, 2, "all are there");

    network.lab.cut(1);
    let round = network.furthest() + 3;
    network.wait_for(&[0, 2, 3, 4, 5], round, "one is cut off, five seal");
    assert!(network.sealed(1) < round);
    network.lab.heal(1);
    network.wait_for(&all, round, "it is back");

    network.nodes[2].process.kill();
    let round = network.furthest() + 2;
    network.nodes[2] = network.run(2);
    network.wait_for(&all, round, "one has died and come back");

    for host in [3, 4, 5] {
        network.lab.cut(host);
    }
    // What was under way may still be sealed; after a deadline nothing is.
    let missed = network.deadlines_missed(0);
    wait_for("a deadline", || (network.deadlines_missed(0) > missed).then_some(()));
    // Who is behind may still hear of a seal that others have.
    let stuck = network.furthest();
    wait_for("two more deadlines", || (network.deadlines_missed(0) > missed + 2).then_some(()));
    assert_eq!(stuck, network.furthest(), "three are away");
    for host in [3, 4, 5] {
        network.lab.heal(host);
    }
    let round = network.furthest() + 3;
    network.wait_for(&all, round, "three are back");

    for host in all {
        // Who falls far behind takes a snapshot, and so tells nothing of the rounds before it.
        let (reference, seals) = wait_for("a seal that two hosts tell of", || {
            let (reference, seals) = (network.seals(0), network.seals(host));
            seals.range(round..).any(|(round, _)| reference.contains_key(round)).then_some((reference, seals))
        });
        for (round, state) in &seals {
            assert!(reference.get(round).is_none_or(|sealed| sealed == state), "host {host}, round {round}");
        }
        let told = events(&network.nodes[host].state);
        assert!(!told.iter().any(|event| has(event, "miscomputes", None)), "host {host}");
        let liar = Identity::from_seed(1, "liar").id().to_string();
        let conflicts = told.iter().filter(|event| has(event, "conflict", None));
        assert!(conflicts.clone().all(|event| event["author"] == liar.as_str()), "host {host}");
        assert!(conflicts.count() > 0, "host {host} has not seen the lie");
    }
    lying.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_sealers_agree_whatever_happens_where_everyone_closes() {
    seven_sealers(1, Closing::Everyone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_sealers_agree_whatever_happens_where_a_leader_closes() {
    seven_sealers(2, Closing::Leader).await;
}
