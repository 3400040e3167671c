//! A real node among members that send what no honest node would. The test plays these members itself, over real
//! connections, and computes for itself what the valid messages alone come to.

mod common;
#[path = "hostile/forge.rs"]
mod forge;
#[path = "hostile/members.rs"]
mod members;

use common::{
    inputs::{backbone, digits},
    process::{Node, events, has, heterotune},
};
use heterotune_crypto::{Digest, Identity, NodeId};
use heterotune_protocol::{
    charter::{Charter, CodecKind, Task},
    genesis::Start,
    ledger::{Inserted, StepSet},
    message::{Content, Context, Kind, Message, Step},
    mixture::Mixture,
    round::{Checkpoint, Job, Product, RoundSet},
};
use members::Member;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

const ROUNDS: u64 = 4;

/// A node, and four founders beside it that the test plays: two honest, two hostile.
struct Stage {
    node: Node,
    id: NodeId,
    context: Arc<Context>,
    members: Vec<Member>,
    /// What the valid messages so far come to.
    state: Checkpoint,
}

impl Stage {
    /// Begins a network, through both steps of genesis.
    async fn set(home: &Path) -> Self {
        let state = home.join("state");
        let key = heterotune().arg("init").arg("--state").arg(&state).output().unwrap();
        let id: NodeId = String::from_utf8(key.stdout).unwrap().trim().parse().unwrap();
        let anchors = digits(&home.join("data"), 0..30, 30..54, 54..84);
        let identities = ["honest-1", "honest-2", "hostile-1", "hostile-2"].map(|name| Identity::from_seed(1, name));
        let founders = [id].into_iter().chain(identities.iter().map(Identity::id)).collect();
        let labels = (0..10).map(|label| label.to_string()).collect();
        let mut charter = Charter::new("besieged", founders, Task::ImageClassification { labels }, anchors);
        (charter.adapter.slots, charter.adapter.branches) = (1, 2);
        (charter.adapter.rank, charter.adapter.readout_rank) = (4, 8);
        charter.codec.kind = CodecKind::F32;
        (charter.rounds.total, charter.rounds.horizon) = (ROUNDS, 1);
        // The node alone seals: what the others say is judged by it and nobody else.
        charter.sealers = vec![id];
        let context = Arc::new(Context::new(charter).unwrap());
        let file = home.join("charter.toml");
        fs::write(&file, toml::to_string(&context.charter).unwrap()).unwrap();
        let mut node = Node::start(&state, |command| {
            command.arg("--charter").arg(&file).arg("--data").arg(home.join("data"));
            command.arg("--backbone").arg(backbone("vit-d32-l2"));
            command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--threads", "1", "--steps", "1"]);
        });
        let address = node.address();
        let members = identities.map(|identity| Member::join(identity, context.clone(), &address)).into();
        let checkpoint = Checkpoint::first(Digest::ZERO, Mixture::zeros(&context.layout));
        let mut stage = Self { node, id, context, members, state: checkpoint };
        stage.genesis().await;
        stage
    }

    /// Both steps of genesis, with what the members make up.
    async fn genesis(&mut self) {
        let charter = self.context.charter.clone();
        let context = self.context.clone();
        let kernels = self.step(Step::Kernels, |seed, _| members::kernels(&charter, seed)).await;
        let said = kernels.iter().map(|message| match message.signed.value() {
            Content::Kernels(kernels) => (message.author(), kernels.clone()),
            other => panic!("{other:?}"),
        });
        assert!(matches!(Job::Reference(context.clone(), said.collect()).run(1), Product::Reference(_)));
        let statistics = self.step(Step::Statistics, |seed, _| members::statistics(&charter, seed)).await;
        let said = statistics.iter().map(|message| match message.signed.value() {
            Content::Statistics(statistics) => (message.author(), statistics.clone()),
            other => panic!("{other:?}"),
        });
        let Product::Start(start) = Job::Start(context, said.collect()).run(1) else { panic!() };
        let Start { readout, bias, .. } = (*start).clone();
        let groups = &mut self.state.mixture.groups;
        let count = groups.len();
        groups.splice(count - 2.., [readout, bias]);
        let genesis = self.node.wait_for("genesis", |event| has(event, "genesis", None));
        self.state.genesis = genesis["genesis_id"].as_str().unwrap().parse().unwrap();
    }

    /// Lets all members say something valid in a step once the node has; returns what all have said.
    async fn step(&mut self, step: Step, content: impl Fn(u64, &Context) -> Content) -> Vec<Arc<Message>> {
        let held = self.members[0].pull(self.id, step).await;
        let own = held.into_iter().find(|message| message.author() == self.id).unwrap();
        let mut said = vec![own.clone()];
        for (seed, member) in (100 * step.round()..).zip(&mut self.members) {
            let message = member.say(own.genesis, step, content(seed, &self.context));
            member.publish(message.clone());
            said.push(message);
        }
        said
    }

    /// A whole round of valid updates; the node must close it with the mixture that they make.
    async fn round(&mut self, round: u64) {
        let updates = self.step(Step::Round(round), |seed, context| members::update(context, seed)).await;
        let closed = self.node.wait_for("a closed round", |event| has(event, "round_closed", Some(round)));
        let held = self.members[0].pull(self.id, Step::Round(round)).await;
        let digests = |messages: &[Arc<Message>]| messages.iter().map(|message| message.id()).collect::<BTreeSet<_>>();
        assert_eq!(digests(&held), digests(&updates), "the node holds the valid updates and nothing else");
        let mut set = StepSet::default();
        updates.into_iter().for_each(|update| assert_eq!(set.insert(update), Inserted::New));
        let sets = vec![RoundSet::new(round, &set)];
        let fold = Job::Fold(self.context.clone(), Arc::new(self.state.clone()), sets);
        let Product::Fold(folded) = fold.run(1) else { panic!() };
        self.state = (*folded[0].after).clone();
        assert_eq!(closed["mixture_hash"], self.state.mixture.digest().to_string());
        assert_eq!(closed["updates"], 5);
    }

    /// Lets member `by` gossip bytes; the node must refuse them, and say why.
    fn attack(&mut self, by: usize, bytes: Vec<u8>, reason: &str) {
        let skin = self.members[by].say(Digest::ZERO, Step::Round(1), members::head(1, Digest::ZERO));
        self.members[by].publish(forge::disguised(&skin, bytes.clone()));
        self.refuses(by, &bytes, reason);
    }

    fn refuses(&mut self, by: usize, bytes: &[u8], reason: &str) {
        let from = self.members[by].identity.id().to_string();
        let told = |event: &Value| event["reason"].as_str().is_some_and(|told| told.starts_with(reason));
        let sent = |event: &Value| event["from"] == from.as_str() && event["bytes"] == bytes.len();
        self.node.wait_for(reason, |event| has(event, "refused", None) && told(event) && sent(event));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_honest_node_sends_is_refused_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(home.path()).await;
    stage.round(1).await;

    // In round 2, before anyone has said anything valid in it: whatever is let in would count, or keep the author's
    // valid update out.
    let (context, genesis) = (stage.context.clone(), stage.state.genesis);
    let (victim, first, second) =
        (stage.members[0].identity.clone(), stage.members[2].identity.clone(), stage.members[3].identity.clone());
    let crafted = |identity: &Identity, groups| forge::update(&context, identity, identity.id(), genesis, 2, groups);

    let forged = forge::update(&context, &first, victim.id(), genesis, 2, forge::zeros(&context));
    stage.attack(2, forge::bytes(&forged), "forged: the signature does not verify");

    let mut groups = forge::zeros(&context);
    groups[1].values[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    stage.attack(2, forge::bytes(&crafted(&first, groups)), "not a number: group 1 holds NaN or an infinity at 2");

    let mut groups = forge::zeros(&context);
    groups[0].values.truncate(4);
    stage.attack(2, forge::bytes(&crafted(&first, groups)), "wrong shape: group 0 has 4 bytes instead of 128");

    let mut groups = forge::zeros(&context);
    groups[0].values = vec![0; 300_000];
    stage.attack(3, forge::bytes(&crafted(&second, groups)), "malformed: 300");

    let mut charter = context.charter.clone();
    charter.nonce += 1;
    let elsewhere = Context::new(charter).unwrap();
    let replayed = elsewhere.say(&victim, genesis, Step::Round(2), 1, members::update(&elsewhere, 9)).unwrap();
    stage.attack(3, replayed.bytes, "other network: it belongs to");

    let stranger = Identity::from_seed(1, "stranger");
    let uninvited = crafted(&stranger, forge::zeros(&context));
    stage.attack(3, forge::bytes(&uninvited), "not a member:");

    // The same by the other way in: as part of an answer.
    let forged = forge::update(&context, &second, victim.id(), genesis, 2, forge::zeros(&context));
    stage.members[3].slip_in(forge::bytes(&forged));
    stage.refuses(3, &forge::bytes(&forged), "forged: ");

    // One head that claims to be far ahead keeps nobody from training the next round.
    let liar = &mut stage.members[3];
    let claim = liar.say(genesis, Step::Round(1_000), members::head(1_000, Digest::ZERO));
    liar.publish(claim);
    // All of them are still heard: their valid updates count in this round and the next.
    stage.round(2).await;
    stage.round(3).await;

    // Round 1 is sealed.
    let late = forge::update(&context, &first, first.id(), genesis, 1, forge::zeros(&context));
    stage.attack(2, forge::bytes(&late), "stale: round 1 is sealed, the open round is 4");
    let early = forge::update(&context, &second, second.id(), genesis, 99, forge::zeros(&context));
    stage.attack(3, forge::bytes(&early), "early: round 99 is too far ahead");
    stage.attack(2, b"not a message".to_vec(), "malformed: not readable");
    stage.round(ROUNDS).await;

    for member in &mut stage.members {
        let done = member.say(genesis, Step::Round(ROUNDS + 1), members::head(ROUNDS + 1, stage.state.digest()));
        assert_eq!(done.kind, Kind::Head);
        member.publish(done);
    }
    let finished = stage.node.wait_for("its end", |event| has(event, "finished", None));
    assert_eq!(finished["mixture_hash"], stage.state.mixture.digest().to_string());
    drop(stage.members);
    let ended = stage.node.process.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let events = events(&stage.node.state);
    assert_eq!(events.iter().filter(|event| has(event, "refused", None)).count(), 10);
    for untrue in ["conflict", "state_differs"] {
        assert!(!events.iter().any(|event| has(event, untrue, None)), "{untrue}");
    }
}
