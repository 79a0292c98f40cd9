//! What may be offered to a model as a tool, and how templates want it.

use serde_json::{Value, json};

use super::api::Tool;

/// As OpenAI's API has it.
pub(crate) const MAX_TOOLS: usize = 128;
/// As OpenAI's API has it.
const LONGEST_NAME: usize = 64;

impl Tool {
    /// OpenAI's form, which the templates of models expect.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut function = json!({"name": self.name});
        if let Some(description) = &self.description {
            function["description"] = description.as_str().into();
        }
        function["parameters"] = self.parameters.clone();
        json!({"type": "function", "function": function})
    }
}

/// The schema of a function that takes nothing.
pub(crate) fn no_parameters() -> Value {
    json!({"type": "object", "properties": {}})
}

/// What keeps a name from being a function's.
///
/// # Errors
/// Says how names must be.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match plain && (1..=LONGEST_NAME).contains(&name.len()) {
        true => Ok(()),
        false => Err(format!("must be 1 to {LONGEST_NAME} letters, digits, _ and -, got {name:?}")),
    }
}

/// What is wrong with a list of tools: of which, and what of its name. Too many are wrong from the first on that is too
/// much.
///
/// # Errors
/// The place in the list, and what is wrong.
pub(crate) fn check(tools: &[Tool]) -> Result<(), (usize, String)> {
    for (place, tool) in tools.iter().enumerate() {
        let wrong = |what| (place, what);
        if place >= MAX_TOOLS {
            return Err(wrong(format!("one too many: at most {MAX_TOOLS} tools")));
        }
        check_name(&tool.name).map_err(wrong)?;
        if tools[..place].iter().any(|other| other.name == tool.name) {
            return Err(wrong(format!("{:?} is there already", tool.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        Tool { name: name.into(), description: None, parameters: no_parameters(), strict: false }
    }

    #[test]
    fn names_are_plain_and_each_is_there_once() {
        assert_eq!(check(&[tool("get_time"), tool("a-1")]), Ok(()));
        for wrong in ["", "a b", "é", &"x".repeat(65)] {
            assert!(check(&[tool("ok"), tool(wrong)]).is_err_and(|(place, _)| place == 1), "{wrong}");
        }
        assert!(check(&[tool("a"), tool("a")]).is_err_and(|(place, _)| place == 1));
        let many: Vec<Tool> = (0..=MAX_TOOLS).map(|number| tool(&format!("f{number}"))).collect();
        assert_eq!(check(&many[1..]), Ok(()));
        assert!(check(&many).is_err_and(|(place, _)| place == MAX_TOOLS));
    }

    #[test]
    fn templates_get_the_name_before_what_the_function_takes() {
        let shown = Tool { description: Some("d".into()), ..tool("f") }.json().to_string();
        let places: Vec<_> =
            ["function", "name", "description", "parameters"].map(|key| shown.find(key)).into();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{shown}");
    }
}
