//! What a model's files are by content, and the keeping of their parts on disk.
//!
//! A [`Metainfo`] is a BitTorrent v2 torrent (<https://www.bittorrent.org/beps/bep_0052.html>) over one GGUF file or
//! the parts of one model. Its info-hash follows from the bytes of the files alone: the same model has the same one
//! on every node, whatever its files are called. A [`Store`] holds the pieces that are here, a [`Picker`] says which
//! to ask of whom. How bytes travel, what is in them, and which name is shown for a model, is left to others.

mod disk;
mod dot_torrent;
mod error;
mod hash;
mod hashing;
mod info;
mod known;
mod layout;
mod making;
mod merkle;
mod metainfo;
mod picker;
mod piece_set;
mod sealed;
mod store;

pub use disk::bytes_on_disk;
pub use dot_torrent::TORRENT_LIMIT;
pub use error::TorrentError;
pub use hash::{Hash, NotAHash};
pub use hashing::Hashing;
pub use known::Known;
pub use layout::{Layout, Piece};
pub use merkle::BLOCK;
pub use metainfo::Metainfo;
pub use picker::Picker;
pub use piece_set::{PieceIndex, PieceSet};
pub use store::{Kept, Store, is_used};
