//! What a model's template is given of tools and calls. A template that knows nothing of them gets them as text.

use serde_json::{Value, json};

use super::api::Tool;
use crate::text::{Chat, ChatTemplate, Message, TOOLS, ToolCall, spaced};

/// The conversations to try, the first that the template takes.
pub(super) fn conversations(mut chat: Chat, tools: &[Tool], template: Option<&ChatTemplate>) -> Vec<Chat> {
    let knows_tools = template.is_some_and(ChatTemplate::knows_tools);
    if !template.is_some_and(ChatTemplate::knows_calls) {
        chat.messages = as_text(chat.messages);
    }
    let tools: Vec<Value> = tools.iter().map(Tool::json).collect();
    if tools.is_empty() {
        return vec![chat];
    }
    if knows_tools {
        chat.variables.insert(TOOLS.into(), tools.into());
        return vec![chat];
    }
    let text = instructions(&tools);
    // Some templates refuse a system prompt.
    let by_user = with_instructions(chat.clone(), &text, "user");
    vec![with_instructions(chat, &text, "system"), by_user]
}

/// How the functions are told to a model whose template does not: in the form that most models have seen.
fn instructions(tools: &[Value]) -> String {
    let tools: Vec<String> = tools.iter().map(spaced).collect();
    let tools = tools.join("\n");
    let call = call_text("NAME", &json!({"ARGUMENT": "VALUE"}));
    format!(
        "There are functions that you can call, one JSON object for each:\n<tools>\n{tools}\n</tools>\n\
         To call one, write its name and its arguments as a JSON object, like this:\n{call}\n\
         Each call stands in <tool_call></tool_call> of its own. What came of it will be told to you in \
         <tool_response></tool_response>. Where no call is needed, answer in plain words."
    )
}

fn call_text(name: &str, arguments: &Value) -> String {
    let call = spaced(&json!({"name": name, "arguments": arguments}));
    format!("<tool_call>\n{call}\n</tool_call>")
}

/// The text at the end of the system prompt, or at the beginning of what the user says first.
fn with_instructions(mut chat: Chat, text: &str, role: &str) -> Chat {
    let system = role == "system";
    let has_place = |message: &&mut Message| message.role == role;
    let place = match system {
        true => chat.messages.first_mut().filter(has_place),
        false => chat.messages.iter_mut().find(has_place),
    };
    match place {
        Some(message) if system => append(&mut message.content, text, "\n\n"),
        Some(message) => {
            let said = std::mem::replace(&mut message.content, text.into());
            append(&mut message.content, &said, "\n\n");
        }
        None => {
            let message = Message { role: role.into(), content: text.into(), ..Message::default() };
            chat.messages.insert(0, message);
        }
    }
    chat
}

/// Calls in the words of whoever made them, and what came of them in the user's. Many templates want user and assistant
/// to take turns, so what comes of several calls is one message, with what the user says to it.
fn as_text(messages: Vec<Message>) -> Vec<Message> {
    let mut written: Vec<Message> = vec![];
    let mut answers = false;
    for mut message in messages {
        let is_result = message.role == "tool";
        if is_result {
            let result = format!("<tool_response>\n{}\n</tool_response>", message.content);
            message = Message { role: "user".into(), content: result, ..Message::default() };
        }
        let calls = std::mem::take(&mut message.tool_calls);
        let calls: Vec<String> =
            calls.iter().map(|call: &ToolCall| call_text(&call.name, &call.parsed_arguments())).collect();
        append(&mut message.content, &calls.join("\n"), "\n");
        let goes_on = answers && message.role == "user";
        answers = is_result || goes_on;
        match written.last_mut().filter(|_| goes_on) {
            Some(last) => append(&mut last.content, &message.content, "\n"),
            None => written.push(message),
        }
    }
    written
}

/// In place: there may be thousands of messages that become one.
fn append(text: &mut String, more: &str, between: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str(between);
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::tools::no_parameters;

    const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into(), ..Message::default() }
    }

    fn history() -> Vec<Message> {
        let call = |name: &str| ToolCall { id: "c".into(), name: name.into(), arguments: "{\"a\":1}".into() };
        let calls = vec![call("f"), call("g")];
        let result = |content: &str| Message { tool_call_id: Some("c".into()), ..message("tool", content) };
        vec![
            message("user", "hi"),
            Message { tool_calls: calls, ..message("assistant", "Wait.") },
            result("1"),
            result("2"),
            message("user", "and?"),
        ]
    }

    fn rendered(source: &str, messages: Vec<Message>, tools: &[Tool]) -> String {
        let template = ChatTemplate::new(source, "", "").expect("valid");
        let chat = Chat { messages, ..Chat::default() };
        let chats = conversations(chat, tools, Some(&template));
        chats.iter().find_map(|chat| template.render(chat).ok()).expect("one is taken")
    }

    fn tool() -> Tool {
        Tool { name: "f".into(), description: Some("d".into()), parameters: no_parameters(), strict: false }
    }

    #[test]
    fn a_template_that_knows_tools_gets_them_and_the_history_as_it_is() {
        let source = "{% if tools %}{{ tools[0].function.name }}{% endif %} \
                      {{ messages[1].tool_calls[1].function.arguments.a }} \
                      {{ messages[2].role }}";
        assert_eq!(rendered(source, history(), &[tool()]), "f 1 tool");
        assert_eq!(rendered(source, history(), &[]), " 1 tool");
    }

    #[test]
    fn another_gets_all_as_text_with_turns_in_order() {
        let text = rendered(PLAIN, history(), &[]);
        let call = |name: &str| {
            format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"a\": 1}}}}\n</tool_call>\n")
        };
        let result = |text: &str| format!("<tool_response>\n{text}\n</tool_response>\n");
        let (calls, results) = (call("f") + &call("g"), result("1") + &result("2"));
        assert_eq!(text, format!("user: hi\nassistant: Wait.\n{calls}user: {results}and?\n"));
    }

    #[test]
    fn many_results_are_one_message_in_their_order() {
        let results = (0..2000).map(|number| message("tool", &number.to_string())).collect();
        let written = as_text(results);
        let [one] = written.as_slice() else { panic!("{} messages", written.len()) };
        assert!(one.content.starts_with("<tool_response>\n0\n</tool_response>\n<tool_response>\n1\n"));
        assert!(one.content.ends_with("\n1999\n</tool_response>"));
        assert_eq!(one.content.lines().count(), 6000);
    }

    #[test]
    fn tools_stand_in_the_system_prompt_or_where_there_may_be_none_with_the_user() {
        let tools = [tool()];
        let shown = "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"f\"";
        let text = rendered(PLAIN, vec![message("system", "Be kind."), message("user", "hi")], &tools);
        assert!(
            text.starts_with("system: Be kind.\n\nThere are functions") && text.contains(shown),
            "{text}"
        );
        let text = rendered(PLAIN, vec![message("user", "hi")], &tools);
        assert!(text.starts_with("system: There are functions"), "{text}");
        let refuses = format!(
            "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{PLAIN}"
        );
        let text = rendered(&refuses, vec![message("user", "hi")], &tools);
        assert!(text.starts_with("user: There are functions") && text.ends_with("\n\nhi\n"), "{text}");
    }
}
