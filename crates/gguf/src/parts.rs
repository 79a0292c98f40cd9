//! How a model's bytes lie over its parts: embedding, layers, head.

use crate::{GgufError, Header, TensorInfo};

/// The tensors of a model by where they are used. Each is a name and its place.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Looked up by token; a shard that begins with layer 0 needs it.
    pub embedding: Vec<(&'a str, &'a TensorInfo)>,
    /// Of each layer, in order.
    pub layers: Vec<Vec<(&'a str, &'a TensorInfo)>>,
    /// What comes after the last layer. The embedding's matrix is here too where the model has no other for it.
    pub head: Vec<(&'a str, &'a TensorInfo)>,
    /// Of how many experts a row chooses how many; of 1 all.
    chosen: (u64, u64),
}

/// What a header is that stands alone.
const NO_TENSORS: &str = "a header with no tensors, as files with a vocabulary alone are";
/// The embedding's matrix.
const EMBEDDING: &str = "token_embd.weight";
/// The head's matrix, where it is another.
const OUTPUT: &str = "output.weight";
/// What names of tensors with the matrices, or the biases, of all experts have in them.
const EXPERTS: &str = "_exps.";
/// The norm before the head.
const OUTPUT_NORM: &str = "output_norm.weight";

impl Header {
    /// The tensors by where they are used. A tensor that is used nowhere is in no part.
    ///
    /// # Errors
    /// When there are no tensors, the header does not say how many layers there are, or one has no tensor.
    pub fn parts(&self) -> Result<Parts<'_>, GgufError> {
        let key = format!("{}.block_count", self.architecture()?);
        if self.tensors.is_empty() {
            return Err(GgufError::NoModel { what: NO_TENSORS, cure: "name the model's own file" });
        }
        let count = self.u32(&key)?;
        // Nothing is set aside for layers that cannot be there.
        let mut layers = vec![vec![]; self.tensors.len().min(count as usize)];
        for (name, tensor) in &self.tensors {
            let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
            if let Some(layer) = number.and_then(|number: usize| layers.get_mut(number)) {
                layer.push((name.as_str(), tensor));
            }
        }
        let there = layers.iter().take_while(|layer| !layer.is_empty()).count();
        if there < count as usize {
            return Err(GgufError::Impossible(format!(
                "{key} is {count}, but there is no tensor blk.{there}.*"
            )));
        }
        let named = |name: &'static str| self.tensors.get(name).map(|tensor| (name, tensor));
        let matrix = named(OUTPUT).or_else(|| named(EMBEDDING));
        Ok(Parts {
            embedding: named(EMBEDDING).into_iter().collect(),
            layers,
            chosen: self.chosen()?,
            head: named(OUTPUT_NORM).into_iter().chain(matrix).collect(),
        })
    }

    /// How many experts a row chooses, and of how many.
    fn chosen(&self) -> Result<(u64, u64), GgufError> {
        let number = |name: &str| self.opt_u32(&format!("{}.{name}", self.architecture()?));
        let (used, count) = (number("expert_used_count")?, number("expert_count")?);
        let chosen = used.zip(count).filter(|(used, count)| (1..=*count).contains(used)).unwrap_or((1, 1));
        Ok((chosen.0.into(), chosen.1.into()))
    }
}

impl Parts<'_> {
    /// What each layer costs: bytes of the file that one row reads. Of experts those that it chooses.
    #[must_use]
    pub fn layer_costs(&self) -> Vec<u64> {
        self.layers.iter().map(|layer| self.cost(layer)).collect()
    }

    /// What the head costs, in the same unit.
    #[must_use]
    pub fn head_cost(&self) -> u64 {
        self.cost(&self.head)
    }

    fn cost(&self, tensors: &[(&str, &TensorInfo)]) -> u64 {
        let (used, count) = self.chosen;
        let cost = |(name, tensor): &(&str, &TensorInfo)| match name.contains(EXPERTS) {
            true => tensor.bytes / count * used,
            false => tensor.bytes,
        };
        // They lie in the file and over no other, so the sum is not too large.
        tensors.iter().map(cost).sum()
    }
}
