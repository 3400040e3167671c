//! What rows are for: training, alignment, or the common test.

use crate::{Data, DataPlan, RunError, split};

/// The rows of a scenario by what they are for; none is in two.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// To be dealt.
    pub(super) labelled: Vec<usize>,
    /// Public, unlabelled.
    pub(super) anchors: Vec<usize>,
    /// The common test set.
    pub(super) test: Vec<usize>,
    /// What settings are chosen by.
    pub(super) validation: Vec<usize>,
}

impl Pool {
    /// Parts `data` as the plan says.
    pub(super) fn new(plan: &DataPlan, data: &Data) -> Result<Self, RunError> {
        let mut order = split(data.own.len(), plan.split_seed);
        let mut test = match &data.test {
            None => order.split_off(plan.train.unwrap_or_default().min(order.len())),
            Some(rows) if plan.test_rows.is_none() => rows.clone().collect(),
            Some(rows) => split(rows.len(), plan.split_seed).into_iter().map(|row| rows.start + row).collect(),
        };
        let rows = data.own.len();
        if test.is_empty() {
            let train = plan.train.unwrap_or_default();
            return Err(RunError::Deal(format!("{rows} rows leave none for the test after {train} for training")));
        }
        if let Some(wanted) = plan.train {
            take(&mut order, wanted, "data.train", "rows")?;
        }
        if let Some(wanted) = plan.test_rows {
            take(&mut test, wanted, "data.test_rows", "test rows")?;
        }
        let anchors = match &data.anchors {
            None => order.split_off(order.len().saturating_sub(plan.anchors.map_or(0, usize::from))),
            Some(rows) => {
                let mut anchors = rows.clone().collect();
                if let Some(wanted) = plan.anchors {
                    take(&mut anchors, wanted.into(), "data.anchors", "rows in data.anchors_file")?;
                }
                anchors
            }
        };
        let (wanted, rows) = (plan.validation_rows(), order.len());
        if wanted > 0 && wanted >= rows {
            return Err(RunError::Deal(format!(
                "data.validation is {wanted}, and there are {rows} rows to learn from"
            )));
        }
        let validation = order.split_off(rows.saturating_sub(wanted));
        Ok(Self { labelled: order, anchors, test, validation })
    }
}

/// Keeps the first so many rows.
fn take(rows: &mut Vec<usize>, wanted: usize, key: &str, what: &str) -> Result<(), RunError> {
    if wanted > rows.len() {
        return Err(RunError::Deal(format!("{key} is {wanted}, and there are {} {what}", rows.len())));
    }
    rows.truncate(wanted);
    Ok(())
}
