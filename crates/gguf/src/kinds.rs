//! What a file is that is no language model in GGUF: told by how it begins, by its name, or by what it says it is.

use std::path::Path;

use crate::GgufError;

/// So many bytes at the front tell all kinds that are known.
pub(crate) const TELLING: u64 = 24;

const UNPACK: &str = "unpack it, and name the .gguf file that was in it";
const CONVERT: &str = "take the model as GGUF, or convert it with llama.cpp's convert_hf_to_gguf.py";
const OLD: &str = "it is from before GGUF: take a newer file of the model";

/// How files begin that are taken for models: what they are, and what helps.
const BEGINNINGS: [(&[u8], &str, &str); 9] = [
    (b"PK\x03\x04", "a zip archive", "take the model as GGUF, or unpack a .gguf file that is in it"),
    (b"\x1f\x8b", "packed with gzip", UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", UNPACK),
    (b"\xfd7zXZ", "packed with xz", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"lmgg", "GGML", OLD),
    (b"fmgg", "GGML", OLD),
    (b"tjgg", "GGML", OLD),
    (b"algg", "an adapter for GGML", OLD),
];

/// How a pointer of Git LFS begins.
const POINTER: &[u8] = b"version https://git-lfs";
/// The longest header that the library of safetensors reads.
const LONGEST_SAFETENSORS: u64 = 100_000_000;

/// `general.type` or `general.architecture` of GGUF files that are no language models: what they are, and what helps.
const OTHERS: [(&str, &str, &str); 5] = [
    (
        "adapter",
        "an adapter (LoRA)",
        "merge it into its model with llama.cpp's llama-export-lora, and name that file",
    ),
    ("imatrix", "a matrix of importance (imatrix)", "name a file that was quantised with it"),
    ("mmproj", PROJECTOR, TEXT_ALONE),
    ("clip", PROJECTOR, TEXT_ALONE),
    ("controlvector", "a control vector", "name its model"),
];
const PROJECTOR: &str = "a projector of images or sound (mmproj)";
const TEXT_ALONE: &str = "name its model, which takes text alone here";

/// What is to be said of a file that does not begin as a GGUF file does: these are its first bytes, of so many.
pub(crate) fn foreign(front: &[u8], length: u64) -> GgufError {
    if front.starts_with(POINTER) {
        return GgufError::Pointer;
    }
    if let Some((_, what, cure)) = BEGINNINGS.iter().find(|(begin, ..)| front.starts_with(begin)) {
        return GgufError::Foreign { what, cure };
    }
    match is_safetensors(front, length) {
        true => GgufError::Foreign { what: "safetensors", cure: CONVERT },
        false => GgufError::Magic,
    }
}

/// The length of a header in JSON, and the header.
fn is_safetensors(front: &[u8], length: u64) -> bool {
    let Some((size, json)) = front.split_first_chunk() else { return false };
    let size = u64::from_le_bytes(*size);
    json.starts_with(b"{") && size <= LONGEST_SAFETENSORS.min(length - 8)
}

/// Whether a file is called like a piece of a file of which the bytes were cut: `m.gguf.part1of2`, `m.gguf-split-a`,
/// `m.gguf.aa`, `m.gguf.001`. The files of a split model end in `.gguf`.
pub(crate) fn is_piece(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let Some((_, ending)) = name.rsplit_once(".gguf") else { return false };
    let marks = ['.', '-', '_'];
    let ending = ending.trim_start_matches(marks);
    let word = ["part", "split"].iter().find_map(|word| ending.strip_prefix(word));
    let (which, least) = word.map_or((ending, 2), |rest| (rest.trim_start_matches(marks), 1));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        which.split_once("of").map_or(which, |(number, count)| match is_number(count.trim_matches(marks)) {
            true => number.trim_end_matches(marks),
            false => which,
        });
    // The first of them by `split` is called aa; another ending of two letters is one of a packed file.
    let is_lettered = (least..=2).contains(&which.len())
        && which.bytes().all(|byte| byte.is_ascii_lowercase())
        && (word.is_some() || which.starts_with('a'));
    is_lettered || number.len() >= least && is_number(number)
}

/// Refuses what is something else than a model, by its `general.type` or its `general.architecture`.
pub(crate) fn check(kind: &str, architecture: &str) -> Result<(), GgufError> {
    match OTHERS.iter().find(|(word, ..)| [kind, architecture].contains(word)) {
        Some((_, what, cure)) => Err(GgufError::NoModel { what, cure }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_gguf_is_called_by_its_name() {
        let said = |front: &[u8]| foreign(front, 1 << 20).to_string();
        let tensors = |length: u64| [&length.to_le_bytes()[..], b"{\"a\":{\"dtype\""].concat();
        for (front, name) in [
            (&tensors(900)[..], "not a GGUF file but safetensors: take the model as GGUF"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (b"\x1f\x8b\x08\0", "packed with gzip: unpack it"),
            (b"tjgg\x03\0\0\0", "GGML: it is from before GGUF"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ] {
            assert!(
                said(front).starts_with("not a GGUF file but ") && said(front).contains(name),
                "{}",
                said(front)
            );
        }
        for front in [&b""[..], b"<!DOCTYPE html>", &[0; 24], &tensors(1 << 40), &tensors(1 << 20)] {
            assert!(matches!(foreign(front, 1 << 20), GgufError::Magic), "{front:?}");
        }
        assert!(GgufError::Pointer.is_damage() && !foreign(&tensors(900), 1 << 20).is_damage());
    }

    #[test]
    fn pieces_are_known_by_their_names() {
        for name in [
            "m.gguf.part1of2",
            "m.Q6_K.gguf.part-02-of-03",
            "m.gguf-split-a",
            "M.GGUF-split-bc",
            "m.gguf.part_3",
            "m.gguf.aa",
            "m.gguf.001",
        ] {
            assert!(is_piece(Path::new(name)), "{name}");
        }
        for name in [
            "m.gguf",
            "m-00001-of-00002.gguf",
            "m.gguf.part",
            "m.gguf.bak",
            "m.gguf.1",
            "m.gguf.gz",
            "m.gguf.old",
            "sha256-0a",
            "m.part1of2",
        ] {
            assert!(!is_piece(Path::new(name)), "{name}");
        }
    }
}
