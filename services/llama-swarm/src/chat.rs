//! `llama-swarm chat`: a conversation with the swarm through a gateway.

mod client;
mod sse;

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustyline::{DefaultEditor, error::ReadlineError};
use swarm_process::terminal::shown;
use swarm_types::visible;

use crate::credentials::Credentials;

pub(crate) use client::{AnswerOptions, ChatClient, Message};
pub(crate) use sse::SseParser;

/// No context holds more; a larger input is a mistake.
const MAX_INPUT_BYTES: u64 = 4 << 20;

/// Whom to talk to and how.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Where the gateway answers HTTP.
    #[arg(long, env = "LLAMA_SWARM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// Said to the model before the conversation.
    #[arg(long)]
    system: Option<String>,

    /// Longest answer, in tokens. Without it: as many as the context holds.
    #[arg(long)]
    max_tokens: Option<u32>,

    /// 0 for always the likeliest token, up to 2 for the most varied answers. Without it: the gateway's default.
    #[arg(long)]
    temperature: Option<f32>,

    /// One message: its answer goes to standard output, then the command ends. Without it a conversation starts, or,
    /// when standard input is not a terminal, all of it is the message.
    message: Option<String>,

    #[command(flatten)]
    credentials: Credentials,
}

/// Answers one message or holds a conversation.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let mut conversation = Conversation::new(&config)?;
    let message = match config.message {
        Some(message) => Some(message),
        None if io::stdin().is_terminal() => None,
        None => Some(read_stdin().await?),
    };
    match message {
        Some(message) => {
            ensure!(!message.trim().is_empty(), "the message is empty");
            conversation.ask(message).await?;
        }
        None => talk(conversation).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn read_stdin() -> Result<String> {
    let read = || {
        let mut text = String::new();
        io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text).map(|_| text)
    };
    tokio::task::spawn_blocking(read).await?.context("standard input is not text")
}

/// The loop of a terminal: a line is a message.
async fn talk(mut conversation: Conversation) -> Result<()> {
    eprintln!("Ctrl-C stops an answer, /new starts afresh, Ctrl-D ends.");
    let mut editor = DefaultEditor::new()?;
    loop {
        // The editor blocks on the keyboard, so it goes to a thread of its own and comes back with the line.
        let read = move || {
            let line = editor.readline("> ");
            (editor, line)
        };
        let (returned, line) = tokio::task::spawn_blocking(read).await?;
        editor = returned;
        match line {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) if line.trim() == "/new" => conversation.restart(),
            Ok(line) => {
                editor.add_history_entry(&line)?;
                if let Err(error) = conversation.ask(line).await {
                    let said = format!("✗ {}", visible::lines(&format!("{error:#}")));
                    eprintln!("{}", shown(&said, &io::stderr()));
                }
            }
            Err(ReadlineError::Interrupted) => eprintln!("Ctrl-D ends the conversation."),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What was said so far, and with whom.
struct Conversation {
    client: ChatClient,
    options: AnswerOptions,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Conversation {
    fn new(config: &Config) -> Result<Self> {
        let options = AnswerOptions { max_tokens: config.max_tokens, temperature: config.temperature };
        let client = ChatClient::new(&config.url, &config.credentials)?;
        let mut conversation = Self { client, options, system: config.system.clone(), messages: vec![] };
        conversation.restart();
        Ok(conversation)
    }

    fn restart(&mut self) {
        let system = self.system.clone().map(|content| Message { role: "system", content });
        self.messages = system.into_iter().collect();
    }

    /// Streams the answer to standard output. A message that gets no answer is not kept; an answer that Ctrl-C stops
    /// is kept as far as it came.
    async fn ask(&mut self, message: String) -> Result<()> {
        let before = self.messages.len();
        self.messages.push(Message { role: "user", content: message });
        let mut answer = String::new();
        let show = |piece: &str| {
            answer.push_str(piece);
            print_piece(piece);
        };
        let ended = tokio::select! {
            ended = self.client.answer(&self.messages, self.options, show) => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        };
        println!();
        match ended {
            Some(Err(error)) => {
                self.messages.truncate(before);
                return Err(error);
            }
            Some(Ok(summary)) if io::stderr().is_terminal() => {
                eprintln!("({})", visible::one_line(&summary.to_string()));
            }
            Some(Ok(_)) => {}
            None => eprintln!("(stopped)"),
        }
        self.messages.push(Message { role: "assistant", content: answer });
        Ok(())
    }
}

/// To standard output at once, without what a terminal would obey: a model writes whatever it was trained on, or asked
/// for. A reader that went away is noticed at the end of the answer.
pub(crate) fn print_piece(piece: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(visible::lines(piece).as_bytes()).and_then(|()| out.flush());
}
