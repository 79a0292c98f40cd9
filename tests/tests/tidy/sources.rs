//! The files of the checkout, as they stand.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One text file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the top of the checkout, with `/` between folders.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Its lines, counted from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The first line that begins so.
    pub(crate) fn line_of(&self, beginning: &str) -> Option<usize> {
        self.numbered().find(|(_, line)| line.starts_with(beginning)).map(|(number, _)| number)
    }

    /// How the module in it is called.
    pub(crate) fn module_name(&self) -> &str {
        let mut parts = self.path.trim_end_matches(".rs").rsplit('/');
        match parts.next() {
            Some("mod" | "lib" | "main") => parts.next().unwrap_or_default(),
            name => name.unwrap_or_default(),
        }
    }
}

/// The top of the checkout.
pub(crate) fn top() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in a folder of the checkout").into()
}

/// A path as `Source` writes it.
pub(crate) fn from_top(path: &Path) -> String {
    let path = path.strip_prefix(top()).unwrap_or(path);
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// All files with one of these endings, but what was built and what is hidden; in order.
pub(crate) fn sources(endings: &[&str]) -> Vec<Source> {
    let (mut found, mut folders) = (vec![], vec![top()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the checkout can be read") {
            let path = entry.expect("a folder of the checkout can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let wanted = path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one));
            if path.is_dir() {
                folders.push(path);
            } else if wanted {
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push(Source { path: from_top(&path), text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {}", top().display());
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}
