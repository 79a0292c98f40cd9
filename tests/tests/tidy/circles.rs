//! Which file of a crate names items of which other, and where these arrows close a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{modules::Crate, paths::Named};

/// Re-exports that lead to each other would be followed for ever; none is so deep.
const STEPS: usize = 32;

/// From file to file, each with the line that names something of the next. The last leads to the first.
pub(crate) type Circle = Vec<Arrow>;

/// One file names an item of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    from: usize,
    line: usize,
    what: String,
    to: usize,
}

impl Crate {
    /// A circle as a reader wants to see it.
    pub(crate) fn tell(&self, circle: &Circle) -> String {
        let arrows = circle.iter().map(|arrow| {
            let (from, to) = (self.file(arrow.from), self.file(arrow.to));
            format!("{from}:{}: `{}` is of {to}", arrow.line, arrow.what)
        });
        arrows.collect::<Vec<_>>().join("\n  ")
    }

    /// The file that defines what a path means, if it is one of this crate's.
    fn definer(&self, from: usize, path: &Named, steps: usize) -> Option<usize> {
        let (mut module, mut rest) = self.start(from, &path.parts, steps)?;
        while let Some((name, after)) = rest.split_first() {
            match self.modules[module].children.get(name) {
                Some(child) => (module, rest) = (*child, after),
                None => return self.item(module, name, after, steps),
            }
        }
        // The name of a module alone; what is taken from it is named elsewhere.
        None
    }

    /// The module that the first words of a path name, and the words after them.
    fn start<'a>(&self, from: usize, parts: &'a [String], steps: usize) -> Option<(usize, &'a [String])> {
        let (first, rest) = parts.split_first()?;
        match first.as_str() {
            "crate" => Some((0, rest)),
            "self" => Some((from, rest)),
            "super" => {
                let (mut module, mut rest) = (self.modules[from].parent?, rest);
                while rest.first().is_some_and(|part| part == "super") {
                    (module, rest) = (self.modules[module].parent?, &rest[1..]);
                }
                Some((module, rest))
            }
            name => Some((self.module_called(from, name, steps)?, rest)),
        }
    }

    fn module_called(&self, from: usize, name: &str, steps: usize) -> Option<usize> {
        let here = &self.modules[from];
        if let Some(child) = here.children.get(name) {
            return Some(*child);
        }
        here.imports.get(name).and_then(|path| self.module(from, path, steps.checked_sub(1)?))
    }

    /// The module that a path names, if it names one.
    fn module(&self, from: usize, path: &Named, steps: usize) -> Option<usize> {
        let (mut module, rest) = self.start(from, &path.parts, steps)?;
        for name in rest {
            module = self.module_called(module, name, steps)?;
        }
        Some(module)
    }

    /// The file of an item of a module, or of what `after` names inside of it. A re-export is looked through.
    fn item(&self, module: usize, name: &str, after: &[String], steps: usize) -> Option<usize> {
        let here = &self.modules[module];
        if here.defines.contains(name) {
            return Some(here.file);
        }
        let steps = steps.checked_sub(1)?;
        if let Some(import) = here.imports.get(name) {
            let parts = import.parts.iter().chain(after).cloned().collect();
            return self.definer(module, &Named { parts, line: import.line }, steps);
        }
        here.globs.iter().find_map(|glob| {
            let parts = glob.parts.iter().cloned().chain([name.to_owned()]).chain(after.iter().cloned());
            self.definer(module, &Named { parts: parts.collect(), line: glob.line }, steps)
        })
    }

    fn arrows(&self) -> BTreeMap<usize, BTreeMap<usize, Arrow>> {
        let mut arrows: BTreeMap<usize, BTreeMap<usize, Arrow>> = BTreeMap::new();
        for (place, module) in self.modules.iter().enumerate() {
            for path in &module.named {
                let Some(to) = self.definer(place, path, STEPS).filter(|to| *to != module.file) else {
                    continue;
                };
                let arrow = Arrow { from: module.file, line: path.line, what: path.parts.join("::"), to };
                arrows.entry(module.file).or_default().entry(to).or_insert(arrow);
            }
        }
        arrows
    }
}

/// One circle for each group of files that reach each other: a shortest one.
pub(crate) fn circles(one: &Crate) -> Vec<Circle> {
    let arrows = one.arrows();
    let mut told = BTreeSet::new();
    let mut found = vec![];
    for file in arrows.keys() {
        let Some(circle) = shortest(&arrows, *file).filter(|_| !told.contains(file)) else { continue };
        told.extend(circle.iter().map(|arrow| arrow.from));
        found.push(circle);
    }
    found
}

/// The shortest way from a file back to itself.
fn shortest(arrows: &BTreeMap<usize, BTreeMap<usize, Arrow>>, file: usize) -> Option<Circle> {
    let mut came: BTreeMap<usize, &Arrow> = BTreeMap::new();
    let mut next = VecDeque::from([file]);
    while let Some(at) = next.pop_front() {
        for arrow in arrows.get(&at).into_iter().flat_map(BTreeMap::values) {
            if arrow.to == file {
                let mut back = vec![arrow.clone()];
                while let Some(before) = back.last().and_then(|arrow| came.get(&arrow.from)) {
                    back.push((*before).clone());
                }
                back.reverse();
                return Some(back);
            }
            came.entry(arrow.to).or_insert_with(|| {
                next.push_back(arrow.to);
                arrow
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Crate, circles};

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let one = Crate::of_files(files);
        circles(&one).iter().map(|circle| one.tell(circle)).collect()
    }

    #[test]
    fn a_circle_is_told_with_its_lines() {
        let a = "use crate::b::B;\npub struct A(B);";
        let b = "pub struct B;\nfn back() { super::a::A::new() }";
        let expected = "a.rs:1: `crate::b::B` is of b.rs\n  b.rs:2: `super::a::A::new` is of a.rs";
        assert_eq!(told(&[("lib", ""), ("a", a), ("b", b)]), [expected]);
    }

    #[test]
    fn a_re_export_counts_as_the_file_that_defines_the_item() {
        let lib = "pub use a::A; pub use crate::b::*;";
        assert!(
            told(&[("lib", lib), ("a", "use crate::B; pub struct A;"), ("b", "pub struct B;")]).is_empty()
        );
        let b = "use crate::A; pub struct B;";
        assert_eq!(told(&[("lib", lib), ("a", "use crate::B; pub struct A;"), ("b", b)]).len(), 1);
    }

    #[test]
    fn a_crate_may_re_export_what_uses_it_but_not_use_it_itself() {
        let a = "use crate::Shared; pub struct A;";
        assert!(told(&[("lib", "pub use a::A; pub struct Shared;"), ("a", a)]).is_empty());
        assert_eq!(told(&[("lib", "pub use a::A; pub struct Shared; fn f(_: A) {}"), ("a", a)]).len(), 1);
    }

    #[test]
    fn a_module_is_known_by_its_imported_name_too() {
        let a = "use crate::b; pub struct A; fn f() { b::make() }";
        let b = "use super::a as other; pub fn make() { other::A; }";
        assert_eq!(told(&[("lib", ""), ("a", a), ("b", b)]).len(), 1);
    }

    #[test]
    fn what_tests_import_closes_no_circle() {
        let b = "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }";
        assert!(told(&[("lib", ""), ("a", "use crate::b::B; pub struct A;"), ("b", b)]).is_empty());
    }

    #[test]
    fn a_crate_that_uses_its_own_child_and_is_used_by_it_is_a_circle() {
        let lib = "fn f() { a::make() } pub struct Shared;";
        assert_eq!(told(&[("lib", lib), ("a", "use super::Shared; pub fn make() {}")]).len(), 1);
    }
}
