//! Software of others that comes as Python packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;

/// Tests of one binary run at once; two must not make the same environment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A file of `tests/python`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// A Python with what a file of `tests/python` lists, made once in `folder`.
///
/// # Errors
/// When Python or a package cannot be had.
pub fn python_with(requirements: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let run = |command: &mut Command| -> anyhow::Result<()> {
        let output = command.output().context("running Python")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(script(requirements)))?;
    Ok(python)
}
