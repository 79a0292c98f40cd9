//! SentencePiece vocabularies of the `llama` kind: pieces with scores instead of merges.

use std::collections::HashMap;

/// What stands for a space.
pub(super) const SPACE: char = '▁';

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

/// The bytes that a piece stands for.
pub(super) fn bytes(piece: &str) -> Vec<u8> {
    let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.filter(|digits| digits.len() == 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => piece.replace(SPACE, " ").into_bytes(),
    }
}
