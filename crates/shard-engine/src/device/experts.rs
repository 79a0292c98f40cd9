//! A mixture of experts on a device: rows are gathered by the expert that they have chosen, and what it makes of them
//! is added by weights, experts by their number (`chosen.rs`).
//!
//! Which rows an expert gets, the host must know: the scores of all rows are copied to it, once a layer. Nothing else
//! of a pass is.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;

use super::{gated::Gated, linear::Linear, place::Loading};
use crate::{
    EngineError,
    chosen::chosen,
    hyper::{ExpertSizes, HyperParameters},
    matrices,
    source::TensorSource,
};

/// A layer's experts.
#[derive(Debug)]
pub(crate) struct Experts {
    sizes: ExpertSizes,
    /// Scores of all experts.
    router: Linear,
    experts: Vec<Gated>,
    shared: Option<Shared>,
}

/// The one that all rows have.
#[derive(Debug)]
struct Shared {
    network: Gated,
    /// `[hidden]`: the product of a row and this is its score, where it has one.
    score: Option<Tensor>,
}

impl Experts {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        sizes: ExpertSizes,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        let router = Linear::load(source, &matrices::router(layer, hyper, sizes), loading)?;
        // Grows with what is there: how many there are is only what the header says.
        let mut experts = Vec::new();
        for number in 0..sizes.count {
            let matrices = matrices::expert(layer, hyper, sizes, number);
            experts.push(Gated::load(source, &matrices, hyper, loading)?);
        }
        let shared = match matrices::shared_expert(layer, hyper, sizes) {
            None => None,
            Some(matrices) => {
                let network = Gated::load(source, &matrices, hyper, loading)?;
                let name = format!("blk.{layer}.ffn_gate_inp_shexp.weight");
                let score = match sizes.gated {
                    true => Some(Tensor::new(source.vector(&name, hyper.hidden)?, &loading.place.device)?),
                    false => None,
                };
                Some(Shared { network, score })
            }
        };
        Ok(Self { sizes, router, experts, shared })
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

    /// `x` is `[rows, hidden]`, as the result.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scores: Vec<f32> = self.router.forward(x)?.flatten_all()?.to_vec1()?;
        let choices = chosen(&scores, self.sizes);
        let rows: Vec<u32> = choices.iter().map(|choice| choice.row as u32).collect();
        let weights: Vec<f32> = choices.iter().map(|choice| choice.weight).collect();
        let rows = Tensor::from_vec(rows, choices.len(), x.device())?;
        let weights = Tensor::from_vec(weights, (choices.len(), 1), x.device())?;
        let (mut y, mut first) = (x.zeros_like()?, 0);
        for choices in choices.chunk_by(|a, b| a.expert == b.expert) {
            let own = rows.narrow(0, first, choices.len())?.contiguous()?;
            let made = self.experts[choices[0].expert].forward(&x.index_select(&own, 0)?)?;
            let weighed = made.broadcast_mul(&weights.narrow(0, first, choices.len())?)?;
            y = y.index_add(&own, &weighed, 0)?;
            first += choices.len();
        }
        match &self.shared {
            Some(shared) => y + shared.forward(x)?,
            None => Ok(y),
        }
    }
}

impl Shared {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let made = self.network.forward(x)?;
        match &self.score {
            Some(score) => made.broadcast_mul(&sigmoid(&x.broadcast_mul(score)?.sum_keepdim(1)?)?),
            None => Ok(made),
        }
    }
}
