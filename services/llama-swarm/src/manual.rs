//! What shells and `man` know of this command: completions and pages, both made from its flags.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// For which shell.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CompletionsConfig {
    /// The shell that reads them.
    shell: Shell,
}

/// Where to.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManConfig {
    /// Folder for the pages; made if it is not there.
    folder: PathBuf,
}

/// Prints completions of `command`.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn completions(config: CompletionsConfig, mut command: Command) -> Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = vec![];
    clap_complete::generate(config.shell, &mut command, name, &mut script);
    // Written here: `generate` panics where it cannot write.
    io::stdout().write_all(&script).context("cannot print the completions")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for `command` and one for each of its sub-commands. They name no date, so the same flags give the same
/// bytes.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn man(config: &ManConfig, command: Command) -> Result<ExitCode> {
    let folder = &config.folder;
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let mut command = command;
    command.build();
    fs::create_dir_all(folder)
        .and_then(|()| write_pages(&command, &source, folder))
        .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &Command, source: &str, folder: &Path) -> io::Result<()> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in shown {
        write_pages(sub, source, folder)?;
    }
    // An empty date of its own quotes, or it would be left out and the source stand in its place.
    Man::new(command.clone()).date("\"\"").source(source).generate_to(folder).map(drop)
}
