//! Files that their owner alone may read: keys and secrets. Written complete or not at all, and never over another.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Makes a file that only its owner can read, and the folders that it lies in.
///
/// # Errors
/// When there is a file already (`AlreadyExists`; it stays as it is), or when it cannot be written.
pub fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let written = open_private(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| give_name(&part, path));
    // Renamed away, or not needed any more.
    let _ = fs::remove_file(&part);
    written
}

/// A link is refused where there is a file already. Some disks have no links; then a look must do.
fn give_name(part: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(part, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if path.try_exists()? => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(part, path),
        Ok(()) => Ok(()),
    }
}

#[cfg(unix)]
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file inherits who may read it from its folder, which may be everybody. It is restricted while it is still empty;
/// a disk that knows no owners stays as open as it is.
#[cfg(windows)]
fn open_private(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    if let Err(error) = leave_to_owner(path) {
        tracing::warn!(path = %path.display(), %error, "others may be able to read this file");
    }
    Ok(file)
}

/// By Windows' own tool: the calls themselves are not safe Rust.
#[cfg(windows)]
fn leave_to_owner(path: &Path) -> io::Result<()> {
    /// The group "owner rights", by the number that is the same in every language: full access.
    const OWNER: &str = "*S-1-3-4:F";
    let windows = std::env::var_os("SystemRoot").ok_or_else(|| io::Error::other("SystemRoot is not set"))?;
    let icacls = Path::new(&windows).join("System32").join("icacls.exe");
    let mut command = std::process::Command::new(icacls);
    let output = command.arg(path).args(["/inheritance:r", "/grant:r", OWNER]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_owners_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/file");
        create_private(&path, b"first").unwrap();
        let again = create_private(&path, b"second").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
