//! How fast this machine reads its memory: no engine decodes faster than the weights of a token can be read.

use std::{hint::black_box, thread, time::Instant};

use serde::Serialize;

use super::figures::median;

/// Bytes of one reading: far more than any cache holds, so that they come from memory, and little enough to be had.
const READ_BYTES: usize = 512 << 20;
/// Sums that run side by side, so that a reading waits for memory and not for an addition before it.
const LANES: usize = 16;

/// Memory to read.
pub(crate) struct Memory {
    words: Vec<u64>,
    threads: usize,
}

/// What was measured, and what follows from it for decoding one session.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    /// Of one reading.
    pub read_bytes: usize,
    /// Median of plain sequential readings by one thread.
    pub bytes_per_second_one_thread: Option<f64>,
    /// The same, each of the engine's threads reading a part.
    pub bytes_per_second: Option<f64>,
    /// Weights that a token reads: layers and head as they are held.
    pub weight_bytes_per_token: u64,
    /// What a token reads of its session's cache, halfway through the decoding.
    pub cache_bytes_per_token: u64,
    /// Tokens per second if reading were all there is to do.
    pub tokens_per_second: Option<f64>,
    /// Decoding one session to that: median of the rounds, each beside readings of its own. Absent when no line of
    /// one session was asked for.
    pub reached: Option<f64>,
}

/// Readings of a measurement, one before and one after each decoding.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    one_thread: Vec<f64>,
    all_threads: Vec<f64>,
    reached: Vec<f64>,
}

impl Memory {
    /// Memory that is there: written once, so that reading it takes no page faults.
    pub(crate) fn new(threads: usize) -> Self {
        Self { words: (0..(READ_BYTES / size_of::<u64>()) as u64).collect(), threads }
    }

    /// Bytes per second of one reading by so many threads.
    fn read(&self, threads: usize) -> f64 {
        let started = Instant::now();
        thread::scope(|scope| {
            let mut parts = self.words.chunks(self.words.len().div_ceil(threads));
            let ours = parts.next().unwrap_or_default();
            for part in parts {
                scope.spawn(move || black_box(sum(part)));
            }
            black_box(sum(ours));
        });
        READ_BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

/// In a loop that becomes vector instructions of whatever processor this was built for.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; LANES];
    let (blocks, rest) = words.as_chunks::<LANES>();
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |all, sum| all.wrapping_add(*sum))
}

impl Readings {
    /// Reads; gives what all threads reached, in bytes per second.
    pub(crate) fn take(&mut self, memory: &Memory) -> f64 {
        let one = memory.read(1);
        self.one_thread.push(one);
        let all = if memory.threads == 1 { one } else { memory.read(memory.threads) };
        self.all_threads.push(all);
        all
    }

    /// One session has decoded so many tokens per second, of so many bytes each, between two readings.
    pub(crate) fn decoded(&mut self, rate: f64, bytes_per_token: u64, readings: [f64; 2]) {
        let floor = (readings[0] + readings[1]) / 2.0 / bytes_per_token as f64;
        self.reached.push(rate / floor);
    }

    /// What follows from all readings.
    pub(crate) fn floor(&self, weight_bytes: u64, cache_bytes: u64) -> Floor {
        let bytes_per_second = median(&self.all_threads);
        Floor {
            read_bytes: READ_BYTES,
            bytes_per_second_one_thread: median(&self.one_thread),
            bytes_per_second,
            weight_bytes_per_token: weight_bytes,
            cache_bytes_per_token: cache_bytes,
            tokens_per_second: bytes_per_second.map(|speed| speed / (weight_bytes + cache_bytes) as f64),
            reached: median(&self.reached),
        }
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gigabytes =
            |speed: Option<f64>| speed.map_or("–".into(), |speed| format!("{:.1}", speed / 1e9));
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        writeln!(
            f,
            "memory: {} GB/s read by one thread, {} GB/s by the engine's",
            gigabytes(self.bytes_per_second_one_thread),
            gigabytes(self.bytes_per_second)
        )?;
        write!(
            f,
            "a token reads {:.1} MB of weights and {:.1} MB of its cache",
            megabytes(self.weight_bytes_per_token),
            megabytes(self.cache_bytes_per_token)
        )?;
        if let Some(floor) = self.tokens_per_second {
            write!(f, ": at most {floor:.0} tok/s one at a time")?;
        }
        match self.reached {
            Some(reached) => writeln!(f, ", of which {reached:.2} is reached"),
            None => writeln!(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_reads_every_word() {
        for words in [0, 1, LANES, 3 * LANES + 5] {
            let numbers: Vec<u64> = (1..=words as u64).collect();
            assert_eq!(sum(&numbers), numbers.iter().sum::<u64>(), "{words} words");
        }
    }

    #[test]
    fn the_floor_is_what_reading_alone_would_give_and_each_round_is_held_against_its_own() {
        let mut readings = Readings { all_threads: vec![8e9, 12e9, 10e9], ..Readings::default() };
        readings.decoded(50.0, 100_000_000, [8e9, 12e9]);
        readings.decoded(30.0, 100_000_000, [10e9, 10e9]);
        readings.decoded(60.0, 100_000_000, [10e9, 10e9]);
        let floor = readings.floor(90_000_000, 10_000_000);
        assert_eq!((floor.tokens_per_second, floor.reached), (Some(100.0), Some(0.5)));
        let text = floor.to_string();
        assert!(text.contains("at most 100 tok/s one at a time, of which 0.50 is reached"), "{text}");
    }
}
