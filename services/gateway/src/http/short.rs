//! What a refusal repeats of a request: enough to be recognized, however much was sent.

use std::fmt::{self, Display, Write};

/// Characters that are told of a value.
const LONGEST: usize = 100;

/// The beginning of what was sent.
pub(super) fn short(value: impl Display) -> String {
    let mut told = Told::default();
    match write!(told, "{value}") {
        Ok(()) => told.text,
        // It is full.
        Err(_) => told.text + "…",
    }
}

/// Takes no more than is told, so that nothing long is written first and cut then.
#[derive(Default)]
struct Told {
    text: String,
    characters: usize,
}

impl Write for Told {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            if self.characters == LONGEST {
                return Err(fmt::Error);
            }
            self.text.push(character);
            self.characters += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_beginning_of_what_is_long_is_told() {
        assert_eq!(short(json!({"a": [1, "b"]})), r#"{"a":[1,"b"]}"#);
        assert_eq!(short("é".repeat(LONGEST)), "é".repeat(LONGEST));
        assert_eq!(short("é".repeat(LONGEST + 1)), "é".repeat(LONGEST) + "…");
        assert_eq!(short(json!(vec!["x"; 10_000])).chars().count(), LONGEST + 1);
    }
}
