//! Trees of SHA-256 hashes over blocks, as BEP 52 builds them. Pure; a level is the hashes from the left that are not
//! padding.

use crate::hash::Hash;

/// What a leaf of the tree covers: BEP 52 has blocks of 16 KiB.
pub const BLOCK: u32 = 16 * 1024;

/// The leaves over some bytes.
pub(crate) fn leaves(bytes: &[u8]) -> Vec<Hash> {
    bytes.chunks(BLOCK as usize).map(Hash::of).collect()
}

/// The top of a tree over `level`, which is filled up to `width`, a power of two, with `padding`.
pub(crate) fn top(mut level: Vec<Hash>, mut width: u32, mut padding: Hash) -> Hash {
    while width > 1 {
        level = next_level(&level, &padding);
        padding = Hash::above(&padding, &padding);
        width /= 2;
    }
    level.first().copied().unwrap_or(padding)
}

/// What stands for a whole subtree of `width` blocks behind the file's end.
pub(crate) fn padding(width: u32) -> Hash {
    top(vec![], width, Hash::NOTHING)
}

fn next_level(level: &[Hash], padding: &Hash) -> Vec<Hash> {
    level.chunks(2).map(|pair| Hash::above(&pair[0], pair.get(1).unwrap_or(padding))).collect()
}
