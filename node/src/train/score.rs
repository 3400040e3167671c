//! How good predictions are, for everybody and for the node's own mixture of labels.

use super::Score;

/// What a node's counts of classes are smoothed by when it predicts for its own data.
const OWN_SMOOTHING: f64 = 0.1;

/// log of how frequent each class is, with `smoothing` added to every count.
pub(super) fn log_prior(counts: &[u32], smoothing: f64) -> Vec<f32> {
    let total: f64 = counts.iter().map(|count| f64::from(*count) + smoothing).sum();
    counts.iter().map(|count| ((f64::from(*count) + smoothing) / total).ln() as f32).collect()
}

/// Scores `logits` `[n, C]` (row-major) against `labels`; `counts` are the node's own samples of each class.
pub(super) fn score(logits: &[f32], labels: &[u32], counts: &[u32]) -> Score {
    let classes = counts.len();
    let prior = log_prior(counts, OWN_SMOOTHING);
    let flat = vec![0.0; classes];
    let (mut right, mut seen, mut right_own) = (0usize, vec![0u32; classes], vec![0u32; classes]);
    for (row, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let label = *label as usize;
        right += usize::from(best(row, &flat) == label);
        let hit = u32::from(best(row, &prior) == label);
        seen.get_mut(label).into_iter().for_each(|count| *count += 1);
        right_own.get_mut(label).into_iter().for_each(|count| *count += hit);
    }
    // Classes that the test set lacks say nothing either way.
    let (mut own, mut weight) = (0.0, 0.0);
    for ((count, seen), right) in counts.iter().zip(&seen).zip(&right_own).filter(|((_, seen), _)| **seen > 0) {
        own += f64::from(*count) * f64::from(*right) / f64::from(*seen);
        weight += f64::from(*count);
    }
    Score { global: right as f64 / labels.len().max(1) as f64, own: if weight > 0.0 { own / weight } else { 0.0 } }
}

/// The cross entropy (nats) of each row of `logits` `[n, C]`, as for the node's own predictions.
pub(super) fn losses(logits: &[f32], labels: &[u32], counts: &[u32]) -> Vec<f64> {
    let prior = log_prior(counts, OWN_SMOOTHING);
    let own: Vec<f32> =
        logits.chunks_exact(counts.len().max(1)).flat_map(|row| row.iter().zip(&prior).map(|(a, b)| a + b)).collect();
    cross_entropies(&own, labels, counts.len()).collect()
}

/// The cross entropy (nats) of each row of `logits` `[n, width]`.
pub(super) fn cross_entropies(logits: &[f32], goals: &[u32], width: usize) -> impl Iterator<Item = f64> {
    logits.chunks_exact(width.max(1)).zip(goals).map(|(row, goal)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|value| f64::from(value - largest).exp()).sum();
        row.get(*goal as usize).map_or(f64::NAN, |value| sum.ln() - f64::from(value - largest))
    })
}

/// e to the mean of some texts' losses (sums, and how many tokens each has).
pub(super) fn perplexity(losses: &[(f64, usize)]) -> f64 {
    let (sum, count) = losses.iter().fold((0.0, 0), |(sum, count), (loss, tokens)| (sum + loss, count + tokens));
    (sum / count.max(1) as f64).exp()
}

/// The index of the largest of `row` + `prior`, the first one on ties.
fn best(row: &[f32], prior: &[f32]) -> usize {
    let sums = row.iter().zip(prior).map(|(value, prior)| value + prior).enumerate();
    sums.fold((0, f32::NEG_INFINITY), |best, (index, value)| if value > best.1 { (index, value) } else { best }).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_accuracy_weighs_classes_by_the_nodes_labels() {
        let logits = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let accuracy = score(&logits, &[0, 0, 1, 1], &[1, 1]);
        assert_eq!(accuracy, Score { global: 0.75, own: 0.75 });
        assert_eq!(score(&logits, &[0, 0, 1, 1], &[3, 0]).own, 1.0);
    }

    #[test]
    fn the_prior_helps_only_the_nodes_own_score() {
        let accuracy = score(&[0.0, 0.5], &[0], &[9, 1]);
        assert_eq!(accuracy, Score { global: 0.0, own: 1.0 });
    }

    #[test]
    fn losses_are_cross_entropies_under_the_nodes_own_prior() {
        let even = losses(&[0.0, 0.0, 3.0, 3.0], &[0, 1], &[5, 5]);
        assert!(even.iter().all(|loss| (loss - 2f64.ln()).abs() < 1e-6), "{even:?}");
        let [rare] = losses(&[0.0, 0.0], &[1], &[9, 1])[..] else { panic!() };
        assert!((rare - (10.2f64 / 1.1).ln()).abs() < 1e-6, "{rare}");
        let [wild] = losses(&[f32::MAX, 0.0], &[1], &[1, 1])[..] else { panic!() };
        assert!(wild > 1e30);
        assert!(!losses(&[f32::NAN, 0.0], &[1], &[1, 1])[0].is_finite());
    }

    #[test]
    fn classes_without_test_samples_do_not_count() {
        assert_eq!(score(&[1.0, 0.0], &[0], &[1, 1]).own, 1.0);
        assert_eq!(score(&[], &[], &[0, 0]), Score::default());
    }
}
