//! Methods of Python's texts, lists and dicts, as far as templates may call them: those of minijinja, and a few more.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, ValueKind, from_args},
};
use minijinja_contrib::pycompat;

/// Bytes of a text, or members of a list, that a method may look through for one step.
const LOOKS_A_STEP: usize = 64;

/// What a method gives. What it looks through counts too, however little it gives.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let looks = value.as_str().map(str::len).or_else(|| value.len()).unwrap_or(0);
    state.consume_fuel((looks / LOOKS_A_STEP) as u64)?;
    let known = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(text, method, args)?,
        (None, ValueKind::Seq) if method == "index" => Some(place(value, args)?),
        // Nobody can change what was copied.
        (None, ValueKind::Map) if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match known {
        Some(given) => Ok(given),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let given = match method {
        "removeprefix" => {
            let (start,): (&str,) = from_args(args)?;
            text.strip_prefix(start).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (end,): (&str,) = from_args(args)?;
            text.strip_suffix(end).unwrap_or(text).into()
        }
        "partition" => {
            let (between,): (&str,) = from_args(args)?;
            let parts = text.split_once(wanted(between)?).map(|(before, behind)| [before, between, behind]);
            tuple(parts.unwrap_or([text, "", ""]))
        }
        "rpartition" => {
            let (between,): (&str,) = from_args(args)?;
            let parts = text.rsplit_once(wanted(between)?).map(|(before, behind)| [before, between, behind]);
            tuple(parts.unwrap_or(["", "", text]))
        }
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        _ => return Ok(None),
    };
    Ok(Some(given))
}

fn tuple(parts: [&str; 3]) -> Value {
    Tuple::from(parts.map(Value::from)).into()
}

fn wanted(between: &str) -> Result<&str, Error> {
    match between {
        "" => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        between => Ok(between),
    }
}

/// The parts of a text, cut a number of times at most, from its beginning or from its end.
fn split(text: &str, args: &[Value], from_end: bool) -> Result<Value, Error> {
    let (between, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let between = between.map_or_else(|| options.get::<Option<&str>>("sep"), |between| Ok(Some(between)))?;
    let most = most.map_or_else(|| options.get::<Option<i64>>("maxsplit"), |most| Ok(Some(most)))?;
    options.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let between = between.map(wanted).transpose()?;
    let parts: Vec<&str> = match (between, most) {
        (Some(between), None) => text.split(between).collect(),
        (Some(between), Some(most)) if from_end => {
            let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), between).collect();
            parts.reverse();
            parts
        }
        (Some(between), Some(most)) => text.splitn(most.saturating_add(1), between).collect(),
        (None, None) => text.split_whitespace().collect(),
        (None, Some(most)) => words(text, most, from_end),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// The words of a text, the last of which has all that is left.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut words = vec![];
    let mut left = if from_end { text.trim_end() } else { text.trim_start() };
    while words.len() < most {
        let cut = match from_end {
            true => left.rsplit_once(char::is_whitespace).map(|(more, word)| (word, more.trim_end())),
            false => left.split_once(char::is_whitespace).map(|(word, more)| (word, more.trim_start())),
        };
        let Some((word, more)) = cut else { break };
        words.push(word);
        left = more;
    }
    if !left.is_empty() {
        words.push(left);
    }
    if from_end {
        words.reverse();
    }
    words
}

/// Where in a list something is.
fn place(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    for (place, item) in list.try_iter()?.checked().enumerate() {
        if item? == *wanted {
            return Ok(place.into());
        }
    }
    Err(Error::new(ErrorKind::InvalidOperation, "it is not in the list"))
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(call);
        environment.render_str(&format!("{{{{ {source} }}}}"), ())
    }

    #[test]
    fn texts_have_the_methods_of_python() {
        for (source, expected) in [
            ("'a,b,c'.split(',', 1)", "['a', 'b,c']"),
            ("'a,b,c'.split(sep=',', maxsplit=1)", "['a', 'b,c']"),
            ("'a,b,c'.rsplit(',', maxsplit=1)", "['a,b', 'c']"),
            ("'a,b'.rsplit(',')", "['a', 'b']"),
            ("' a  b '.split()", "['a', 'b']"),
            ("' a  b c '.split(none, 1)", "['a', 'b c ']"),
            ("' a b '.split(maxsplit=-1)", "['a', 'b']"),
            ("' a  b c '.rsplit(maxsplit=1)", "[' a  b', 'c']"),
            ("'a.b.c'.partition('.')", "('a', '.', 'b.c')"),
            ("'a.b.c'.rpartition('.')", "('a.b', '.', 'c')"),
            ("'abc'.partition('.')", "('abc', '', '')"),
            ("'abc'.removeprefix('a').removesuffix('c')", "b"),
            ("[3, 4].index(4)", "1"),
            ("{'a': 1}.copy()", "{'a': 1}"),
            ("'ab'.upper()", "AB"),
        ] {
            assert_eq!(render(source).expect(source), expected, "{source}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for source in
            ["'a'.split('')", "'a'.partition('')", "[3].index(4)", "'a'.split(limit=1)", "'a'.nothing()"]
        {
            assert!(render(source).is_err(), "{source}");
        }
    }
}
