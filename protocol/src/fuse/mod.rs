//! How the updates of a round become one step: CMGA, cross-model gradient alignment, and what it is compared with.
//!
//! [`fuse()`] lets copies speak with one voice, clips each to the median norm, leaves out who keeps opposing the
//! others, reconciles directions, and adds up. Every tensor group (the branches of a slot, the readout, its bias) is
//! fused by itself.
//!
//! | rule | screen | copies as one | clip | zeros count | what it does |
//! |---|---|---|---|---|---|
//! | cmga | yes | yes | yes | no | aligns, and takes the mean |
//! | mean | no | no | no | yes | takes the mean |
//! | trimmed | yes | no | no: it drops what is far off | no | drops the ends of each coordinate, and takes the mean |
//! | geomedian | yes | yes | yes | no | takes the point nearest to all |
//! | ties | yes | no | yes | no | elects a sign a coordinate, and takes the mean of who agrees |
//!
//! Every node must get the same bits from the same updates, on any machine, with any number of threads, in whatever
//! order they came. So the big loops are integer sums (exact, hence free of order); what decides (which update
//! weighs how much) is a little scalar f64 over the Gram matrix, with + - * / and square roots only, in the order of
//! the senders' keys; and both meet in one integer weight per sender and group. [`canary()`] tells whether a thread's
//! f64 is fit for that.

mod align;
mod canary;
mod copies;
mod dots;
mod fixed;
mod geomedian;
mod gram;
mod nash;
mod parallel;
mod screen;
mod sum;
mod tensor;
mod ties;
mod trimmed;
mod voices;
mod wide;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod threats;
#[cfg(test)]
mod twin;

pub use canary::canary;
pub use screen::Memory;

use crate::{
    charter::{Charter, Fusion, Rule},
    codec,
    mixture::{Layout, power_of_two},
};
use copies::Copies;
use heterotune_crypto::{Digest, NodeId};
use serde::Serialize;
use tensor::{Row, Tensor};
use voices::Voices;

/// One sender's decoded update of a round.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Who sent it.
    pub author: NodeId,
    /// The digest of its payload.
    pub payload: Digest,
    /// Its groups, in the order of the layout. One that the codec would not let through (another length, an exponent
    /// or a mantissa out of range) counts as absent.
    pub groups: &'a [codec::Group],
}

/// What a round's updates make.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// The step to add to the mixture: per group of the layout, its values in units of 2^exponent_min.
    pub step: Vec<Vec<i64>>,
    /// The screen's evidence after this round.
    pub memory: Memory,
    /// What happened, for people to read. No part of the state.
    pub report: Report,
}

/// What happened in a fusion.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How many updates came in.
    pub updates: usize,
    /// Senders whose updates the screen left out, in order of their keys.
    pub left_out: Vec<NodeId>,
    /// The mean cosine between two updates, averaged over the tensors that are not biases. 0 with fewer than two.
    pub agreement: f64,
    /// The L2 norm of the step.
    pub update_norm: f64,
    /// Each sender's standing, in order of their keys.
    pub senders: Vec<Standing>,
}

/// How a sender's update stands to the others' of its round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Who.
    pub author: NodeId,
    /// Its cosine to the sum of the others' unit updates, averaged over the tensors that are not biases. 0 for an
    /// update of zeros.
    pub cosine: f64,
    /// What the screen remembers of it after this round; negative is against it.
    pub evidence: f64,
}

/// Fuses the updates of one round, in the charter's way. The result depends on the set of `senders` and on `memory`,
/// not on their order nor on `threads` (the most threads to use, this one among them).
///
/// A rule of plain mean takes the mean over the senders that have the group, unclipped and unscreened. No senders:
/// no step.
pub fn fuse(charter: &Charter, layout: &Layout, senders: &[Sender<'_>], memory: &Memory, threads: usize) -> Fused {
    let mut senders: Vec<&Sender<'_>> = senders.iter().collect();
    senders.sort_by_key(|sender| (sender.author, sender.payload));
    let authors: Vec<NodeId> = senders.iter().map(|sender| sender.author).collect();
    let tensors: Vec<Tensor<'_>> = layout
        .groups()
        .iter()
        .enumerate()
        .map(|(at, shape)| Tensor::measure(charter, at, shape, &senders, threads))
        .collect();

    let copies = Copies::find(&tensors, senders.len());
    let cosines = screen::cosines(&tensors, &copies, senders.len());
    let screened = match charter.fusion.rule {
        Rule::Mean => screen::Screened { memory: memory.clone(), kept: vec![true; senders.len()] },
        _ => screen::screen(&charter.fusion, &authors, &cosines, memory),
    };
    let step: Vec<Vec<i64>> = tensors
        .iter()
        .zip(&copies)
        .map(|(tensor, copies)| step(&charter.fusion, tensor, copies, &screened.kept, threads))
        .collect();

    let report = Report {
        updates: senders.len(),
        left_out: authors.iter().zip(&screened.kept).filter(|(_, kept)| !**kept).map(|(author, _)| *author).collect(),
        agreement: agreement(&tensors),
        update_norm: norm(&step, charter.codec.exponent_min),
        senders: authors
            .iter()
            .zip(&cosines)
            .map(|(author, cosine)| Standing {
                author: *author,
                cosine: cosine.unwrap_or(0.0),
                evidence: screen::evidence(&screened.memory, author),
            })
            .collect(),
    };
    Fused { step, memory: screened.memory, report }
}

/// The step of [`Rule::Mean`] alone, by the same senders in any order: what [`fuse()`] makes of them under that rule,
/// without measuring how they stand to each other.
pub fn mean(charter: &Charter, layout: &Layout, senders: &[Sender<'_>], threads: usize) -> Vec<Vec<i64>> {
    let groups = layout.groups().iter().map(|shape| shape.values()).enumerate();
    let mean = |(at, values): (usize, usize)| {
        let rows: Vec<_> = senders.iter().map(|sender| Row::new(charter, sender, at, values)).collect();
        mean_of(values, &rows, threads)
    };
    groups.map(mean).collect()
}

/// The same weight for everyone who has the group.
fn mean_of(values: usize, rows: &[Option<Row<'_>>], threads: usize) -> Vec<i64> {
    let weight = 1.0 / rows.iter().flatten().count() as f64;
    sum::weighted(values, rows, &vec![weight; rows.len()], threads)
}

/// The step of one tensor. No sender that has a norm in it and is kept: no step.
fn step(fusion: &Fusion, tensor: &Tensor<'_>, copies: &Copies, kept: &[bool], threads: usize) -> Vec<i64> {
    let (values, rows) = (tensor.values, &tensor.rows);
    let weighted = |coefficients: fn(&Fusion, &Voices) -> Vec<f64>| {
        let voices = Voices::new(tensor, copies, kept);
        let weights = voices.map_or(vec![0.0; rows.len()], |voices| voices.weights(&coefficients(fusion, &voices)));
        sum::weighted(values, rows, &weights, threads)
    };
    match fusion.rule {
        Rule::Mean => mean_of(values, rows, threads),
        Rule::Cmga => weighted(align::coefficients),
        Rule::Geomedian => weighted(|_, voices| geomedian::coefficients(voices)),
        Rule::Trimmed => {
            let speaks = |at: usize| kept[at] && tensor.norms[at].is_some();
            let rows: Vec<Row<'_>> =
                rows.iter().enumerate().filter(|(at, _)| speaks(*at)).filter_map(|(_, r)| *r).collect();
            let drop = screen::most(rows.len(), fusion);
            trimmed::mean(values, &rows, drop, threads)
        }
        Rule::Ties => {
            let voices = Voices::new(tensor, &Copies::none(rows.len()), kept);
            let weights = voices.map_or(vec![0.0; rows.len()], |voices| voices.weights(&voices.clipped));
            ties::merge(values, rows, &weights, threads)
        }
    }
}

/// The mean cosine between two updates, averaged over tensors.
fn agreement(tensors: &[Tensor<'_>]) -> f64 {
    let (sum, count) = tensors
        .iter()
        .filter(|tensor| tensor.counts)
        .filter_map(Tensor::agreement)
        .fold((0.0, 0.0), |(sum, count), agreement| (sum + agreement, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The L2 norm of a step in units of 2^exponent_min.
fn norm(step: &[Vec<i64>], exponent_min: i16) -> f64 {
    let square = step.iter().flatten().fold(0.0, |sum, value| sum + *value as f64 * *value as f64);
    square.sqrt() * power_of_two(exponent_min)
}
