//! The keys that are taken now.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use swarm_process::reread::Reread;

use super::{
    client::Client,
    entry::{Entry, entries},
    key::KeyHash,
    metrics::ClientMetrics,
};

/// Each key's hash, and whose it is.
type Known = Arc<[(KeyHash, Arc<Client>)]>;

/// The keys that are taken now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    metrics: ClientMetrics,
    known: Arc<RwLock<Known>>,
}

impl Keys {
    /// The keys of a file; with it what reads that again when it changes.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub async fn open(file: PathBuf, metrics: ClientMetrics) -> std::io::Result<(Self, Reread<Vec<Entry>>)> {
        let make = |contents: &[Vec<u8>]| entries(&contents.concat()).map_err(|error| error.to_string());
        let (entries, reread) = Reread::open("--api-keys-file", vec![file], make).await?;
        let keys = Self { metrics, known: Arc::new(RwLock::new(Arc::new([]))) };
        keys.take(entries);
        Ok((keys, reread))
    }

    /// From now on these keys and no others. What their clients have used goes on counting.
    pub fn take(&self, entries: Vec<Entry>) {
        let before = self.known();
        let mut clients: BTreeMap<String, Arc<Client>> =
            before.iter().map(|(_, client)| (client.name().to_owned(), client.clone())).collect();
        let mut known = vec![];
        for Entry { name, hash, limits } in entries {
            let client = match clients.get(&name) {
                Some(client) if *client.limits() == limits => client.clone(),
                Some(client) => Arc::new(client.with_limits(limits)),
                None => Arc::new(Client::new(name.clone(), limits, self.metrics.of(&name))),
            };
            clients.insert(name, client.clone());
            known.push((hash, client));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known.into();
    }

    /// Whose key this is. All are looked at, so that the time tells nothing.
    #[must_use]
    pub fn find(&self, shown: &str) -> Option<Arc<Client>> {
        let hash = KeyHash::of(shown);
        let mut found = None;
        for (known, client) in self.known().iter() {
            if known.is(&hash) {
                found = Some(client.clone());
            }
        }
        found
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, key: &str, limits: &str) -> String {
        format!("{name} {} {limits}\n", KeyHash::of(key))
    }

    #[tokio::test]
    async fn keys_come_and_go_and_what_is_taken_of_limits_stays_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys");
        std::fs::write(&path, line("alice", "old", "requests=1")).expect("written");
        let (keys, _) = Keys::open(path, ClientMetrics::default()).await.expect("valid");
        let alice = keys.find("old").expect("known");
        assert!(keys.find("new").is_none() && keys.find("").is_none());
        let _in_hand = alice.begin().expect("the first");

        let both = line("alice", "old", "requests=1") + &line("alice", "new", "requests=1");
        keys.take(entries(both.as_bytes()).expect("valid"));
        assert!(keys.find("old").expect("still known").begin().is_err());
        assert!(
            keys.find("new").expect("known").begin().is_err(),
            "two keys of one name have one set of limits"
        );
        keys.take(entries(line("alice", "new", "requests=2").as_bytes()).expect("valid"));
        assert!(keys.find("old").is_none());
        let _second = keys.find("new").expect("known").begin().expect("the second");
        assert!(keys.find("new").expect("known").begin().is_err(), "the first still counts");
    }

    #[tokio::test]
    async fn a_file_that_is_wrong_is_named_with_its_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys");
        std::fs::write(&path, "alice").expect("written");
        let error =
            Keys::open(path.clone(), ClientMetrics::default()).await.expect_err("refused").to_string();
        assert!(error.contains("--api-keys-file") && error.contains("line 1"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        let error = Keys::open(path, ClientMetrics::default()).await.expect_err("refused").to_string();
        assert!(error.contains("--api-keys-file") && error.contains("keys"), "{error}");
    }
}
