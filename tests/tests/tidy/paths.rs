//! Paths and `use` trees, as they are written in a file.

use proc_macro2::{Delimiter, TokenTree};

/// A path with `::`, and the line where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its parts; generics end it.
    pub parts: Vec<String>,
    /// Counted from 1.
    pub line: usize,
}

/// One leaf of a `use` tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// What it names; for `*` the module.
    pub path: Named,
    /// Under which name it is known here; none for `*`.
    pub name: Option<String>,
}

pub(crate) fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

pub(crate) fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

/// The path that begins at `at`, and where it ends; nothing for a word alone or the middle of a path.
pub(crate) fn path(tokens: &[TokenTree], at: usize) -> Option<(Named, usize)> {
    let line = tokens[at].span().start().line;
    let mut parts = vec![ident(tokens.get(at))?];
    if at >= 2 && colons(tokens, at - 2) {
        return None;
    }
    let mut end = at + 1;
    while let Some(part) = ident(tokens.get(end + 2)).filter(|_| colons(tokens, end)) {
        parts.push(part);
        end += 3;
    }
    (parts.len() > 1).then_some((Named { parts, line }, end))
}

/// The leaves of the `use` at `at`, and where it ends.
pub(crate) fn imports(tokens: &[TokenTree], at: usize) -> Option<(Vec<Import>, usize)> {
    // `use<'a>` in a type captures, and imports nothing.
    if ident(tokens.get(at))? != "use" || is_punct(tokens.get(at + 1), '<') {
        return None;
    }
    let length = tokens[at..].iter().position(|token| is_punct(Some(token), ';'))?;
    let mut leaves = vec![];
    for tree in tokens[at + 1..at + length].split(|token| is_punct(Some(token), ',')) {
        read_tree(tree, &[], &mut leaves);
    }
    Some((leaves, at + length + 1))
}

/// `prefix` is what stands before the braces that this tree is in.
fn read_tree(tree: &[TokenTree], prefix: &[String], leaves: &mut Vec<Import>) {
    let Some(first) = tree.first() else { return };
    let line = first.span().start().line;
    let mut parts = prefix.to_vec();
    let mut name = None;
    for (place, token) in tree.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                name = ident(tree.get(place + 1));
                break;
            }
            TokenTree::Ident(word) if word == "self" && !parts.is_empty() => {}
            TokenTree::Ident(word) => parts.push(word.to_string()),
            TokenTree::Punct(star) if star.as_char() == '*' => {
                leaves.push(Import { path: Named { parts, line }, name: None });
                return;
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let inside: Vec<_> = group.stream().into_iter().collect();
                for tree in inside.split(|token| is_punct(Some(token), ',')) {
                    read_tree(tree, &parts, leaves);
                }
                return;
            }
            _ => {}
        }
    }
    let name = name.or_else(|| parts.last().cloned());
    leaves.push(Import { path: Named { parts, line }, name });
}

/// Where the item that is compiled for tests alone ends, if one begins at `at`.
pub(crate) fn after_test_item(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let Some(TokenTree::Group(attribute)) = tokens.get(at + 1).filter(|_| is_punct(tokens.get(at), '#'))
    else {
        return None;
    };
    let text = attribute.stream().to_string();
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    if words.first() != Some(&"cfg") || !words.contains(&"test") || words.contains(&"not") {
        return None;
    }
    let mut angles = 0usize;
    for (place, token) in tokens.iter().enumerate().skip(at + 2) {
        match token {
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => return Some(place + 1),
                ',' if angles == 0 => return Some(place + 1),
                '<' => angles += 1,
                '>' if !is_punct(tokens.get(place - 1), '-') => angles = angles.saturating_sub(1),
                _ => {}
            },
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return Some(place + 1),
            _ => {}
        }
    }
    Some(tokens.len())
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;

    use super::{TokenTree, after_test_item, imports, path};

    fn tokens(text: &str) -> Vec<TokenTree> {
        text.parse::<TokenStream>().expect("tokens").into_iter().collect()
    }

    #[test]
    fn a_use_tree_has_a_leaf_for_each_name() {
        let (leaves, end) = imports(&tokens("use a::{self, b::{c, d as e}, f::*}; x"), 0).expect("a use");
        let told: Vec<_> = leaves.iter().map(|l| (l.path.parts.join("::"), l.name.as_deref())).collect();
        let expected = [("a", Some("a")), ("a::b::c", Some("c")), ("a::b::d", Some("e")), ("a::f", None)];
        assert_eq!(told, expected.map(|(path, name)| (path.to_owned(), name)));
        assert_eq!(end, 6);
    }

    #[test]
    fn a_path_ends_at_its_generics() {
        let tokens = tokens("let x: crate::a::B<C> = Vec::<u8>::new();");
        let found: Vec<_> = (0..tokens.len()).filter_map(|at| path(&tokens, at)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.parts, ["crate", "a", "B"]);
    }

    #[test]
    fn what_is_for_tests_alone_is_left_out() {
        let left = |text| after_test_item(&tokens(text), 0).map(|after| tokens(text)[after..].len());
        assert_eq!(left("#[cfg(test)] mod tests { use super::*; } x"), Some(1));
        assert_eq!(left("#[cfg(all(unix, test))] fn f<A, B>() -> u8 { 1 } x y"), Some(2));
        assert_eq!(left("#[cfg(test)] mod tests; x"), Some(1));
        assert_eq!(left("#[cfg(not(test))] fn f() {}"), None);
        assert_eq!(left("#[test] fn f() {}"), None);
    }
}
