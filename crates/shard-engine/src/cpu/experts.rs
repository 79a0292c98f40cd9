//! A mixture of experts (Shazeer et al., "Outrageously large neural networks", 2017): each row goes through a few of
//! many networks, those with the largest scores, and adds what they make of it by weights.
//!
//! What a row chooses, and the order in which it is summed, depends on the row alone: experts come by their number,
//! whichever other rows have chosen them too.

use super::{
    gated::{Gated, Matrices},
    linear::{Arithmetic, Linear},
};
use crate::{
    EngineError,
    hyper::{ExpertSizes, HyperParameters},
    kernels::{buffer::Buffer, math::double},
    source::{Matrix, MatrixShape, TensorSource},
};

/// A layer's experts.
#[derive(Debug)]
pub(crate) struct Experts {
    sizes: ExpertSizes,
    hidden: usize,
    /// Scores of all experts.
    router: Linear,
    experts: Vec<Gated>,
    shared: Option<Shared>,
}

/// The one that all rows have.
#[derive(Debug)]
struct Shared {
    network: Gated,
    /// The product of a row and this is its score, where it has one.
    score: Option<Vec<f32>>,
}

/// A row's way through one expert.
#[derive(Clone, Copy, Debug)]
struct Choice {
    expert: usize,
    row: usize,
    weight: f32,
}

impl Experts {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        sizes: ExpertSizes,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (hidden, activation) = (hyper.hidden, hyper.arch.activation);
        let shape = |columns, rows| MatrixShape { rows, columns };
        let router = Matrix::whole(name("ffn_gate_inp"), shape(hidden, sizes.count));
        let router = Linear::load(source, &router, arithmetic)?;
        // Grows with what is there: how many there are is only what the header says.
        let mut experts = Vec::new();
        for number in 0..sizes.count {
            let of = |part: &str, shape| Matrix::expert(name(part), shape, number, sizes.count);
            let matrices = Matrices {
                gate: of("ffn_gate_exps", shape(hidden, sizes.wide)),
                up: of("ffn_up_exps", shape(hidden, sizes.wide)),
                down: of("ffn_down_exps", shape(sizes.wide, hidden)),
            };
            experts.push(Gated::load(source, &matrices, activation, arithmetic)?);
        }
        let shared = match sizes.shared {
            0 => None,
            wide => {
                let matrices = Matrices {
                    gate: Matrix::whole(name("ffn_gate_shexp"), shape(hidden, wide)),
                    up: Matrix::whole(name("ffn_up_shexp"), shape(hidden, wide)),
                    down: Matrix::whole(name("ffn_down_shexp"), shape(wide, hidden)),
                };
                let network = Gated::load(source, &matrices, activation, arithmetic)?;
                let score = match sizes.gated {
                    true => Some(source.vector(&name("ffn_gate_inp_shexp.weight"), hidden)?),
                    false => None,
                };
                Some(Shared { network, score })
            }
        };
        Ok(Self { sizes, hidden, router, experts, shared })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.router.byte_count() + self.experts_bytes() + self.shared_bytes()
    }

    /// Bytes of the weights that one row reads.
    pub(crate) fn bytes_per_row(&self) -> usize {
        let chosen = self.experts_bytes() / self.sizes.count * self.sizes.used;
        self.router.byte_count() + chosen + self.shared_bytes()
    }

    fn experts_bytes(&self) -> usize {
        self.experts.iter().map(Gated::byte_count).sum()
    }

    fn shared_bytes(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.network.byte_count())
    }

    /// `x` is `[rows][hidden]`, as the result.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Buffer<f32>> {
        let scores = self.router.forward(x, arithmetic)?;
        let mut y = Buffer::zeros(x.len());
        for choices in chosen(&scores, self.sizes).chunk_by(|a, b| a.expert == b.expert) {
            self.add(choices, x, &mut y, arithmetic)?;
        }
        if let Some(shared) = &self.shared {
            shared.add(x, &mut y, self.hidden, arithmetic)?;
        }
        Ok(y)
    }

    /// Adds to `y` what one expert makes of the rows that have chosen it.
    fn add(
        &self,
        choices: &[Choice],
        x: &[f32],
        y: &mut [f32],
        arithmetic: &Arithmetic,
    ) -> candle_core::Result<()> {
        let place = |choice: &Choice| choice.row * self.hidden..(choice.row + 1) * self.hidden;
        let mut rows = Buffer::stale(choices.len() * self.hidden);
        for (row, choice) in rows.chunks_exact_mut(self.hidden).zip(choices) {
            row.copy_from_slice(&x[place(choice)]);
        }
        let made = self.experts[choices[0].expert].forward(&rows, arithmetic)?;
        for (made, choice) in made.chunks_exact(self.hidden).zip(choices) {
            add_weighed(&mut y[place(choice)], made, choice.weight);
        }
        Ok(())
    }
}

impl Shared {
    fn add(
        &self,
        x: &[f32],
        y: &mut [f32],
        hidden: usize,
        arithmetic: &Arithmetic,
    ) -> candle_core::Result<()> {
        let made = self.network.forward(x, arithmetic)?;
        let rows = x.chunks_exact(hidden).zip(y.chunks_exact_mut(hidden)).zip(made.chunks_exact(hidden));
        for ((x, y), made) in rows {
            let weight = self.score.as_ref().map_or(1.0, |score| logistic(product(x, score)));
            add_weighed(y, made, weight);
        }
        Ok(())
    }
}

/// `y + weight · x`, each product and sum rounded by itself.
fn add_weighed(y: &mut [f32], x: &[f32], weight: f32) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

/// The experts of each row of `scores` `[rows][experts]`, by expert and then by row.
fn chosen(scores: &[f32], sizes: ExpertSizes) -> Vec<Choice> {
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

/// Summed from the first to the last.
fn product(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// `1 / (1 + e^-x)`.
fn logistic(x: f64) -> f32 {
    (1.0 / (1.0 + double::exp(-x))) as f32
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

    #[test]
    fn scores_of_the_shared_one_become_weights_within_0_and_1() {
        assert_eq!([logistic(0.0), logistic(1e9), logistic(-1e9)], [0.5, 1.0, 0.0]);
        assert_eq!(product(&[1.0, 2.0, -1.0], &[4.0, 0.5, 2.0]), 3.0);
    }
}
