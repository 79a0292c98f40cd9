//! Files as they lie on the disk: reading and writing at a place, without a position that two threads would share, and
//! how much they take.

use std::{
    fs::{File, Metadata},
    io,
};

/// Bytes that a file takes on the disk: holes take none.
#[cfg(unix)]
#[must_use]
pub fn bytes_on_disk(file: &Metadata) -> u64 {
    // By POSIX the unit of st_blocks is the system's; all systems that Rust runs on have 512 bytes.
    std::os::unix::fs::MetadataExt::blocks(file).saturating_mul(512)
}

/// Where holes are not told, as much as the file is long.
#[cfg(not(unix))]
#[must_use]
pub fn bytes_on_disk(file: &Metadata) -> u64 {
    file.len()
}

/// Reads all of `buffer` from `offset` on.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Writes all of `bytes` from `offset` on.
#[cfg(unix)]
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Windows moves the file's position too, but each call says where it reads.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}

/// As reading.
#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}
