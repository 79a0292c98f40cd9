//! Where the matrices of a model lie in its file, by its architecture: the same for every backend.

use crate::{
    arch::{FeedForward, Projections},
    hyper::{ExpertSizes, HyperParameters},
    source::{Matrix, MatrixShape},
};

/// The embedding's tensor, without `.weight`.
const EMBEDDING: &str = "token_embd";

/// Those of a layer's attention.
pub(crate) struct Attention {
    pub query: Matrix,
    pub key: Matrix,
    pub value: Matrix,
    pub output: Matrix,
}

/// Those of a network with a gate.
pub(crate) struct Gated {
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

/// Those of this layer's attention.
pub(crate) fn attention(layer: u32, hyper: &HyperParameters) -> Attention {
    let (queries, keys) = (hyper.heads * hyper.head, hyper.kv_width());
    let shape = |rows| MatrixShape { rows, columns: hyper.hidden };
    let parts = [("attn_q", queries, 0), ("attn_k", keys, queries), ("attn_v", keys, queries + keys)];
    let [query, key, value] = parts.map(|(part, rows, first)| match hyper.arch.projections {
        Projections::Separate => Matrix::whole(name(layer, part), shape(rows)),
        Projections::Fused => {
            Matrix::rows_of(name(layer, "attn_qkv"), shape(rows), first, queries + 2 * keys)
        }
    });
    let output = MatrixShape { rows: hyper.hidden, columns: queries };
    Attention { query, key, value, output: Matrix::whole(name(layer, "attn_output"), output) }
}

/// Those of this layer's network, if it has no experts.
pub(crate) fn feed_forward(layer: u32, hyper: &HyperParameters) -> Gated {
    let (hidden, wide) = (hyper.hidden, hyper.feed_forward);
    let inwards = MatrixShape { rows: wide, columns: hidden };
    let down = Matrix::whole(name(layer, "ffn_down"), MatrixShape { rows: hidden, columns: wide });
    match hyper.arch.feed_forward {
        FeedForward::Dense => {
            let matrix = |part: &str| Matrix::whole(name(layer, part), inwards);
            Gated { gate: matrix("ffn_gate"), up: matrix("ffn_up"), down }
        }
        FeedForward::Fused => {
            let half =
                |number: usize| Matrix::rows_of(name(layer, "ffn_up"), inwards, number * wide, 2 * wide);
            Gated { gate: half(0), up: half(1), down }
        }
    }
}

/// That of the scores of all experts of this layer.
pub(crate) fn router(layer: u32, hyper: &HyperParameters, sizes: ExpertSizes) -> Matrix {
    Matrix::whole(name(layer, "ffn_gate_inp"), MatrixShape { rows: sizes.count, columns: hyper.hidden })
}

/// Those of the expert of this number.
pub(crate) fn expert(layer: u32, hyper: &HyperParameters, sizes: ExpertSizes, number: usize) -> Gated {
    let of = |part: &str, columns, rows| {
        Matrix::expert(name(layer, part), MatrixShape { rows, columns }, number, sizes.count)
    };
    Gated {
        gate: of("ffn_gate_exps", hyper.hidden, sizes.wide),
        up: of("ffn_up_exps", hyper.hidden, sizes.wide),
        down: of("ffn_down_exps", sizes.wide, hyper.hidden),
    }
}

/// Those of the expert that all rows have, where there is one.
pub(crate) fn shared_expert(layer: u32, hyper: &HyperParameters, sizes: ExpertSizes) -> Option<Gated> {
    let of = |part: &str, columns, rows| Matrix::whole(name(layer, part), MatrixShape { rows, columns });
    (sizes.shared > 0).then(|| Gated {
        gate: of("ffn_gate_shexp", hyper.hidden, sizes.shared),
        up: of("ffn_up_shexp", hyper.hidden, sizes.shared),
        down: of("ffn_down_shexp", sizes.shared, hyper.hidden),
    })
}

/// Tokens to activations.
pub(crate) fn embedding(hyper: &HyperParameters) -> Matrix {
    ends(EMBEDDING, hyper)
}

/// Activations to logits.
pub(crate) fn head(hyper: &HyperParameters) -> Matrix {
    ends(if hyper.tied { EMBEDDING } else { "output" }, hyper)
}

fn ends(name: &str, hyper: &HyperParameters) -> Matrix {
    Matrix::whole(name.into(), MatrixShape { rows: hyper.vocabulary, columns: hyper.hidden })
}

/// The name of a layer's tensor, without `.weight`.
fn name(layer: u32, part: &str) -> String {
    format!("blk.{layer}.{part}")
}
