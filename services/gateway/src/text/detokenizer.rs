//! Bytes to text, as they come: a character that is split over tokens comes out whole.

/// Holds back the beginning of a character until its end is there.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    waiting: Vec<u8>,
}

impl Detokenizer {
    /// The text that is complete now. Bytes that cannot be part of a character become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.waiting.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(wrong) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
        self.waiting = rest.to_vec();
        text
    }

    /// Whether the beginning of a character is held back.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The end: the beginning of a character whose end did not come is no text.
    pub fn finish(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_comes_out_when_its_last_byte_is_there() {
        let mut detokenizer = Detokenizer::default();
        let euro = "€".as_bytes();
        assert_eq!(detokenizer.push(&euro[..1]), "");
        assert_eq!(detokenizer.push(&euro[1..2]), "");
        assert_eq!(detokenizer.push(&[euro[2], b'!']), "€!");
        assert_eq!(detokenizer.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(detokenizer.push(&euro[..2]), "");
        detokenizer.finish();
        assert!(!detokenizer.holds_back());
    }

    proptest! {
        #[test]
        fn any_split_of_a_text_gives_the_text(text in "\\PC{0,30}", cuts in proptest::collection::vec(0usize..90, 0..9)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut detokenizer = Detokenizer::default();
            let mut out = String::new();
            for pair in cuts.windows(2) {
                out += &detokenizer.push(&bytes[pair[0]..pair[1]]);
            }
            prop_assert!(!detokenizer.holds_back());
            prop_assert_eq!(out, text);
        }

        #[test]
        fn any_bytes_give_what_they_give_at_once(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut detokenizer = Detokenizer::default();
            let out: String = bytes.iter().map(|byte| detokenizer.push(&[*byte])).collect();
            let all = String::from_utf8_lossy(&bytes).into_owned();
            let cut = if detokenizer.holds_back() { "\u{fffd}" } else { "" };
            prop_assert_eq!(out + cut, all);
        }
    }
}
