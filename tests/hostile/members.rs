//! Members of a network that the test plays itself: real swarms and real messages, no training.

use heterotune::net::{NetEvent, Network, Settings};
use heterotune_crypto::{Digest, Identity, NodeId};
use heterotune_protocol::{
    charter::Charter,
    codec,
    genesis::{Kernels, Statistics},
    message::{Batch, Content, Context, Head, Message, Pull, Step},
    verdict::Verdict,
};
use serde_bytes::ByteBuf;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::interval,
};

/// How long the node has for anything.
const DEADLINE: Duration = Duration::from_secs(120);

/// A member.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    context: Arc<Context>,
    sequence: u64,
    requests: UnboundedSender<Request>,
    batches: UnboundedReceiver<Batch>,
}

enum Request {
    Publish(Arc<Message>),
    Pull(NodeId, Pull),
    SlipIn(Vec<u8>),
}

impl Member {
    /// Joins the network of the node at `address`.
    pub(crate) fn join(identity: Identity, context: Arc<Context>, address: &str) -> Self {
        let settings = Settings { bootstrap: vec![address.parse().unwrap()], ..Settings::default() };
        let network = Network::new(&identity, context.clone(), settings).unwrap();
        let (requests, asked) = unbounded_channel();
        let (answers, batches) = unbounded_channel();
        tokio::spawn(drive(network, asked, answers));
        Self { identity, context, sequence: 0, requests, batches }
    }

    /// Signs something valid.
    pub(crate) fn say(&mut self, genesis: Digest, step: Step, content: Content) -> Arc<Message> {
        self.sequence += 1;
        Arc::new(self.context.say(&self.identity, genesis, step, self.sequence, content).unwrap())
    }

    /// Gossips a message.
    pub(crate) fn publish(&self, message: Arc<Message>) {
        self.requests.send(Request::Publish(message)).unwrap();
    }

    /// Puts bytes into the answer to the next question.
    pub(crate) fn slip_in(&self, bytes: Vec<u8>) {
        self.requests.send(Request::SlipIn(bytes)).unwrap();
    }

    /// All that `node` holds of a step, once that includes what it says itself.
    pub(crate) async fn pull(&mut self, node: NodeId, step: Step) -> Vec<Arc<Message>> {
        let since = Instant::now();
        while since.elapsed() < DEADLINE {
            let pull = Pull { step, have: Vec::new(), want: Vec::new() };
            self.requests.send(Request::Pull(node, pull)).unwrap();
            let batch = tokio::time::timeout(Duration::from_secs(5), self.batches.recv()).await;
            let Ok(Some(batch)) = batch else { continue };
            let read = |bytes: &[u8]| self.context.verify(self.context.open(bytes).unwrap(), bytes).unwrap();
            let messages = batch.messages.iter().map(|bytes| Arc::new(read(bytes)));
            let messages: Vec<_> = messages.filter(|message| message.kind.is_entry()).collect();
            if batch.step == step && messages.iter().any(|message| message.author() == node) {
                return messages;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the node has said nothing in step {step}")
    }
}

/// Carries a network's events until its member is dropped.
async fn drive(mut network: Network, mut asked: UnboundedReceiver<Request>, answers: UnboundedSender<Batch>) {
    let mut ticks = interval(Duration::from_millis(100));
    let mut slipped_in = Vec::new();
    loop {
        tokio::select! {
            request = asked.recv() => match request {
                Some(Request::Publish(message)) => network.publish(message),
                Some(Request::Pull(to, pull)) => network.pull(&to, pull),
                Some(Request::SlipIn(bytes)) => slipped_in.push(ByteBuf::from(bytes)),
                None => return,
            },
            event = network.next() => match event {
                NetEvent::Message(ticket, ..) => network.judge(ticket, &Verdict::Accept),
                NetEvent::Asked(ticket, Pull { step, .. }) => {
                    let messages = std::mem::take(&mut slipped_in);
                    let (open, unsealed) = (step, step);
                    let batch = Batch { step, open, unsealed, more: false, messages, seal: None, snapshot: None };
                    network.answer(ticket, batch);
                }
                NetEvent::Answered(_, batch) => drop(answers.send(batch)),
                _ => {}
            },
            _ = ticks.tick() => network.tick(),
        }
    }
}

/// Numbers between -1 and 1, the same for the same seed.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut at = 0u64;
    move || {
        at += 1;
        let digest = Digest::of("heterotune test numbers", &[&seed.to_le_bytes(), &at.to_le_bytes()]);
        let word = digest.as_bytes().first_chunk().map(|bytes| i32::from_le_bytes(*bytes)).unwrap();
        f64::from(word) / 2f64.powi(31)
    }
}

/// Anchor kernels of made-up features.
pub(crate) fn kernels(charter: &Charter, seed: u64) -> Content {
    let (anchors, width) = (usize::from(charter.anchors.count), 12);
    let mut number = numbers(seed);
    let mut features: Vec<Vec<f64>> = (0..width).map(|_| (0..anchors).map(|_| number()).collect()).collect();
    for column in &mut features {
        let mean = column.iter().sum::<f64>() / anchors as f64;
        column.iter_mut().for_each(|value| *value -= mean);
    }
    let trace: f64 = features.iter().flatten().map(|value| value * value).sum();
    let product = |i: usize, j: usize| features.iter().map(|column| column[i] * column[j]).sum::<f64>() / trace;
    let kernel = (0..anchors * anchors).map(|at| product(at / anchors, at % anchors)).collect();
    Content::Kernels(Kernels::from_features(charter, &[kernel]).unwrap())
}

/// Class statistics of made-up codes, some of each class.
pub(crate) fn statistics(charter: &Charter, seed: u64) -> Content {
    let (labels, width) = (charter.task.labels().len(), usize::from(charter.adapter.readout_rank));
    let mut number = numbers(seed);
    let (mut counts, mut sums, mut gram) = (vec![0; labels], vec![0.0; labels * width], vec![0.0; width * width]);
    for sample in 0..4 * labels {
        let code: Vec<f64> = (0..width).map(|_| number()).collect();
        counts[sample % labels] += 1;
        for (i, value) in code.iter().enumerate() {
            sums[sample % labels * width + i] += value;
            code.iter().enumerate().for_each(|(j, other)| gram[i * width + j] += value * other);
        }
    }
    Content::Statistics(Statistics::from_values(charter, &counts, &sums, &gram).unwrap())
}

/// A made-up update.
pub(crate) fn update(context: &Context, seed: u64) -> Content {
    let mut number = numbers(seed);
    let groups = context.layout.groups().iter().map(|group| {
        let values: Vec<f32> = (0..group.values()).map(|_| 0.01 * number() as f32).collect();
        codec::quantise(&context.charter.codec, &values)
    });
    Content::Update(groups.collect())
}

/// "All before this round is sealed to me, and this is what came of it."
pub(crate) fn head(round: u64, state: Digest) -> Content {
    Content::Head(Head { unsealed: Step::Round(round), sets: Digest::ZERO, state })
}
