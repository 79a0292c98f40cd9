//! SHA-256 hashes in the forms that files and packages write them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use model_torrent::Hash;
use sha2::{Digest, Sha256};

/// Reads a whole file.
pub(crate) fn of_file(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// URL-safe base64 without padding, as a wheel's RECORD writes hashes (the wheel format, PEP 427).
pub(crate) fn record_form(hash: &Hash) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in hash.0.chunks(3) {
        let byte = |index| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = (0..=three.len()).map(|digit| (bits >> (18 - 6 * digit)) as usize & 63);
        text.extend(digits.map(|digit| char::from(DIGITS[digit])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_as_a_wheel_writes_it() {
        let hash = Hash::from(Sha256::new_with_prefix("abc"));
        assert_eq!(record_form(&hash), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    }
}
