//! Programs in Python that we did not write, or that drive what Rust cannot.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;

use crate::profile;

/// Tests of one binary run at once; two must not make the same environment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where the scripts lie.
#[must_use]
pub fn python_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// A Python with the packages of `python/requirements.txt`, made once in the target folder.
///
/// # Errors
/// When there is no Python, or a package cannot be had.
pub fn python() -> anyhow::Result<PathBuf> {
    python_with("requirements.txt", "clients")
}

/// A Python with the packages that a file of `tests/python` lists, made once in a folder of this name in the target
/// folder.
///
/// # Errors
/// When there is no Python, or a package cannot be had.
pub fn python_with(requirements: &str, folder: &str) -> anyhow::Result<PathBuf> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = profile().with_file_name("tmp").join(folder);
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let run = |command: &mut Command| -> anyhow::Result<()> {
        let output = command.output().context("running Python")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    let requirements = python_script(requirements);
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    Ok(python)
}

/// The browser: what `CHROMIUM` says, or the first of the usual names on the path.
///
/// # Errors
/// When there is none.
pub fn chromium() -> anyhow::Result<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    given_or_on_path("CHROMIUM", &names).context(
        "no Chromium on the path: install it (Debian: apt-get install chromium), or set CHROMIUM to it",
    )
}

/// The OpenTelemetry Collector: what `OTELCOL` says, or `otelcol` on the path.
///
/// # Errors
/// When there is none.
pub fn otelcol() -> anyhow::Result<PathBuf> {
    given_or_on_path("OTELCOL", &["otelcol"]).context(
        "no otelcol on the path: install it (Debian: tests/collector/build.sh /usr/local/bin), or set OTELCOL to it",
    )
}

/// A program: where the variable says, or the first of the names on the path.
fn given_or_on_path(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(given) = std::env::var_os(variable) {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    places.find(|place| place.is_file())
}

/// What a test needs beside this repository. Without it the test fails where `CI` is set; elsewhere it is left out,
/// which is said also when the test's output is not shown.
///
/// # Errors
/// In CI, when it is missing.
pub fn needed<T>(test: &str, found: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let ci = std::env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"));
    match found {
        Ok(found) => Ok(Some(found)),
        Err(missing) if ci => Err(missing.context(format!("{test} must run in CI"))),
        Err(missing) => {
            // Not by `eprintln!`, which the test harness keeps to itself.
            writeln!(std::io::stderr(), "\n!!! SKIPPED: {test}: {missing:#}\n")?;
            Ok(None)
        }
    }
}
