//! What dialects have in common about functions: they write them in other places, but mean the same.

use serde_json::Value;

use super::{
    error::ApiError,
    fields::Fields,
    members::{Members, objects},
    short::short,
};
use crate::chat::{Tool, tools};

/// Members of a function.
pub(super) const OF_FUNCTIONS: [&str; 4] = ["name", "description", "parameters", "strict"];

/// A function as a request describes it; its schema is the member `parameters`.
pub(super) fn function(mut given: Members, parameters: &str) -> Result<Tool, ApiError> {
    let schema = match given.value(parameters) {
        None => tools::no_parameters(),
        Some(schema @ Value::Object(_)) => schema,
        Some(other) => {
            return Err(
                given.wrong(parameters, format!("must be a JSON Schema, an object, got {}", short(other)))
            );
        }
    };
    Ok(Tool {
        name: given.needed_text("name")?,
        description: given.text("description")?,
        parameters: schema,
        strict: given.flag("strict")?,
    })
}

/// The functions of `tools` as `{"type": "function", "function": {…}}`.
pub(super) fn nested(fields: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    let known = ["type", "function"];
    each(fields, ("tools", &known), ".function.name", |mut tool| match tool.text("type")?.as_deref() {
        None | Some("function") => function(tool.object("function")?, "parameters"),
        Some(kind) => {
            Err(tool.wrong("type", format!("only function is supported here, got {:?}", short(kind))))
        }
    })
}

/// The functions of a list, each read by `one`, with the members that it knows. What is wrong with a name is said of
/// the member `name` of each.
pub(super) fn each(
    fields: &mut Fields,
    (list, known): (&str, &[&str]),
    name: &str,
    one: impl Fn(Members) -> Result<Tool, ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    let Some(given) = fields.take_value(list) else { return Ok(vec![]) };
    for tool in given.as_array().into_iter().flatten() {
        fields.leave_others(&format!("{list}[]"), tool, known);
        fields.leave_others(&format!("{list}[].function"), &tool["function"], &OF_FUNCTIONS);
    }
    let offered = objects(list, given)?.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    tools::check(&offered).map_err(|(place, what)| match place {
        tools::MAX_TOOLS.. => ApiError::invalid(list, what),
        _ => ApiError::invalid(&format!("{list}[{place}]{name}"), what),
    })?;
    Ok(offered)
}

/// The function that must be called is one of those there are.
pub(super) fn check_choice(name: &str, tools: &[Tool]) -> Result<(), ApiError> {
    match tools.iter().any(|tool| tool.name == name) {
        true => Ok(()),
        false => Err(ApiError::invalid("tool_choice", format!("{:?} is not among the tools", short(name)))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(tools: Value) -> Result<Vec<Tool>, ApiError> {
        nested(&mut Fields::of("tools", tools))
    }

    #[test]
    fn functions_are_read_with_what_they_take() {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let given = json!([
            {"type": "function", "function": {
                "name": "f", "description": "d", "parameters": parameters, "strict": true}},
            {"function": {"name": "g-2_x"}},
        ]);
        let tools = read(given).expect("taken");
        let first = Tool { name: "f".into(), description: Some("d".into()), parameters, strict: true };
        assert_eq!(tools[0], first);
        assert_eq!((tools[1].name.as_str(), tools[1].strict), ("g-2_x", false));
        assert_eq!(tools[1].parameters["type"], "object");
    }

    #[test]
    fn members_that_nobody_knows_are_named() {
        let mut fields = Fields::of(
            "tools",
            json!([{"type": "function", "odd": 1, "function": {"name": "f", "more": 2}}]),
        );
        assert_eq!(nested(&mut fields).map(|tools| tools.len()), Ok(1));
        assert_eq!(fields.finish().names(), ["tools[].odd", "tools[].function.more"]);
    }

    #[test]
    fn functions_that_cannot_be_are_refused_by_place() {
        let function = |function: Value| json!([{"type": "function", "function": function}]);
        let many: Vec<Value> = (0..129).map(|n| json!({"function": {"name": format!("f{n}")}})).collect();
        for (given, param) in [
            (json!({}), "tools"),
            (json!([1]), "tools[0]"),
            (json!([{}]), "tools[0].function"),
            (function(json!({})), "tools[0].function.name"),
            (function(json!({"name": "a b"})), "tools[0].function.name"),
            (function(json!({"name": "x".repeat(65)})), "tools[0].function.name"),
            (function(json!({"name": "f", "description": 1})), "tools[0].function.description"),
            (function(json!({"name": "f", "parameters": []})), "tools[0].function.parameters"),
            (function(json!({"name": "f", "strict": "x"})), "tools[0].function.strict"),
            (json!([{"type": "web_search"}]), "tools[0].type"),
            (json!([{"function": {"name": "f"}}, {"function": {"name": "f"}}]), "tools[1].function.name"),
            (json!(many), "tools"),
        ] {
            assert_eq!(read(given).expect_err(param).body_json()["error"]["param"], param);
        }
    }
}
