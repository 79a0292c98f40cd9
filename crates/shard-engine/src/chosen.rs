//! Which experts rows choose, and by what weights: the same on every backend.
//!
//! What a row chooses, and the order in which it is summed, depends on the row alone: experts come by their number,
//! whichever other rows have chosen them too.

use crate::{hyper::ExpertSizes, kernels::math::double};

/// A row's way through one expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub expert: usize,
    pub row: usize,
    pub weight: f32,
}

/// The experts of each row of `scores` `[rows][experts]`, by expert and then by row.
pub(crate) fn chosen(scores: &[f32], sizes: ExpertSizes) -> Vec<Choice> {
    let mut all = Vec::with_capacity(scores.len() / sizes.count * sizes.used);
    let mut order: Vec<usize> = (0..sizes.count).collect();
    for (row, scores) in scores.chunks_exact(sizes.count).enumerate() {
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |expert: usize| double::exp(f64::from(scores[expert]) - f64::from(largest));
        // Of equal scores the first counts as larger.
        order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let used = &order[..sizes.used];
        let total: f64 = match sizes.to_one {
            _ if scores.iter().any(|score| score.is_nan()) => f64::NAN,
            true => used.iter().map(|expert| weight(*expert)).sum(),
            false => (0..sizes.count).map(weight).sum(),
        };
        all.extend(used.iter().map(|expert| {
            let weight = (weight(*expert) / total) as f32;
            Choice { expert: *expert, row, weight }
        }));
    }
    all.sort_unstable_by_key(|choice| (choice.expert, choice.row));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: ExpertSizes =
        ExpertSizes { count: 4, used: 2, wide: 8, shared: 0, to_one: true, gated: false };

    fn weights(scores: &[f32], sizes: ExpertSizes) -> Vec<(usize, usize, f32)> {
        chosen(scores, sizes).iter().map(|choice| (choice.expert, choice.row, choice.weight)).collect()
    }

    #[test]
    fn the_largest_scores_are_chosen_by_the_softmax_of_them_or_of_all() {
        let scores = [0.0, 2f32.ln(), 5f32.ln(), 0.0, 3.0, 0.0, 0.0, 3.0];
        let close = |got: &[(usize, usize, f32)], expected: &[(usize, usize, f32)]| {
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(expected) {
                let same = (got.0, got.1) == (expected.0, expected.1) && (got.2 - expected.2).abs() < 1e-6;
                assert!(same, "{got:?} for {expected:?}");
            }
        };
        let to_one = [(0, 1, 0.5), (1, 0, 2.0 / 7.0), (2, 0, 5.0 / 7.0), (3, 1, 0.5)];
        close(&weights(&scores, SIZES), &to_one);
        let share = 3f32.exp() / (2.0 * 3f32.exp() + 2.0);
        let of_all = [(0, 1, share), (1, 0, 2.0 / 9.0), (2, 0, 5.0 / 9.0), (3, 1, share)];
        close(&weights(&scores, ExpertSizes { to_one: false, ..SIZES }), &of_all);
    }

    #[test]
    fn of_equal_scores_the_first_are_chosen_and_what_is_no_number_gives_none() {
        assert_eq!(weights(&[1.0; 4], SIZES), [(0, 0, 0.5), (1, 0, 0.5)]);
        for nothing in [f32::NAN, f32::INFINITY] {
            let got = weights(&[0.0, nothing, 0.0, 0.0], SIZES);
            assert!(got.len() == 2 && got.iter().any(|(.., weight)| weight.is_nan()), "{got:?}");
        }
        let far = weights(&[0.0, -1e30, -1e38, -f32::MAX], SIZES);
        assert_eq!(far, [(0, 0, 1.0), (1, 0, 0.0)]);
    }
}
