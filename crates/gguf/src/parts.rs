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
}

/// The embedding's matrix.
const EMBEDDING: &str = "token_embd.weight";
/// The head's matrix, where it is another.
const OUTPUT: &str = "output.weight";
/// The norm before the head.
const OUTPUT_NORM: &str = "output_norm.weight";

impl Header {
    /// The tensors by where they are used. A tensor that is used nowhere is in no part.
    ///
    /// # Errors
    /// When the header does not say how many layers there are, or one has no tensor.
    pub fn parts(&self) -> Result<Parts<'_>, GgufError> {
        let key = format!("{}.block_count", self.architecture()?);
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
            return Err(GgufError::Damaged(format!(
                "{key} is {count}, but there is no tensor blk.{there}.*"
            )));
        }
        let named = |name: &'static str| self.tensors.get(name).map(|tensor| (name, tensor));
        let matrix = named(OUTPUT).or_else(|| named(EMBEDDING));
        Ok(Parts {
            embedding: named(EMBEDDING).into_iter().collect(),
            layers,
            head: named(OUTPUT_NORM).into_iter().chain(matrix).collect(),
        })
    }
}

impl Parts<'_> {
    /// Bytes of each layer in the file.
    #[must_use]
    pub fn layer_bytes(&self) -> Vec<u64> {
        self.layers.iter().map(|layer| bytes(layer)).collect()
    }

    /// Bytes of the head in the file.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        bytes(&self.head)
    }
}

fn bytes(tensors: &[(&str, &TensorInfo)]) -> u64 {
    // They lie in the file and over no other, so the sum is not too large.
    tensors.iter().map(|(_, tensor)| tensor.bytes).sum()
}
