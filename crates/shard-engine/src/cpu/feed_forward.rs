//! The second half of a layer: what a row makes of itself alone.

use super::{experts::Experts, gated::Gated, linear::Arithmetic, norm::Norms};
use crate::{EngineError, hyper::HyperParameters, kernels::buffer::Buffer, matrices, source::TensorSource};

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
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let network = match hyper.experts {
            Some(sizes) => {
                Network::Experts(Box::new(Experts::load(source, layer, hyper, sizes, arithmetic)?))
            }
            None => {
                let matrices = matrices::feed_forward(layer, hyper);
                Network::Dense(Gated::load(source, &matrices, hyper.arch.activation, arithmetic)?)
            }
        };
        // Where halves stand side by side they have one norm, and each holds it.
        let names =
            [hyper.arch.second_norm, "post_ffw_norm.weight"].map(|part| format!("blk.{layer}.{part}"));
        Ok(Self { norms: Norms::load(source, names.each_ref().map(String::as_str), hyper)?, network })
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

    /// What it adds to `x` `[rows][hidden]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> Buffer<f32> {
        let normed = self.norms.before(x, arithmetic);
        let made = match &self.network {
            Network::Dense(network) => network.forward(&normed, arithmetic),
            Network::Experts(experts) => experts.forward(&normed, arithmetic),
        };
        self.norms.behind(made, arithmetic)
    }
}
