//! What a text must be like that has to call functions.

use swarm_types::Grammar;

use super::{
    api::Tool,
    format::ToolFormat,
    lark::{Rules, TooLong, literal, mark},
};
use crate::text::Tokenizer;

/// A model that has to call something and may do so again may never come to an end; small ones do not.
const MOST_CALLS: usize = 4;

/// A text that calls one of the functions, or several calls where `several` are allowed.
///
/// # Errors
/// When the schemas are too long together.
pub(super) fn grammar(
    format: ToolFormat,
    tools: &[&Tool],
    several: bool,
    tokenizer: &Tokenizer,
) -> Result<Grammar, TooLong> {
    let mut rules = Rules::default();
    rules.add(&(start(format, several, |text| mark(text, tokenizer)) + "\n"))?;
    rules.add_call(format, tools, |_| true)?;
    Ok(Grammar::Lark(rules.text().into()))
}

/// How often what stands before it may come, behind the first call.
pub(super) fn up_to_others() -> String {
    format!("{{0,{}}}", MOST_CALLS - 1)
}

fn start(format: ToolFormat, several: bool, mark: impl Fn(&str) -> String) -> String {
    let more = |between: &str| match several {
        true => format!(" ({} call){}", literal(between), up_to_others()),
        false => String::new(),
    };
    match format {
        ToolFormat::Hermes => {
            let marked =
                format!("marked: {} \"\\n\" call \"\\n\" {}", mark("<tool_call>"), mark("</tool_call>"));
            let others = if several { format!(" (\"\\n\" marked){}", up_to_others()) } else { String::new() };
            format!("start: marked{others}\n{marked}")
        }
        ToolFormat::Llama3Json => format!("start: call{}", more("; ")),
        ToolFormat::Json if several => format!("start: call | \"[\" call{} \"]\"", more(", ")),
        ToolFormat::Json => "start: call".into(),
        ToolFormat::Mistral => format!("start: {} \"[\" call{} \"]\"", mark("[TOOL_CALLS]"), more(", ")),
        ToolFormat::Pythonic => format!("start: \"[\" call{} \"]\"", more(", ")),
    }
}

#[cfg(test)]
mod tests {
    use gguf::{Header, tiny::TinyModel};
    use grammar::on_one_line;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::text::ServedModel;

    fn lark(format: ToolFormat, parameters: Value, several: bool) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
        let tokenizer = Tokenizer::from_header(&Header::read(&path).expect("valid")).expect("a tokenizer");
        let tool = |name: &str| Tool {
            name: name.into(),
            description: None,
            parameters: parameters.clone(),
            strict: false,
        };
        let grammar = grammar(format, &[&tool("f"), &tool("g")], several, &tokenizer).expect("short enough");
        // How documents are written is the same in all of them.
        let written = on_one_line(Map::new()).to_string();
        let inner = &written[1..written.len() - 1];
        grammar.text().replace(&format!(",{inner}"), "").replace(inner, "")
    }

    #[test]
    fn calls_have_the_form_of_the_family() {
        let parameters = json!({"properties": {"a": {"type": "integer"}}});
        let json = r#"{"properties":{"a":{"type":"integer"}},"type":"object"}"#;
        let call = |key: &str| {
            let one = |place: usize, name: &str| {
                format!("f{place}: \"{{\\\"name\\\": \\\"{name}\\\", \\\"{key}\\\": \" %json {json} \"}}\"\n")
            };
            format!("call: f0 | f1\n{}{}", one(0, "f"), one(1, "g"))
        };
        let start = |format, several| {
            let key = if format == ToolFormat::Llama3Json { "parameters" } else { "arguments" };
            let lark = lark(format, parameters.clone(), several);
            lark.strip_suffix(&call(key)).unwrap_or_else(|| panic!("{lark}")).to_owned()
        };
        let marked = "marked: \"<tool_call>\" \"\\n\" call \"\\n\" \"</tool_call>\"\n";
        assert_eq!(start(ToolFormat::Hermes, false), format!("start: marked\n{marked}"));
        assert_eq!(
            start(ToolFormat::Hermes, true),
            format!("start: marked (\"\\n\" marked){{0,3}}\n{marked}")
        );
        assert_eq!(start(ToolFormat::Json, false), "start: call\n");
        assert_eq!(start(ToolFormat::Json, true), "start: call | \"[\" call (\", \" call){0,3} \"]\"\n");
        assert_eq!(start(ToolFormat::Llama3Json, true), "start: call (\"; \" call){0,3}\n");
        assert_eq!(start(ToolFormat::Mistral, false), "start: \"[TOOL_CALLS]\" \"[\" call \"]\"\n");
    }

    #[test]
    fn arguments_of_python_come_in_order_and_those_that_need_not_be_there_need_not() {
        let function = |parameters: Value| {
            let lark = lark(ToolFormat::Pythonic, parameters, false);
            let lines: Vec<&str> = lark.lines().filter(|line| line.starts_with("f0")).collect();
            lines.join("\n")
        };
        assert_eq!(function(json!({})), r#"f0: "f(" ")""#);
        let some = json!({
            "properties": {"b": {}, "a": {"$ref": "#/$defs/A"}, "c": true}, "required": ["a"],
            "$defs": {"A": {"items": {"$ref": "#/$defs/B~1C"}}, "B/C": {"$ref": "#/$defs/A"}, "D": {}},
        });
        let needed = r##"{"A":{"items":{"$ref":"#/$defs/B~1C"}},"B/C":{"$ref":"#/$defs/A"}}"##;
        let expected = format!(
            "f0: \"f(\" f0a0 f0t1 \")\"\n\
             f0t1: (\", \" f0a1)? f0t2\n\
             f0t2: (\", \" f0a2)?\n\
             f0a0: \"a=\" %json {{\"$ref\":\"#/$defs/A\",\"$defs\":{needed}}}\n\
             f0a1: \"b=\" %json {{}}\n\
             f0a2: \"c=\" %json {{}}"
        );
        assert_eq!(function(some), expected);
        let free = json!({"properties": {"a": {}, "b": {}}});
        let expected = "f0: \"f(\" (f0a0 f0t1 | f0a1)? \")\"\nf0t1: (\", \" f0a1)?\n";
        assert!(function(free).starts_with(expected));
        let both = json!({"properties": {"a": {}, "b": {}}, "required": ["b", "a"]});
        assert!(function(both).starts_with("f0: \"f(\" f0a0 \", \" f0a1 \")\"\nf0a0: \"a=\""));
    }

    #[tokio::test]
    async fn arguments_of_python_are_a_grammar_that_is_understood() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel { layers: 1, ..TinyModel::default() }.write(&path).expect("written");
        let model = ServedModel::for_tests(&path);
        let optional: Map<String, Value> =
            (0..40).map(|number| (format!("p{number}"), json!({"type": "integer"}))).collect();
        for required in [json!([]), json!(["p3", "p1"])] {
            let parameters = json!({"properties": optional, "required": required});
            let tool = Tool { name: "f".into(), description: None, parameters, strict: false };
            let grammar =
                grammar(ToolFormat::Pythonic, &[&tool], true, model.tokenizer()).expect("short enough");
            assert!(model.grammars().ready(grammar).await.is_ok());
        }
    }
}
