//! Where the time of each token went, as the field `path_times` of a streamed chunk tells it.

use std::time::Duration;

use serde_json::{Value, json};
use swarm_types::HopTiming;

use crate::completion::TokenPath;

/// A list with one entry for each token.
pub(super) fn json(paths: &[TokenPath]) -> Value {
    let hop = |hop: &HopTiming| {
        json!({
            "queue_us": micros(hop.queue), "compute_us": micros(hop.compute), "batch_rows": hop.batch_rows,
        })
    };
    let token = |path: &TokenPath| {
        json!({
            "token_id": path.token.0,
            "round_trip_us": micros(path.round_trip),
            "hops": path.hops.iter().map(hop).collect::<Vec<_>>(),
        })
    };
    paths.iter().map(token).collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use swarm_types::TokenId;

    use super::*;

    #[test]
    fn times_are_told_in_microseconds() {
        let hop =
            HopTiming { queue: Duration::from_micros(3), compute: Duration::from_millis(2), batch_rows: 4 };
        let path = TokenPath { token: TokenId(7), round_trip: Duration::from_millis(5), hops: vec![hop] };
        let expected = json!([{
            "token_id": 7, "round_trip_us": 5000,
            "hops": [{"queue_us": 3, "compute_us": 2000, "batch_rows": 4}],
        }]);
        assert_eq!(json(&[path]), expected);
    }
}
