//! SentencePiece vocabularies of the `llama` kind: pieces with scores instead of merges.

use std::collections::HashMap;

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
