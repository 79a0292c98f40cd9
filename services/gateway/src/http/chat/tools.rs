//! What the model may call, as OpenAI's clients say it: by `tools`, or by `functions`, as it was before.

use serde_json::Value;

use crate::{
    chat::{Tool, ToolChoice},
    http::{error::ApiError, fields::Fields, functions, members::Members, short::short},
};

/// What the model may call, and whether it must.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Calling {
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    /// Whether one message may have several calls.
    pub(super) parallel: bool,
}

impl Calling {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut offered = functions::nested(fields)?;
        let older = functions(fields)?;
        if !older.is_empty() {
            if !offered.is_empty() {
                return Err(ApiError::invalid("functions", "not together with tools: give one of them"));
            }
            offered = older;
        }
        Ok(Self {
            choice: choice(fields, &offered)?,
            tools: offered,
            parallel: fields.take("parallel_tool_calls")?.unwrap_or(true),
        })
    }
}

fn functions(fields: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    let known = &functions::OF_FUNCTIONS;
    functions::each(fields, ("functions", known), ".name", |given| functions::function(given, "parameters"))
}

/// By either of its two names.
fn choice(fields: &mut Fields, offered: &[Tool]) -> Result<ToolChoice, ApiError> {
    let choice = fields.take_either(&["tool_choice", "function_call"], |fields, field| {
        let choice = match fields.take_value(field) {
            None => return Ok(None),
            Some(Value::String(word)) => match word.as_str() {
                "none" => ToolChoice::None,
                "auto" => ToolChoice::Auto,
                "required" if field == "tool_choice" => ToolChoice::Required,
                _ => {
                    let what = format!("must be none, auto, required or a function, got {:?}", short(&word));
                    return Err(ApiError::invalid(field, what));
                }
            },
            Some(object) => ToolChoice::Function(chosen(field, object)?),
        };
        match &choice {
            ToolChoice::Function(name) if offered.iter().all(|tool| tool.name != *name) => {
                Err(ApiError::invalid(field, format!("{:?} is not among the functions", short(name))))
            }
            ToolChoice::Required if offered.is_empty() => {
                Err(ApiError::invalid(field, "there are no tools that could be called"))
            }
            _ => Ok(Some(choice)),
        }
    });
    Ok(choice?.unwrap_or_default())
}

/// The name of a function that must be called.
fn chosen(field: &str, object: Value) -> Result<String, ApiError> {
    let mut object = Members::of(field.to_owned(), object)?;
    if field == "function_call" {
        return object.needed_text("name");
    }
    match object.text("type")?.as_deref() {
        None | Some("function") => object.object("function")?.needed_text("name"),
        Some(kind) => {
            Err(object.wrong("type", format!("only function is supported here, got {:?}", short(kind))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::tools;

    fn read(body: Value) -> Result<Calling, ApiError> {
        Calling::take(&mut Fields::parse(body.to_string().as_bytes()).expect("an object"))
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn tools_are_taken_by_their_old_name_too() {
        let parameters = json!({"type": "object", "properties": {"a": {}}});
        let function = json!({"name": "f", "description": "d", "parameters": parameters, "strict": true});
        let expected = Tool {
            name: "f".into(),
            description: Some("d".into()),
            parameters: parameters.clone(),
            strict: true,
        };
        let new =
            read(json!({"tools": [{"type": "function", "function": function}], "tool_choice": "required"}));
        let new = new.expect("taken");
        assert_eq!(
            (new.tools, new.choice, new.parallel),
            (vec![expected.clone()], ToolChoice::Required, true)
        );
        let old = read(json!({"functions": [function], "function_call": {"name": "f"}})).expect("taken");
        assert_eq!((old.tools, old.choice), (vec![expected], ToolChoice::Function("f".into())));
        let none = read(json!({"tools": [], "functions": null, "tool_choice": "none"})).expect("taken");
        assert_eq!((none.tools, none.choice), (vec![], ToolChoice::None));
        let bare = read(json!({"tools": [tool("f")], "parallel_tool_calls": false})).expect("taken");
        assert_eq!((&bare.tools[0].parameters, &bare.choice), (&tools::no_parameters(), &ToolChoice::Auto));
        assert!(!bare.parallel);
    }

    #[test]
    fn what_cannot_be_called_is_refused_by_place() {
        let many: Vec<Value> = (0..129).map(|number| tool(&format!("f{number}"))).collect();
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{}]}), "tools[0].function"),
            (json!({"tools": [{"type": "custom"}]}), "tools[0].type"),
            (json!({"tools": [{"function": {}}]}), "tools[0].function.name"),
            (json!({"tools": [tool("a b")]}), "tools[0].function.name"),
            (json!({"tools": [tool("f"), tool("f")]}), "tools[1].function.name"),
            (
                json!({"tools": [{"function": {"name": "f", "parameters": []}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tools": [{"function": {"name": "f", "strict": 1}}]}), "tools[0].function.strict"),
            (json!({"tools": many}), "tools"),
            (json!({"functions": [{"name": ""}]}), "functions[0].name"),
            (json!({"functions": [{"name": "f"}], "tools": [tool("f")]}), "functions"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tool_choice": "maybe"}), "tool_choice"),
            (json!({"tools": [tool("f")], "tool_choice": tool("g")}), "tool_choice"),
            (json!({"tools": [tool("f")], "tool_choice": {"type": "allowed_tools"}}), "tool_choice.type"),
            (json!({"tools": [tool("f")], "tool_choice": "auto", "function_call": "none"}), "function_call"),
        ] {
            let error = read(body.clone()).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param, "{body}");
        }
    }
}
