//! The info dict: what the info-hash is over, so only what follows from the files' bytes.
//!
//! It has one form. Another name, another piece length or one key more would make two models of one, so all that is
//! refused. The bencode itself is read and written by bendy, which takes the canonical form alone, bounds the depth and
//! copies no bytes.

use bendy::{
    decoding::{Decoder, DictDecoder, Object},
    encoding::{Encoder, Error, SingleItemEncoder},
};

use crate::{
    error::TorrentError,
    hash::Hash,
    layout::{Layout, MAX_FILES},
};

/// Torrent, info, file tree, file, its properties: BEP 52 goes no deeper where there are no folders.
pub(crate) const MAX_DEPTH: usize = 5;
/// BitTorrent v2.
const META_VERSION: u64 = 2;
/// What is shown of a wrong name.
const SHOWN: usize = 40;

/// A file as the info dict tells it.
struct FileEntry<'a> {
    name: &'a [u8],
    length: u64,
    root: Hash,
}

/// The bytes of the info dict.
pub(crate) fn encode(layout: &Layout, roots: &[Hash]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let written = encoder.emit_with(|item| emit(item, layout, roots));
    written.and_then(|()| encoder.get_output()).expect("keys are written in order, and not deep")
}

/// Writes the info dict.
pub(crate) fn emit(item: SingleItemEncoder<'_>, layout: &Layout, roots: &[Hash]) -> Result<(), Error> {
    item.emit_dict(|mut info| {
        info.emit_pair_with(b"file tree", |item| emit_tree(item, layout, roots))?;
        info.emit_pair(b"meta version", META_VERSION)?;
        info.emit_pair(b"name", layout.name())?;
        info.emit_pair(b"piece length", layout.piece_length())
    })
}

fn emit_tree(item: SingleItemEncoder<'_>, layout: &Layout, roots: &[Hash]) -> Result<(), Error> {
    item.emit_dict(|mut tree| {
        for (file, (length, root)) in layout.lengths().zip(roots).enumerate() {
            tree.emit_pair_with(layout.file_name(file).as_bytes(), |item| {
                item.emit_dict(|mut entry| {
                    entry.emit_pair_with(b"", |item| {
                        item.emit_dict(|mut properties| {
                            properties.emit_pair(b"length", length)?;
                            properties.emit_pair_with(b"pieces root", |item| item.emit_bytes(&root.0))
                        })
                    })
                })
            })?;
        }
        Ok(())
    })
}

/// Reads the info dict: the files, and the top of each one's tree.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Layout, Vec<Hash>), TorrentError> {
    let mut decoder = Decoder::new(bytes).with_max_depth(MAX_DEPTH);
    let object = decoder.next_object().map_err(broken("info"))?;
    let mut info = dictionary(object.ok_or_else(|| missing("info"))?, "info")?;
    let (mut files, mut version, mut name, mut piece_length) = (None, None, None, None);
    while let Some((key, value)) = info.next_pair().map_err(broken("info"))? {
        match key {
            b"file tree" => files = Some(read_tree(value)?),
            b"meta version" => version = Some(number(value, "info.meta version")?),
            b"name" => name = Some(bytes_of(value, "info.name")?),
            b"piece length" => piece_length = Some(number(value, "info.piece length")?),
            other => return Err(foreign("info", other)),
        }
    }
    same("info.meta version", version, META_VERSION)?;
    let files = files.ok_or_else(|| missing("info.file tree"))?;
    let lengths: Vec<_> = files.iter().map(|file| file.length).collect();
    let layout =
        Layout::new(&lengths).map_err(|reason| wrong("info.file tree", format!("is refused: {reason}")))?;
    named("info.name", name.ok_or_else(|| missing("info.name"))?, layout.name())?;
    same("info.piece length", piece_length, u64::from(layout.piece_length()))?;
    for (place, file) in files.iter().enumerate() {
        named("info.file tree", file.name, &layout.file_name(place))?;
    }
    Ok((layout, files.iter().map(|file| file.root).collect()))
}

fn read_tree<'a>(tree: Object<'_, 'a>) -> Result<Vec<FileEntry<'a>>, TorrentError> {
    const FIELD: &str = "info.file tree";
    let (mut tree, mut files) = (dictionary(tree, FIELD)?, vec![]);
    while let Some((name, entry)) = tree.next_pair().map_err(broken(FIELD))? {
        if files.len() == MAX_FILES {
            return Err(wrong(FIELD, format!("has more than {MAX_FILES} files")));
        }
        let mut entry = dictionary(entry, FIELD)?;
        let properties = entry.next_pair().map_err(broken(FIELD))?;
        let (_, properties) = properties
            .filter(|(key, _)| key.is_empty())
            .ok_or_else(|| wrong(FIELD, format!("has the folder {}", shown(name))))?;
        files.push(read_file(name, properties)?);
        if entry.next_pair().map_err(broken(FIELD))?.is_some() {
            return Err(wrong(FIELD, format!("has {} as a file and as a folder", shown(name))));
        }
    }
    Ok(files)
}

fn read_file<'a>(name: &'a [u8], properties: Object<'_, 'a>) -> Result<FileEntry<'a>, TorrentError> {
    let mut properties = dictionary(properties, "info.file tree")?;
    let (mut length, mut root) = (None, None);
    while let Some((key, value)) = properties.next_pair().map_err(broken("info.file tree"))? {
        match key {
            b"length" => length = Some(number(value, "length")?),
            b"pieces root" => root = Some(hash(bytes_of(value, "pieces root")?, "pieces root")?),
            other => return Err(foreign("info.file tree", other)),
        }
    }
    let length = length.ok_or_else(|| missing("length"))?;
    Ok(FileEntry { name, length, root: root.ok_or_else(|| missing("pieces root"))? })
}

/// The object is a dictionary.
pub(crate) fn dictionary<'o, 's>(
    object: Object<'o, 's>,
    field: &str,
) -> Result<DictDecoder<'o, 's>, TorrentError> {
    object.dictionary_or_else(|_| Err(wrong(field, "is not a dictionary")))
}

/// The object is a string of bytes.
pub(crate) fn bytes_of<'s>(object: Object<'_, 's>, field: &str) -> Result<&'s [u8], TorrentError> {
    object.bytes_or_else(|_| Err(wrong(field, "is not a string")))
}

/// The bytes are one hash.
pub(crate) fn hash(bytes: &[u8], field: &str) -> Result<Hash, TorrentError> {
    bytes.try_into().map(Hash).map_err(|_| wrong(field, format!("has {} bytes, not 32", bytes.len())))
}

/// Something else than bencode in its one form.
pub(crate) fn broken(field: &str) -> impl FnOnce(bendy::decoding::Error) -> TorrentError {
    move |error| wrong(field, format!("is not canonical bencode: {error}"))
}

pub(crate) fn missing(field: &str) -> TorrentError {
    wrong(field, "is missing")
}

pub(crate) fn wrong(field: &str, reason: impl ToString) -> TorrentError {
    TorrentError::field(field, reason)
}

fn number(object: Object<'_, '_>, field: &str) -> Result<u64, TorrentError> {
    let digits = object.integer_or_else(|_| Err(wrong(field, "is not a number")))?;
    digits.parse().map_err(|_| wrong(field, "is not a number of 64 bits, not negative"))
}

fn foreign(within: &str, key: &[u8]) -> TorrentError {
    let field = format!("{within}.{}", shown(key));
    wrong(
        &field,
        "does not belong there: only what follows from the files' bytes does, in BitTorrent v2's form",
    )
}

fn same(field: &str, got: Option<u64>, expected: u64) -> Result<(), TorrentError> {
    match got {
        Some(got) if got == expected => Ok(()),
        Some(got) => Err(wrong(field, format!("is {got}, must be {expected}"))),
        None => Err(missing(field)),
    }
}

/// Names never become paths: they are all known beforehand.
fn named(field: &str, got: &[u8], expected: &str) -> Result<(), TorrentError> {
    if got == expected.as_bytes() {
        return Ok(());
    }
    Err(wrong(field, format!("has the name {}, must be {expected:?}", shown(got))))
}

fn shown(name: &[u8]) -> String {
    let dots = if name.len() > SHOWN { "…" } else { "" };
    format!("\"{}{dots}\"", name[..name.len().min(SHOWN)].escape_ascii())
}
