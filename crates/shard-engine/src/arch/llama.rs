//! Llama 2 and 3, Mistral, Mixtral, SmolLM, Falcon 3.

use super::architecture::{Architecture, Experts, PLAIN, RopeStyle, Shared};

pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    rope: RopeStyle::Adjacent,
    experts: Experts::Softmax { to_one: true, shared: Shared::None },
    ..PLAIN
};
