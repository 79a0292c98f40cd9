//! The chat template that comes with a model: Jinja, as the models' makers write it.

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig, value::Serde};
use regex::Regex;
use serde_json::Map;

use super::{
    message::{Form, Message},
    python,
};

/// A template may take this many steps; real ones take some thousands for a long conversation.
const FUEL: u64 = 2_000_000;
const NAME: &str = "chat";

/// Stands behind a message that goes on, to find its end by; nobody writes this. Its blank tells whether the template
/// takes blanks off.
const MARK: &str = "\u{f8ff}goes on here\u{f8ff} ";

/// What a template is always given; nobody else may say otherwise.
const OWN: [&str; 4] = ["messages", "add_generation_prompt", "bos_token", "eos_token"];

/// The variable with what the model may call, in OpenAI's form.
pub(crate) const TOOLS: &str = "tools";

/// What the templates of some models ask the ids of calls to be like: they refuse others.
const SHORT_IDS: &str = "length != 9";
const SHORT_ID: usize = 9;

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
        // Behind its calls a message has ended.
        let has_text = !last.content.trim().is_empty() && last.tool_calls.is_empty();
        match self {
            Self::Natural => has_text && last.role == "assistant",
            Self::MoreOfTheLast => has_text,
            Self::NewMessage | Self::Anything => false,
        }
    }
}

/// A conversation as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// With the marks that are in it.
    pub text: String,
    /// What stands in tokens that steer, where clients wrote them. See [`super::Reading::mark`].
    pub mark: Option<char>,
}

impl From<String> for Rendered {
    fn from(text: String) -> Self {
        Self { text, mark: None }
    }
}

/// A template that does not work, or not with these messages.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error(
        "the model has no chat template (tokenizer.chat_template): use /v1/completions, or start the gateway with \
         --chat-template FILE"
    )]
    Missing,
    /// There is one without a word.
    #[error(
        "the model's chat template (tokenizer.chat_template) is empty: use /v1/completions, or start the gateway with \
         --chat-template FILE"
    )]
    Empty,
    /// The template itself is not valid, or uses what is not supported.
    #[error(
        "the model's chat template cannot be used: {0}; use /v1/completions, or start the gateway with \
         --chat-template FILE"
    )]
    Invalid(String),
    /// The template refuses the messages.
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
}

/// A conversation to the text that the model continues.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    begin: String,
    end: String,
    /// It shows what messages say only if that is a list of parts.
    wants_parts: bool,
}

impl ChatTemplate {
    /// `begin` and `end` are the texts of the tokens around a sequence.
    ///
    /// # Errors
    /// When the template is empty, does not parse, or uses what is not known for a conversation of one message.
    pub fn new(source: &str, begin: &str, end: &str) -> Result<Self, TemplateError> {
        if source.trim().is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Invalid(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        python::add_to(&mut environment);
        environment
            .add_template_owned(NAME, without_extensions(&source.replace("\r\n", "\n").replace('\r', "\n")))
            .map_err(|error| TemplateError::Invalid(error.to_string()))?;
        let (source, begin, end) = (source.into(), begin.into(), end.into());
        let mut template = Self { environment, source, begin, end, wants_parts: false };
        template.wants_parts =
            !template.shows(Form::default()) && template.shows(Form { parts: true, ..Form::default() });
        // Names of filters and functions are looked up when they are used.
        match template.render(&simplest()) {
            Err(error @ TemplateError::Invalid(_)) => Err(error),
            _ => Ok(template),
        }
    }

    /// As its makers wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it shows the model what it may call.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.source.contains("tools")
    }

    /// Whether it shows what the model has called, and what came of it.
    #[must_use]
    pub fn knows_calls(&self) -> bool {
        self.source.contains("tool_calls")
    }

    /// Whether its model thinks before it speaks.
    #[must_use]
    pub fn thinks(&self) -> bool {
        self.source.contains("<think>") || self.source.contains("</think>") || self.can_think_or_not()
    }

    /// Whether it can be told not to have the model think.
    #[must_use]
    pub fn can_think_or_not(&self) -> bool {
        self.source.contains("enable_thinking")
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

    /// Whether it shows what a message of this form says.
    fn shows(&self, form: Form) -> bool {
        let message = Message { role: "user".into(), content: MARK.into(), ..Message::default() };
        let text = self.render_as(form, &[message], &Chat::default(), true);
        text.is_ok_and(|text| text.contains(MARK.trim_end()))
    }

    fn render_messages(
        &self,
        messages: &[Message],
        chat: &Chat,
        speaks: bool,
    ) -> Result<String, TemplateError> {
        let short = self.source.contains(SHORT_IDS).then(|| with_short_ids(messages));
        let messages = short.as_deref().unwrap_or(messages);
        let form = Form { parts: self.wants_parts, ..Form::default() };
        match self.render_as(form, messages, chat, speaks) {
            Err(refused) if messages.iter().any(|message| !message.tool_calls.is_empty()) => {
                // Some put arguments together with other texts.
                let form = Form { arguments_as_text: true, ..form };
                self.render_as(form, messages, chat, speaks).map_err(|_| refused)
            }
            done => done,
        }
    }

    fn render_as(
        &self,
        form: Form,
        messages: &[Message],
        chat: &Chat,
        speaks: bool,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| TemplateError::Invalid(error.to_string()))?;
        let messages: Vec<serde_json::Value> = messages.iter().map(|message| message.json(form)).collect();
        let own: [Value; OWN.len()] =
            [Serde(messages).into(), speaks.into(), self.begin.as_str().into(), self.end.as_str().into()];
        let others = chat.variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        // Templates were tried out where these are always there, if only as nothing.
        let nothing = [TOOLS, "documents"].map(|name| (name, Value::from(())));
        // Of two with one name the last counts.
        let context = Value::from_pairs(nothing.into_iter().chain(others).chain(OWN.into_iter().zip(own)));
        template.render(context).map_err(failed)
    }

    /// Whether a variable is the gateway's own.
    #[must_use]
    pub fn owns(name: &str) -> bool {
        OWN.contains(&name) || name == TOOLS
    }
}

/// The conversation that every template takes.
fn simplest() -> Chat {
    let message = Message { role: "user".into(), content: "Hello".into(), ..Message::default() };
    Chat { messages: vec![message], ..Chat::default() }
}

/// Whether a template is wrong, or the messages are not for it.
fn failed(error: Error) -> TemplateError {
    match error.kind() {
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            TemplateError::Invalid(error.to_string())
        }
        _ => TemplateError::Refused(error.to_string()),
    }
}

/// The template without the statements that only training takes notice of: around what the model itself says stands
/// `{% generation %}`, and what is set there is not known behind it.
fn without_extensions(source: &str) -> String {
    let statement = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a pattern");
    statement.replace_all(source, "{%$1 ${2}with $3%}").into_owned()
}

/// The messages with ids that are as short as templates may want them.
fn with_short_ids(messages: &[Message]) -> Vec<Message> {
    let short = |id: &mut String| {
        let plain: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let end: String = plain[plain.len().saturating_sub(SHORT_ID)..].iter().collect();
        *id = format!("{end:0>SHORT_ID$}");
    };
    let mut messages = messages.to_vec();
    for message in &mut messages {
        message.tool_calls.iter_mut().for_each(|call| short(&mut call.id));
        message.tool_call_id.iter_mut().for_each(short);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::{super::ToolCall, *};

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
    fn lines_may_end_in_any_way() {
        let template = ChatTemplate::new("a\r\n{% if true %}\r\nb\rc{% endif %}", "", "").expect("valid");
        assert_eq!(template.render(&Chat::default()).expect("rendered"), "a\nb\nc");
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        assert!(matches!(template.render(&Chat::default()), Err(TemplateError::Refused(_))));
        // Nor may it look through a long text again and again.
        let source = "{% set t = 'x' * 1000000 %}{% for a in range(9999) %}{% for b in range(99) %}{{ t.find('y') }}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        let error = template.render(&Chat::default()).expect_err("stopped").to_string();
        assert!(error.contains("fuel"), "{error}");
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(TemplateError::Invalid(_))));
        assert!(matches!(ChatTemplate::new(" \n", "", ""), Err(TemplateError::Empty)));
    }

    #[test]
    fn what_a_template_uses_and_nobody_knows_is_found_before_anybody_asks() {
        for (source, name) in [
            ("{{ messages | nothing_like_it }}", "nothing_like_it"),
            ("{% for m in messages %}{{ m.content is nothing_like_it }}{% endfor %}", "nothing_like_it"),
            ("{{ nothing_like_it() }}", "nothing_like_it"),
        ] {
            let error = ChatTemplate::new(source, "", "").expect_err("refused");
            assert!(matches!(&error, TemplateError::Invalid(what) if what.contains(name)), "{error}");
        }
        // In other conversations the rest of it works, and one that refuses the simplest may take others.
        let tools = "{% if tools %}{{ tools | nothing_like_it }}{% endif %}{{ messages[0].content }}";
        let template = ChatTemplate::new(tools, "", "").expect("valid");
        assert_eq!(template.render(&chat(&[("user", "x")], Next::Natural)).expect("rendered"), "x");
        let strict = "{% if messages | length == 1 %}{{ raise_exception('no') }}{% endif %}";
        assert!(ChatTemplate::new(strict, "", "").is_ok());
    }

    #[test]
    fn what_only_training_takes_notice_of_changes_nothing() {
        let source = "{% set a = 'x' %}{% for m in messages %}<{{ m.role }}>\n  {%- generation %}\n{% set a = 'y' %}{{ m.content }}{% endgeneration -%}\n{% endfor %}{{ a }}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        let text = template.render(&chat(&[("user", "hi"), ("user", "more")], Next::Anything));
        assert_eq!(text.expect("rendered"), "<user>hi<user>morex");
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

    #[test]
    fn templates_are_told_of_tools_always_and_of_ids_as_short_as_they_want_them() {
        let known = "{% if tools is not none %}{{ tools | tojson }}{% endif %}";
        let template = ChatTemplate::new(known, "", "").expect("valid");
        assert!(template.knows_tools() && !template.knows_calls() && !template.thinks());
        let mut chat = chat(&[("user", "x")], Next::Natural);
        assert_eq!(template.render(&chat).expect("rendered"), "");
        chat.variables.insert(TOOLS.into(), serde_json::json!([{"type": "function", "a": 1}]));
        assert_eq!(template.render(&chat).expect("rendered"), r#"[{"type": "function", "a": 1}]"#);

        let strict =
            "{% set id = messages[0].tool_call_id %}{% if id|length != 9 %}no{% else %}{{ id }}{% endif %}";
        let template = ChatTemplate::new(strict, "", "").expect("valid");
        chat.messages[0].tool_call_id = Some("call_0123456789abcdef".into());
        assert_eq!(template.render(&chat).expect("rendered"), "789abcdef");
        chat.messages[0].tool_call_id = Some("a-1".into());
        assert_eq!(template.render(&chat).expect("rendered"), "0000000a1");
    }

    #[test]
    fn templates_that_know_parts_alone_get_them() {
        let source = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        let said = [("user", "a"), ("assistant", "b ")];
        assert_eq!(template.render(&chat(&said, Next::NewMessage)).expect("rendered"), "a;b ;");
        assert_eq!(template.render(&chat(&said, Next::Natural)).expect("rendered"), "a;b ");
    }

    #[test]
    fn templates_that_put_arguments_together_with_texts_get_texts() {
        let source = "{{ 'f(' + messages[0].tool_calls[0].function.arguments + ')' }}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        let mut chat = chat(&[("assistant", "")], Next::NewMessage);
        let refused = template.render(&chat).expect_err("nothing is called");
        let arguments = "{\"a\":1}".into();
        chat.messages[0].tool_calls.push(ToolCall { arguments, ..ToolCall::default() });
        assert_eq!(template.render(&chat).expect("rendered"), "f({\"a\":1})");
        assert!(matches!(refused, TemplateError::Refused(_)));
    }
}
