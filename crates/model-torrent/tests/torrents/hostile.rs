//! Torrents from outside that are not what they say.

use model_torrent::{Metainfo, TORRENT_LIMIT, TorrentError};

use crate::{PIECE, torrent};

/// Bencode written by hand, so that it can be wrong.
fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// A dictionary with its pairs as they come.
fn dictionary(pairs: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<u8> = pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"d", &pairs[..], b"e"].concat()
}

fn number(value: impl ToString) -> Vec<u8> {
    format!("i{}e", value.to_string()).into_bytes()
}

fn tree(name: &str, length: Vec<u8>, root: &[u8]) -> Vec<u8> {
    let properties = dictionary(&[(b"length", length), (b"pieces root", text(root))]);
    dictionary(&[(name.as_bytes(), dictionary(&[(b"", properties)]))])
}

fn info(tree: Vec<u8>, version: Vec<u8>, name: &str, piece_length: Vec<u8>) -> Vec<u8> {
    let (version, piece_length) = ((&b"meta version"[..], version), (&b"piece length"[..], piece_length));
    dictionary(&[(b"file tree", tree), version, (b"name", text(name)), piece_length])
}

fn whole(info: Vec<u8>, layers: Vec<u8>) -> Vec<u8> {
    dictionary(&[(b"info", info), (b"piece layers", layers)])
}

/// A torrent in order of one byte. Its file has no layer.
fn small(tree: Vec<u8>) -> Vec<u8> {
    whole(info(tree, number(2), "model.gguf", number(PIECE)), dictionary(&[]))
}

fn refusal(bytes: &[u8]) -> (String, String) {
    match Metainfo::from_bytes(bytes, TORRENT_LIMIT) {
        Err(TorrentError::Field { field, reason }) => (field, reason),
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

fn is_refused(bytes: &[u8], field: &str, word: &str) {
    let (refused, reason) = refusal(bytes);
    assert!(refused == field && reason.contains(word), "{refused} {reason}: not {field}, {word}");
}

const ROOT: [u8; 32] = [7; 32];

#[test]
fn what_is_written_here_by_hand_is_in_order() {
    let bytes = small(tree("model.gguf", number(1), &ROOT));
    assert_eq!(Metainfo::from_bytes(&bytes, TORRENT_LIMIT).unwrap().to_bytes(), bytes);
    let more = [&b"d8:announcel5:helloe"[..], &bytes[1..]].concat();
    let named = Metainfo::from_bytes(&more, TORRENT_LIMIT).unwrap();
    assert_eq!(named.to_bytes(), bytes, "what no hash is over is read over");
}

#[test]
fn only_the_names_that_content_gives_are_taken() {
    for name in
        ["../model.gguf", "..", "", "/etc/passwd", "a/b", "a\\b", "C:\\x", "CON", "MODEL.GGUF", "model.gguf "]
    {
        let one = tree(name, number(1), &ROOT);
        // An empty name is BEP 52's word for the properties of the folder above.
        is_refused(&small(one), "info.file tree", if name.is_empty() { "" } else { "name" });
        let one = info(tree("model.gguf", number(1), &ROOT), number(2), name, number(PIECE));
        is_refused(&whole(one, dictionary(&[])), "info.name", "name");
    }
    let long = "x".repeat(100_000);
    let (_, reason) = refusal(&small(tree(&long, number(1), &ROOT)));
    assert!(reason.len() < 200, "a long name is not repeated");
    let folder = dictionary(&[(b"folder", dictionary(&[(b"model.gguf", dictionary(&[]))]))]);
    is_refused(&small(folder), "info.file tree", "has the folder");
    let deeper = dictionary(&[(b"folder", tree("model.gguf", number(1), &ROOT))]);
    is_refused(&small(deeper), "info", "depth");
}

#[test]
fn numbers_have_their_one_value() {
    let ours = || tree("model.gguf", number(1), &ROOT);
    let with = |version, length| whole(info(ours(), version, "model.gguf", length), dictionary(&[]));
    is_refused(&with(number(1), number(PIECE)), "info.meta version", "must be 2");
    is_refused(&with(number(2), number(2 * PIECE)), "info.piece length", "must be 262144");
    is_refused(&with(number(2), number(0)), "info.piece length", "must be 262144");
    is_refused(&with(number(2), number(-1)), "info.piece length", "not negative");
    is_refused(&with(text("2"), number(PIECE)), "info.meta version", "not a number");
    let length = |length: Vec<u8>| small(tree("model.gguf", length, &ROOT));
    is_refused(&length(number(0)), "info.file tree", "empty");
    is_refused(&length(number(u64::MAX)), "info.file tree", "more bytes");
    is_refused(&length(number("18446744073709551616")), "length", "64 bits");
    is_refused(&small(tree("model.gguf", number(1), &[7; 31])), "pieces root", "31 bytes");
    let two = |second| {
        let entry = |length| {
            let properties = dictionary(&[(b"length", number(length)), (b"pieces root", text(ROOT))]);
            dictionary(&[(b"", properties)])
        };
        let names = (b"model-00001-of-00002.gguf", b"model-00002-of-00002.gguf");
        small(dictionary(&[(names.0, entry(u64::MAX)), (names.1, entry(second))]))
    };
    is_refused(&two(2), "info.file tree", "more bytes");
}

#[test]
fn nothing_but_content_is_in_the_info_dict() {
    let bytes = small(tree("model.gguf", number(1), &ROOT));
    let change = |from: &str, to: &str| {
        let text = bytes.escape_ascii().to_string();
        assert!(text.contains(from), "{text}");
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    is_refused(&change("i262144e", "i262144e7:privatei1e"), "info.\"private\"", "does not belong");
    is_refused(&change("6:length", "4:attr1:x6:length"), "info.file tree.\"attr\"", "does not belong");
    is_refused(&change("12:meta versioni2e", ""), "info.meta version", "missing");
    is_refused(&change("4:name10:model.gguf", ""), "info.name", "missing");
    is_refused(&change("6:lengthi1e", ""), "length", "missing");
    is_refused(&change("12:piece layersde", ""), "piece layers", "missing");
}

#[test]
fn only_canonical_bencode_is_taken() {
    let bytes = small(tree("model.gguf", number(1), &ROOT));
    is_refused(&[&bytes[..], b"e"].concat(), "torrent", "behind its end");
    is_refused(&[&bytes[..], b"i1e"].concat(), "torrent", "behind its end");
    let ours = || tree("model.gguf", number(1), &ROOT);
    let with = |length: &str| whole(info(ours(), number(2), "model.gguf", length.into()), dictionary(&[]));
    for length in ["i0262144e", "i-0e", "ie", "i1", "i 1e", "06:262144"] {
        assert!(refusal(&with(length)).1.contains("canonical"), "{length}");
    }
    let swapped = dictionary(&[(b"piece layers", dictionary(&[])), (b"info", vec![])]);
    is_refused(&swapped, "torrent", "canonical");
    let twice = dictionary(&[(b"a", number(1)), (b"a", number(1))]);
    is_refused(&twice, "torrent", "canonical");
    let deep = [b"d1:a", &[b'l'; 100_000][..], &[b'e'; 100_001]].concat();
    is_refused(&deep, "torrent", "canonical");
    is_refused(b"d1:a99999999999:x", "torrent", "canonical");
    is_refused(b"d1:a18446744073709551615:x", "torrent", "canonical");
    is_refused(b"", "torrent", "missing");
    is_refused(b"le", "torrent", "dictionary");
    for end in 0..bytes.len() {
        refusal(&bytes[..end]);
    }
}

#[test]
fn layers_lead_up_to_their_root_and_are_no_longer_than_the_file() {
    let bytes = torrent(&[3 * PIECE, 2 * PIECE + 1]).0.to_bytes();
    let at = bytes.windows(14).position(|window| window == b"12:piece layer").unwrap();
    let (head, layers) = (&bytes[..at], &bytes[at..]);
    let first = b"12:piece layersd32:".len();
    let root = &layers[first..first + 32];
    let change = |place: usize| {
        let mut changed = bytes.clone();
        changed[at + place] ^= 1;
        changed
    };
    is_refused(&change(first + 32 + 10), "piece layers", "lead up");
    // A layer of another root: the file of this one has none.
    assert_eq!(refusal(&change(first + 31)).0, "piece layers");
    let without = [head, &b"12:piece layersdee"[..]].concat();
    is_refused(&without, "piece layers", "none for file");
    let too_long = dictionary(&[(root, text([7; 5 * 32]))]);
    is_refused(&[head, b"12:piece layers", &too_long, b"e"].concat(), "piece layers", "bytes for the");
    let small_one = tree("model.gguf", number(1), &ROOT);
    let layer = dictionary(&[(&ROOT, text(ROOT))]);
    let with_layer = whole(info(small_one, number(2), "model.gguf", number(PIECE)), layer);
    is_refused(&with_layer, "piece layers", "no file");
}

#[test]
fn who_reads_says_how_much() {
    let bytes = small(tree("model.gguf", number(1), &ROOT));
    let refused = Metainfo::from_bytes(&bytes, bytes.len() - 1);
    assert!(matches!(refused, Err(TorrentError::TooLarge { .. })));
    assert!(Metainfo::from_bytes(&bytes, bytes.len()).is_ok());
    let many: Vec<_> = (0..2000).map(|number| format!("model-{number:05}-of-02000.gguf")).collect();
    let properties = dictionary(&[(b"length", number(1)), (b"pieces root", text(ROOT))]);
    let entry = dictionary(&[(b"", properties)]);
    let files: Vec<_> = many.iter().map(|name| (name.as_bytes(), entry.clone())).collect();
    is_refused(&small(dictionary(&files)), "info.file tree", "more than 1024 files");
}
