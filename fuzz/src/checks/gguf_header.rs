//! The header of a model file.

use gguf::{GgufError, Header};

/// A header that is taken is true to its file, and is the same with and without its arrays.
pub fn check(bytes: &[u8]) {
    let (whole, lean) = (Header::from_bytes(bytes), Header::from_bytes_without_arrays(bytes));
    match (whole, lean) {
        (Ok(whole), Ok(lean)) => {
            assert_eq!(whole.tensors, lean.tensors);
            is_true(&whole, bytes.len() as u64);
        }
        (Err(whole), Err(lean)) => assert_eq!(whole.to_string(), lean.to_string()),
        // What is kept of arrays is bounded more closely than what is read over.
        (Err(GgufError::TooMuch { .. }), Ok(_)) => {}
        (whole, lean) => panic!("with arrays {whole:?}, without {lean:?}"),
    }
}

fn is_true(header: &Header, length: u64) {
    assert_eq!(header.file_len, length);
    let mut places: Vec<_> = header.tensors.values().map(|tensor| (tensor.offset, tensor.bytes)).collect();
    places.sort_unstable();
    for (place, (offset, bytes)) in places.iter().enumerate() {
        let end = header.data_offset + offset + bytes;
        assert!(end <= length, "a tensor ends at {end} of {length}");
        let next = places.get(place + 1);
        assert!(next.is_none_or(|(next, _)| offset + bytes <= *next), "tensors overlap");
    }
    for key in header.metadata.keys() {
        // Whatever type it has: an answer or an error.
        let _ = (header.opt_str(key), header.opt_u32(key), header.opt_f32(key), header.opt_bool(key));
    }
    let _ = (header.architecture(), header.name("none"));
}

/// A header with a text, a number, a list and two tensors.
pub fn seeds() -> Vec<Vec<u8>> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let entry = |key: &str, kind: u32, value: &[u8]| [&text(key), &kind.to_le_bytes()[..], value].concat();
    let tensor = |name: &str, kind: u32, length: u64, offset: u64| {
        let (kind, offset) = (kind.to_le_bytes(), offset.to_le_bytes());
        [&text(name), &1u32.to_le_bytes()[..], &length.to_le_bytes(), &kind, &offset].concat()
    };
    let list = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("ü")].concat();
    let mut file = [b"GGUF\x03\0\0\0".as_slice(), &2u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
    file.extend(entry("general.architecture", 8, &text("llama")));
    file.extend(entry("llama.block_count", 4, &2u32.to_le_bytes()));
    file.extend(entry("tokenizer.ggml.tokens", 9, &list));
    file.extend(tensor("output.weight", 0, 8, 0));
    file.extend(tensor("blk.0.attn_q.weight", 3, 32, 32));
    file.resize(file.len().next_multiple_of(32) + 64, 0);
    vec![file]
}
