//! The chat template that comes with a model: Jinja, as the models' makers write it.

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use serde_json::Map;

/// A template may take this many steps; real ones take some thousands for a long conversation.
const FUEL: u64 = 2_000_000;
const NAME: &str = "chat";

/// Stands behind a message that goes on, to find its end by; nobody writes this. Its blank tells whether the template
/// takes blanks off.
const MARK: &str = "\u{f8ff}goes on here\u{f8ff} ";

/// What a template is always given; nobody else may say otherwise.
const OWN: [&str; 4] = ["messages", "add_generation_prompt", "bos_token", "eos_token"];

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Plain text.
    pub content: String,
    /// Who of several says it; templates may make use of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What was thought before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// A function that a message calls.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ToolCall {
    /// By which its result is told.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: a JSON object.
    pub arguments: String,
}

/// A conversation, and how it goes on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chat {
    /// In order.
    pub messages: Vec<Message>,
    /// What else the template is given, by name.
    pub variables: Map<String, serde_json::Value>,
    /// How it goes on.
    pub next: Next,
}

/// How a conversation goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Next {
    /// By the next message of the model; if the last one is the model's own already, by more of that.
    #[default]
    Natural,
    /// By the next message of the model.
    NewMessage,
    /// By more of the last message, whoever's it is.
    MoreOfTheLast,
    /// By whatever follows: nothing says that the model is to speak.
    Anything,
}

impl Next {
    /// Whether the last message goes on.
    fn continues(self, last: &Message) -> bool {
        let has_text = !last.content.trim().is_empty();
        match self {
            Self::Natural => has_text && last.role == "assistant",
            Self::MoreOfTheLast => has_text,
            Self::NewMessage | Self::Anything => false,
        }
    }
}

/// A template that does not work, or not with these messages.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error("the model has no chat template (tokenizer.chat_template): use /v1/completions")]
    Missing,
    /// The template itself is not valid, or uses what is not supported.
    #[error("the model's chat template is not valid: {0}")]
    Invalid(String),
    /// The template refuses the messages.
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
}

/// A conversation to the text that the model continues.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
}

impl ChatTemplate {
    /// `begin` and `end` are the texts of the tokens around a sequence.
    ///
    /// # Errors
    /// When the template does not parse.
    pub fn new(source: &str, begin: &str, end: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Invalid(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Invalid(error.to_string()))?;
        Ok(Self { environment, begin: begin.into(), end: end.into() })
    }

    /// The conversation as the model was trained to see it, up to where it goes on.
    ///
    /// # Errors
    /// When the template refuses the messages, for example their order of roles.
    pub fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        if !chat.messages.last().is_some_and(|last| chat.next.continues(last)) {
            return self.render_messages(&chat.messages, chat, chat.next != Next::Anything);
        }
        // What the template puts behind the last message would end it.
        let mut messages = chat.messages.clone();
        if let Some(last) = messages.last_mut() {
            last.content += MARK;
        }
        let text = self.render_messages(&messages, chat, false)?;
        let Some((before, behind)) = text.rsplit_once(MARK.trim_end()) else {
            let what = "it does not show the last message as it is, so that cannot go on";
            return Err(TemplateError::Refused(what.into()));
        };
        // Where it takes blanks off the end of messages, it does so here too.
        let keeps_blanks = behind.starts_with(' ');
        Ok(if keeps_blanks { before } else { before.trim_end() }.to_owned())
    }

    fn render_messages(
        &self,
        messages: &[Message],
        chat: &Chat,
        speaks: bool,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| TemplateError::Invalid(error.to_string()))?;
        let own: [Value; OWN.len()] =
            [Serde(messages).into(), speaks.into(), self.begin.as_str().into(), self.end.as_str().into()];
        let others = chat.variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        // Of two with one name the last counts.
        let context = Value::from_pairs(others.chain(OWN.into_iter().zip(own)));
        template.render(context).map_err(|error| TemplateError::Refused(error.to_string()))
    }

    /// Whether a variable is the gateway's own.
    #[must_use]
    pub fn owns(name: &str) -> bool {
        OWN.contains(&name)
    }
}

/// Some templates tell the model the date.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(format.as_bytes(), &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into(), ..Message::default() }
    }

    fn chat(messages: &[(&str, &str)], next: Next) -> Chat {
        let messages = messages.iter().map(|(role, content)| message(role, content)).collect();
        Chat { messages, next, ..Chat::default() }
    }

    #[test]
    fn templates_render_as_their_makers_mean_them() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {% if m['role'] == 'system' %}\n{{ raise_exception('no ' + m.role) }}\n  {% endif %}\n{{ m.role.upper() }}: {{ m.content.strip() | tojson }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
        let template = ChatTemplate::new(source, "<s>", "</s>").expect("valid");
        let text = template.render(&chat(&[("user", " hi ")], Next::Natural)).expect("rendered");
        assert_eq!(text, "<s>USER: \"hi\"\nA:");
        let refused = template.render(&chat(&[("system", "x")], Next::Natural)).expect_err("refused");
        assert!(refused.to_string().contains("no system"), "{refused}");
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        assert!(matches!(template.render(&Chat::default()), Err(TemplateError::Refused(_))));
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(TemplateError::Invalid(_))));
    }

    #[test]
    fn dates_are_written_as_python_does() {
        let template = ChatTemplate::new("{{ strftime_now('%Y') }}", "", "").expect("valid");
        assert_eq!(template.render(&Chat::default()).expect("rendered").len(), 4);
    }

    const CHATML: &str = "{% for m in messages %}<|{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

    #[test]
    fn a_message_that_the_model_has_begun_goes_on_and_others_are_answered() {
        let template = ChatTemplate::new(CHATML, "", "").expect("valid");
        let render =
            |messages: &[(&str, &str)], next| template.render(&chat(messages, next)).expect("rendered");
        let begun = [("user", "hi"), ("assistant", "I am, I am")];
        assert_eq!(render(&begun, Next::Natural), "<|user|>hi<|end|><|assistant|>I am, I am");
        assert_eq!(
            render(&begun, Next::NewMessage),
            "<|user|>hi<|end|><|assistant|>I am, I am<|end|><|assistant|>"
        );
        assert_eq!(render(&begun[..1], Next::Natural), "<|user|>hi<|end|><|assistant|>");
        assert_eq!(render(&begun[..1], Next::MoreOfTheLast), "<|user|>hi");
        assert_eq!(render(&begun[..1], Next::Anything), "<|user|>hi<|end|>");
        // As is in what the template puts behind it.
        assert_eq!(render(&[("assistant", "end")], Next::Natural), "<|assistant|>end");
        // Nothing that could go on.
        let empty = [("user", "hi"), ("assistant", " ")];
        assert!(render(&empty, Next::Natural).ends_with("<|end|><|assistant|>"));
    }

    #[test]
    fn a_begun_message_goes_on_behind_its_own_blanks_where_the_template_keeps_them() {
        let keeps =
            ChatTemplate::new("{% for m in messages %}[{{ m.content }}]{% endfor %}", "", "").expect("valid");
        let begun = chat(&[("assistant", " a \n")], Next::Natural);
        assert_eq!(keeps.render(&begun).expect("rendered"), "[ a \n");
        let trims = ChatTemplate::new(CHATML, "", "").expect("valid");
        assert_eq!(trims.render(&begun).expect("rendered"), "<|assistant|>a");
        let hides = ChatTemplate::new("{{ messages | length }}", "", "").expect("valid");
        assert!(matches!(hides.render(&begun), Err(TemplateError::Refused(_))));
    }

    #[test]
    fn names_and_variables_reach_the_template_but_never_in_place_of_its_own() {
        let template =
            ChatTemplate::new("{{ messages[0].name }}{{ thinks }}{{ eos_token }}", "", "E").expect("valid");
        let mut chat = chat(&[("user", "x")], Next::Natural);
        chat.messages[0].name = Some("Ann".into());
        chat.variables.insert("thinks".into(), false.into());
        chat.variables.insert("eos_token".into(), "no".into());
        assert_eq!(template.render(&chat).expect("rendered"), "AnnFalseE");
    }
}
