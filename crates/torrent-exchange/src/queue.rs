//! What is to be answered on one stream, in order. Bounded: who asks for more is refused, and who goes on is cut off.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model_torrent::PieceIndex;
use tokio::sync::Notify;

use crate::{causes::Refusal, error::ExchangeError};

/// Refusals that wait, besides the pieces. They are few bytes each; a peer with more does not read its answers.
const REFUSALS: usize = 256;

/// An answer that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Torrent,
    Piece(PieceIndex),
    Refused(PieceIndex, Refusal),
}

/// Between who listens on a stream and who answers on it.
pub(crate) struct Queue {
    pieces: usize,
    state: Mutex<State>,
    added: Notify,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    /// What is being answered now.
    current: Option<Answer>,
    /// Whether that is not wanted any more.
    is_cancelled: bool,
    had_torrent: bool,
}

impl Queue {
    /// With room for so many pieces.
    pub(crate) fn new(pieces: usize) -> Self {
        Self { pieces, state: Mutex::default(), added: Notify::new() }
    }

    /// The torrent is asked for.
    pub(crate) fn torrent(&self) -> Result<(), ExchangeError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.had_torrent, true) {
            return Err(ExchangeError::field("torrent", "is asked for more than once"));
        }
        state.answers.push_back(Answer::Torrent);
        drop(state);
        self.added.notify_one();
        Ok(())
    }

    /// A piece is asked for. Says why it is refused, if it is.
    pub(crate) fn request(&self, piece: PieceIndex, is_here: bool) -> Result<Option<Refusal>, ExchangeError> {
        let mut state = self.state();
        if state.answers.iter().chain(&state.current).any(|answer| answer.is_about(piece)) {
            return Err(ExchangeError::field("request.piece", "is requested already"));
        }
        let waiting = state.answers.iter().filter(|answer| matches!(answer, Answer::Piece(_))).count();
        let refusal = match is_here {
            false => Some(Refusal::NotHere),
            true => (waiting >= self.pieces).then_some(Refusal::Full),
        };
        if refusal.is_some() && state.answers.len() - waiting >= REFUSALS {
            return Err(ExchangeError::field("request", "follows too many that were refused"));
        }
        let answer = refusal.map_or(Answer::Piece(piece), |cause| Answer::Refused(piece, cause));
        state.answers.push_back(answer);
        drop(state);
        self.added.notify_one();
        Ok(refusal)
    }

    /// A piece is not wanted any more. Its answer may be on its way already: then nothing changes.
    pub(crate) fn cancel(&self, piece: PieceIndex) {
        let mut state = self.state();
        if state.current == Some(Answer::Piece(piece)) {
            state.is_cancelled = true;
        }
        if let Some(waiting) = state.answers.iter_mut().find(|answer| **answer == Answer::Piece(piece)) {
            *waiting = Answer::Refused(piece, Refusal::Cancelled);
        }
    }

    /// The next answer, if one is due. The one before is given completely.
    pub(crate) fn next(&self) -> Option<Answer> {
        let mut state = self.state();
        state.is_cancelled = false;
        state.current = state.answers.pop_front();
        state.current
    }

    /// Whether the answer that is being given is not wanted any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// Whether nothing is to be answered.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.answers.is_empty() && state.current.is_none()
    }

    /// Resolves when something was asked. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn is_about(&self, wanted: PieceIndex) -> bool {
        match self {
            Self::Torrent => false,
            Self::Piece(piece) | Self::Refused(piece, _) => *piece == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_in_order_and_the_rest_is_refused() {
        let queue = Queue::new(2);
        let asked: Vec<_> = (0..4).map(|piece| queue.request(PieceIndex(piece), piece != 0)).collect();
        let told: Vec<_> = asked.into_iter().map(Result::unwrap).collect();
        assert_eq!(told, [Some(Refusal::NotHere), None, None, Some(Refusal::Full)]);
        queue.cancel(PieceIndex(2));
        assert_eq!(queue.next(), Some(Answer::Refused(PieceIndex(0), Refusal::NotHere)));
        assert_eq!(queue.next(), Some(Answer::Piece(PieceIndex(1))));
        assert!(queue.request(PieceIndex(1), true).is_err(), "it is under way");
        queue.cancel(PieceIndex(1));
        assert!(queue.is_cancelled());
        assert_eq!(queue.next(), Some(Answer::Refused(PieceIndex(2), Refusal::Cancelled)));
        assert!(!queue.is_cancelled());
        assert_eq!(queue.next(), Some(Answer::Refused(PieceIndex(3), Refusal::Full)));
        assert!(!queue.is_idle());
        assert_eq!(queue.next(), None);
        assert!(queue.is_idle());
        assert!(queue.torrent().is_ok() && queue.torrent().is_err());
    }

    #[test]
    fn who_goes_on_asking_for_what_is_refused_is_cut_off() {
        let queue = Queue::new(1);
        let refused = (0..1000).map(|piece| queue.request(PieceIndex(piece), false));
        assert_eq!(refused.take_while(Result::is_ok).count(), REFUSALS);
    }
}
