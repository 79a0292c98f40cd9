//! The file of keys: one key a line.
//!
//! `NAME SHA256 [requests=N] [requests-per-minute=N] [tokens-per-minute=N] [models=A,B]`; what begins with `#` is a
//! comment. A name may have several keys, of which each is as good as the others: so a client gets a new key before the
//! old one goes. The page for operators is `docs/clients.md`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{
    client::Limits,
    key::{Key, KeyHash},
};

/// A name is a label of counters, and their number is bounded by this.
const MAX_KEYS: usize = 4096;
const MAX_NAME: usize = 64;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The client's.
    pub name: String,
    /// Of its key.
    pub hash: KeyHash,
    /// What it may.
    pub limits: Limits,
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Nobody could ask.
    #[error("it has no key: make one with `llama-swarm key new NAME --file FILE`")]
    Empty,
    /// More than are compared in good time.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// A line that is not as it should be.
    #[error("line {line}: {fault}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong there.
        fault: String,
    },
}

/// The entries of a file of keys.
///
/// # Errors
/// Names the first line that is wrong, and how.
pub fn entries(file: &[u8]) -> Result<Vec<Entry>, KeyFileError> {
    let mut entries = vec![];
    let (mut lines_of, mut limits_of) = (BTreeMap::new(), BTreeMap::<String, (usize, Limits)>::new());
    for (line, text) in (1..).zip(file.split(|byte| *byte == b'\n')) {
        let wrong = |fault: String| KeyFileError::Line { line, fault };
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is not text".into()))?.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let entry: Entry = text.parse().map_err(wrong)?;
        if let Some(other) = lines_of.insert(entry.hash, line) {
            return Err(wrong(format!("it has the key of line {other}")));
        }
        let (other, limits) = limits_of.entry(entry.name.clone()).or_insert((line, entry.limits.clone()));
        if *limits != entry.limits {
            return Err(wrong(format!("{} has other limits in line {other}", entry.name)));
        }
        entries.push(entry);
        if entries.len() > MAX_KEYS {
            return Err(KeyFileError::TooMany);
        }
    }
    if entries.is_empty() { Err(KeyFileError::Empty) } else { Ok(entries) }
}

impl Entry {
    /// A client of this name with a new key, which nothing else has.
    ///
    /// # Errors
    /// When the name is none, or the system has no randomness.
    pub fn new(name: &str, limits: Limits) -> Result<(Key, Self), String> {
        let name = checked(name)?.to_owned();
        let key = Key::random().map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let hash = KeyHash::of(key.as_str());
        Ok((key, Self { name, hash, limits }))
    }
}

fn checked(name: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain) {
        true => Ok(name),
        false => {
            let rule = format!("a name has 1 to {MAX_NAME} letters, digits, '-', '_' or '.'");
            Err(format!("{rule}, not {:?}", name.chars().take(MAX_NAME).collect::<String>()))
        }
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (mut words, mut limits) = (line.split_whitespace(), Limits::default());
        let name = checked(words.next().unwrap_or_default())?.to_owned();
        let hash = words.next().and_then(|hash| hash.parse().ok());
        // What stands there may be a key that was put into the wrong place: it is not repeated.
        let hash = hash.ok_or("behind the name stand the 64 hexadecimal digits of the key's SHA-256")?;
        for word in words {
            limits.read(word)?;
        }
        Ok(Self { name, hash, limits })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.name, self.hash, self.limits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(of: &str) -> KeyHash {
        KeyHash::of(of)
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let (a, b, c) = (hash("a"), hash("b"), hash("c"));
        let file = format!(
            "# clients\n\n alice {a} requests=4 tokens-per-minute=1000 models=m,n \r\nbob {b}\n\
             alice {c} tokens-per-minute=1000 models=m,n requests=4"
        );
        let read = entries(file.as_bytes()).expect("valid");
        assert_eq!(
            read.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            ["alice", "bob", "alice"]
        );
        assert_eq!(read[0].limits, read[2].limits);
        assert_eq!(read[1].limits, Limits::default());
        assert_eq!(read[0].to_string(), format!("alice {a} requests=4 tokens-per-minute=1000 models=m,n"));
        assert_eq!(read[0].to_string().parse(), Ok(read[0].clone()));
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_never_repeats_a_key() {
        let (a, key) = (hash("a"), Key::random().expect("randomness"));
        let fault = |file: String| entries(file.as_bytes()).expect_err("refused").to_string();
        assert_eq!(fault(String::new()), fault("# nobody\n".into()));
        assert!(fault(format!("x {a}\nbob")).starts_with("line 2: behind the name"));
        let told = fault(format!("bob {}", key.as_str()));
        assert!(told.contains("SHA-256") && !told.contains(key.as_str()), "{told}");
        assert_eq!(fault(format!("a {a}\nb {a}")), "line 2: it has the key of line 1");
        assert_eq!(
            fault(format!("a {a}\na {} requests=1", hash("b"))),
            "line 2: a has other limits in line 1"
        );
        for wrong in ["requests=0", "requests=x", "tokens=1", "requests", "models=", "requests=1 requests=2"]
        {
            let told = fault(format!("a {a} {wrong}"));
            let field = wrong.split('=').next().unwrap_or_default();
            assert!(told.starts_with("line 1: ") && told.contains(field), "{wrong}: {told}");
        }
        assert!(fault(format!("a\u{1b}b {a}")).starts_with("line 1: a name has"));
        assert!(entries(b"\xff\xfe").is_err());
        let many: String = (0..=MAX_KEYS).map(|n| format!("x {}\n", hash(&n.to_string()))).collect();
        assert_eq!(entries(many.as_bytes()), Err(KeyFileError::TooMany));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(file in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = entries(&file);
        }
    }
}
