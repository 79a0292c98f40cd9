//! What differs between architectures, as data: one small file each, found by `general.architecture`.
//!
//! # A new architecture
//!
//! One whose layers differ only in ways that are here already takes:
//!
//! 1. `arch/<name>.rs`, one [`Architecture`], and its line in [`ALL`];
//! 2. `gguf::tiny`, so that a tiny random model of it can be written: the tensors that it has besides those of all;
//! 3. `architectures()` in this crate's `tests/invariance.rs`: from then on its shards, chunks and batches are checked;
//! 4. `tests/python/architectures.py`, which has `transformers` answer with the same weights, its answers in
//!    `tests/data/architectures`, and its row in `docs/models.md`;
//! 5. in the gateway `text/tokenizer/words.rs`, when its text is cut in a way of its own; in `gguf` `END_NAMES` of
//!    `vocabulary.rs`, when its answers end with a token of another name, and `WINDOWED` of `sessions.rs`, when its
//!    layers have windows;
//! 6. the list of models in `README.md`.
//!
//! One that differs in a new way takes a new variant in `arch/architecture.rs` as well. Then the compiler names the
//! places that have to learn it. They are in both backends, of the same names in `cpu/` and `device/`:
//!
//! | what is new | where it is computed |
//! |---|---|
//! | [`Norm`], [`Norms`] | `norm.rs`; `hyper.rs` for the key of a norm's constant |
//! | [`Projections`], [`FeedForward`] | `matrices.rs`, for both |
//! | [`QueryNorm`], [`Window`], [`ScoreScale`] | `hyper.rs`, for both; `attention.rs` uses them |
//! | sinks | `cpu/attention.rs`, on processors alone |
//! | [`Halves`] | `cpu/block.rs`, on processors alone |
//! | [`RopeStyle`], [`Turn`] | `rope.rs`; `cpu/angles.rs` for both, also for how YaRN rounds |
//! | [`Activation`] | `gated.rs` |
//! | [`Experts`], [`Shared`] | `experts.rs`; `chosen.rs` for both |
//! | [`Multipliers`] | `hyper.rs`, for both; `cpu.rs` and `device.rs`, `block.rs` and `head.rs` use them |
//!
//! A part of a layer that no architecture has had so far is added to `parts.rs`. A file with a part that its
//! architecture does not have is refused: without it the answers would be wrong, but not look it.

mod architecture;
mod cohere;
mod gemma;
mod glm4;
mod gpt_oss;
mod granite;
mod llama;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen3moe;
mod smollm3;

pub(crate) use architecture::{
    Activation, Architecture, Experts, FeedForward, Halves, Multipliers, Norm, Norms, Projections, QueryNorm,
    RopeStyle, ScoreScale, Shared, Turn, Window,
};

/// All that are supported.
pub(crate) const ALL: [&Architecture; 17] = [
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen2moe::QWEN2_MOE,
    &qwen3::QWEN3,
    &qwen3moe::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &granite::GRANITE,
    &granite::GRANITE_MOE,
    &glm4::GLM4,
    &gpt_oss::GPT_OSS,
    &cohere::COMMAND_R,
    &cohere::COHERE2,
];

/// The one of this name.
pub(crate) fn find(name: &str) -> Option<&'static Architecture> {
    ALL.into_iter().find(|arch| arch.name == name)
}

/// The names of all, for messages.
pub(crate) fn names() -> String {
    ALL.map(|arch| arch.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_is_found_by_a_name_of_its_own() {
        for arch in ALL {
            assert!(std::ptr::eq(find(arch.name).expect("there"), arch), "{}", arch.name);
        }
        assert!(find("mamba").is_none());
    }
}
