//! What an operator says of a model's text otherwise than its file.

/// What is to be otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextOptions {
    /// The source of a chat template that is used instead of the file's.
    pub chat_template: Option<String>,
    /// What becomes of tokens that steer, in what clients write.
    pub user_special_tokens: UserSpecialTokens,
}

/// What becomes of tokens that steer the model, where they stand in the messages of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum UserSpecialTokens {
    /// They are text like any other: nobody can write the end of a message and the beginning of another's.
    #[default]
    Text,
    /// They steer, as they do in a prompt that is given as text.
    Control,
}
