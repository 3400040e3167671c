//! Partitions that first part all rows among the nodes; what a node gets is then drawn from its part.

use crate::{Data, RunError, split::shuffle};
use rand_chacha::ChaCha8Rng;
use std::{cmp::Reverse, collections::BTreeMap};

/// The rows of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) rows: Vec<usize>,
    /// The values of the column that rows are dealt by, in order.
    pub(super) values: Vec<String>,
}

/// `rows` at random, as many to each of the `nodes`, give or take one.
pub(super) fn iid(mut rows: Vec<usize>, nodes: usize, rng: &mut ChaCha8Rng) -> Vec<Part> {
    shuffle(&mut rows, rng);
    cut(&rows, nodes).map(|rows| Part { rows: rows.to_vec(), ..Part::default() }).collect()
}

/// `rows` sorted by label and cut into `per_node` pieces for each of the `nodes`, dealt at random.
pub(super) fn shards(
    data: &Data,
    mut rows: Vec<usize>,
    nodes: usize,
    per_node: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Part>, RunError> {
    let count = nodes.saturating_mul(per_node);
    if count > rows.len() {
        return Err(RunError::Deal(format!("{} rows make no {count} shards", rows.len())));
    }
    rows.sort_by_key(|row| data.rows.get(*row).map(|row| row.class));
    let mut shards: Vec<&[usize]> = cut(&rows, count).collect();
    shuffle(&mut shards, rng);
    Ok(shards.chunks(per_node).map(|shards| Part { rows: shards.concat(), ..Part::default() }).collect())
}

/// All `rows` with one value at one of the `nodes`: the most frequent value first, always to whom has the fewest rows.
pub(super) fn column(
    data: &Data,
    rows: &[usize],
    column: &str,
    nodes: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Part>, RunError> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().filter_map(|index| Some((*index, data.rows.get(*index)?))) {
        groups.entry(&row.group).or_default().push(index);
    }
    if groups.len() < nodes {
        let values = groups.len();
        return Err(RunError::Deal(format!("column {column} has {values} values, too few for {nodes} nodes")));
    }
    let mut groups: Vec<(&str, Vec<usize>)> = groups.into_iter().collect();
    // Which of equally frequent values goes where is chance.
    shuffle(&mut groups, rng);
    groups.sort_by_key(|(_, rows)| Reverse(rows.len()));
    let mut parts = vec![Part::default(); nodes];
    for (value, rows) in groups {
        if let Some(part) = parts.iter_mut().min_by_key(|part| part.rows.len()) {
            part.rows.extend(rows);
            part.values.push(value.to_owned());
        }
    }
    parts.iter_mut().for_each(|part| part.values.sort());
    shuffle(&mut parts, rng);
    Ok(parts)
}

/// `rows` in `count` pieces, as long as each other, give or take one.
fn cut(rows: &[usize], count: usize) -> impl Iterator<Item = &[usize]> {
    let end = move |piece: usize| rows.len() * piece / count.max(1);
    (0..count).map(move |piece| rows.get(end(piece)..end(piece + 1)).unwrap_or_default())
}
