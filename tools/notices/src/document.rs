//! The document: what is in our programs, then each text once with those that it is of.

use std::{collections::HashMap, fmt::Write};

use cargo_metadata::Package;

const LINE: &str = "================================================================================";

/// Packages by name, with their texts.
pub(crate) fn of(notices: &[(&Package, Vec<String>)]) -> String {
    let (texts, numbers) = number(notices);
    let mut out = String::from(
        "THIRD-PARTY NOTICES\n\nThe programs of llama-swarm are made of the packages below. Numbers tell which of the \
         texts after the list are\nthose of a package. The sources of NAME VERSION are at \
         https://crates.io/crates/NAME/VERSION.\n\nThe Rust standard library, Copyright (c) The Rust Project \
         contributors, is in all of them: MIT OR Apache-2.0,\nhttps://github.com/rust-lang/rust.\n\n",
    );
    for ((package, _), numbers) in notices.iter().zip(&numbers) {
        let licence = package.license.as_deref().unwrap_or("see the text");
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        let from = package.repository.as_deref().unwrap_or_default();
        let line =
            format!("{} {}: {licence}; [{}] {from}", package.name, package.version, numbers.join(", "));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for (index, text) in texts.iter().enumerate() {
        let _ = write!(out, "\n{LINE}\n[{}]\n\n{text}\n", index + 1);
    }
    out
}

/// The different texts, and for each package which ones. Texts that differ in their line breaks alone are one.
fn number<'a>(notices: &'a [(&Package, Vec<String>)]) -> (Vec<&'a str>, Vec<Vec<usize>>) {
    let (mut texts, mut known) = (vec![], HashMap::new());
    let numbers = notices.iter().map(|(_, own)| {
        let mut numbers: Vec<usize> = own
            .iter()
            .map(|text| {
                let words: Vec<&str> = text.split_whitespace().collect();
                *known.entry(words.join(" ")).or_insert_with(|| {
                    texts.push(text.as_str());
                    texts.len()
                })
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    });
    let numbers = numbers.collect();
    (texts, numbers)
}
