//! Rules about the text itself, which otherwise only taste would hold. Each test names all offenders by file and line
//! and says what to do about them.

mod circles;
mod documents;
mod functions;
mod modules;
mod paths;
mod sources;

use std::collections::BTreeSet;

use crate::{
    circles::circles,
    documents::{broken_links, is_there, tabled_files},
    functions::functions,
    modules::Crate,
    sources::{Source, sources},
};

/// A file that is longer has more than one job.
const LINES_A_FILE: usize = 450;
/// What one screen shows. `clippy.toml` has the same number for what clippy counts: code lines of the body alone.
const LINES_A_FUNCTION: usize = 60;
/// For comments; rustfmt breaks code at 110.
const CHARACTERS_A_LINE: usize = 120;

/// Words that say less than others, or a second word for a thing that has one; with the one to use.
const WORDS: &[(&str, &str)] = &[
    ("anew", "again"),
    ("fault of ours", "internal error"),
    ("in company", "when other rows are computed with it"),
    ("oftener", "more often"),
    ("WorkerId", "NodeId: it names any node"),
];

/// Names of modules that say nothing about what is inside.
const MODULE_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// How a channel without a bound is made.
const UNBOUNDED: &[&str] = &["unbounded_channel", "unbounded(", "mpsc::channel()", "UnboundedSender"];

/// The rules' own words stand here.
const RULES: &str = "tests/tests/tidy/main.rs";

fn hold(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}\n{}\n", offenders.join("\n"));
}

fn rust() -> Vec<Source> {
    sources(&["rs"])
}

#[test]
fn a_file_has_450_lines_at_most() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        let tests = source.line_of("mod tests {");
        let advice = match tests {
            Some(line) if line <= LINES_A_FILE => "move its tests to a `tests.rs` in a folder of its name",
            _ => "split it by subject",
        };
        (lines > LINES_A_FILE).then(|| format!("{}:{lines}: {advice}", source.path))
    };
    let offenders: Vec<_> = rust().iter().filter_map(long).collect();
    hold(&format!("over {LINES_A_FILE} lines:"), &offenders);
}

#[test]
fn a_function_has_60_lines_at_most() {
    let offenders: Vec<_> = rust()
        .iter()
        .flat_map(|source| functions(source).into_iter().map(move |function| (source, function)))
        .filter(|(_, function)| function.lines() > LINES_A_FUNCTION)
        .map(|(source, f)| {
            format!("{}:{}: `{}` has {}: give its parts names", source.path, f.first, f.name, f.lines())
        })
        .collect();
    hold(&format!("over {LINES_A_FUNCTION} lines, from `fn` to the closing brace:"), &offenders);
}

#[test]
fn a_file_says_first_what_it_is_for() {
    let silent = |source: &Source| {
        (!source.text.starts_with("//!"))
            .then(|| format!("{}:1: begin with `//!`: what it is for, what it leaves to others", source.path))
    };
    let offenders: Vec<_> = rust().iter().filter_map(silent).collect();
    hold("without a first word:", &offenders);
}

#[test]
fn a_line_has_120_characters_at_most() {
    let mut offenders = vec![];
    for source in rust() {
        for (number, line) in source.numbered() {
            let comment = line.trim_start().starts_with("//");
            // An address cannot be broken, nor can a literal where every character counts.
            let unbreakable = if comment { line.contains("://") } else { line.contains('"') };
            if line.chars().count() > CHARACTERS_A_LINE && !unbreakable {
                offenders.push(format!("{}:{number}: break it", source.path));
            }
        }
    }
    hold(&format!("over {CHARACTERS_A_LINE} characters:"), &offenders);
}

#[test]
fn every_channel_has_a_bound() {
    let mut offenders = vec![];
    for source in rust().iter().filter(|source| source.path != RULES) {
        for (number, line) in source.numbered() {
            if UNBOUNDED.iter().any(|way| line.contains(way)) {
                let advice = "give it a capacity, and say at the constant why this one";
                offenders.push(format!("{}:{number}: {advice}", source.path));
            }
        }
    }
    hold("a queue that can grow without end:", &offenders);
}

#[test]
fn one_word_a_thing() {
    let mut offenders = vec![];
    for source in sources(&["rs", "md", "proto", "py", "sh", "yaml", "toml"]) {
        let rules = source.path == RULES || source.path == "docs/style.md";
        for (number, line) in source.numbered().filter(|_| !rules) {
            for (word, better) in WORDS.iter().filter(|(word, _)| names(line, word)) {
                offenders.push(format!("{}:{number}: \"{word}\": say \"{better}\"", source.path));
            }
        }
    }
    for source in rust().iter().filter(|source| MODULE_NAMES.contains(&source.module_name())) {
        offenders.push(format!("{}:1: name the module by what is inside", source.path));
    }
    hold("words we do not use:", &offenders);
}

/// Whether a text has the word, not only as a part of another one.
fn names(line: &str, word: &str) -> bool {
    let (line, word) = (line.to_lowercase(), word.to_lowercase());
    let edge = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
    let mut places = line.match_indices(&word);
    places.any(|(at, found)| {
        edge(line[..at].chars().next_back()) && edge(line[at + found.len()..].chars().next())
    })
}

#[test]
fn a_word_is_found_where_it_stands_alone() {
    assert!(names("fn fetched_anew() {", "anew") && names("Anew.", "anew"));
    assert!(!names("a new one", "anew") && !names("manewer", "anew"));
}

#[test]
fn files_of_one_crate_do_not_import_each_other_in_a_circle() {
    let mut offenders = vec![];
    for one in Crate::all() {
        offenders.extend(circles(&one).iter().map(|circle| one.tell(circle)));
    }
    hold(
        "circles: move what both need into a file below them (a re-export counts as the file that defines the item):",
        &offenders,
    );
}

#[test]
fn every_file_belongs_to_a_crate() {
    let compiled: BTreeSet<String> = Crate::all().iter().flat_map(Crate::files).collect();
    let apart = |source: &Source| source.path.starts_with("fuzz/");
    let offenders: Vec<_> = rust()
        .into_iter()
        .filter(|source| !apart(source) && !compiled.contains(&source.path))
        .map(|source| format!("{}:1: no `mod` names it: name it or remove it", source.path))
        .collect();
    hold("never compiled:", &offenders);
}

#[test]
fn documents_point_at_what_is_there() {
    let mut offenders = vec![];
    for page in sources(&["md"]) {
        let links = broken_links(&page).into_iter();
        offenders.extend(links.map(|(line, target)| format!("{}:{line}: no file {target}", page.path)));
        if page.path == "docs/changing.md" {
            let files = tabled_files(&page);
            assert!(files.len() > 30, "the recipes name their files in tables");
            let gone = files.into_iter().filter(|(_, file)| !is_there(file));
            offenders.extend(gone.map(|(line, file)| format!("{}:{line}: no file {file}", page.path)));
        }
    }
    hold("links and recipes that lead nowhere: follow the file to where it went", &offenders);
}
