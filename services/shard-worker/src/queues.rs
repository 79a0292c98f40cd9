//! Steps that wait for the engine, and which of them it runs next.

use std::collections::VecDeque;

use crate::engine_thread::Waiting;

/// The steps of all sessions.
pub(crate) struct Queues {
    /// Single tokens in the making: they go first.
    decode: VecDeque<Waiting>,
    /// Pieces of prompts.
    prefill: VecDeque<Waiting>,
    /// Rows of a batch.
    batch_tokens: usize,
}

impl Queues {
    pub(crate) fn new(batch_tokens: usize) -> Self {
        Self { decode: VecDeque::new(), prefill: VecDeque::new(), batch_tokens }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.prefill.is_empty()
    }

    pub(crate) fn push(&mut self, waiting: Waiting) {
        let queue = if waiting.step.tokens.len() == 1 { &mut self.decode } else { &mut self.prefill };
        queue.push_back(waiting);
    }

    /// Decode steps first, then pieces of prompts, up to the budget; but at least one of each, so that neither a large
    /// piece nor a steady stream of tokens keeps the others waiting for ever.
    pub(crate) fn next_batch(&mut self) -> Vec<Waiting> {
        let (mut batch, mut rows) = (vec![], 0);
        for queue in [&mut self.decode, &mut self.prefill] {
            let mut taken = 0;
            while let Some(first) = queue.front() {
                let more = first.step.tokens.len();
                if taken > 0 && rows + more > self.batch_tokens {
                    break;
                }
                (rows, taken) = (rows + more, taken + 1);
                batch.extend(queue.pop_front());
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use swarm_types::{Attempt, Step, TokenId};
    use tokio::sync::oneshot;
    use tracing::Span;

    use super::*;

    fn step(rows: usize) -> Waiting {
        Waiting {
            session: "00000000-0000-4000-8000-000000000001".parse().expect("a UUID"),
            attempt: Attempt::FIRST,
            step: Step { tokens: vec![TokenId(0); rows], ..Step::default() },
            since: Instant::now(),
            span: Span::none(),
            answer: oneshot::channel().0,
        }
    }

    /// The rows of each step of each batch until nothing waits.
    fn batches(budget: usize, rows: &[usize]) -> Vec<Vec<usize>> {
        let mut queues = Queues::new(budget);
        rows.iter().for_each(|rows| queues.push(step(*rows)));
        let mut batches = vec![];
        while !queues.is_empty() {
            batches.push(queues.next_batch().iter().map(|waiting| waiting.step.tokens.len()).collect());
        }
        batches
    }

    #[test]
    fn tokens_go_before_prompts_and_a_batch_keeps_its_budget() {
        assert_eq!(batches(8, &[4, 1, 3, 1, 2]), [vec![1, 1, 4], vec![3, 2]]);
        assert_eq!(batches(2, &[1, 1, 1]), [vec![1, 1], vec![1]]);
    }

    #[test]
    fn a_piece_of_a_prompt_is_in_every_batch_however_busy_the_worker_is() {
        assert_eq!(batches(4, &[1, 1, 1, 1, 1, 4, 4]), [vec![1, 1, 1, 1, 4], vec![1, 4]]);
        assert_eq!(batches(4, &[9, 9, 1]), [vec![1, 9], vec![9]], "also one that is larger than the budget");
    }
}
