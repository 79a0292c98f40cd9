//! The torrent of a model.

use model_torrent::{Metainfo, PieceIndex};

/// As much as the fuzzer makes, and more than the properties do.
const LIMIT: usize = 1 << 16;

/// A torrent that is taken is written and read back the same, and its pieces cover each byte once.
pub fn check(bytes: &[u8]) {
    let Ok(metainfo) = Metainfo::from_bytes(bytes, LIMIT) else { return };
    let again = Metainfo::from_bytes(&metainfo.to_bytes(), LIMIT).expect("what we write is what we read");
    assert_eq!(again, metainfo);
    let layout = metainfo.layout();
    let mut next = 0;
    for piece in (0..layout.pieces()).map(|index| layout.piece(PieceIndex(index)).expect("it is one of them"))
    {
        assert!(piece.length > 0);
        assert_eq!(layout.start(piece.file).expect("it is in a file") + piece.offset, next);
        next += u64::from(piece.length);
    }
    assert_eq!((next, layout.piece(PieceIndex(layout.pieces()))), (layout.total(), None));
    let all = layout.covering(std::iter::once(0..layout.total())).expect("they are all there");
    assert!(all.is_full());
}

/// One of a single piece, and one of two files of which one has a layer.
pub fn seeds() -> Vec<Vec<u8>> {
    let single = torrent("model.gguf", &file("model.gguf", 1, &[7; 32]), b"");
    // SHA-256 of 64 bytes of 7: the hashes of the two pieces.
    let root = [
        0x6c, 0xfe, 0xeb, 0x3a, 0xa2, 0x5d, 0x3f, 0x41, 0x1d, 0xae, 0x5e, 0xec, 0x17, 0xd7, 0x36, 0x9c, 0xa7,
        0x15, 0x3e, 0x72, 0xdc, 0xf5, 0x4b, 0xcf, 0x4c, 0x3d, 0xae, 0xc0, 0xf5, 0xb2, 0x1f, 0xc7,
    ];
    let (first, second) = ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf");
    let files = [file(first, 1, &[5; 32]), file(second, 300_000, &root)].concat();
    let layer = [&b"32:"[..], &root, b"64:", &[7; 64]].concat();
    vec![single, torrent("model", &files, &layer)]
}

fn torrent(name: &str, files: &[u8], layers: &[u8]) -> Vec<u8> {
    let named = format!("e12:meta versioni2e4:name{}:{name}12:piece lengthi262144ee", name.len());
    [b"d4:infod9:file treed", files, named.as_bytes(), b"12:piece layersd", layers, b"ee"].concat()
}

fn file(name: &str, length: u64, root: &[u8; 32]) -> Vec<u8> {
    let begin = format!("{}:{name}d0:d6:lengthi{length}e11:pieces root32:", name.len());
    [begin.as_bytes(), root, b"ee"].concat()
}
