//! SentencePiece vocabularies of the `llama` kind: pieces with scores instead of merges, and text that is not cut into
//! words.

use std::collections::HashMap;

use ahash::AHashSet;
use gguf::SPACE;

/// Prepares text for merging, and cuts it where no piece could join what is on both sides: that changes no token, and
/// each word takes little room.
pub(super) struct Pieces {
    /// Text begins with a space.
    prefix: bool,
    /// Characters that stand beside each other in a piece. `None` when every place may matter.
    neighbours: Option<AHashSet<(char, char)>>,
}

impl Pieces {
    /// `joined`: whether characters that no piece stands for could become one token together.
    pub(super) fn new(pieces: &[(&str, f64)], prefix: bool, joined: bool) -> Self {
        let pairs = pieces.iter().flat_map(|(piece, _)| piece.chars().zip(piece.chars().skip(1)));
        Self { prefix, neighbours: (!joined).then(|| pairs.collect()) }
    }

    /// Gives each word of the text, in order.
    pub(super) fn each<E>(&self, text: &str, mut word: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut written = String::new();
        let mut last = None;
        let prefix = self.prefix.then_some(SPACE);
        let spelled = text.chars().map(|character| if character == ' ' { SPACE } else { character });
        for character in prefix.into_iter().chain(spelled) {
            if last.is_some_and(|last| self.parts(last, character)) {
                word(&written)?;
                written.clear();
            }
            written.push(character);
            last = Some(character);
        }
        if written.is_empty() { Ok(()) } else { word(&written) }
    }

    fn parts(&self, left: char, right: char) -> bool {
        self.neighbours.as_ref().is_some_and(|pairs| !pairs.contains(&(left, right)))
    }
}

/// SentencePiece joins the neighbouring pieces whose union has the best score; byte-pair encoding joins those whose
/// merge comes first. So every way to split a piece into two is a merge, and the pieces' scores give the order.
pub(super) fn merges(pieces: &[(&str, f64)]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = pieces.iter().enumerate().map(|(id, (piece, _))| (*piece, id)).collect();
    let mut found = vec![];
    for (id, (piece, score)) in pieces.iter().enumerate() {
        for (middle, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(middle);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                found.push((*score, id, *l, *r, left, right));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    found.into_iter().map(|(.., left, right)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn words(pieces: &Pieces, text: &str) -> Vec<String> {
        let mut found = vec![];
        let Ok(()) = pieces.each(text, |word| {
            found.push(word.to_owned());
            Ok::<_, Infallible>(())
        });
        found
    }

    #[test]
    fn text_is_cut_only_where_no_piece_reaches_over() {
        let known = [("▁a", 0.0), ("bc", 0.0), ("aa", 0.0)];
        assert_eq!(words(&Pieces::new(&known, true, false), "ab cb"), ["▁a", "b", "▁", "c", "b"]);
        assert_eq!(words(&Pieces::new(&known, false, false), "aabc"), ["aa", "bc"]);
        assert_eq!(words(&Pieces::new(&known, true, true), "ab c"), ["▁ab▁c"]);
    }
}
