//! `llama-swarm key`: keys for a gateway's clients.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use gateway::clients::{Entry, Key, KeyFileError, Limits, entries};

/// What to do with keys.
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a key for a client. It is shown this once; the gateway's file has only its hash.
    New(New),
}

#[derive(Args, Debug)]
struct New {
    /// The client's name, in the gateway's metrics and errors. One that is in the file already gets one key more.
    name: String,

    /// The gateway's --api-keys-file, to which the key's line is added; made if it is not there. Without it, the line
    /// is shown below the key.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Requests at once [default: any number].
    #[arg(long, value_name = "N")]
    requests: Option<NonZeroU32>,

    /// Requests a minute [default: any number].
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<NonZeroU32>,

    /// Tokens a minute, of prompts and generated ones together [default: any number].
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<NonZeroU32>,

    /// Models that it may use [default: all].
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Vec<String>,
}

/// Does it. The key alone goes to standard output where the line has a file to go to.
pub(crate) fn run(config: Config) -> Result<ExitCode> {
    let Command::New(new) = config.command;
    let limits = Limits {
        requests: new.requests,
        requests_per_minute: new.requests_per_minute,
        tokens_per_minute: new.tokens_per_minute,
        models: new.models,
    };
    let fits = |model: &String| !model.is_empty() && !model.contains(char::is_whitespace);
    ensure!(limits.models.iter().all(fits), "--models: names of models have no spaces");
    let mut out = io::stdout().lock();
    match &new.file {
        Some(file) => {
            let key = add(file, &new.name, limits).with_context(|| file.display().to_string())?;
            writeln!(out, "{}", key.as_str())?;
        }
        None => {
            let (key, entry) = Entry::new(&new.name, limits).map_err(|fault| anyhow!(fault))?;
            writeln!(out, "{}\n{entry}", key.as_str())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds a line to the file, in one piece. A name that is there keeps its limits, unless others are asked for.
fn add(path: &Path, name: &str, asked: Limits) -> Result<Key> {
    // A name that is none touches nothing.
    let (key, entry) = Entry::new(name, asked).map_err(|fault| anyhow!(fault))?;
    let mut file = private_file(path)?;
    let mut before = vec![];
    file.read_to_end(&mut before)?;
    let known = match entries(&before) {
        Ok(known) => known,
        Err(KeyFileError::Empty) => vec![],
        Err(error) => return Err(error.into()),
    };
    let entry = match known.into_iter().find(|known| known.name == name) {
        Some(known) => {
            let fits = entry.limits == Limits::default() || entry.limits == known.limits;
            ensure!(fits, "{name} has other limits there: change them in its lines first");
            Entry { limits: known.limits, ..entry }
        }
        None => entry,
    };
    let end = if before.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    file.seek(SeekFrom::End(0))?;
    file.write_all(format!("{end}{entry}\n").as_bytes())?;
    file.sync_all()?;
    Ok(key)
}

/// Opens it to read and to add; a new file is for nobody but its owner.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_to_a_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys");
        let limits = Limits { requests: NonZeroU32::new(2), ..Limits::default() };
        let one = add(&path, "alice", limits.clone()).expect("added");
        std::fs::write(&path, std::fs::read_to_string(&path).expect("text").trim_end()).expect("written");
        let two = add(&path, "alice", Limits::default()).expect("added");
        add(&path, "bob", Limits::default()).expect("added");
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(!text.contains(one.as_str()) && !text.contains(two.as_str()), "{text}");
        let read = entries(text.as_bytes()).expect("valid");
        let hashes = [&one, &two].map(|key| gateway::clients::KeyHash::of(key.as_str()));
        assert_eq!([read[0].hash, read[1].hash], hashes);
        assert_eq!(
            (&read[0].limits, &read[1].limits),
            (&limits, &limits),
            "a second key has the limits of the first"
        );
        assert_eq!(read[2].name, "bob");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_wrong_and_a_name_that_is_none_are_left_as_they_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys");
        assert!(add(&path, "not a name", Limits::default()).is_err());
        assert!(!path.exists());
        std::fs::write(&path, "what is this").expect("written");
        assert!(add(&path, "alice", Limits::default()).expect_err("refused").to_string().contains("line 1"));
        assert_eq!(std::fs::read(&path).expect("there"), b"what is this");
        std::fs::remove_file(&path).expect("removed");
        add(&path, "alice", Limits::default()).expect("added");
        let others = Limits { requests: NonZeroU32::new(2), ..Limits::default() };
        assert!(add(&path, "alice", others).is_err());
    }
}
