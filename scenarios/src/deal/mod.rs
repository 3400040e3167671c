//! The deal: who gets which rows.

mod dirichlet;
mod parts;
mod pool;

use crate::{Data, DataPlan, Partition, RunError, Scenario, folder, split::shuffle, table};
use dirichlet::Conditions;
use heterotune_protocol::charter::Anchors;
use parts::Part;
use pool::Pool;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// The values of a node's column that are listed; of more, the number is said.
const VALUES_SHOWN: usize = 12;

/// Rows that settings are chosen by, at most, where the scenario does not say how many.
const VALIDATION_MOST: usize = 200;

/// Rows that no single node gets.
struct Rest {
    anchors: Vec<usize>,
    test: Vec<usize>,
    validation: Vec<usize>,
}

/// Rows, dealt.
#[derive(Clone, Debug)]
pub struct Deal {
    /// The labels, in the order of [`Share::per_class`]; none where rows have none.
    pub labels: Vec<String>,
    /// How it was dealt, in words.
    pub how: String,
    /// What each node got, in the scenario's order.
    pub shares: Vec<Share>,
    /// The public rows.
    pub anchors: Vec<usize>,
    /// The common test set's rows.
    pub test: Vec<usize>,
    /// Rows that settings are chosen by.
    pub validation: Vec<usize>,
}

/// What one node got.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// The node.
    pub name: String,
    /// The rows that it trains on.
    pub rows: Vec<usize>,
    /// Their size.
    pub bytes: usize,
    /// How many of each class.
    pub per_class: Vec<usize>,
    /// Rows that it does not train on.
    pub held: Vec<usize>,
    /// The values of the column that rows are dealt by, if they are: no other node has rows with these.
    pub values: Vec<String>,
}

impl Share {
    /// How many classes the node knows.
    pub fn classes(&self) -> usize {
        self.per_class.iter().filter(|count| **count > 0).count()
    }

    /// What a node gets of its `part`, whose rows are in a random order.
    fn of(name: &str, part: Part, plan: &DataPlan, data: &Data) -> Result<Self, RunError> {
        let Part { mut rows, values } = part;
        let held = plan.held_per_node;
        let wanted = plan.labelled_per_node.unwrap_or_else(|| rows.len().saturating_sub(held).max(1));
        let all = wanted.saturating_add(held);
        if rows.len() < all {
            return Err(RunError::Deal(format!(
                "node {name} needs {all} rows, and its part of them has {}",
                rows.len()
            )));
        }
        rows.truncate(all);
        let held = rows.split_off(wanted);
        let mut per_class = vec![0; data.labels.len()];
        for row in rows.iter().filter_map(|row| data.rows.get(*row)) {
            per_class.get_mut(row.class).into_iter().for_each(|count| *count += 1);
        }
        Ok(Self { name: name.into(), rows, bytes: 0, per_class, held, values })
    }

    /// The values of its column, as many as can be read.
    pub(crate) fn values_listed(&self) -> Option<String> {
        let shown = self.values.get(..VALUES_SHOWN).unwrap_or(&self.values);
        let more = self.values.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!shown.is_empty()).then(|| format!("{}: {}{more}", self.name, shown.join(", ")))
    }
}

impl Deal {
    /// Deals `data` out as the scenario says.
    ///
    /// # Errors
    /// Too little data, or no deal that meets the conditions.
    pub fn draw(scenario: &Scenario, data: &Data, seed: u64) -> Result<Self, RunError> {
        let plan = &scenario.data;
        let Pool { labelled, anchors, test, validation } = Pool::new(plan, data)?;
        let rest = Rest { anchors, test, validation };
        let names: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
        let nodes = names.len();
        let needed = plan.labelled_per_node.unwrap_or(1).saturating_add(plan.held_per_node).saturating_mul(nodes);
        if needed > labelled.len() {
            let what = if data.labels.is_empty() { "rows" } else { "labelled rows" };
            let rows = labelled.len();
            return Err(RunError::Deal(format!("the nodes need {needed} {what}, and there are {rows}")));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rng = &mut rng;
        let partition = plan.partition().map_err(|(key, message)| RunError::Deal(format!("{key} {message}")))?;
        let (how, parts) = match partition {
            Partition::Dirichlet { alpha, min_per_class, classes_per_node } => {
                let (rows, held) = (plan.labelled_per_node.unwrap_or_default(), plan.held_per_node);
                let conditions = Conditions { alpha, min_per_class, classes_per_node, rows, held };
                let (draw, shares) = conditions.draw(data, &labelled, &names, seed)?;
                let [fewest, most] = classes_per_node;
                let how = format!(
                    "draw {draw} (first with {min_per_class} or more of every class and {fewest} to {most} classes a node)"
                );
                return Ok(Self::new(how, shares, rest, data));
            }
            Partition::Iid => ("dealt at random".into(), parts::iid(labelled, nodes, rng)),
            Partition::Shards { per_node } => (
                format!("{per_node} shards a node of all rows sorted by label"),
                parts::shards(data, labelled, nodes, per_node, rng)?,
            ),
            Partition::Column(column) => {
                (format!("all with one {column} at one node"), parts::column(data, &labelled, &column, nodes, rng)?)
            }
        };
        let share = |(name, mut part): (&&str, Part)| {
            shuffle(&mut part.rows, rng);
            Share::of(name, part, plan, data)
        };
        let shares = names.iter().zip(parts).map(share).collect::<Result<_, _>>()?;
        Ok(Self::new(how, shares, rest, data))
    }

    /// The same deal, but that each node trains on the rows of all.
    pub(crate) fn pooled(&self) -> Self {
        let mut pooled = self.clone();
        let rows: Vec<usize> = self.shares.iter().flat_map(|share| &share.rows).copied().collect();
        let bytes = self.shares.iter().map(|share| share.bytes).sum();
        let classes =
            (0..self.labels.len()).map(|class| self.shares.iter().filter_map(|share| share.per_class.get(class)).sum());
        let per_class: Vec<usize> = classes.collect();
        for share in &mut pooled.shares {
            (share.rows, share.bytes, share.per_class) = (rows.clone(), bytes, per_class.clone());
        }
        pooled
    }

    /// How many rows can be set aside by which settings are chosen, where the scenario does not say it: as many as the nodes
    /// leave half of, at most [`VALIDATION_MOST`].
    ///
    /// # Errors
    /// As [`Deal::draw`].
    pub(crate) fn spare(scenario: &Scenario, data: &Data) -> Result<usize, RunError> {
        let plan = &scenario.data;
        let rows = Pool::new(plan, data)?.labelled.len();
        let spare = match plan.labelled_per_node {
            Some(each) => rows.saturating_sub((each + plan.held_per_node) * scenario.nodes.len()) / 2,
            None => rows / 10,
        };
        Ok(spare.min(VALIDATION_MOST))
    }

    fn new(how: String, mut shares: Vec<Share>, rest: Rest, data: &Data) -> Self {
        let Rest { anchors, test, validation } = rest;
        for share in &mut shares {
            share.bytes = share.rows.iter().filter_map(|row| data.rows.get(*row)).map(|row| row.bytes.len()).sum();
        }
        Self { labels: data.labels.clone(), how, shares, anchors, test, validation }
    }

    /// Writes `NAME/{train,anchors,test}` in the data's format, and `held` and `validation` where there are such rows, below `folder`
    /// for every node, and says which anchors these are.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, data: &Data, folder: &Path) -> Result<Anchors, RunError> {
        let anchors = data.unlabelled_file(&self.anchors);
        let (test, validation) = (data.file(&self.test), data.file(&self.validation));
        for share in &self.shares {
            let write = |name: &str, bytes: &[u8]| {
                folder::write(&folder.join(&share.name).join(format!("{name}.{}", data.extension())), bytes)
            };
            write("train", &data.file(&share.rows))?;
            if !share.held.is_empty() {
                write("held", &data.file(&share.held))?;
            }
            write("anchors", &anchors)?;
            write("test", &test)?;
            if !self.validation.is_empty() {
                write("validation", &validation)?;
            }
        }
        let count = u16::try_from(self.anchors.len()).unwrap_or(u16::MAX);
        Ok(Anchors { digest: Anchors::digest_of(&anchors), count })
    }

    /// What the table of the deal shows, in words.
    pub(crate) fn title(&self) -> String {
        let what = if self.labels.is_empty() { "rows to train on" } else { "labelled rows of each class" };
        format!("{what}, {}", self.how)
    }

    /// The table of a deal without labels.
    pub(crate) fn sizes(&self) -> Vec<Vec<String>> {
        let header = ["node", "rows", "bytes", "held out"].map(String::from).to_vec();
        let row = |share: &Share| {
            let counts = [share.rows.len(), share.bytes, share.held.len()];
            let counts = counts.map(|count| table::thousands(count as u64));
            [share.name.clone()].into_iter().chain(counts).collect()
        };
        [header].into_iter().chain(self.shares.iter().map(row)).collect()
    }
}

#[cfg(test)]
mod tests;
