//! The round machines of a network, each connected to all others, in virtual time: messages arrive at once and in order, and
//! no time passes while there is something to do.

use crate::trainer::{self, Report};
use anyhow::{Result, bail};
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    charter::Charter,
    memo::Memo,
    message::{Context, Fetch},
    round::{Event, Input, Now, Output, Saved, State, Ticket, Work},
};
use heterotune_scenarios::{Heard, world::Folds};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// How much time passes when nothing else happens, in ms.
const TICK_MS: Now = 250;

/// Deadlines after which a network in which nothing happens stands still.
const DEADLINES_MAX: Now = 4;

/// Messages of which is known that they verified.
const MEMO_MESSAGES: usize = 1_024;

/// A network without its trainers.
pub(super) struct Mesh<'a, 'b> {
    charter: Charter,
    nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
    inputs: VecDeque<(usize, Input)>,
    folds: Folds,
    now: Now,
    /// When something last happened.
    moved: Now,
    /// Questions that wait for an answer: who asked.
    asked: BTreeMap<Ticket, usize>,
    /// Which pieces were asked for.
    fetched: BTreeMap<Ticket, Fetch>,
    tickets: Ticket,
    heard: &'a mut Heard<'b>,
}

struct Node {
    id: NodeId,
    state: State,
    work: VecDeque<Work>,
    /// Whether its trainer is done.
    evaluated: bool,
    finished: bool,
    bytes_out: u64,
    bytes_in: u64,
}

impl<'a, 'b> Mesh<'a, 'b> {
    /// A network whose nodes have just met.
    pub(super) fn new(charter: Charter, identities: Vec<Identity>, heard: &'a mut Heard<'b>) -> Result<Self> {
        let context = Arc::new(Context::new(charter.clone())?.with_memo(Memo::new(MEMO_MESSAGES)));
        let node = |identity: Identity| Node {
            id: identity.id(),
            state: State::new(context.clone(), identity, Saved::default()),
            work: VecDeque::new(),
            evaluated: false,
            finished: false,
            bytes_out: 0,
            bytes_in: 0,
        };
        let nodes: Vec<Node> = identities.into_iter().map(node).collect();
        let index: BTreeMap<NodeId, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let all = 0..nodes.len();
        let mut inputs: VecDeque<(usize, Input)> = all.clone().map(|node| (node, Input::Start)).collect();
        for (at, node) in nodes.iter().enumerate() {
            inputs.extend(all.clone().filter(|other| *other != at).map(|other| (other, Input::Connected(node.id))));
        }
        let (folds, asked, fetched) = Default::default();
        Ok(Self { charter, nodes, index, inputs, folds, now: 1, moved: 1, asked, fetched, tickets: 0, heard })
    }

    /// Takes in what a node's trainer reports.
    pub(super) fn report(&mut self, node: usize, report: Report) -> Result<()> {
        if let Some(event) = report.event(&self.charter) {
            (self.heard)(node, event)?;
        }
        match report {
            Report::Contribution(contribution, _) => self.inputs.push_back((node, Input::Contribution(contribution))),
            Report::Finished => self.nodes[node].evaluated = true,
            Report::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Goes on until trainers have work: what each has to do. None once all nodes have finished.
    pub(super) fn run(&mut self) -> Result<Option<Vec<VecDeque<Work>>>> {
        loop {
            while let Some((node, input)) = self.inputs.pop_front() {
                for output in self.nodes[node].state.handle(input, self.now) {
                    self.perform(node, output)?;
                }
            }
            if self.nodes.iter().any(|node| !node.work.is_empty()) {
                self.moved = self.now;
                return Ok(Some(self.nodes.iter_mut().map(|node| std::mem::take(&mut node.work)).collect()));
            }
            self.finish()?;
            if self.nodes.iter().all(|node| node.finished) {
                return Ok(None);
            }
            self.now += TICK_MS;
            if self.now > self.moved + DEADLINES_MAX * self.charter.rounds.deadline_ms.max(TICK_MS) {
                bail!(
                    "the network stands still in {:?}; this is a defect, please report it",
                    self.nodes[0].state.step()
                );
            }
            self.inputs.extend((0..self.nodes.len()).map(|node| (node, Input::Tick)));
        }
    }

    fn perform(&mut self, node: usize, output: Output) -> Result<()> {
        match output {
            Output::Publish(message) => {
                let from = self.nodes[node].id;
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    self.count(node, to, message.bytes.len());
                    let ticket = self.ticket(node);
                    self.inputs.push_back((to, Input::Message { ticket, from, bytes: message.bytes.clone() }));
                }
            }
            Output::Judge { ticket, .. } => drop(self.asked.remove(&ticket)),
            Output::Pull { to, pull } => {
                let ticket = self.ticket(node);
                self.send(&to, Input::Asked { ticket, pull });
            }
            Output::Answer { ticket, batch } => {
                let from = self.nodes[node].id;
                if let Some(asker) = self.asked.remove(&ticket) {
                    self.inputs.push_back((asker, Input::Answered { from, batch }));
                }
            }
            Output::Fetch { to, fetch } => {
                let ticket = self.ticket(node);
                self.fetched.insert(ticket, fetch);
                self.send(&to, Input::AskedPiece { ticket, fetch });
            }
            Output::Piece { ticket, piece } => {
                let from = self.nodes[node].id;
                if let (Some(asker), Some(fetch)) = (self.asked.remove(&ticket), self.fetched.remove(&ticket)) {
                    self.count(node, asker, piece.bytes.as_ref().map_or(0, |bytes| bytes.len()));
                    self.inputs.push_back((asker, Input::Piece { from, fetch, piece: Some(piece) }));
                }
            }
            Output::Train(work) => trainer::add(&mut self.nodes[node].work, work),
            Output::Compute(job) => {
                let product = self.folds.run(job);
                self.inputs.push_back((node, Input::Computed(product)));
            }
            Output::Tell(event) => self.tell(node, &event)?,
            // There is no disk.
            Output::Keep(_) | Output::KeepPiece(_) | Output::Checkpoint(_) | Output::Seal { .. } => {}
        }
        Ok(())
    }

    fn send(&mut self, to: &NodeId, input: Input) {
        if let Some(to) = self.index.get(to) {
            self.inputs.push_back((*to, input));
        }
    }

    /// A number for what `node` asks or says.
    fn ticket(&mut self, node: usize) -> Ticket {
        self.tickets += 1;
        self.asked.insert(self.tickets, node);
        self.tickets
    }

    fn count(&mut self, from: usize, to: usize, bytes: usize) {
        self.nodes[from].bytes_out += bytes as u64;
        self.nodes[to].bytes_in += bytes as u64;
    }

    fn tell(&mut self, node: usize, event: &Event) -> Result<()> {
        let mut value = match event {
            // They are many, and everything arrives.
            Event::Received { .. } | Event::Published { .. } => return Ok(()),
            Event::Miscomputes { .. } => bail!("two nodes computed different things from the same updates"),
            event => serde_json::to_value(event)?,
        };
        let of = &self.nodes[node];
        if let (Event::RoundClosed { .. }, Value::Object(fields)) = (event, &mut value) {
            fields.insert("bytes_out".into(), of.bytes_out.into());
            fields.insert("bytes_in".into(), of.bytes_in.into());
        }
        Ok((self.heard)(node, value)?)
    }

    /// Tells of nodes that have come to the end.
    fn finish(&mut self) -> Result<()> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if node.finished || !node.evaluated || !node.state.is_finished() {
                continue;
            }
            node.finished = true;
            let mixture = node.state.checkpoint().map(|checkpoint| checkpoint.mixture.digest());
            let event = json!({
                "event": "finished",
                "rounds": self.charter.rounds.total,
                "mixture_hash": mixture,
                "bytes_out": node.bytes_out,
                "bytes_in": node.bytes_in,
                // All nodes are one process: its memory is nobody's own.
                "peak_rss_bytes": 0,
            });
            (self.heard)(at, event)?;
        }
        Ok(())
    }
}
