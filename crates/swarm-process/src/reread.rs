//! Files that are read again when they change, as keys and certificates are.
//!
//! What is in them is their readers' business.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    fs::File,
    io::AsyncReadExt,
    time::{MissedTickBehavior, interval},
};

/// No file of keys or certificates is larger.
const MAX_BYTES: u64 = 1 << 20;
/// How often to look. There is no event for a file that holds on every system and under every way of replacing it;
/// reading some kilobytes costs nothing, and times and sizes of files do not tell everything.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The contents of all files, or why one cannot be read.
type Found = Result<Vec<Vec<u8>>, String>;

/// Files of which a value is made, and made again when they change.
pub struct Reread<T> {
    flag: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    /// What was made use of last, or could not be.
    tried: Found,
}

type Make<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

impl<T> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Reread<T> {
    /// The value that `make` makes of the files' contents now. `flag` says whose files they are.
    ///
    /// # Errors
    /// When a file cannot be read, or what `make` says.
    pub async fn open(
        flag: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> io::Result<(T, Self)> {
        let reread = Self { flag, tried: contents(&paths).await, paths, make: Box::new(make) };
        let made = reread.tried.clone().and_then(|contents| reread.made(&contents));
        made.map(|value| (value, reread)).map_err(|fault| io::Error::other(format!("{flag}: {fault}")))
    }

    fn made(&self, contents: &[Vec<u8>]) -> Result<T, String> {
        let shown: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        (self.make)(contents).map_err(|fault| format!("{}: {fault}", shown.join(", ")))
    }

    /// Hands each new value to `take`, for ever. A change that is not right is told once, and the old value stays.
    pub async fn follow(mut self, mut take: impl FnMut(T) + Send) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.tried.clone();
        loop {
            looks.tick().await;
            let found = contents(&self.paths).await;
            // Only what was the same twice: whoever writes the files may be half done.
            if found == seen && found != self.tried {
                match found.clone().and_then(|contents| self.made(&contents)) {
                    Ok(value) => {
                        tracing::info!(flag = self.flag, "files have changed and were read again");
                        take(value);
                    }
                    Err(fault) => {
                        tracing::warn!(flag = self.flag, %fault, "changed files are not taken, what was before stays");
                    }
                }
                self.tried = found.clone();
            }
            seen = found;
        }
    }
}

async fn contents(paths: &[PathBuf]) -> Found {
    let mut contents = vec![];
    for path in paths {
        contents.push(read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))?);
    }
    Ok(contents)
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path).await?.take(MAX_BYTES + 1).read_to_end(&mut bytes).await?;
    match bytes.len() as u64 <= MAX_BYTES {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it is larger than {} KiB", MAX_BYTES >> 10))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    /// Nothing here takes so long unless it hangs.
    const BOUND: Duration = Duration::from_secs(20);

    fn number(contents: &[Vec<u8>]) -> Result<u32, String> {
        let text = String::from_utf8_lossy(&contents.concat()).into_owned();
        text.parse().map_err(|_| format!("{text:?} is no number"))
    }

    #[tokio::test]
    async fn changes_are_taken_and_wrong_ones_keep_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["one", "two"].map(|name| dir.path().join(name)).into();
        let write = |place: usize, text: &str| std::fs::write(&paths[place], text).unwrap();
        write(0, "1");
        write(1, "2");
        let (first, reread) = Reread::open("--numbers", paths.clone(), number).await.unwrap();
        assert_eq!(first, 12);
        let (told, mut taken) = mpsc::channel(8);
        let following = tokio::spawn(reread.follow(move |value| told.try_send(value).unwrap()));
        for (place, text, expected) in [(0, "3", 32), (1, "4", 34)] {
            write(place, text);
            assert_eq!(timeout(BOUND, taken.recv()).await.unwrap(), Some(expected));
        }
        write(0, "x");
        std::fs::remove_file(&paths[1]).unwrap();
        write(1, "5");
        write(0, "6");
        assert_eq!(timeout(BOUND, taken.recv()).await.unwrap(), Some(65), "and nothing in between");
        following.abort();
    }

    #[tokio::test]
    async fn what_is_not_right_at_the_start_is_told_by_flag_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let open = || Reread::open("--numbers", vec![path.clone()], number);
        let missing = open().await.unwrap_err().to_string();
        assert!(missing.starts_with("--numbers: cannot read ") && missing.contains("number"), "{missing}");
        std::fs::write(&path, "x").unwrap();
        let wrong = open().await.unwrap_err().to_string();
        assert!(wrong.starts_with("--numbers: ") && wrong.ends_with("\"x\" is no number"), "{wrong}");
        std::fs::write(&path, vec![b'1'; 1 << 21]).unwrap();
        assert!(open().await.unwrap_err().to_string().contains("larger than 1024 KiB"));
    }
}
