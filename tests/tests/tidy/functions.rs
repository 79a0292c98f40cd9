//! How long functions are.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::sources::Source;

/// A function with a body.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its name.
    pub name: String,
    /// The line with `fn`.
    pub first: usize,
    last: usize,
}

impl Function {
    /// From `fn` to the closing brace, all that stands between counted.
    pub(crate) fn lines(&self) -> usize {
        self.last - self.first + 1
    }
}

/// All functions of a file, also those inside of others and inside of macros.
pub(crate) fn functions(source: &Source) -> Vec<Function> {
    let tokens: TokenStream = source.text.parse().unwrap_or_else(|e| panic!("{}: {e}", source.path));
    let mut found = vec![];
    collect(tokens, &mut found);
    found
}

fn collect(tokens: TokenStream, found: &mut Vec<Function>) {
    // Name and line of the function whose body has not come yet.
    let mut open: Option<(String, usize)> = None;
    let mut after_fn = None;
    for token in tokens {
        match &token {
            TokenTree::Ident(word) if word == "fn" => after_fn = Some(word.span().start().line),
            TokenTree::Ident(name) => {
                open = after_fn.take().map(|line| (name.to_string(), line)).or(open);
            }
            TokenTree::Punct(end) if end.as_char() == ';' => open = None,
            TokenTree::Group(group) => {
                // `fn(…)` without a name is a type.
                after_fn = None;
                if group.delimiter() == Delimiter::Brace
                    && let Some((name, first)) = open.take()
                {
                    found.push(Function { name, first, last: group.span_close().end().line });
                }
                collect(group.stream(), found);
            }
            _ => {}
        }
    }
}

#[test]
fn bodies_are_measured_from_fn_to_the_closing_brace() {
    let text =
        "trait T { fn none(&self); fn two(&self)\n{ } }\nm! { fn inner() -> fn(u8) {\n fn nested() {}\n\n} }";
    let source = Source { path: "made.rs".into(), text: text.into() };
    let told: Vec<_> = functions(&source).iter().map(|f| (f.name.clone(), f.first, f.lines())).collect();
    let expected = [("two", 1, 2), ("inner", 3, 4), ("nested", 4, 1)];
    assert_eq!(told, expected.map(|(name, first, lines)| (name.to_owned(), first, lines)));
}
