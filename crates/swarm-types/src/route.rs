//! The way of a session through the swarm.

use crate::{NodeId, ShardRange};

/// Hops that do not make a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No hop.
    #[error("a route needs at least one hop")]
    Empty,
    /// A hop does not start where the one above ends.
    #[error("hop {hop} starts at shard {got}, expected {expected}")]
    Gap {
        /// Its place in the route, from 0.
        hop: usize,
        /// Its first shard.
        got: u32,
        /// The first shard that is not covered yet.
        expected: u32,
    },
    /// The last hop does not end with the last shard.
    #[error("the route ends at shard {got} of {total_shards}")]
    Incomplete {
        /// First shard that is not covered.
        got: u32,
        /// Shards of the model.
        total_shards: u32,
    },
}

/// A worker's place in a route and the shards it runs there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Who.
    pub worker: NodeId,
    /// What of the model; may be less than the worker serves.
    pub shards: ShardRange,
}

/// One worker for every shard, in order. Neighbouring shards on one worker are one hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    hops: Vec<Hop>,
}

impl Route {
    /// A route from hops that cover shards `0..total_shards` without gap or overlap.
    ///
    /// # Errors
    /// When they do not.
    pub fn new(hops: Vec<Hop>, total_shards: u32) -> Result<Self, RouteError> {
        if hops.is_empty() {
            return Err(RouteError::Empty);
        }
        let mut expected = 0;
        for (place, hop) in hops.iter().enumerate() {
            if hop.shards.start() != expected {
                return Err(RouteError::Gap { hop: place, got: hop.shards.start(), expected });
            }
            expected = hop.shards.end();
        }
        if expected != total_shards {
            return Err(RouteError::Incomplete { got: expected, total_shards });
        }
        Ok(Self { hops })
    }

    /// The hops, first to last; never empty.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The hop that embeds the tokens.
    #[must_use]
    pub fn first(&self) -> &Hop {
        self.hops.first().expect("a route has at least one hop")
    }

    /// The hop that samples.
    #[must_use]
    pub fn last(&self) -> &Hop {
        self.hops.last().expect("a route has at least one hop")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_covers_every_shard_exactly_once() {
        let hop = |start, end| Hop {
            worker: "12D3KooWa".parse().expect("valid"),
            shards: ShardRange::new(start, end).expect("valid"),
        };
        assert!(Route::new(vec![hop(0, 2), hop(2, 3)], 3).is_ok());
        assert_eq!(Route::new(vec![], 3), Err(RouteError::Empty));
        let gap = RouteError::Gap { hop: 1, got: 2, expected: 1 };
        assert_eq!(Route::new(vec![hop(0, 1), hop(2, 3)], 3), Err(gap));
        let overlap = RouteError::Gap { hop: 1, got: 1, expected: 2 };
        assert_eq!(Route::new(vec![hop(0, 2), hop(1, 3)], 3), Err(overlap));
        assert_eq!(Route::new(vec![hop(0, 2)], 3), Err(RouteError::Incomplete { got: 2, total_shards: 3 }));
        assert_eq!(Route::new(vec![hop(0, 4)], 3), Err(RouteError::Incomplete { got: 4, total_shards: 3 }));
    }
}
