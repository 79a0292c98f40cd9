//! The second half of a layer: what a row makes of itself alone.

use candle_core::{Result, Tensor};

use super::{experts::Experts, gated::Gated, norm::Norms, place::Loading};
use crate::{EngineError, hyper::HyperParameters, matrices, source::TensorSource};

/// Its weights.
#[derive(Debug)]
pub(crate) struct FeedForward {
    norms: Norms,
    network: Network,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a layer, and of most models all are dense")]
enum Network {
    /// One for all rows.
    Dense(Gated),
    Experts(Box<Experts>),
}

impl FeedForward {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        let network = match hyper.experts {
            Some(sizes) => Network::Experts(Box::new(Experts::load(source, layer, hyper, sizes, loading)?)),
            None => {
                let matrices = matrices::feed_forward(layer, hyper);
                Network::Dense(Gated::load(source, &matrices, hyper, loading)?)
            }
        };
        let names = ["ffn_norm", "post_ffw_norm"].map(|part| format!("blk.{layer}.{part}.weight"));
        let norms = Norms::load(source, names.each_ref().map(String::as_str), hyper, &loading.place)?;
        Ok(Self { norms, network })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.norms.byte_count()
            + match &self.network {
                Network::Dense(network) => network.byte_count(),
                Network::Experts(experts) => experts.byte_count(),
            }
    }

    /// Bytes of the weights that one row reads.
    pub(crate) fn bytes_per_row(&self) -> usize {
        match &self.network {
            Network::Dense(_) => self.byte_count(),
            Network::Experts(experts) => self.norms.byte_count() + experts.bytes_per_row(),
        }
    }

    /// What it adds to `x` `[rows, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.norms.before(x)?;
        let made = match &self.network {
            Network::Dense(network) => network.forward(&normed)?,
            Network::Experts(experts) => experts.forward(&normed)?,
        };
        self.norms.behind(made)
    }
}
