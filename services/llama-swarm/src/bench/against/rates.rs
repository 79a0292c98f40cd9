//! What streamed answers tell of a server's speed.

use super::{
    super::figures::{decode_window, rate},
    answer::Answer,
};

/// Prompt tokens per second: of all prompts, over the time from the first request to the last first token.
pub(super) fn prefill(answers: &[Answer]) -> Option<f64> {
    let start = answers.iter().map(|answer| answer.sent).min()?;
    let end = answers.iter().map(Answer::first_token).max()?;
    let tokens: f64 = answers.iter().map(|answer| f64::from(answer.prompt_tokens)).sum();
    rate(tokens, end.saturating_sub(start))
}

/// Answered tokens per second, the prompts' time counted: over the time from the first request to the last end.
pub(super) fn all(answers: &[Answer]) -> Option<f64> {
    let start = answers.iter().map(|answer| answer.sent).min()?;
    let end = answers.iter().map(|answer| answer.ended).max()?;
    let tokens: f64 = answers.iter().map(|answer| f64::from(answer.completion_tokens)).sum();
    rate(tokens, end.saturating_sub(start))
}

/// Tokens per second of all answers together while all of them decode. Absent when there was no such time.
pub(super) fn decode(answers: &[Answer]) -> Option<f64> {
    let (start, end) = decode_window(answers.iter().map(|answer| answer.pieces.as_slice()))?;
    // The pieces behind the first share the tokens behind the first.
    let tokens = |answer: &Answer| {
        let within = answer.pieces.iter().filter(|at| start < **at && **at <= end).count();
        let behind_first = answer.pieces.len().saturating_sub(1).max(1) as f64;
        within as f64 * f64::from(answer.completion_tokens.saturating_sub(1)) / behind_first
    };
    rate(answers.iter().map(tokens).sum(), end - start)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(sent: u64, pieces: &[u64], completion_tokens: u32) -> Answer {
        Answer {
            sent: Duration::from_millis(sent),
            pieces: pieces.iter().copied().map(Duration::from_millis).collect(),
            ended: Duration::from_millis(pieces.last().copied().unwrap_or(sent) + 10),
            prompt_tokens: 50,
            completion_tokens,
            ..Answer::default()
        }
    }

    #[test]
    fn pieces_say_when_and_the_servers_count_says_how_many() {
        let one = [answer(0, &[100, 200, 300, 400], 4)];
        assert_eq!((prefill(&one), decode(&one)), (Some(500.0), Some(10.0)));
        // Seven tokens in four pieces.
        assert_eq!(decode(&[answer(0, &[100, 200, 300, 400], 7)]), Some(20.0));
        assert_eq!(all(&[answer(0, &[100, 190], 4)]), Some(20.0));
    }

    #[test]
    fn answers_at_once_count_while_all_decode() {
        let answers = [answer(0, &[100, 200, 300, 400], 4), answer(10, &[250, 350, 450, 550], 4)];
        assert_eq!(prefill(&answers), Some(400.0));
        assert_eq!(decode(&answers), Some(20.0));
        assert_eq!(decode(&[answer(0, &[100], 1)]), None);
        assert_eq!(decode(&[answer(0, &[], 0)]), None);
        assert_eq!((prefill(&[]), all(&[])), (None, None));
    }
}
