//! The texts that come with a package: licences, notices, copyrights. Some authors forget them in what they publish;
//! then it is the text that their licence expression names, where that is one we know.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Package;

/// How such files begin; in any case of letters.
const NAMES: [&str; 7] = ["licence", "license", "copying", "copyright", "notice", "unlicense", "patents"];
/// Programs and settings that happen to begin so.
const OTHER: [&str; 10] = ["rs", "toml", "json", "yml", "yaml", "py", "sh", "c", "h", "html"];
/// Folders that hold what is not compiled, or what was.
const NOT_SHIPPED: [&str; 5] = [".git", ".github", "tests", "benches", "target"];
/// No licence is longer; the longest that we met has 50 kB.
const LARGEST: u64 = 1 << 20;
/// Sources of C lie deeper than those of Rust.
const DEEPEST: usize = 8;

const APACHE: &str = include_str!("../../../LICENSE");
/// The words of <https://spdx.org/licenses/MIT.html>, after the line that says whose it is.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";
/// The words of <https://spdx.org/licenses/BSD-3-Clause.html>, after the line that says whose it is.
const BSD_3_CLAUSE: &str = "\
Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
disclaimer in the documentation and/or other materials provided with the distribution.

3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote products
derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS \"AS IS\" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
";

/// At least one. The files of the package first, by their paths.
pub(crate) fn of(package: &Package) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
    let expression = package.license.as_deref();
    ensure!(
        expression.is_some() || package.license_file.is_some(),
        "its manifest has neither license nor license-file"
    );
    let mut texts = read(&files(folder.as_std_path(), package.license_file())?)?;
    if texts.is_empty() {
        texts.push(standard(expression.unwrap_or_default(), &package.authors)?);
    }
    Ok(texts)
}

fn files(folder: &Path, named: Option<cargo_metadata::camino::Utf8PathBuf>) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = named.into_iter().map(Into::into).collect();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let name = name.to_string_lossy().to_lowercase();
            if entry.is_dir() {
                if depth < DEEPEST && !NOT_SHIPPED.contains(&name.as_str()) {
                    open.push((entry, depth + 1));
                }
            } else if is_notice(&name) && !found.contains(&entry) {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_notice(name: &str) -> bool {
    let other = name.rsplit_once('.').is_some_and(|(_, ending)| OTHER.contains(&ending));
    !other && NAMES.iter().any(|beginning| name.starts_with(beginning))
}

fn read(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut texts = vec![];
    for file in files {
        let size = fs::metadata(file).with_context(|| format!("{}", file.display()))?.len();
        ensure!(size <= LARGEST, "{} has {size} bytes: no licence", file.display());
        let text = String::from_utf8_lossy(&fs::read(file)?).replace('\r', "");
        let text = text.trim_matches('\n').to_owned();
        if !text.trim().is_empty() {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// What an expression that leaves a choice means without a text.
fn standard(expression: &str, authors: &[String]) -> Result<String> {
    // Behind AND there is a second licence, which a choice does not meet.
    let choices: Vec<&str> =
        expression.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect();
    let holders = match authors {
        [] => "the authors".to_owned(),
        authors => authors.join(", "),
    };
    match () {
        () if choices.contains(&"MIT") => Ok(format!("Copyright (c) {holders}\n\n{}", MIT.trim_end())),
        () if choices.contains(&"Apache-2.0") => Ok(APACHE.trim_matches('\n').to_owned()),
        () if choices.contains(&"BSD-3-Clause") => {
            Ok(format!("Copyright (c) {holders}\n\n{}", BSD_3_CLAUSE.trim_end()))
        }
        () => bail!("it has no text of its licence {expression:?}, and here is none: add it to texts.rs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_a_package_are_its_own_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("LICENSE-MIT", "\nmine\r\n");
        write("src/vendor/COPYING", "theirs");
        write("src/license.rs", "a program");
        write("tests/LICENSE", "not shipped");
        write("NOTICE", " ");
        let found = read(&files(folder.path(), None).unwrap()).unwrap();
        assert_eq!(found, ["mine", "theirs"]);
    }

    #[test]
    fn a_package_that_says_nothing_of_its_licence_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let package = |licence: Option<&str>| -> Package {
            let manifest = folder.path().join("Cargo.toml");
            let told = serde_json::json!({
                "name": "silent", "version": "1.0.0", "id": "silent", "license": licence, "dependencies": [],
                "targets": [], "features": {}, "manifest_path": manifest,
            });
            serde_json::from_value(told).unwrap()
        };
        assert!(of(&package(None)).is_err(), "no licence");
        assert!(of(&package(Some("ISC"))).is_err(), "no text of it");
        assert!(of(&package(Some("MIT"))).is_ok());
        fs::write(folder.path().join("LICENSE"), "the words").unwrap();
        assert_eq!(of(&package(Some("ISC"))).unwrap(), ["the words"]);
        assert!(of(&package(None)).is_err(), "a text that nobody names");
    }

    #[test]
    fn without_a_text_it_is_the_one_that_the_expression_names() {
        let authors = ["A <a@example.com>".to_owned(), "B".to_owned()];
        for expression in ["MIT", "Apache-2.0 OR MIT", "MIT/Apache-2.0"] {
            let text = standard(expression, &authors).unwrap();
            assert!(text.starts_with("Copyright (c) A <a@example.com>, B\n\nPermission"), "{text}");
        }
        assert!(standard("Apache-2.0", &[]).unwrap().contains("Apache License"));
        assert!(standard("BSD-3-Clause", &authors).unwrap().contains("\n\nRedistribution and use"));
        for expression in ["ISC", "MIT AND BSD-3-Clause", ""] {
            assert!(standard(expression, &authors).is_err(), "{expression}");
        }
    }
}
