//! The differences that there are between architectures.

/// What an architecture's layers are made of.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture` of its files.
    pub name: &'static str,
    pub norm: Norm,
    pub projections: Projections,
    pub rope: RopeStyle,
    pub score_scale: ScoreScale,
    /// What a row of this layer, counted from the model's first, looks at.
    pub window: fn(u32) -> Window,
    pub feed_forward: FeedForward,
    pub activation: Activation,
    /// Parts of every layer besides those of all architectures. Without one of them the answers would be wrong, but not
    /// look it.
    pub required: &'static [&'static str],
}

/// How activations are normalised before attention, before the feed-forward part and before the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Norm {
    /// By the root of the mean of the squares (Zhang and Sennrich, 2019).
    RootMeanSquare,
}

/// How the matrices for queries, keys and values lie in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Projections {
    /// One tensor each.
    Separate,
}

/// How positions are turned into rotations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RopeStyle {
    /// Neighbouring numbers are a pair: how GGUF permutes the llama architecture.
    Adjacent,
    /// Number i and number i + half are a pair ("NeoX").
    Halves,
}

/// What the product of a query and a key is multiplied by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScoreScale {
    /// One over the root of the head's width.
    RootOfHead,
}

/// Which positions a row looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// All up to its own.
    Whole,
}

/// What stands between the activations and what the feed-forward part adds to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FeedForward {
    /// One network for all rows: `down(activation(gate(x)) · up(x))`.
    Dense,
}

/// The function that bends what the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
}
