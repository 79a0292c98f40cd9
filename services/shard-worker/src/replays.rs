//! What this worker has sent to the hops below, kept for the case that one of them is lost: the one that takes its
//! place gets it again from here, and nobody else computes anything twice.
//!
//! Bounded in bytes (`--replay-memory`) over all sessions. Beyond them the session that is here longest loses what was
//! kept for it and, should it lose its hop below, is given all its tokens again by the gateway.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::metrics::gauge::Gauge;
use swarm_types::{Step, StepInput};

/// What one piece takes besides its numbers.
const PIECE_BYTES: usize = size_of::<Piece>();
/// Rows that are sent again at a time: as many as fill a batch half, so that other sessions' tokens go between.
const MOST_ROWS: usize = 256;
/// The same in bytes, half of what a message may have.
const MOST_BYTES: usize = 8 << 20;

/// What was sent of all sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Replays(Arc<Mutex<All>>);

#[derive(Debug)]
struct All {
    /// Bytes for all of them.
    limit: usize,
    used: usize,
    /// Told of `used`.
    told: Gauge<u64, AtomicU64>,
    /// By age.
    sessions: BTreeMap<u64, Pieces>,
    next: u64,
}

/// What was sent of one session. It is forgotten when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Sent(Arc<Session>);

#[derive(Debug)]
struct Session {
    all: Replays,
    number: u64,
}

/// Rows without a gap.
#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// The rows of one step.
#[derive(Debug)]
struct Piece {
    position: u32,
    rows: u32,
    /// f32 `[rows, hidden]`.
    values: Vec<f32>,
}

impl Replays {
    /// Keeps so many bytes at most, and tells how many.
    pub(crate) fn new(limit: usize, told: Gauge<u64, AtomicU64>) -> Self {
        Self(Arc::new(Mutex::new(All { limit, used: 0, told, sessions: BTreeMap::new(), next: 0 })))
    }

    /// For a session of which nothing was sent yet.
    pub(crate) fn begin(&self) -> Sent {
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        Sent(Arc::new(Session { all: self.clone(), number }))
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    /// Keeps rows, as long as there is room. They take the place of what was sent at their positions and above.
    pub(crate) fn keep(&self, position: u32, rows: u32, values: &[f32]) {
        let mut all = self.0.all.all();
        if all.limit == 0 {
            return;
        }
        let piece = Piece { position, rows, values: values.to_vec() };
        all.change(self.0.number, |pieces| pieces.push(piece));
        all.make_room();
        all.tell();
    }

    /// Whether rows are kept.
    pub(crate) fn has(&self, rows: Range<u32>) -> bool {
        self.0.all.all().sessions.get(&self.0.number).is_some_and(|pieces| pieces.has(&rows))
    }

    /// The first of these rows, as one step that rebuilds. Nothing unless all of them are kept.
    pub(crate) fn again(&self, rows: Range<u32>) -> Option<Step> {
        let all = self.0.all.all();
        let pieces = all.sessions.get(&self.0.number).filter(|pieces| pieces.has(&rows))?;
        pieces.step(rows)
    }
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut all = self.all.all();
        all.forget(self.number);
        all.tell();
    }
}

impl All {
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Pieces)) {
        let pieces = self.sessions.entry(number).or_default();
        let before = pieces.bytes;
        change(pieces);
        self.used = self.used - before + pieces.bytes;
    }

    fn forget(&mut self, number: u64) {
        let forgotten = self.sessions.remove(&number);
        self.used -= forgotten.map_or(0, |pieces| pieces.bytes);
    }

    fn tell(&self) {
        self.told.set(self.used as u64);
    }

    fn make_room(&mut self) {
        while self.used > self.limit
            && let Some(oldest) = self.sessions.keys().next().copied()
        {
            self.forget(oldest);
        }
    }
}

impl Pieces {
    fn start(&self) -> Option<u32> {
        self.pieces.front().map(|first| first.position)
    }

    fn end(&self) -> Option<u32> {
        self.pieces.back().map(Piece::end)
    }

    fn push(&mut self, piece: Piece) {
        while let Some(last) = self.pieces.back_mut()
            && last.end() > piece.position
        {
            self.bytes -= last.bytes();
            if last.position < piece.position {
                last.cut(piece.position);
                self.bytes += last.bytes();
            } else {
                self.pieces.pop_back();
            }
        }
        if self.end().is_some_and(|end| end < piece.position) {
            *self = Self::default();
        }
        self.bytes += piece.bytes();
        self.pieces.push_back(piece);
    }

    fn has(&self, rows: &Range<u32>) -> bool {
        self.start().is_some_and(|start| start <= rows.start) && self.end().is_some_and(|end| rows.end <= end)
    }

    fn step(&self, rows: Range<u32>) -> Option<Step> {
        let hidden = self.pieces.front()?.hidden();
        let most = (MOST_BYTES / (hidden * size_of::<f32>()).max(1)).clamp(1, MOST_ROWS);
        let end = rows.end.min(rows.start.saturating_add(most as u32));
        let mut values = Vec::with_capacity((end - rows.start) as usize * hidden);
        let first = self.pieces.partition_point(|piece| piece.end() <= rows.start);
        for piece in self.pieces.range(first..).take_while(|piece| piece.position < end) {
            values.extend_from_slice(piece.between(rows.start.max(piece.position), end.min(piece.end())));
        }
        let input = StepInput::Activations { rows: end - rows.start, values };
        Some(Step { position: rows.start, input, rebuilds: true, ..Step::default() })
    }
}

impl Piece {
    fn end(&self) -> u32 {
        self.position + self.rows
    }

    fn bytes(&self) -> usize {
        PIECE_BYTES + size_of_val(self.values.as_slice())
    }

    /// Numbers of a row.
    fn hidden(&self) -> usize {
        self.values.len() / self.rows.max(1) as usize
    }

    /// Ends there.
    fn cut(&mut self, position: u32) {
        let hidden = self.hidden();
        self.rows = position - self.position;
        self.values.truncate(self.rows as usize * hidden);
    }

    fn between(&self, start: u32, end: u32) -> &[f32] {
        let place = |position: u32| (position - self.position) as usize * self.hidden();
        self.values.get(place(start)..place(end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two numbers a row: the position and what was sent the how manieth time.
    fn keep(sent: &Sent, position: u32, rows: u32, time: f32) {
        let values: Vec<f32> = (position..position + rows).flat_map(|row| [row as f32, time]).collect();
        sent.keep(position, rows, &values);
    }

    fn told(sent: &Sent, rows: Range<u32>) -> Option<(u32, u32, Vec<f32>)> {
        let step = sent.again(rows.clone());
        assert_eq!(step.is_some(), sent.has(rows));
        let step = step?;
        assert!(step.rebuilds && step.samples == 0);
        let StepInput::Activations { rows, values } = step.input else { panic!("activations") };
        Some((step.position, rows, values))
    }

    #[test]
    fn what_was_sent_last_is_given_again_in_pieces_of_any_size() {
        let told_bytes = Gauge::default();
        let replays = Replays::new(1 << 20, told_bytes.clone());
        let sent = replays.begin();
        assert_eq!(told(&sent, 0..1), None);
        keep(&sent, 0, 4, 1.0);
        keep(&sent, 4, 1, 1.0);
        keep(&sent, 3, 3, 2.0);
        let all = vec![0., 1., 1., 1., 2., 1., 3., 2., 4., 2., 5., 2.];
        assert_eq!(told(&sent, 0..6), Some((0, 6, all)));
        assert_eq!(told(&sent, 2..5), Some((2, 3, vec![2., 1., 3., 2., 4., 2.])));
        assert_eq!(told(&sent, 5..6), Some((5, 1, vec![5., 2.])));
        assert_eq!(told(&sent, 0..7), None, "not all of it is there");
        keep(&sent, 9, 1, 3.0);
        assert_eq!(told(&sent, 5..6), None, "what lies before a gap is of no use");
        assert_eq!(told(&sent, 9..10), Some((9, 1, vec![9., 3.])));
        keep(&sent, 10, 1000, 4.0);
        let (first, rows, _) = told(&sent, 9..1010).expect("it is there");
        assert_eq!((first, rows as usize), (9, MOST_ROWS), "not all at once");
        drop(sent);
        assert_eq!((told_bytes.get(), replays.all().sessions.len()), (0, 0));
    }

    #[test]
    fn the_oldest_session_makes_room_and_bytes_are_counted_to_the_last() {
        let bytes = Gauge::<u64, AtomicU64>::default();
        let replays = Replays::new(3 * (PIECE_BYTES + 80), bytes.clone());
        let sessions: Vec<Sent> = (0..3).map(|_| replays.begin()).collect();
        sessions.iter().for_each(|sent| keep(sent, 0, 10, 1.0));
        assert_eq!(bytes.get() as usize, 3 * (PIECE_BYTES + 80));
        let kept = || sessions.iter().map(|sent| sent.has(0..10)).collect::<Vec<_>>();
        assert_eq!(kept(), [true; 3]);
        keep(&sessions[1], 10, 1, 1.0);
        assert_eq!(kept(), [false, true, true]);
        keep(&sessions[2], 0, 1000, 1.0);
        assert_eq!(kept(), [false; 3], "it alone is more than may be kept");
        assert_eq!(bytes.get() as usize, 0);
        keep(&sessions[2], 1000, 1, 1.0);
        assert_eq!(bytes.get() as usize, PIECE_BYTES + 8, "it goes on with what comes");
    }
}
