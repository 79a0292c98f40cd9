//! The arithmetic of a measurement: percentiles, medians, rates and the overhead of a hop.

use std::time::Duration;

use serde::Serialize;

/// The value that `percent` of the samples do not exceed (nearest rank); absent without samples.
pub(crate) fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The middle value, or the mean of the two in the middle; absent without samples.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        0 => Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0),
        _ => Some(upper),
    }
}

/// Half of the samples are below the first, all but one in a hundred below the second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// 50th percentile.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Spread {
    /// Absent without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        Some(Self { p50: percentile(samples, 50.0)?, p99: percentile(samples, 99.0)? })
    }
}

/// What the software adds to each one-way trip of a decode step, in microseconds: the round trip less what the hops
/// report as computing and queueing, spread over the trips. A route of n hops has n + 1 trips, since the last hop
/// sends the token straight to the gateway. Absent when no hop reported.
pub(crate) fn hop_overhead_us(round_trip_us: u32, hops: &[(u32, u32)]) -> Option<f64> {
    if hops.is_empty() {
        return None;
    }
    let inside: f64 = hops.iter().map(|(queue, compute)| f64::from(*queue) + f64::from(*compute)).sum();
    Some((f64::from(round_trip_us) - inside) / (hops.len() as f64 + 1.0))
}

/// When one request was sent and when each of its tokens arrived, from the start of the measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Timeline {
    /// Sent.
    pub sent: Duration,
    /// One for each token, in order.
    pub tokens: Vec<Duration>,
}

/// Prompt tokens per second: all prompts over the time from the first request to the last first token.
pub(crate) fn prefill_rate(timelines: &[Timeline], prompt_tokens: u32) -> Option<f64> {
    let start = timelines.iter().map(|t| t.sent).min()?;
    let end = timelines.iter().filter_map(|t| t.tokens.first()).max()?;
    rate(timelines.len() as f64 * f64::from(prompt_tokens), *end - start)
}

/// Tokens per second of all requests together while all of them decode. Absent when there was no such time.
pub(crate) fn decode_rate(timelines: &[Timeline]) -> Option<f64> {
    let (start, end) = decode_window(timelines.iter().map(|t| t.tokens.as_slice()))?;
    let within = |at: &&Duration| start < **at && **at <= end;
    let tokens: usize = timelines.iter().map(|t| t.tokens.iter().filter(within).count()).sum();
    rate(tokens as f64, end - start)
}

/// When all of some requests decode, by the arrivals of each: from the last first one to the first last one. Absent
/// when there is no such time.
pub(crate) fn decode_window<'a>(
    arrivals: impl Iterator<Item = &'a [Duration]> + Clone,
) -> Option<(Duration, Duration)> {
    let start = *arrivals.clone().filter_map(<[Duration]>::first).max()?;
    let end = *arrivals.filter_map(<[Duration]>::last).min()?;
    (start < end).then_some((start, end))
}

/// Amount per second; absent when no time passed.
pub(crate) fn rate(amount: f64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| amount / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_and_medians_the_middle() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50.0), Some(50.0));
        assert_eq!(percentile(&samples, 99.0), Some(99.0));
        assert_eq!(percentile(&samples, 100.0), Some(100.0));
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_overhead_of_a_hop_is_what_no_hop_accounts_for_over_one_more_trip_than_hops() {
        assert_eq!(hop_overhead_us(1_000, &[(10, 190), (20, 280)]), Some(500.0 / 3.0));
        assert_eq!(hop_overhead_us(1_000, &[]), None);
    }

    fn timeline(sent: u64, tokens: &[u64]) -> Timeline {
        let tokens = tokens.iter().copied().map(Duration::from_millis).collect();
        Timeline { sent: Duration::from_millis(sent), tokens }
    }

    #[test]
    fn rates_count_only_the_time_in_which_every_request_did_the_same() {
        let timelines = [timeline(0, &[100, 200, 300, 400]), timeline(10, &[250, 350, 450, 550])];
        assert_eq!(prefill_rate(&timelines, 50), Some(400.0));
        // Between 250 and 400 ms: 300 and 400 of the first, 350 of the second.
        assert_eq!(decode_rate(&timelines), Some(20.0));
        assert_eq!(decode_rate(&[timeline(0, &[100, 200]), timeline(0, &[300, 400])]), None);
        assert_eq!(decode_rate(&[timeline(0, &[100])]), None);
    }
}
