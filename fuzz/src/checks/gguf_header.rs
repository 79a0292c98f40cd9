//! The header of a model file.

use gguf::{GgufError, Header};

/// A header that is taken is true to its files, and is the same with and without its arrays.
pub fn check(bytes: &[u8]) {
    let files = files(bytes);
    let (whole, lean) = (Header::from_bytes(&files), Header::from_bytes_without_arrays(&files));
    match (whole, lean) {
        (Ok(whole), Ok(lean)) => {
            assert_eq!(whole.tensors, lean.tensors);
            is_true(&whole, &files);
        }
        (Err(whole), Err(lean)) => assert_eq!(whole.to_string(), lean.to_string()),
        // What is kept of arrays is bounded more closely than what is read over.
        (Err(GgufError::TooMuch { .. }), Ok(_)) => {}
        (whole, lean) => panic!("with arrays {whole:?}, without {lean:?}"),
    }
}

/// A model in several files: each begins as a GGUF file does.
pub fn files(bytes: &[u8]) -> Vec<&[u8]> {
    let begins = (1..bytes.len()).filter(|place| bytes[*place..].starts_with(b"GGUF"));
    let places: Vec<_> = [0].into_iter().chain(begins).chain([bytes.len()]).collect();
    places.windows(2).map(|place| &bytes[place[0]..place[1]]).collect()
}

fn is_true(header: &Header, files: &[&[u8]]) {
    let lengths: Vec<_> = header.files.iter().map(|file| file.bytes).collect();
    assert_eq!(lengths, files.iter().map(|file| file.len() as u64).collect::<Vec<_>>());
    assert_eq!(header.bytes(), lengths.iter().sum::<u64>());
    let mut places: Vec<_> = header.tensors.values().map(|tensor| header.range(tensor)).collect();
    for (tensor, place) in header.tensors.values().zip(&places) {
        let file = &header.files[tensor.file];
        assert!(
            file.start + file.data_offset <= place.start && place.end <= file.start + file.bytes,
            "{place:?}"
        );
    }
    places.sort_unstable_by_key(|place| (place.start, place.end));
    let overlap = places.windows(2).any(|place| place[0].end > place[1].start);
    assert!(!overlap, "tensors overlap");
    for key in header.metadata.keys() {
        // Whatever type it has: an answer or an error.
        let _ = (header.opt_str(key), header.opt_u32(key), header.opt_f32(key), header.opt_bool(key));
    }
    let _ = (header.architecture(), header.name("none"));
}

/// A header with a text, a number, a list and two tensors; and the same in two files.
pub fn seeds() -> Vec<Vec<u8>> {
    let list = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("ü")].concat();
    let metadata = [
        entry("general.architecture", 8, &text("llama")),
        entry("llama.block_count", 4, &2u32.to_le_bytes()),
        entry("tokenizer.ggml.tokens", 9, &list),
    ];
    let head = tensor("output.weight", 0, 8, 0);
    let whole = file(&metadata, &[head.clone(), tensor("blk.0.attn_q.weight", 3, 32, 32)]);
    let split = |number: u16| {
        [("split.no", number), ("split.count", 2), ("split.tensors.count", 2)]
            .map(|(key, value)| entry(key, 2, &value.to_le_bytes()))
    };
    let first = file(&[metadata, split(0)].concat(), &[head]);
    let second = file(&split(1), &[tensor("blk.0.attn_q.weight", 3, 32, 0)]);
    vec![whole, [first, second].concat()]
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

fn tensor(name: &str, kind: u32, length: u64, offset: u64) -> Vec<u8> {
    let (kind, offset) = (kind.to_le_bytes(), offset.to_le_bytes());
    [&text(name), &1u32.to_le_bytes()[..], &length.to_le_bytes(), &kind, &offset].concat()
}

/// With room for the bytes of its tensors.
fn file(metadata: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let (tensor_count, metadata_count) = (tensors.len() as u64, metadata.len() as u64);
    let counts = [tensor_count.to_le_bytes(), metadata_count.to_le_bytes()].concat();
    let mut file = [b"GGUF\x03\0\0\0".as_slice(), &counts, &metadata.concat(), &tensors.concat()].concat();
    file.resize(file.len().next_multiple_of(32) + 64, 0);
    file
}
