//! How fast peers are, which is too slow to wait for, and what is late. Pure.

use std::{collections::BTreeMap, time::Duration};

use model_torrent::PieceIndex;
use tokio::time::Instant;

/// What the last second counts in the mean over the seconds before.
const WEIGHT: f64 = 0.3;
/// Of the median of the others: who gives less than that is slow.
const SLOW: f64 = 0.25;
/// Seconds for which a peer must have been slow: pieces come in bursts.
const SLOW_FOR: u32 = 10;
/// The same at the end of a fetch, when others have nothing more to do but to wait for it.
const SLOW_FOR_AT_END: u32 = 3;
/// A piece is late when it takes so many times as long as its peer took for as many bytes before: others may share that
/// peer meanwhile.
const LATE: f64 = 4.0;
/// And not sooner: a busy machine is not to be taken for a slow peer.
const LATE_AT_LEAST: Duration = Duration::from_secs(1);
/// The most that is waited for: another who has nothing to do may be much faster, and nobody knows before it is asked.
const LATE_AT_MOST: f64 = 60.0;
/// The same for a peer of which nobody knows yet how fast it is.
const LATE_AT_FIRST: Duration = Duration::from_secs(5);

/// Bytes a second of one peer while it has something to do. Told once a second.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    total: u64,
    /// Nothing before the first second of work.
    mean: Option<f64>,
    slow_for: u32,
}

impl Speed {
    /// A second passed; so many bytes came since the beginning. Whether it had something to do.
    pub(crate) fn second(&mut self, total: u64, works: bool) {
        let came = total.saturating_sub(std::mem::replace(&mut self.total, total)) as f64;
        if works {
            let mean = self.mean.get_or_insert(came);
            *mean += WEIGHT * (came - *mean);
        }
    }

    /// Bytes a second, over the last seconds of work.
    pub(crate) fn mean(&self) -> Option<f64> {
        self.mean
    }

    /// Compares with others, of whom some may rest. Says whether it was slow for too long.
    pub(crate) fn is_slow(&mut self, others: &mut [f64], some_rest: bool) -> bool {
        others.sort_by(f64::total_cmp);
        let median = others.get(others.len() / 2).copied();
        let is_slow = median.is_some_and(|median| self.mean.unwrap_or(0.0) < SLOW * median);
        self.slow_for = if is_slow { self.slow_for + 1 } else { 0 };
        self.slow_for >= if some_rest { SLOW_FOR_AT_END } else { SLOW_FOR }
    }

    /// It has nothing to do, so it is not slow.
    pub(crate) fn rests(&mut self) {
        self.slow_for = 0;
    }
}

/// What is under way with one peer, and by when it should come.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(BTreeMap<PieceIndex, Asked>);

#[derive(Clone, Copy, Debug)]
struct Asked {
    length: u32,
    /// After that it is late.
    due: Instant,
}

impl UnderWay {
    /// Whether nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = PieceIndex> {
        self.0.keys().copied()
    }

    /// A piece of so many bytes is asked for, behind those that are under way already.
    pub(crate) fn ask(&mut self, piece: PieceIndex, length: u32, speed: &Speed, now: Instant) {
        let before: u64 = self.0.values().map(|asked| u64::from(asked.length)).sum();
        let queued = (before + u64::from(length)) as f64;
        let wait = speed.mean().map_or(LATE_AT_FIRST, |mean| {
            let late = (LATE * queued / mean.max(1.0)).min(LATE_AT_MOST);
            Duration::from_secs_f64(late).max(LATE_AT_LEAST)
        });
        self.0.insert(piece, Asked { length, due: now + wait });
    }

    /// A piece came, or does not come. Says whether it was under way.
    pub(crate) fn ends(&mut self, piece: PieceIndex) -> bool {
        self.0.remove(&piece).is_some()
    }

    /// This node itself kept the peer waiting for so long.
    pub(crate) fn held_up(&mut self, by: Duration) {
        self.0.values_mut().for_each(|asked| asked.due += by);
    }

    /// What should have come by now.
    pub(crate) fn late(&self, now: Instant) -> impl Iterator<Item = PieceIndex> {
        let late = self.0.iter().filter(move |(_, asked)| asked.due < now);
        late.map(|(piece, _)| *piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_takes_four_times_as_long_as_the_peer_took_before() {
        let (start, mut under_way, mut speed) = (Instant::now(), UnderWay::default(), Speed::default());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let late = |under_way: &UnderWay, at| under_way.late(at).collect::<Vec<_>>();
        let pieces = [0, 1, 2].map(PieceIndex);
        under_way.ask(pieces[0], 1000, &speed, start);
        assert_eq!(late(&under_way, at(5000)), [], "nobody knows how fast it is");
        assert_eq!(late(&under_way, at(5001)), [pieces[0]], "and nobody waits for ever to know");
        assert!(under_way.ends(pieces[0]) && !under_way.ends(pieces[0]));
        speed.second(2000, true);
        speed.second(2000, false);
        assert_eq!(speed.mean(), Some(2000.0), "a second without work says nothing");
        pieces[1..].iter().for_each(|piece| under_way.ask(*piece, 1000, &speed, start));
        assert_eq!(late(&under_way, at(2000)), []);
        assert_eq!(late(&under_way, at(2001)), [pieces[1]]);
        assert_eq!(late(&under_way, at(4001)), pieces[1..], "it waits for the other");
        under_way.held_up(Duration::from_secs(2));
        assert_eq!(late(&under_way, at(4001)), [pieces[1]]);

        let (mut fast, mut speed) = (UnderWay::default(), Speed::default());
        speed.second(1_000_000, true);
        fast.ask(pieces[0], 1000, &speed, start);
        assert_eq!(late(&fast, at(1000)), [], "a second is nothing");
        assert_eq!(late(&fast, at(1001)), [pieces[0]]);
    }

    #[test]
    fn slow_is_who_gives_less_than_a_quarter_of_the_median_for_long() {
        let after = |rate: u64, others: &[f64]| {
            let mut speed = Speed::default();
            (1..=60).position(|second| {
                speed.second(second * rate, true);
                speed.is_slow(&mut others.to_vec(), false)
            })
        };
        assert_eq!(after(10, &[100.0, 100.0, 1.0]), Some(9));
        assert_eq!(after(30, &[100.0, 100.0, 1.0]), None);
        assert_eq!(after(0, &[]), None, "nobody else is there");
        assert_eq!(after(10, &[1e9, 20.0, 20.0]), None, "one fast peer makes the others not slow");
    }
}
