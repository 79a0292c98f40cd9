//! Which layers belong to which shard.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

/// More layers than this are refused: no model has as many.
pub const MAX_LAYERS: u32 = 1024;

/// More shards than this are refused: no model has as many layers, and a status lists every shard.
pub const MAX_SHARDS: u32 = 1024;

/// A cut of the model that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayersError {
    /// No shard, or too many.
    #[error("total shards must be 1 to {MAX_SHARDS}, got {0}")]
    TotalShards(u32),
    /// The shard is not one of the total.
    #[error("shard {shard} is out of range: the model is cut into {total_shards}, numbered from 0")]
    ShardOutOfRange {
        /// The shard asked for.
        shard: u32,
        /// How many there are.
        total_shards: u32,
    },
    /// A model without layers has nothing to spread.
    #[error("the model has no layers")]
    NoLayers,
    /// No model has so many.
    #[error("the model has {0} layers, more than the {MAX_LAYERS} that are accepted")]
    TooManyLayers(u32),
    /// Not the number of weights that there are shards.
    #[error("shard weights: {got} are given, the model is cut into {total_shards} shards; give one for each")]
    WeightCount {
        /// How many weights.
        got: usize,
        /// How many shards.
        total_shards: u32,
    },
    /// Not `2,1,1`.
    #[error(
        "shard weights must be whole numbers from 1 to 1000, one for each shard, as in \"2,1,1\"; got {0:?}"
    )]
    Weights(String),
    /// Layers that end before they start.
    #[error("layers {start}..{end} end before they start")]
    Reversed {
        /// First.
        start: u32,
        /// One past the last.
        end: u32,
    },
    /// Not a single shard.
    #[error("range {start}..{end} is empty")]
    Empty {
        /// First.
        start: u32,
        /// One past the last.
        end: u32,
    },
    /// Not `2`, `2,3` or `2-4`.
    #[error("shards must be neighbours, given as \"2\", \"2,3\" or \"2-4\"; got {0:?}")]
    Syntax(String),
}

/// A shard's number, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Neighbouring shards, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardRange {
    start: u32,
    end: u32,
}

impl ShardRange {
    /// Shards `start..end`.
    ///
    /// # Errors
    /// When empty.
    pub fn new(start: u32, end: u32) -> Result<Self, LayersError> {
        if start < end { Ok(Self { start, end }) } else { Err(LayersError::Empty { start, end }) }
    }

    /// Just one shard.
    #[must_use]
    pub fn one(shard: ShardId) -> Self {
        Self { start: shard.0, end: shard.0.saturating_add(1) }
    }

    /// First shard.
    #[must_use]
    pub fn start(self) -> u32 {
        self.start
    }

    /// One past the last shard.
    #[must_use]
    pub fn end(self) -> u32 {
        self.end
    }

    /// The shards, in order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (self.start..self.end).map(ShardId)
    }

    /// Whether all of `other` is in here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl FromStr for ShardRange {
    type Err = LayersError;

    /// `2`, `2,3,4` (neighbours in any order) or `2-4` (both ends meant).
    fn from_str(text: &str) -> Result<Self, LayersError> {
        let syntax = || LayersError::Syntax(text.chars().take(40).collect());
        let number = |part: &str| part.trim().parse::<u32>().ok().filter(|n| *n < MAX_SHARDS);
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (number(first).ok_or_else(syntax)?, number(last).ok_or_else(syntax)?);
            return Self::new(first, last + 1).map_err(|_| syntax());
        }
        let mut shards = text.split(',').map(number).collect::<Option<Vec<_>>>().ok_or_else(syntax)?;
        shards.sort_unstable();
        let neighbours = shards.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        match (shards.first(), shards.last()) {
            (Some(first), Some(last)) if neighbours => Self::new(*first, last + 1),
            _ => Err(syntax()),
        }
    }
}

impl fmt::Display for ShardRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end - self.start {
            1 => write!(f, "{}", self.start),
            _ => write!(f, "{}-{}", self.start, self.end - 1),
        }
    }
}

/// Neighbouring transformer layers of a model. A shard may have none: when there are fewer layers than shards it passes
/// activations on as they are, and the last one, which samples, may have the head alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "Range<u32>", into = "Range<u32>")]
pub struct LayerRange {
    start: u32,
    end: u32,
}

impl LayerRange {
    /// Layers `start..end`.
    ///
    /// # Errors
    /// When they end before they start.
    pub fn new(start: u32, end: u32) -> Result<Self, LayersError> {
        if start <= end { Ok(Self { start, end }) } else { Err(LayersError::Reversed { start, end }) }
    }

    /// First layer.
    #[must_use]
    pub fn start(self) -> u32 {
        self.start
    }

    /// One past the last layer.
    #[must_use]
    pub fn end(self) -> u32 {
        self.end
    }

    /// The layers, in order.
    pub fn iter(self) -> Range<u32> {
        self.start..self.end
    }

    /// How many layers.
    #[must_use]
    pub fn count(self) -> u32 {
        self.end - self.start
    }

    /// Whether all of `other` is in here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl TryFrom<Range<u32>> for LayerRange {
    type Error = LayersError;

    fn try_from(range: Range<u32>) -> Result<Self, LayersError> {
        Self::new(range.start, range.end)
    }
}

impl From<LayerRange> for Range<u32> {
    fn from(range: LayerRange) -> Self {
        range.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_do_not_end_before_they_start() {
        assert_eq!(LayerRange::new(2, 1), Err(LayersError::Reversed { start: 2, end: 1 }));
        assert!(LayerRange::new(5, 5).is_ok_and(|none| none.count() == 0));
    }

    #[test]
    fn shard_ranges_read_lists_and_spans_of_neighbours_only() {
        let read = |text: &str| text.parse::<ShardRange>();
        assert_eq!(read("2"), ShardRange::new(2, 3));
        assert_eq!(read("3,2"), ShardRange::new(2, 4));
        assert_eq!(read("2-4"), ShardRange::new(2, 5));
        for wrong in ["", "2,4", "4-2", "2,2", "a", "-1", "2-", "99999999999", "1024"] {
            assert!(matches!(read(wrong), Err(LayersError::Syntax(_))), "{wrong:?}");
        }
    }
}
