//! How long a session of a model may be.

use crate::{GgufError, Header};

/// Positions beyond those of any session; a longer context is cut to it.
pub const MAX_CONTEXT: u32 = 1 << 20;

/// Architectures with layers that look at a window of the positions before them. The files of others may name a window
/// too, and are right as long as all positions are in it.
const WINDOWED: [&str; 5] = ["gemma2", "gemma3", "phi3", "gpt-oss", "cohere2"];

impl Header {
    /// The longest session that gives right results, in positions.
    ///
    /// # Errors
    /// When the header does not say it, or says none.
    pub fn session_length(&self) -> Result<u32, GgufError> {
        let arch = self.architecture()?;
        let key = format!("{arch}.context_length");
        let context = self.u32(&key)?;
        if context == 0 {
            return Err(GgufError::Impossible(format!("{key} is 0")));
        }
        let window = match self.has_windows()? {
            true => None,
            false => self.opt_u32(&format!("{arch}.attention.sliding_window"))?.filter(|window| *window > 0),
        };
        Ok(context.min(window.unwrap_or(MAX_CONTEXT)).min(MAX_CONTEXT))
    }

    /// Whether layers of its architecture may look at less than all positions.
    ///
    /// # Errors
    /// When the header does not tell the architecture.
    pub fn has_windows(&self) -> Result<bool, GgufError> {
        Ok(WINDOWED.contains(&self.architecture()?))
    }
}
