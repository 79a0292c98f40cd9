//! What documents point at.

use std::path::Path;

use crate::sources::{Source, top};

/// Links to files that are not there, as `(line, target)`.
pub(crate) fn broken_links(page: &Source) -> Vec<(usize, String)> {
    let folder = top().join(&page.path);
    let folder = folder.parent().expect("a page lies in a folder");
    let mut broken = vec![];
    for (number, line) in page.numbered() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        let images = line.split("src=\"").skip(1).chain(line.split("srcset=\"").skip(1));
        let images = images.filter_map(|rest| rest.split('"').next());
        for target in targets.chain(images).filter(|target| !target.is_empty() && !target.contains("://")) {
            if !folder.join(target).exists() {
                broken.push((number, target.to_owned()));
            }
        }
    }
    broken
}

/// Files that a page's tables name in their first column, from the top of the checkout, as `(line, path)`.
pub(crate) fn tabled_files(page: &Source) -> Vec<(usize, String)> {
    let mut files = vec![];
    for (number, line) in page.numbered() {
        let Some(cell) = line.strip_prefix("| `").and_then(|row| row.split('|').next()) else { continue };
        files.extend(cell.split('`').step_by(2).map(|path| (number, path.to_owned())));
    }
    files.retain(|(_, path)| !path.trim().is_empty());
    files
}

/// Whether such a file lies in the checkout.
pub(crate) fn is_there(path: &str) -> bool {
    top().join(Path::new(path)).is_file()
}

#[test]
fn what_is_not_there_is_found() {
    let text = "| file | what |\n|---|---|\n| `README.md`, `gone/a.rs` | `not/this` |\n[a](../README.md#x) [b](gone.md)";
    let page = Source { path: "docs/made.md".into(), text: text.into() };
    assert_eq!(tabled_files(&page), [(3, "README.md".to_owned()), (3, "gone/a.rs".to_owned())]);
    assert_eq!(broken_links(&page), [(4, "gone.md".to_owned())]);
    assert!(is_there("README.md") && !is_there("gone/a.rs"));
}
