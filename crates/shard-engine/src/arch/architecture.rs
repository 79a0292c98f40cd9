//! The differences that there are between architectures.

/// What an architecture's layers are made of.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture` of its files.
    pub name: &'static str,
    pub norm: Norm,
    pub norms: Norms,
    /// The tensor of the norm before the second half, where there is one.
    pub second_norm: &'static str,
    pub halves: Halves,
    pub projections: Projections,
    pub query_norm: QueryNorm,
    pub rope: RopeStyle,
    /// How this layer, counted from the model's first, turns queries and keys.
    pub turn: fn(u32) -> Turn,
    /// The angles between YaRN's fast and slow ones begin and end at whole pairs.
    pub yarn_rounds: bool,
    pub score_scale: ScoreScale,
    /// Each head's weights have one more share, of a learned score that stands for no position.
    pub sinks: bool,
    /// What a row of this layer, counted from the model's first, looks at.
    pub window: fn(u32) -> Window,
    pub feed_forward: FeedForward,
    /// What stands beside or instead of it where the file has experts.
    pub experts: Experts,
    pub activation: Activation,
    pub multipliers: Multipliers,
    /// Scores and logits are bent as far as the file says.
    pub softcaps: bool,
    /// Parts of every layer besides those of all architectures. Without one of them the answers would be wrong, but not
    /// look it.
    pub required: &'static [&'static str],
}

/// What most have in common: every other one tells how it differs from this.
pub(super) const PLAIN: Architecture = Architecture {
    name: "",
    norm: Norm::RootMeanSquare,
    norms: Norms::Before,
    second_norm: "ffn_norm.weight",
    halves: Halves::InTurn,
    projections: Projections::Separate,
    query_norm: QueryNorm::Head,
    rope: RopeStyle::Halves,
    turn: |_| Turn::Global,
    yarn_rounds: true,
    score_scale: ScoreScale::RootOfHead,
    sinks: false,
    window: |_| Window::Whole,
    feed_forward: FeedForward::Dense,
    experts: Experts::None,
    activation: Activation::Silu,
    multipliers: Multipliers::None,
    softcaps: false,
    required: &[],
};

/// How activations are normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Norm {
    /// By the root of the mean of the squares (Zhang and Sennrich, 2019).
    RootMeanSquare,
    /// By mean and variance, without an offset behind it (Ba, Kiros and Hinton, "Layer normalization", 2016).
    Layer,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Norms {
    /// Before each half.
    Before,
    /// Behind each half, before it is added.
    Behind,
    /// Both.
    Around,
}

/// What the second half of a layer works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Halves {
    /// What came, with what the first half has added.
    InTurn,
    /// What came, as the first half does.
    SideBySide,
}

/// How the matrices for queries, keys and values lie in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Projections {
    /// One tensor each.
    Separate,
    /// Queries, keys and values below each other in one tensor.
    Fused,
}

/// What a norm of queries and keys is over, in files that have one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueryNorm {
    /// Each head for itself.
    Head,
    /// The same, with weights of its own: `[heads][head]`. Only of norms by mean and variance.
    OwnHead,
    /// All heads of a row together.
    Row,
}

/// How positions are turned into rotations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RopeStyle {
    /// Neighbouring numbers are a pair: how GGUF permutes the llama architecture.
    Adjacent,
    /// Number i and number i + half are a pair ("NeoX").
    Halves,
}

/// By which angles a layer turns queries and keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Those of the model.
    Global,
    /// Those of layers with a window: another base, and no scaling.
    Local,
    /// None: positions are not seen.
    None,
}

/// What the product of a query and a key is multiplied by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScoreScale {
    /// One over the root of the head's width.
    RootOfHead,
    /// The same, but in the model of so many layers one over the root of activation's width over heads.
    RootOfShare(u32),
    /// `attention.scale` of the file, and where it has none one over the root of the head's width.
    Written,
}

/// Which positions a row looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// All up to its own.
    Whole,
    /// As many as `attention.sliding_window` says, the last of them its own.
    Sliding,
    /// The same in files that say it, and all in others.
    SlidingIfWritten,
}

/// What stands between the activations and what the feed-forward part adds to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FeedForward {
    /// One network for all rows: `down(activation(gate(x)) · up(x))`.
    Dense,
    /// The same, with the gate above the other in one tensor.
    Fused,
}

/// Networks of which each row chooses some, in files that have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Experts {
    /// A file that has some is not supported.
    None,
    /// Chosen by the largest scores, and weighed by the softmax of all scores.
    Softmax {
        /// The weights of the chosen ones are made to sum to 1.
        to_one: bool,
        shared: Shared,
    },
}

/// An expert that all rows have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shared {
    /// There is none.
    None,
    /// Weighed by the logistic function of a score of its own.
    Gated,
    /// Added as it is, in files that have it.
    Whole,
}

/// The function that bends what the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    Gelu,
    /// `g / (1 + e^-1.702g)` for a gate `g` of at most 7. What it lets through is held within 7, and 1 is added to it.
    Clamped,
}

/// What some numbers on their way are multiplied by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Multipliers {
    None,
    /// Embedded tokens by the root of the activation's width.
    RootOfHidden,
    /// Embedded tokens by `embedding_scale`, what a half adds by `residual_scale`, logits by one over `logit_scale`.
    Written,
    /// Logits by `logit_scale`.
    Logits,
}
