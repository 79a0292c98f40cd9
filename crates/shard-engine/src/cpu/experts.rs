//! A mixture of experts (Shazeer et al., "Outrageously large neural networks", 2017): each row goes through a few of
//! many networks, those with the largest scores, and adds what they make of it by weights.
//!
//! Experts are summed by their number (`chosen.rs`).

use super::{
    gated::Gated,
    linear::{Arithmetic, Linear},
};
use crate::{
    EngineError,
    chosen::{Choice, chosen},
    hyper::{ExpertSizes, HyperParameters},
    kernels::{buffer::Buffer, math::double},
    matrices,
    source::TensorSource,
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
        let router = Linear::load(source, &matrices::router(layer, hyper, sizes), arithmetic)?;
        // Grows with what is there: how many there are is only what the header says.
        let mut experts = Vec::new();
        for number in 0..sizes.count {
            let matrices = matrices::expert(layer, hyper, sizes, number);
            experts.push(Gated::load(source, &matrices, activation, arithmetic)?);
        }
        let shared = match matrices::shared_expert(layer, hyper, sizes) {
            None => None,
            Some(matrices) => {
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
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> Buffer<f32> {
        let scores = self.router.forward(x, arithmetic);
        let mut y = Buffer::zeros(x.len());
        for choices in chosen(&scores, self.sizes).chunk_by(|a, b| a.expert == b.expert) {
            self.add(choices, x, &mut y, arithmetic);
        }
        if let Some(shared) = &self.shared {
            shared.add(x, &mut y, self.hidden, arithmetic);
        }
        y
    }

    /// Adds to `y` what one expert makes of the rows that have chosen it.
    fn add(&self, choices: &[Choice], x: &[f32], y: &mut [f32], arithmetic: &Arithmetic) {
        let place = |choice: &Choice| choice.row * self.hidden..(choice.row + 1) * self.hidden;
        let mut rows = Buffer::stale(choices.len() * self.hidden);
        for (row, choice) in rows.chunks_exact_mut(self.hidden).zip(choices) {
            row.copy_from_slice(&x[place(choice)]);
        }
        let made = self.experts[choices[0].expert].forward(&rows, arithmetic);
        for (made, choice) in made.chunks_exact(self.hidden).zip(choices) {
            add_weighed(&mut y[place(choice)], made, choice.weight);
        }
    }
}

impl Shared {
    fn add(&self, x: &[f32], y: &mut [f32], hidden: usize, arithmetic: &Arithmetic) {
        let made = self.network.forward(x, arithmetic);
        let rows = x.chunks_exact(hidden).zip(y.chunks_exact_mut(hidden)).zip(made.chunks_exact(hidden));
        for ((x, y), made) in rows {
            let weight = self.score.as_ref().map_or(1.0, |score| logistic(product(x, score)));
            add_weighed(y, made, weight);
        }
    }
}

/// `y + weight · x`, each product and sum rounded by itself.
fn add_weighed(y: &mut [f32], x: &[f32], weight: f32) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
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

    #[test]
    fn scores_of_the_shared_one_become_weights_within_0_and_1() {
        assert_eq!([logistic(0.0), logistic(1e9), logistic(-1e9)], [0.5, 1.0, 0.0]);
        assert_eq!(product(&[1.0, 2.0, -1.0], &[4.0, 0.5, 2.0]), 3.0);
    }
}
