//! Headers as written, and headers as an attacker or a broken disk makes them.

use std::{fs, path::PathBuf};

use gguf::{Array, Dtype, GgufError, Header, Value, Vocabulary, tiny::TinyModel, write::Writer};
use proptest::prelude::*;
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model.gguf")
    }

    fn read(&self, bytes: &[u8]) -> Result<Header, GgufError> {
        fs::write(self.path(), bytes).expect("written");
        Header::read(&self.path())
    }
}

fn small() -> Writer {
    let mut file = Writer::default();
    file.metadata("general.architecture", Value::String("llama".into()));
    file.metadata("n", Value::U64(7));
    file.metadata("f", Value::F32(0.5));
    file.metadata("list", Value::Array(Array::Strings(vec!["a".into(), "ü".into()])));
    file.tensor_f32("one", &[2, 3], &[0.0; 6]);
    file.tensor("two", Dtype::Q4_1, &[32], vec![0; 20]);
    file
}

fn small_bytes(files: &Files) -> Vec<u8> {
    small().write(&files.path()).expect("written");
    fs::read(files.path()).expect("read")
}

#[test]
fn a_header_is_read_back_as_written() {
    let files = Files::new();
    small().write(&files.path()).expect("written");
    let header = Header::read(&files.path()).expect("valid");
    assert_eq!(header.architecture().expect("there"), "llama");
    assert_eq!(header.u32("n").expect("there"), 7);
    assert_eq!(header.f32("f").expect("there"), 0.5);
    assert_eq!(header.strings("list").expect("there"), ["a", "ü"]);
    assert_eq!(header.tensors["one"].shape, [2, 3]);
    assert_eq!((header.tensors["two"].dtype, header.tensors["two"].bytes), (Dtype::Q4_1, 20));
    let [file] = &header.files[..] else { panic!("{:?}", header.files) };
    assert_eq!(header.tensors["two"].offset, file.data_offset + 32);
    assert_eq!((file.path.as_path(), file.bytes), (files.path().as_path(), header.bytes()));
    assert!(matches!(header.u32("f"), Err(GgufError::Type { key, .. }) if key == "f"));
    assert!(matches!(header.u32("m"), Err(GgufError::Missing(key)) if key == "m"));
}

#[test]
fn arrays_can_be_left_out() {
    let files = Files::new();
    TinyModel::default().write(&files.path()).expect("written");
    let whole = Header::read(&files.path()).expect("valid");
    let lean = Header::read_without_arrays(&files.path()).expect("valid");
    assert_eq!(whole.tensors, lean.tensors);
    assert!(whole.metadata.contains_key("tokenizer.ggml.tokens"));
    assert!(!lean.metadata.contains_key("tokenizer.ggml.tokens"));
    // It is an array all the same, not a key that is missing.
    let asked = lean.opt_u32("tokenizer.ggml.tokens");
    assert!(matches!(asked, Err(GgufError::Type { expected, .. }) if expected.starts_with("a whole number")));
    assert!(matches!(lean.opt_u32("not.there"), Ok(None)));
}

#[test]
fn every_tensor_is_in_its_part_and_a_tied_embedding_in_two() {
    let files = Files::new();
    for tied in [true, false] {
        TinyModel { layers: 11, tied, ..TinyModel::default() }.write(&files.path()).expect("written");
        let header = Header::read(&files.path()).expect("valid");
        let parts = header.parts().expect("parts");
        assert_eq!(parts.layer_costs().len(), 11);
        assert!(parts.layer_costs().iter().all(|bytes| *bytes == parts.layer_costs()[0]));
        let embedding: u64 = parts.embedding.iter().map(|(_, tensor)| tensor.bytes).sum();
        let all = embedding + parts.layer_costs().iter().sum::<u64>() + parts.head_cost();
        let stored: u64 = header.tensors.values().map(|tensor| tensor.bytes).sum();
        assert_eq!(all, stored + if tied { embedding } else { 0 });
    }
}

#[test]
fn a_layer_without_tensors_is_named() {
    let files = Files::new();
    for (count, named) in [(3, "blk.1."), (u32::MAX, "blk.1."), (1, "")] {
        let mut file = small();
        file.metadata("llama.block_count", Value::U32(count));
        file.tensor_f32("blk.0.ffn_up.weight", &[1], &[0.0]);
        file.tensor_f32("blk.2.ffn_up.weight", &[1], &[0.0]);
        file.write(&files.path()).expect("written");
        let header = Header::read(&files.path()).expect("valid");
        let said = header.parts().map_or_else(|error| error.to_string(), |_| String::new());
        assert!(said.contains(named) && (count == 1 || !said.is_empty()), "{said}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let files = Files::new();
    let bytes = small_bytes(&files);
    for length in 0..bytes.len() - 12 {
        assert!(files.read(&bytes[..length]).is_err(), "{length} of {} bytes were read", bytes.len());
    }
    let missing = files.read(&bytes[..bytes.len() - 32]).expect_err("a tensor is cut");
    assert!(matches!(missing, GgufError::Truncated { missing: 20, .. }), "{missing}");
}

#[test]
fn declared_sizes_are_not_believed() {
    let files = Files::new();
    let huge =
        [b"GGUF\x03\0\0\0".as_slice(), &1u64.to_le_bytes(), &1u64.to_le_bytes(), &u64::MAX.to_le_bytes()];
    assert!(matches!(files.read(&huge.concat()), Err(GgufError::TooMuch { .. })));
    let key = [1u64.to_le_bytes().as_slice(), b"k", &9u32.to_le_bytes(), &10u32.to_le_bytes()].concat();
    let array =
        [&huge[..2].concat(), 1u64.to_le_bytes().as_slice(), &key, &(4u64 << 20).to_le_bytes()].concat();
    assert!(matches!(files.read(&array), Err(GgufError::Truncated { .. })));
    assert!(matches!(files.read(b"GGUF\0\0\0\x03"), Err(GgufError::Version(_))));
    assert!(matches!(files.read(b"ggml\x01\0\0\0"), Err(GgufError::Magic)));
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let files = Files::new();
    let refused = |shape: &[u64], dtype| {
        let mut file = Writer::default();
        file.tensor("t", dtype, shape, vec![0; 64]);
        file.write(&files.path()).expect("written");
        Header::read(&files.path()).expect_err("refused").to_string()
    };
    assert!(refused(&[0], Dtype::F32).contains("tensor t has shape"));
    assert!(refused(&[u64::MAX, 2], Dtype::F32).contains("tensor t has shape"));
    assert!(refused(&[u64::MAX / 2], Dtype::F32).contains("too large"));
    assert!(refused(&[33], Dtype::Q4_0).contains("whole blocks"));
    assert!(refused(&[1 << 20], Dtype::F32).contains("missing"));
    let mut twice = Writer::default();
    twice.tensor_f32("t", &[1], &[0.0]);
    twice.tensor_f32("t", &[1], &[0.0]);
    twice.write(&files.path()).expect("written");
    assert!(Header::read(&files.path()).expect_err("refused").to_string().contains("twice"));
}

/// The small file with `new` after `old`, which is there once, instead of what was there.
fn patched(files: &Files, old: &[u8], new: &[u8]) -> String {
    let mut bytes = small_bytes(files);
    let at = bytes.windows(old.len()).position(|window| window == old).expect("is there") + old.len();
    bytes[at..at + new.len()].copy_from_slice(new);
    files.read(&bytes).expect_err("refused").to_string()
}

#[test]
fn what_is_wrong_is_named() {
    let files = Files::new();
    let before_offset = [b"two".as_slice(), &1u32.to_le_bytes(), &32u64.to_le_bytes(), &3u32.to_le_bytes()];
    let offset = |offset: u64| patched(&files, &before_offset.concat(), &offset.to_le_bytes());
    assert!(offset(0).contains("lies over another"), "{}", offset(0));
    assert!(offset(40).contains("tensor two is not aligned to 32 bytes"), "{}", offset(40));
    assert!(offset(u64::MAX - 31).contains("tensor two ends past all files"));
    for (number, name) in [(99, "type 99"), (21, "IQ3_S"), (16, "IQ2_XXS")] {
        let kind = patched(&files, &before_offset[..3].concat(), &u32::to_le_bytes(number));
        assert!(kind.contains(&format!("tensor two is stored as {name}, which is not supported")), "{kind}");
        assert!(kind.contains("Q4_K_M"), "{kind}");
    }
    let name = patched(&files, b"tw", &[0xff]);
    assert!(name.contains("name is not UTF-8"), "{name}");
}

#[test]
fn texts_in_other_encodings_and_long_ones_are_no_damage() {
    let files = Files::new();
    let mut file = small();
    let (kept, over) = ("x".repeat(1 << 20), "x".repeat((1 << 20) + 1));
    file.metadata("general.author", Value::String("K#fer".into()));
    file.metadata("kept", Value::String(kept.clone()));
    file.metadata("over", Value::String(over));
    file.metadata("behind", Value::U32(3));
    file.write(&files.path()).expect("written");
    let mut bytes = fs::read(files.path()).expect("read");
    let letter = bytes.windows(5).position(|text| text == b"K#fer").expect("there") + 1;
    bytes[letter] = 0xe4;
    let header = files.read(&bytes).expect("valid");
    assert_eq!(header.str("general.author").expect("a text"), "K\u{fffd}fer");
    assert_eq!((header.str("kept").expect("a text"), header.u32("behind").expect("a number")), (&*kept, 3));
    // It is not kept, and who needs it is told why.
    assert!(!header.metadata.contains_key("over"));
    let asked = header.opt_str("over").expect_err("refused");
    assert_eq!(asked.to_string(), "metadata key over with a text of 1048577 bytes is not supported");
    assert!(!asked.is_damage());
    let cut = bytes.len() - (1 << 20);
    assert!(matches!(files.read(&bytes[..cut]), Err(GgufError::Truncated { .. })), "in the midst of it");
}

#[test]
fn ones_behind_a_shape_do_not_count() {
    let files = Files::new();
    let mut file = Writer::default();
    file.tensor_f32("matrix", &[2, 3, 1, 1], &[0.0; 6]);
    file.tensor_f32("row", &[1, 3], &[0.0; 3]);
    file.tensor_f32("one", &[1, 1], &[0.0]);
    file.write(&files.path()).expect("written");
    let header = Header::read(&files.path()).expect("valid");
    let shape = |name: &str| header.tensors[name].shape.clone();
    assert_eq!([shape("matrix"), shape("row"), shape("one")], [vec![2, 3], vec![1, 3], vec![1]]);
    let matrix = &header.tensors["matrix"];
    assert!(matrix.has_shape(&[2, 3]) && matrix.has_shape(&[2, 3, 1]));
    assert!(!matrix.has_shape(&[2]) && !matrix.has_shape(&[2, 3, 2]) && !matrix.has_shape(&[3, 2]));
}

#[test]
fn what_is_no_language_model_says_what_it_is() {
    let files = Files::new();
    let said = |key: &str, value: &str| {
        let mut file = Writer::default();
        file.metadata(key, Value::String(value.into()));
        file.write(&files.path()).expect("written");
        let error = Header::read(&files.path()).expect("valid").parts().expect_err("refused");
        assert!(!error.is_damage());
        error.to_string()
    };
    assert!(
        said("general.type", "adapter").starts_with("it is an adapter (LoRA), not a language model: merge")
    );
    assert!(said("general.type", "imatrix").contains("(imatrix)"));
    assert!(said("general.architecture", "clip").contains("a projector of images"));
    assert!(said("general.type", "model").contains("general.architecture is missing"));
    assert!(
        said("general.architecture", "llama").contains("no tensors, as files with a vocabulary alone are")
    );
}

#[test]
fn tokens_are_counted_also_where_they_are_not_kept_and_none_are_no_vocabulary() {
    let files = Files::new();
    TinyModel::default().write(&files.path()).expect("written");
    let (whole, lean) = (Header::read(&files.path()), Header::read_without_arrays(&files.path()));
    let (whole, lean) = (whole.expect("valid").token_count(), lean.expect("valid").token_count());
    assert!(whole.is_some_and(|count| count > 256) && whole == lean, "{whole:?}, {lean:?}");
    assert_eq!(files.read(&small_bytes(&files)).expect("valid").token_count(), None);
    let mut none = small();
    none.metadata("tokenizer.ggml.tokens", Value::Array(Array::Strings(vec![])));
    none.write(&files.path()).expect("written");
    let error = Vocabulary::from_header(&Header::read(&files.path()).expect("valid")).expect_err("refused");
    assert!(
        error.to_string().contains("tokenizer.ggml.tokens must be a list of one text or more"),
        "{error}"
    );
}

#[test]
fn a_piece_of_a_file_is_to_be_joined_and_one_that_is_whole_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.gguf.part1of2");
    small().write(&path).expect("written");
    assert!(Header::read(&path).is_ok());
    let bytes = fs::read(&path).expect("read");
    for piece in [&bytes[..40], &bytes[40..]] {
        fs::write(&path, piece).expect("written");
        let error = Header::read(&path).expect_err("refused");
        assert!(matches!(error, GgufError::Piece) && !error.is_damage(), "{error}");
    }
}

#[test]
fn parts_of_characters_are_no_damage_in_a_vocabulary() {
    let files = Files::new();
    let mut bytes = small_bytes(&files);
    let letter = bytes.windows(2).position(|pair| pair == "ü".as_bytes()).expect("there");
    bytes[letter + 1] = 0xff;
    let header = files.read(&bytes).expect("valid");
    assert_eq!(header.strings("list").expect("there"), ["a", "\u{fffd}\u{fffd}"]);
}

#[test]
fn lists_that_are_of_no_tokenizer_are_kept_and_numbers_of_all_layers_are_one() {
    let files = Files::new();
    let mut file = Writer::default();
    let list = |list: &[u64]| Value::Array(Array::Unsigned(list.into()));
    file.metadata("same", list(&[3, 3, 3]));
    file.metadata("other", list(&[3, 4]));
    file.metadata("none", list(&[]));
    file.metadata("plain", Value::U32(3));
    file.metadata("negative", Value::Array(Array::Signed(vec![-3, -3])));
    file.write(&files.path()).expect("written");
    let header = Header::read_without_arrays(&files.path()).expect("valid");
    let of_layers = |key| header.opt_u32_of_layers(key);
    assert_eq!(of_layers("same").expect("a number"), Some(3));
    assert_eq!(of_layers("plain").expect("a number"), Some(3));
    assert_eq!(of_layers("not.there").expect("nothing"), None);
    assert!(matches!(of_layers("other"), Err(GgufError::Unsupported(what)) if what.contains("(3, 4)")));
    assert!(matches!(of_layers("none"), Err(GgufError::Type { .. })));
    assert!(matches!(of_layers("negative"), Err(GgufError::Type { .. })));
}

#[test]
fn sessions_are_as_long_as_context_and_window_let_them() {
    let files = Files::new();
    let length = |arch: &str, context: u32, window: Option<u32>| {
        let mut file = Writer::default();
        file.metadata("general.architecture", Value::String(arch.into()));
        file.metadata(format!("{arch}.context_length"), Value::U32(context));
        let window = window.map(|window| (format!("{arch}.attention.sliding_window"), Value::U32(window)));
        window.into_iter().for_each(|(key, window)| file.metadata(key, window));
        file.write(&files.path()).expect("written");
        Header::read_without_arrays(&files.path()).expect("valid").session_length()
    };
    assert_eq!(length("llama", 512, None).expect("there"), 512);
    assert_eq!(length("llama", 512, Some(16)).expect("there"), 16);
    assert_eq!(length("llama", 512, Some(0)).expect("there"), 512);
    assert_eq!(length("gemma2", 512, Some(16)).expect("there"), 512);
    assert_eq!(length("llama", 10_485_760, None).expect("there"), gguf::MAX_CONTEXT);
    assert!(length("llama", 0, None).is_err());
}

#[test]
fn a_key_that_is_there_twice_is_refused_with_and_without_arrays() {
    let files = Files::new();
    let mut file = Writer::default();
    file.metadata("list", Value::Array(Array::Bools(vec![true])));
    file.metadata("list", Value::Array(Array::Bools(vec![false])));
    file.write(&files.path()).expect("written");
    for read in [Header::read, Header::read_without_arrays] {
        assert!(read(&files.path()).expect_err("refused").to_string().contains("list is there twice"));
    }
}

#[test]
fn a_list_as_alignment_is_refused_with_and_without_arrays() {
    let files = Files::new();
    let mut file = Writer::default();
    file.metadata("general.alignment", Value::Array(Array::Bools(vec![true])));
    file.write(&files.path()).expect("written");
    for read in [Header::read, Header::read_without_arrays] {
        let error = read(&files.path()).expect_err("refused").to_string();
        assert!(error.contains("general.alignment must be a power of two"), "{error}");
    }
}

#[test]
fn arrays_that_would_fill_memory_are_refused_together() {
    let files = Files::new();
    let mut file = Writer::default();
    for key in ["a", "b", "c"] {
        file.metadata(key, Value::Array(Array::Bools(vec![true; 3 << 19])));
    }
    file.write(&files.path()).expect("written");
    assert!(matches!(Header::read(&files.path()), Err(GgufError::TooMuch { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(Files::new().read(&bytes).is_err());
        let with_magic = [b"GGUF\x03\0\0\0".as_slice(), &bytes].concat();
        let _ = Files::new().read(&with_magic);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in any::<usize>(), to in any::<u8>()) {
        let files = Files::new();
        let mut bytes = small_bytes(&files);
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = files.read(&bytes);
    }
}
