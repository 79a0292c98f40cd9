//! The numbers of a mixture of experts.

use gguf::{GgufError, Header};

use super::checks::{MAX_SIZE, positive, unsupported};
use crate::arch::{Architecture, Experts, Shared};

/// How many experts a layer has, and how large they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExpertSizes {
    /// Experts of a layer.
    pub count: usize,
    /// How many of them a row chooses.
    pub used: usize,
    /// Numbers between an expert's gate and what it adds.
    pub wide: usize,
    /// The same of the expert that all rows have; 0 where there is none.
    pub shared: usize,
    /// The weights of those that a row chooses are made to sum to 1.
    pub to_one: bool,
    /// The shared one is weighed by a score of its own.
    pub gated: bool,
}

impl ExpertSizes {
    /// Reads them from a header; `None` when the model has no experts. `feed_forward` is what the header says of
    /// networks that are no experts.
    pub(super) fn read(
        header: &Header,
        arch: &Architecture,
        feed_forward: Option<usize>,
    ) -> Result<Option<Self>, GgufError> {
        let key = |name: &str| format!("{}.{name}", arch.name);
        let number = |name: &str| Ok::<_, GgufError>(header.opt_u32(&key(name))?.unwrap_or(0));
        let count = number("expert_count")?;
        if count == 0 {
            return Ok(None);
        }
        let Experts::Softmax { to_one, shared } = arch.experts else {
            return Err(unsupported(format!("architecture {} with experts", arch.name)));
        };
        let size = |name: &str| match header.opt_u32(&key(name))? {
            Some(number) => positive(&key(name), number),
            None => feed_forward.ok_or_else(|| GgufError::Missing(key(name))),
        };
        let used = header.u32(&key("expert_used_count"))?;
        if used == 0 || used > count || count > MAX_SIZE {
            return Err(GgufError::Impossible(format!("{used} of {count} experts are used")));
        }
        let written = number("expert_shared_feed_forward_length")?;
        let shared_wide = match shared {
            Shared::None => 0,
            Shared::Gated => size("expert_shared_feed_forward_length")?,
            Shared::Whole if written == 0 => 0,
            Shared::Whole => size("expert_shared_feed_forward_length")?,
        };
        Ok(Some(Self {
            count: count as usize,
            used: used as usize,
            wide: size("expert_feed_forward_length")?,
            shared: shared_wide,
            to_one,
            gated: shared == Shared::Gated,
        }))
    }
}
