//! The chat template that comes with a model: Jinja, as the models' makers write it.

use minijinja::{Environment, Error, ErrorKind, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

/// A template may take this many steps; real ones take some thousands for a long conversation.
const FUEL: u64 = 2_000_000;
const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Plain text.
    pub content: String,
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

    /// The conversation as the model was trained to see it, up to where its answer begins.
    ///
    /// # Errors
    /// When the template refuses the messages, for example their order of roles.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| TemplateError::Invalid(error.to_string()))?;
        let context = context! {
            messages => Serde(messages),
            add_generation_prompt => true,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
        };
        template.render(context).map_err(|error| TemplateError::Refused(error.to_string()))
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
        Message { role: role.into(), content: content.into() }
    }

    #[test]
    fn templates_render_as_their_makers_mean_them() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {% if m['role'] == 'system' %}\n{{ raise_exception('no ' + m.role) }}\n  {% endif %}\n{{ m.role.upper() }}: {{ m.content.strip() | tojson }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
        let template = ChatTemplate::new(source, "<s>", "</s>").expect("valid");
        let text = template.render(&[message("user", " hi ")]).expect("rendered");
        assert_eq!(text, "<s>USER: \"hi\"\nA:");
        let refused = template.render(&[message("system", "x")]).expect_err("refused");
        assert!(refused.to_string().contains("no system"), "{refused}");
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, "", "").expect("valid");
        assert!(matches!(template.render(&[]), Err(TemplateError::Refused(_))));
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(TemplateError::Invalid(_))));
    }

    #[test]
    fn dates_are_written_as_python_does() {
        let template = ChatTemplate::new("{{ strftime_now('%Y') }}", "", "").expect("valid");
        assert_eq!(template.render(&[]).expect("rendered").len(), 4);
    }
}
