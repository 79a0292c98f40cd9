//! Prompts for servers whose tokens we do not know: of words that are one token each in usual vocabularies.

use anyhow::{Result, ensure};

use super::super::load::random;

/// So common that a vocabulary has each of them whole, with the space before it.
const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with",
    "his", "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not",
    "what", "all", "were", "we", "when", "your", "can", "said", "there", "use", "an", "each", "which", "she",
    "do", "how", "their", "if", "will", "up", "other", "about", "out", "many", "then", "them", "these", "so",
    "some", "her", "would", "make", "like", "him",
];

/// So many words; others for another seed.
pub(super) fn words(seed: u64, count: u32) -> String {
    let mut next = random(seed);
    let words: Vec<_> = (0..count).map(|_| WORDS[(next() % WORDS.len() as u64) as usize]).collect();
    words.join(" ")
}

/// How many tokens a server makes of words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lengths {
    /// Of each word.
    per_word: f64,
    /// Of none: a beginning, a chat's template.
    around: f64,
}

impl Lengths {
    /// From two prompts, each with its words and its tokens.
    ///
    /// # Errors
    /// When a longer prompt has no more tokens.
    pub(super) fn of(short: (u32, u32), long: (u32, u32)) -> Result<Self> {
        ensure!(
            long.1 > short.1 && long.0 > short.0,
            "the server counts {} tokens for {} words and {} for {}: usage.prompt_tokens cannot be right",
            short.1,
            short.0,
            long.1,
            long.0
        );
        let per_word = f64::from(long.1 - short.1) / f64::from(long.0 - short.0);
        Ok(Self { per_word, around: f64::from(short.1) - per_word * f64::from(short.0) })
    }

    /// Words that make about so many tokens, at least one.
    pub(super) fn words_for(self, tokens: u32) -> u32 {
        ((f64::from(tokens) - self.around) / self.per_word).round().max(1.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_of_the_length_that_is_asked_for() -> Result<()> {
        let plain = Lengths::of((16, 16), (64, 64))?;
        assert_eq!((plain.words_for(512), plain.words_for(1)), (512, 1));
        let templated = Lengths::of((16, 16 + 30), (64, 64 + 30))?;
        assert_eq!((templated.words_for(512), templated.words_for(8)), (482, 1));
        let of_bytes = Lengths::of((10, 40), (20, 80))?;
        assert_eq!(of_bytes.words_for(400), 100);
        assert!(Lengths::of((16, 0), (64, 0)).expect_err("no count").to_string().contains("prompt_tokens"));
        Ok(())
    }

    #[test]
    fn another_seed_gives_other_words_from_the_start() {
        assert_eq!(words(7, 5).split(' ').count(), 5);
        assert_eq!(words(7, 5), words(7, 5));
        let mut starts: Vec<_> = (0..200).map(|seed| words(seed, 8)).collect();
        starts.sort();
        starts.dedup();
        assert_eq!(starts.len(), 200);
    }
}
