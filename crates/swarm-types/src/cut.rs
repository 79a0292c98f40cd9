//! Where a model is cut into shards: by what its layers and its head cost, the same on every node.

use std::{fmt, str::FromStr};

use crate::{LayerRange, LayersError, MAX_LAYERS, MAX_SHARDS, ShardId, ShardRange};

/// A load, a cost over a weight, is a whole number of 2^-32. Two fractions whose denominators are below 2^16 differ by
/// that much at least, so no two loads that differ become the same.
const LOAD_BITS: u32 = 32;

/// What the parts of a model cost. Any unit: bytes of the file, where the time of a token is that of reading weights.
#[derive(Clone, Copy, Debug)]
pub struct CutCosts<'a> {
    /// Of each layer, in order.
    pub layers: &'a [u64],
    /// Of what comes after the last one.
    pub head: u64,
}

/// How much each shard should take beside the others: `2,1,1` gives the first one twice the cost of each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardWeights(Vec<u16>);

impl ShardWeights {
    /// Largest weight.
    pub const MAX: u16 = 1000;
}

impl FromStr for ShardWeights {
    type Err = LayersError;

    /// Whole numbers from 1 to 1000 with commas between them.
    fn from_str(text: &str) -> Result<Self, LayersError> {
        let weight = |part: &str| part.trim().parse().ok().filter(|weight| (1..=Self::MAX).contains(weight));
        let weights: Option<Vec<u16>> = text.split(',').map(weight).collect();
        match weights {
            Some(weights) if weights.len() <= MAX_SHARDS as usize => Ok(Self(weights)),
            _ => Err(LayersError::Weights(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for ShardWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Which layers each shard has. Every layer is in one shard, and shards have theirs in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// For each shard, one past its last layer.
    ends: Vec<u32>,
}

impl Cut {
    /// The cut whose largest shard costs least. With `weights` the cost of each shard counts divided by its weight.
    ///
    /// Of such cuts the one with the least sum of squared costs, each over its weight: what is not bound by the largest
    /// shard is spread evenly. Whole numbers only, so every machine finds the same.
    ///
    /// With fewer layers than shards the first shards have one each. Otherwise every shard has at least one, but the
    /// last, when its head alone is as much as the others have.
    ///
    /// # Errors
    /// When there are no layers or too many, no shards or too many, or not one weight for each shard.
    pub fn new(
        costs: CutCosts<'_>,
        total_shards: u32,
        weights: Option<&ShardWeights>,
    ) -> Result<Self, LayersError> {
        check_total(total_shards)?;
        let layers = u32::try_from(costs.layers.len()).unwrap_or(u32::MAX);
        match layers {
            0 => return Err(LayersError::NoLayers),
            _ if layers > MAX_LAYERS => return Err(LayersError::TooManyLayers(layers)),
            _ => {}
        }
        let weights = match weights {
            Some(ShardWeights(weights)) if weights.len() == total_shards as usize => weights.clone(),
            Some(ShardWeights(weights)) => {
                return Err(LayersError::WeightCount { got: weights.len(), total_shards });
            }
            None => vec![1; total_shards as usize],
        };
        if layers < total_shards {
            return Ok(Self { ends: (1..=total_shards).map(|end| end.min(layers)).collect() });
        }
        let table = Table::new(costs, weights);
        let most = table.least_largest_load();
        Ok(Self { ends: table.evenest(most) })
    }

    /// The cut in which each shard's layers end there.
    ///
    /// # Errors
    /// When there are no layers, no shards or too many, or one ends before the one above.
    pub fn from_ends(ends: Vec<u32>) -> Result<Self, LayersError> {
        check_total(u32::try_from(ends.len()).unwrap_or(u32::MAX))?;
        if let Some(pair) = ends.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(LayersError::Reversed { start: pair[0], end: pair[1] });
        }
        if ends.last() == Some(&0) { Err(LayersError::NoLayers) } else { Ok(Self { ends }) }
    }

    /// For each shard, one past its last layer.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// How many shards; at least one.
    #[must_use]
    pub fn total_shards(&self) -> u32 {
        u32::try_from(self.ends.len()).expect("checked when it was made")
    }

    /// How many layers; at least one.
    #[must_use]
    pub fn total_layers(&self) -> u32 {
        self.ends.last().copied().expect("there is at least one shard")
    }

    /// The layers of neighbouring shards.
    ///
    /// # Errors
    /// When there are no such shards.
    pub fn layers(&self, shards: ShardRange) -> Result<LayerRange, LayersError> {
        let total_shards = self.total_shards();
        if shards.end() > total_shards {
            return Err(LayersError::ShardOutOfRange { shard: shards.end() - 1, total_shards });
        }
        let end_of = |shard: Option<u32>| shard.map_or(0, |shard| self.ends[shard as usize]);
        LayerRange::new(end_of(shards.start().checked_sub(1)), end_of(shards.end().checked_sub(1)))
    }

    /// Each shard's layers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, LayerRange)> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends).map(|(start, end)| LayerRange::new(*start, *end));
        (0..).map(ShardId).zip(ranges.map(|range| range.expect("ends rise")))
    }
}

fn check_total(total_shards: u32) -> Result<(), LayersError> {
    if (1..=MAX_SHARDS).contains(&total_shards) {
        Ok(())
    } else {
        Err(LayersError::TotalShards(total_shards))
    }
}

/// What any run of layers costs a shard. There are at least as many layers as shards.
struct Table {
    /// What all layers below the one of this number cost.
    below: Vec<u128>,
    head: u128,
    weights: Vec<u16>,
}

impl Table {
    fn new(costs: CutCosts<'_>, weights: Vec<u16>) -> Self {
        let mut below = vec![0];
        for cost in costs.layers {
            below.push(below[below.len() - 1] + u128::from(*cost));
        }
        Self { below, head: costs.head.into(), weights }
    }

    fn layers(&self) -> usize {
        self.below.len() - 1
    }

    fn last_shard(&self) -> usize {
        self.weights.len() - 1
    }

    /// The fewest layers that a shard has.
    fn least(&self, shard: usize) -> usize {
        usize::from(shard < self.last_shard())
    }

    fn cost(&self, shard: usize, start: usize, end: usize) -> u128 {
        let head = if shard == self.last_shard() { self.head } else { 0 };
        self.below[end] - self.below[start] + head
    }

    /// What a shard may cost without having more than this load.
    fn room(&self, shard: usize, most: u128) -> u128 {
        most.saturating_mul(self.weights[shard].into()) >> LOAD_BITS
    }

    /// The least load that no shard of some cut is over.
    fn least_largest_load(&self) -> u128 {
        let (mut low, mut high) = (0, self.cost(self.last_shard(), 0, self.layers()) << LOAD_BITS);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.fits(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// Whether there is a cut in which no shard has more than `most`.
    fn fits(&self, most: u128) -> bool {
        // By number of layers: whether the shards so far can have that many.
        let mut reached = vec![false; self.layers() + 1];
        reached[0] = true;
        for shard in 0..self.weights.len() {
            let (least, room) = (self.least(shard), self.room(shard, most));
            let mut next = vec![false; reached.len()];
            let mut nearest = None;
            for end in least..reached.len() {
                if reached[end - least] {
                    nearest = Some(end - least);
                }
                // From the nearest start the shard costs least.
                next[end] = nearest.is_some_and(|start| self.cost(shard, start, end) <= room);
            }
            reached = next;
        }
        reached[self.layers()]
    }

    /// The ends of the cut with the least sum of squares of those in which no shard has more than `most`.
    fn evenest(&self, most: u128) -> Vec<u32> {
        // By number of layers: the least sum with which the shards so far have that many.
        let mut sums: Vec<Option<u128>> = vec![None; self.layers() + 1];
        sums[0] = Some(0);
        let mut starts = vec![];
        for shard in 0..self.weights.len() {
            let (next, from) = self.one_more(shard, most, &sums);
            sums = next;
            starts.push(from);
        }
        let mut ends = vec![];
        let mut end = self.layers();
        for from in starts.iter().rev() {
            ends.push(end as u32);
            end = from[end];
        }
        ends.reverse();
        ends
    }

    /// The sums with one more shard, and where that shard starts in each.
    fn one_more(&self, shard: usize, most: u128, sums: &[Option<u128>]) -> (Vec<Option<u128>>, Vec<usize>) {
        let (mut next, mut from) = (vec![None; sums.len()], vec![0; sums.len()]);
        let (least, room) = (self.least(shard), self.room(shard, most));
        // The shards before and behind have a layer each at least.
        let last_end = self.layers() - self.last_shard().saturating_sub(shard + 1);
        for end in shard + least..=last_end {
            let mut best: Option<(u128, usize)> = None;
            // The fewest layers first, so that all that follow cost more.
            for start in (shard..=end - least).rev() {
                let cost = self.cost(shard, start, end);
                let square = cost.saturating_mul(cost) / u128::from(self.weights[shard]);
                let hopeless = best.is_some_and(|(sum, _)| square > sum);
                if hopeless || cost > room {
                    break;
                }
                let sum = sums[start].map(|sum| sum.saturating_add(square));
                if let Some(sum) = sum.filter(|sum| best.is_none_or(|(least, _)| *sum < least)) {
                    best = Some((sum, start));
                }
            }
            if let Some((sum, start)) = best {
                (next[end], from[end]) = (Some(sum), start);
            }
        }
        (next, from)
    }
}

#[cfg(test)]
mod tests;
