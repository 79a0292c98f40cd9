//! A torrent as the bytes of a `.torrent` file, which other BitTorrent clients read too.

use std::collections::BTreeMap;

use bendy::{
    decoding::{Decoder, Object},
    encoding::{Encoder, Error, SingleItemEncoder},
};

use crate::{
    error::TorrentError,
    hash::Hash,
    info::{self, broken, dictionary, missing, wrong},
    layout::{Layout, MAX_FILES},
    metainfo::Metainfo,
};

/// Twice what the largest torrent needs: who reads one from somewhere takes no more.
pub const TORRENT_LIMIT: usize = 64 << 20;

/// The fields beside the info dict.
const LAYERS: &str = "piece layers";

impl Metainfo {
    /// Reads a torrent, which is believed in nothing: it must be in the one canonical form, every number in its bounds,
    /// and its hashes must lead up to each other. Fields beside `info` and `piece layers`, which no hash is over, are
    /// read over.
    ///
    /// # Errors
    /// When it has more than `limit` bytes, or names the field that is wrong.
    pub fn from_bytes(bytes: &[u8], limit: usize) -> Result<Self, TorrentError> {
        if bytes.len() > limit {
            return Err(TorrentError::TooLarge { got: bytes.len(), limit });
        }
        let (info_bytes, layers) = read_outer(bytes)?;
        let (layout, roots) = info::decode(info_bytes)?;
        let pieces = pieces(&layout, &roots, layers)?;
        let metainfo = Self::new(layout, pieces);
        if metainfo.roots() != roots {
            return Err(wrong(LAYERS, "does not lead up to its pieces root"));
        }
        // Follows from all that was checked. It is what names are built on, so it is not left to follow.
        if metainfo.info_hash().0 != Hash::of(info_bytes).0 {
            return Err(wrong("info", "has not the one form that it must have"));
        }
        Ok(metainfo)
    }

    /// The bytes of the `.torrent` file. Always the same for the same model.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let written = encoder.emit_dict(|mut torrent| {
            torrent.emit_pair_with(b"info", |item| info::emit(item, self.layout(), self.roots()))?;
            torrent.emit_pair_with(LAYERS.as_bytes(), |item| self.emit_layers(item))
        });
        written.and_then(|()| encoder.get_output()).expect("keys are written in order, and not deep")
    }

    fn emit_layers(&self, item: SingleItemEncoder<'_>) -> Result<(), Error> {
        // In the order of their keys, and files with the same bytes have one together.
        let files = (0..self.layout().files()).filter(|file| has_layer(self.layout(), *file));
        let layers: BTreeMap<_, _> = files.map(|file| (self.roots()[file], self.hashes_of(file))).collect();
        item.emit_dict(|mut dict| {
            for (root, hashes) in layers {
                let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
                dict.emit_pair_with(&root.0, |item| item.emit_bytes(&bytes))?;
            }
            Ok(())
        })
    }
}

/// BEP 52: a file of one piece has no layer, its root is the piece's hash.
fn has_layer(layout: &Layout, file: usize) -> bool {
    layout.pieces_of(file).is_some_and(|pieces| pieces.len() > 1)
}

type Layers<'a> = BTreeMap<Hash, &'a [u8]>;

/// The bytes of the info dict, and the piece layers.
fn read_outer(bytes: &[u8]) -> Result<(&[u8], Layers<'_>), TorrentError> {
    let mut decoder = Decoder::new(bytes).with_max_depth(info::MAX_DEPTH);
    let object = decoder.next_object().map_err(broken("torrent"))?;
    let mut torrent = dictionary(object.ok_or_else(|| missing("torrent"))?, "torrent")?;
    let (mut found, mut layers) = (None, None);
    while let Some((key, value)) = torrent.next_pair().map_err(broken("torrent"))? {
        match key {
            b"info" => found = Some(dictionary(value, "info")?.into_raw().map_err(broken("info"))?),
            b"piece layers" => layers = Some(read_layers(value)?),
            _ => {}
        }
    }
    drop(torrent);
    match decoder.next_object() {
        Ok(None) => {}
        _ => return Err(wrong("torrent", "has bytes behind its end")),
    }
    Ok((found.ok_or_else(|| missing("info"))?, layers.ok_or_else(|| missing(LAYERS))?))
}

fn read_layers<'a>(value: Object<'_, 'a>) -> Result<Layers<'a>, TorrentError> {
    let (mut dict, mut layers) = (dictionary(value, LAYERS)?, BTreeMap::new());
    while let Some((root, hashes)) = dict.next_pair().map_err(broken(LAYERS))? {
        if layers.len() == MAX_FILES {
            return Err(wrong(LAYERS, format!("has more than {MAX_FILES} layers")));
        }
        layers.insert(info::hash(root, LAYERS)?, info::bytes_of(hashes, LAYERS)?);
    }
    Ok(layers)
}

/// The hash of each piece, from as many as there are pieces, and no more.
fn pieces(layout: &Layout, roots: &[Hash], layers: Layers<'_>) -> Result<Vec<Hash>, TorrentError> {
    let (mut pieces, mut unused) = (vec![], layers.clone());
    for (file, root) in roots.iter().enumerate() {
        if !has_layer(layout, file) {
            pieces.push(*root);
            continue;
        }
        unused.remove(root);
        let no_layer = || wrong(LAYERS, format!("has none for file {}", file + 1));
        let layer = layers.get(root).ok_or_else(no_layer)?;
        let (hashes, rest) = layer.as_chunks::<32>();
        let count = layout.pieces_of(file).map_or(0, |pieces| pieces.len());
        if hashes.len() != count || !rest.is_empty() {
            let got = layer.len();
            return Err(wrong(
                LAYERS,
                format!("has {got} bytes for the {count} pieces of file {}", file + 1),
            ));
        }
        pieces.extend(hashes.iter().map(|hash| Hash(*hash)));
    }
    match unused.is_empty() {
        true => Ok(pieces),
        false => Err(wrong(LAYERS, "has hashes of no file that needs them")),
    }
}
