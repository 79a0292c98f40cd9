//! The modules of a crate: where each stands, and which names it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::MetadataCommand;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{
    paths::{Import, Named, after_test_item, ident, imports, is_punct, path},
    sources::from_top,
};

/// What begins an item with a name that other files may import.
const ITEMS: &[&str] = &["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// One module, in a file of its own or not.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Its place in `Crate::files`.
    pub file: usize,
    /// The module it is in; none for the crate itself.
    pub parent: Option<usize>,
    /// Those in it.
    pub children: BTreeMap<String, usize>,
    /// Its own items.
    pub defines: BTreeSet<String>,
    /// What it imports, by the name it has here.
    pub imports: BTreeMap<String, Named>,
    /// Modules of which it imports all.
    pub globs: Vec<Named>,
    /// All paths that are written in it, but those it only re-exports.
    pub named: Vec<Named>,
    /// What it re-exports, and the words it uses: a re-export that it uses too is an import.
    re_exports: Vec<Import>,
    words: BTreeSet<String>,
}

/// One target of a package: a library, a program, or a test.
#[derive(Debug)]
pub(crate) struct Crate {
    files: Vec<String>,
    /// All modules; the crate itself first.
    pub modules: Vec<Module>,
}

impl Module {
    fn add_imports(&mut self, leaves: Vec<Import>, public: bool) {
        for leaf in leaves {
            match &leaf.name {
                Some(name) => drop(self.imports.insert(name.clone(), leaf.path.clone())),
                None => self.globs.push(leaf.path.clone()),
            }
            match public {
                true => self.re_exports.push(leaf),
                false => self.named.push(leaf.path),
            }
        }
    }

    /// To be called when all of it was read.
    fn finish(&mut self) {
        let used = |leaf: &Import| leaf.name.as_ref().is_some_and(|name| self.words.contains(name));
        let re_exports = std::mem::take(&mut self.re_exports);
        self.named.extend(re_exports.into_iter().filter(used).map(|leaf| leaf.path));
    }
}

impl Crate {
    /// All crates of the checkout.
    pub(crate) fn all() -> Vec<Self> {
        let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs in a checkout");
        let targets = metadata.packages.iter().flat_map(|package| &package.targets);
        targets.map(|target| Self::read(target.src_path.as_std_path())).collect()
    }

    fn read(root: &Path) -> Self {
        let mut read = Self { files: vec![], modules: vec![] };
        let folder = root.parent().expect("a file lies in a folder");
        read.add_file(root, folder, None);
        read.modules.iter_mut().for_each(Module::finish);
        read
    }

    /// From its text, without files.
    #[cfg(test)]
    pub(crate) fn of_files(files: &[(&str, &str)]) -> Self {
        let mut made = Self { files: vec![], modules: vec![] };
        for (place, (name, text)) in files.iter().enumerate() {
            made.files.push(format!("{name}.rs"));
            let parent = (place > 0).then_some(0);
            let module = made.add_module(place, parent);
            if place > 0 {
                made.modules[0].children.insert((*name).to_owned(), module);
            }
            let tokens: TokenStream = text.parse().expect("tokens");
            made.scan(module, tokens, Path::new(name), true);
        }
        made.modules.iter_mut().for_each(Module::finish);
        made
    }

    /// Its files, from the top of the checkout.
    pub(crate) fn files(&self) -> Vec<String> {
        self.files.clone()
    }

    /// One of its files.
    pub(crate) fn file(&self, place: usize) -> &str {
        &self.files[place]
    }

    fn add_module(&mut self, file: usize, parent: Option<usize>) -> usize {
        self.modules.push(Module { file, parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// `folder` is where its `mod` lines look for files.
    fn add_file(&mut self, path: &Path, folder: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.files.push(from_top(path));
        let module = self.add_module(self.files.len() - 1, parent);
        self.scan(module, tokens, folder, true);
        module
    }

    /// Reads what stands in a module, or in a group of it. Only at the `top` are items the module's own.
    fn scan(&mut self, module: usize, tokens: TokenStream, folder: &Path, top: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = if let Some(after) = after_test_item(&tokens, at) {
                self.declare_only(module, &tokens[at..after], folder);
                after
            } else if let Some(after) = self.child(module, &tokens, at, folder) {
                after
            } else if let Some((leaves, after)) = imports(&tokens, at) {
                self.modules[module].add_imports(leaves, is_public(&tokens, at));
                after
            } else if let Some((path, after)) = path(&tokens, at) {
                self.modules[module].words.extend(path.parts.first().cloned());
                self.modules[module].named.push(path);
                after
            } else {
                self.one(module, &tokens, at, folder, top);
                at + 1
            };
        }
    }

    fn one(&mut self, module: usize, tokens: &[TokenTree], at: usize, folder: &Path, top: bool) {
        if let TokenTree::Group(group) = &tokens[at] {
            return self.scan(module, group.stream(), folder, false);
        }
        let Some(word) = ident(tokens.get(at)) else { return };
        self.modules[module].words.insert(word.clone());
        if !top || !ITEMS.contains(&word.as_str()) {
            return;
        }
        let name = if word == "macro_rules" { tokens.get(at + 2) } else { tokens.get(at + 1) };
        self.modules[module].defines.extend(ident(name));
    }

    /// A `mod` with its file or its braces.
    fn child(&mut self, module: usize, tokens: &[TokenTree], at: usize, folder: &Path) -> Option<usize> {
        let name = ident(tokens.get(at)).filter(|word| word == "mod").and(ident(tokens.get(at + 1)))?;
        let inner = folder.join(&name);
        let child = match tokens.get(at + 2)? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let child = self.add_module(self.modules[module].file, Some(module));
                self.scan(child, group.stream(), &inner, true);
                child
            }
            semicolon if is_punct(Some(semicolon), ';') => {
                self.add_file(&file_of(folder, &name)?, &inner, Some(module))
            }
            _ => return None,
        };
        self.modules[module].children.insert(name, child);
        Some(at + 3)
    }

    /// A file of tests belongs to the crate, but what it imports is nobody's concern.
    fn declare_only(&mut self, module: usize, item: &[TokenTree], folder: &Path) {
        let Some(at) = (0..item.len()).find(|at| ident(item.get(*at)).is_some_and(|word| word == "mod"))
        else {
            return;
        };
        if self.child(module, item, at, folder).is_some() {
            let name = ident(item.get(at + 1)).unwrap_or_default();
            let child = self.modules[module].children.remove(&name);
            let inside = child.map_or(self.modules.len(), |child| child);
            for test in &mut self.modules[inside..] {
                test.named.clear();
                test.re_exports.clear();
            }
        }
    }
}

/// Whether `pub`, `pub(crate)` or the like stands before `at`.
fn is_public(tokens: &[TokenTree], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
    ident(before(1)).is_some_and(|word| word == "pub")
        || matches!(before(1), Some(TokenTree::Group(_)))
            && ident(before(2)).is_some_and(|word| word == "pub")
}

fn file_of(folder: &Path, name: &str) -> Option<PathBuf> {
    let candidates = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    candidates.into_iter().find(|path| path.exists())
}
