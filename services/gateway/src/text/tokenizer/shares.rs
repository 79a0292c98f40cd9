//! How many tokens a text has at least, told by its bytes alone: so that what is far too long is refused before
//! anything is set aside for it.

use gguf::TokenKind;

/// What each byte of a text counts, in tokens.
///
/// A byte counts one over the length of the longest token that it is in. So the bytes of no token count more than 1
/// together, and a text has no fewer tokens than its bytes count.
pub(super) struct Shares {
    of: [f64; 256],
    /// The least of them.
    least: f64,
    /// Letters and their marks become one character before they become tokens.
    composes: bool,
}

/// How many times more bytes a text has at most before it is composed: three, by the Unicode Standard's table of
/// expansion factors (UAX #15, "Maximum Expansion Factors", NFD in UTF-8).
const COMPOSED: f64 = 3.0;

impl Shares {
    /// `tokens`: the bytes by which each stands in a text. A byte that no token stands for alone may vanish, and counts
    /// nothing.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a [u8], TokenKind)>, composes: bool) -> Self {
        let (mut longest, mut alone) = ([0usize; 256], [false; 256]);
        for (bytes, kind) in tokens {
            for byte in bytes {
                let longest = &mut longest[usize::from(*byte)];
                *longest = bytes.len().max(*longest);
            }
            if let ([byte], TokenKind::Normal | TokenKind::Other) = (bytes, kind) {
                alone[usize::from(*byte)] = true;
            }
        }
        // A character of which one byte is missing vanishes whole. These bytes are in no text.
        let in_text = |byte: usize| !matches!(byte, 0xc0 | 0xc1 | 0xf5..);
        let others = (0x80..256).filter(|byte| in_text(*byte)).all(|byte| alone[byte]);
        let of = std::array::from_fn(|byte| match byte {
            byte if byte < 0x80 && alone[byte] || byte >= 0x80 && others => 1.0 / longest[byte].max(1) as f64,
            _ => 0.0,
        });
        let least = (0..256).filter(|byte| in_text(*byte)).map(|byte| of[byte]).fold(1.0, f64::min);
        Self { of, least, composes }
    }

    /// Tokens that a text has at least. `blanks_vanish`: as it may be before tokens.
    pub(super) fn least(&self, text: &str, blanks_vanish: bool) -> usize {
        let bytes = text.as_bytes();
        let mut count = 0.0;
        for (place, byte) in bytes.iter().enumerate() {
            let stays = byte.is_ascii() && bytes.get(place + 1).is_none_or(u8::is_ascii);
            count += match byte {
                byte if blanks_vanish && (byte.is_ascii_whitespace() || !byte.is_ascii()) => 0.0,
                byte if !self.composes || stays => self.of[usize::from(*byte)],
                _ => self.least / COMPOSED,
            };
        }
        // What was added up may be a little too much.
        (count * (1.0 - 1e-6)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(more: &[&[u8]], composes: bool) -> Shares {
        let singles: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let all = singles.iter().map(<[u8; 1]>::as_slice).chain(more.iter().copied());
        Shares::new(all.map(|bytes| (bytes, TokenKind::Normal)), composes)
    }

    #[test]
    fn a_byte_counts_by_the_longest_token_that_it_is_in() {
        let shares = shares(&[b"aaaa", b"ab", &[b' '; 100]], false);
        assert_eq!(shares.least(&"a".repeat(4000), false), 999);
        assert_eq!(shares.least(&"b".repeat(4000), false), 1999);
        assert_eq!(shares.least(&"1".repeat(4000), false), 3999);
        assert_eq!(shares.least(&" ".repeat(4000), false), 39);
        assert_eq!(shares.least(&" ".repeat(4000), true), 0);
    }

    #[test]
    fn what_may_become_fewer_bytes_counts_less() {
        let shares = shares(&[b"abcd"], true);
        assert_eq!(shares.least(&"e".repeat(1000), false), 999);
        assert_eq!(shares.least(&"e\u{301}".repeat(1200), false), 299);
    }

    #[test]
    fn bytes_that_may_vanish_count_nothing() {
        let only_a = Shares::new([(b"a".as_slice(), TokenKind::Normal)].into_iter(), false);
        assert_eq!(only_a.least("bbbbäää", false), 0);
        assert_eq!(only_a.least("aaaa", false), 3);
    }
}
