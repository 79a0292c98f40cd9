//! Blocks and pieces are believed by their proof alone.

use model_torrent::{BLOCK, Hash, Metainfo, PieceIndex, Run, TorrentError};

use crate::{KIB, PIECE, numbers, torrent};

/// All runs of all pieces.
fn runs(metainfo: &Metainfo) -> Vec<Run> {
    let sizes = (0..=4).map(|height| 1 << height);
    let all = sizes.flat_map(|blocks| (0..16).map(move |place| (place * blocks, blocks)));
    let all: Vec<_> = all.collect();
    let of_piece =
        |piece| all.iter().filter_map(move |(first, blocks)| metainfo.run(piece, *first, *blocks).ok());
    numbers(metainfo).flat_map(of_piece).collect()
}

fn cut<'a>(run: &Run, piece: &'a [u8]) -> &'a [u8] {
    &piece[run.bytes().start as usize..run.bytes().end as usize]
}

#[test]
fn every_run_of_blocks_has_a_proof_that_holds_for_it_alone() {
    let (metainfo, pieces) = torrent(&[600 * KIB + 1, 40 * KIB, 7, PIECE]);
    let runs = runs(&metainfo);
    // 31 in each whole piece; the others end in the middle.
    assert!(runs.len() > 3 * 31 + 10, "{}", runs.len());
    for run in &runs {
        let piece = &pieces[run.piece().0 as usize];
        let proof = metainfo.prove(run, piece).unwrap();
        let bytes = cut(run, piece);
        metainfo.verify(run, bytes, &proof).unwrap();
        let wrong = |bytes: &[u8], proof: &[Hash]| {
            let refused = metainfo.verify(run, bytes, proof);
            assert!(matches!(refused, Err(TorrentError::WrongBytes { piece }) if piece == run.piece()));
        };
        let mut changed = bytes.to_vec();
        changed[bytes.len() / 2] ^= 1;
        wrong(&changed, &proof);
        wrong(&bytes[1..], &proof);
        wrong(&[bytes, &[0]].concat(), &proof);
        wrong(bytes, &[&proof[..], &[Hash([0; 32])]].concat());
        if let Some((last, others)) = proof.split_last() {
            wrong(bytes, others);
            wrong(bytes, &[others, &[Hash(last.0.map(|byte| !byte))]].concat());
        }
        let all = runs.iter().map(|other| cut(other, &pieces[other.piece().0 as usize]));
        let other = all.clone().find(|other| other.len() == bytes.len() && *other != bytes);
        if let Some(other) = other {
            wrong(other, &proof);
        }
    }
}

#[test]
fn runs_are_subtrees_within_a_piece() {
    let (metainfo, _) = torrent(&[PIECE + 3 * BLOCK as usize + 1, 40 * KIB]);
    let table =
        [(0, 0, 0), (0, 0, 3), (0, 1, 2), (0, 0, 32), (0, 16, 1), (1, 4, 1), (2, 0, 8), (2, 3, 1), (3, 0, 1)];
    for (piece, first, blocks) in table {
        let refused = metainfo.run(PieceIndex(piece), first, blocks);
        assert!(matches!(refused, Err(TorrentError::OutOfBounds(_))), "{piece} {first} {blocks}");
    }
    let last = metainfo.run(PieceIndex(1), 3, 1).unwrap();
    assert_eq!(last.bytes(), 3 * BLOCK..3 * BLOCK + 1, "cut off at the file's end");
    assert_eq!(metainfo.run(PieceIndex(1), 0, 16).unwrap().bytes(), 0..3 * BLOCK + 1);
}

#[test]
fn a_whole_piece_needs_no_proof() {
    let (metainfo, pieces) = torrent(&[PIECE + 10]);
    metainfo.verify_piece(PieceIndex(1), &pieces[1]).unwrap();
    for wrong in [&pieces[1][1..], &pieces[0], &[&pieces[1][..], &[0]].concat()] {
        assert!(matches!(metainfo.verify_piece(PieceIndex(1), wrong), Err(TorrentError::WrongBytes { .. })));
    }
    assert!(matches!(metainfo.verify_piece(PieceIndex(2), &[]), Err(TorrentError::OutOfBounds(_))));
}
