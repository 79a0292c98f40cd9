//! Steps that wait for the engine, and which of them it runs next.

use std::{collections::VecDeque, time::Instant};

use shard_engine::{Slot, StepResult};
use swarm_proto::Refusal;
use swarm_types::{HopTiming, Step, StepKind};
use tokio::sync::oneshot;
use tracing::Span;

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A step that waits for its turn.
pub(crate) struct Waiting {
    pub slot: Slot,
    pub step: Step,
    pub since: Instant,
    pub span: Span,
    pub answer: Answer<Computed>,
}

/// A step that has passed the engine.
pub(crate) struct Computed {
    /// As it was sent.
    pub step: Step,
    pub result: StepResult,
    pub timing: HopTiming,
}

/// The steps of all sessions.
pub(crate) struct Queues {
    /// Tokens in the making: they go first.
    decode: VecDeque<Waiting>,
    /// Pieces of prompts.
    prefill: VecDeque<Waiting>,
    /// The slots that are rebuilt, in their order: one that is whole early goes on while the others are rebuilt.
    rebuilt: Vec<Slot>,
    /// Rows of a batch.
    batch_tokens: usize,
}

impl Queues {
    pub(crate) fn new(batch_tokens: usize) -> Self {
        Self { decode: VecDeque::new(), prefill: VecDeque::new(), rebuilt: vec![], batch_tokens }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.prefill.is_empty()
    }

    pub(crate) fn push(&mut self, waiting: Waiting) {
        match waiting.step.kind {
            StepKind::Decode => self.decode.push_back(waiting),
            StepKind::Prefill => {
                let place = self.place(&waiting).unwrap_or(self.prefill.len());
                self.prefill.insert(place, waiting);
            }
        }
    }

    /// Where a step goes that rebuilds: before those of slots that came later.
    fn place(&mut self, waiting: &Waiting) -> Option<usize> {
        if !waiting.step.rebuilds {
            return None;
        }
        if !self.rebuilt.contains(&waiting.slot) {
            self.rebuilt.push(waiting.slot);
        }
        let later = self.rebuilt.iter().skip_while(|slot| **slot != waiting.slot).skip(1);
        let later: Vec<Slot> = later.copied().collect();
        self.prefill.iter().position(|other| other.step.rebuilds && later.contains(&other.slot))
    }

    /// Decode steps first, then pieces of prompts, up to the budget; but at least one of each, so that neither a large
    /// piece nor a steady stream of tokens keeps the others waiting for ever.
    pub(crate) fn next_batch(&mut self) -> Vec<Waiting> {
        let (mut batch, mut rows) = (vec![], 0);
        for queue in [&mut self.decode, &mut self.prefill] {
            let mut taken = 0;
            while let Some(first) = queue.front() {
                let more = first.step.rows();
                if taken > 0 && rows + more > self.batch_tokens {
                    break;
                }
                (rows, taken) = (rows + more, taken + 1);
                batch.extend(queue.pop_front());
            }
        }
        if !self.prefill.iter().any(|waiting| waiting.step.rebuilds) {
            self.rebuilt.clear();
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use StepKind::{Decode, Prefill};
    use swarm_types::TokenId;

    use super::*;
    use crate::fixture::slots;

    /// The rows of each step of each batch until nothing waits.
    fn batches(budget: usize, steps: &[(StepKind, usize)]) -> Vec<Vec<usize>> {
        let mut queues = Queues::new(budget);
        let slot = slots(1)[0];
        for (kind, rows) in steps {
            queues.push(Waiting {
                slot,
                step: Step { kind: *kind, input: vec![TokenId(0); *rows].into(), ..Step::default() },
                since: Instant::now(),
                span: Span::none(),
                answer: oneshot::channel().0,
            });
        }
        let mut batches = vec![];
        while !queues.is_empty() {
            batches.push(queues.next_batch().iter().map(|waiting| waiting.step.rows()).collect());
        }
        batches
    }

    #[test]
    fn tokens_go_before_prompts_and_a_batch_keeps_its_budget() {
        let mixed = [(Prefill, 4), (Decode, 1), (Prefill, 3), (Decode, 1), (Prefill, 2)];
        assert_eq!(batches(8, &mixed), [vec![1, 1, 4], vec![3, 2]]);
        assert_eq!(batches(2, &[(Decode, 1); 3]), [vec![1, 1], vec![1]]);
    }

    #[test]
    fn slots_are_rebuilt_one_after_the_other() {
        let (mut queues, slots) = (Queues::new(4), slots(3));
        let push = |queues: &mut Queues, place: usize, rows: usize, rebuilds: bool| {
            let input = vec![TokenId(0); rows].into();
            let step = Step { input, rebuilds, ..Step::default() };
            let (slot, since, span) = (slots[place], Instant::now(), Span::none());
            queues.push(Waiting { slot, step, since, span, answer: oneshot::channel().0 });
        };
        let next = |queues: &mut Queues| -> Vec<usize> {
            queues.next_batch().iter().map(|waiting| waiting.step.rows()).collect()
        };
        (0..3).for_each(|place| push(&mut queues, place, place + 1, true));
        assert_eq!(next(&mut queues), [1, 2]);
        // The first goes on before the third, and a prompt waits its turn behind those that were there.
        push(&mut queues, 2, 4, false);
        push(&mut queues, 0, 2, true);
        assert_eq!(next(&mut queues), [2]);
        assert_eq!(next(&mut queues), [3]);
        assert_eq!(next(&mut queues), [4]);
        assert!(queues.is_empty() && queues.rebuilt.is_empty());
    }

    #[test]
    fn what_a_step_is_counts_and_not_its_length() {
        let mixed = [(Prefill, 1), (Decode, 5), (Prefill, 2), (Decode, 1)];
        assert_eq!(batches(7, &mixed), [vec![5, 1, 1], vec![2]]);
    }

    #[test]
    fn a_piece_of_a_prompt_is_in_every_batch_however_busy_the_worker_is() {
        let busy: Vec<_> = [(Decode, 1); 5].into_iter().chain([(Prefill, 4), (Prefill, 4)]).collect();
        assert_eq!(batches(4, &busy), [vec![1, 1, 1, 1, 4], vec![1, 4]]);
        let large = [(Prefill, 9), (Prefill, 9), (Decode, 1)];
        assert_eq!(batches(4, &large), [vec![1, 9], vec![9]], "also one that is larger than the budget");
    }
}
