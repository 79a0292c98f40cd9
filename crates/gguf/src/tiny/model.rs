//! What kind of tiny model.

/// What kind of model.
#[derive(Clone, Debug)]
pub struct TinyModel {
    /// As the engine names them: `llama`, `gemma3`, `qwen3moe` and so on.
    pub architecture: &'static str,
    /// Transformer layers.
    pub layers: u32,
    /// Width of an activation.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of a head; 0 for its share of an activation.
    pub head: u32,
    /// Width of the feed-forward part, or of each expert.
    pub feed_forward: u32,
    /// Experts of a layer, of which each row chooses two; 0 for none.
    pub experts: u32,
    /// Experts are stored in MXFP4; `hidden` and `feed_forward` must be multiples of 32 then.
    pub four_bits: bool,
    /// Queries and keys have norms, where an architecture need not have them.
    pub query_norms: bool,
    /// Positions that rows of layers with a window look at; 0 for none.
    pub window: u32,
    /// How positions beyond the first 32 are turned.
    pub scaling: Scaling,
    /// Longest session in tokens.
    pub context: u32,
    /// The head is the embedding.
    pub tied: bool,
    /// Llama 3's per-frequency rope factors are there.
    pub rope_factors: bool,
    /// SentencePiece instead of byte-level BPE.
    pub sentence_piece: bool,
    /// Different seeds, different weights, and a description that says so.
    pub seed: u64,
}

/// What is done to the angles of positions that were not trained first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scaling {
    /// Nothing.
    None,
    /// Divided by 4.
    Linear,
    /// Divided by 4 where they are slow.
    Yarn,
    /// Divided by factors by frequency, for long sessions and for others.
    Long,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            architecture: "llama",
            layers: 8,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head: 0,
            feed_forward: 96,
            experts: 0,
            four_bits: false,
            query_norms: false,
            window: 0,
            scaling: Scaling::None,
            context: 512,
            tied: true,
            rope_factors: false,
            sentence_piece: false,
            seed: 1,
        }
    }
}
