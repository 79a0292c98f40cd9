//! How a model's file is cut into shards. Every node finds the same by the header alone.

use gguf::{GgufError, Header};
use swarm_types::{Cut, CutCosts, LayersError, ShardWeights};

use crate::hyper::check_architecture;

/// A model that cannot be cut, or of which shards cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The header does not tell what to cut.
    #[error(transparent)]
    Header(#[from] GgufError),
    /// There is no such cut.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The layers are of an architecture that no device computes.
    #[error(
        "models of architecture {0} are computed on processors alone so far: give --device cpu --backend native"
    )]
    OnDevices(&'static str),
}

/// The cut by bytes of the file that a token reads, which is what it takes time for: of experts those that it chooses.
/// Looking tokens up in the embedding costs nothing beside it.
///
/// # Errors
/// When the header does not tell the layers, or they cannot be cut so.
pub fn cut_of(header: &Header, total_shards: u32, weights: Option<&ShardWeights>) -> Result<Cut, CutError> {
    check_architecture(header)?;
    let parts = header.parts()?;
    let costs = CutCosts { layers: &parts.layer_costs(), head: parts.head_cost() };
    Ok(Cut::new(costs, total_shards, weights)?)
}
