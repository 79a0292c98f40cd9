//! Prints the notices of all that our programs are made of, for whoever passes them on: who wrote what, and the texts
//! of the licences. Licences that are allowed at all are `deny.toml`'s business.

mod document;
mod shipped;
mod texts;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// Takes the arguments that `cargo build` was given: with other features, or for another system, there is something
/// else in the programs.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&values(&arguments, &["--features", "-F"]), values(&arguments, &["--target"]).pop()) {
        Ok(document) => {
            print!("{document}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What stands behind one of these flags, in either form. All other arguments change how is built, not what.
fn values(arguments: &[String], flags: &[&str]) -> Vec<String> {
    let next = arguments.iter().skip(1).map(Some).chain([None]);
    let pairs = arguments.iter().zip(next);
    let found = pairs.filter_map(|(argument, next)| match argument.split_once('=') {
        Some((flag, value)) if flags.contains(&flag) => Some(value),
        None if flags.contains(&argument.as_str()) => next.map(String::as_str),
        _ => None,
    });
    found.map(str::to_owned).collect()
}

fn run(features: &[String], target: Option<String>) -> Result<String> {
    let metadata = read_metadata(features, target)?;
    let (mut notices, mut faults) = (vec![], vec![]);
    for package in shipped::packages(&metadata)? {
        match texts::of(package) {
            Ok(texts) => notices.push((package, texts)),
            Err(error) => faults.push(format!("{} {}: {error:#}", package.name, package.version)),
        }
    }
    if !faults.is_empty() {
        bail!("no notice can be given for\n{}", faults.join("\n"));
    }
    Ok(document::of(&notices))
}

/// What is built for `target`, else for this system, at the versions of `Cargo.lock`.
fn read_metadata(features: &[String], target: Option<String>) -> Result<Metadata> {
    let target = target.map_or_else(host, Ok)?;
    let mut options = vec!["--locked".into(), "--filter-platform".into(), target];
    if !features.is_empty() {
        options.extend(["--features".into(), features.join(",")]);
    }
    MetadataCommand::new().other_options(options).exec().context("cargo metadata")
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = std::process::Command::new(rustc).arg("-vV").output().context("rustc -vV")?;
    let told = String::from_utf8_lossy(&told.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_and_target_are_found_among_cargos_arguments() {
        let given = ["--jobs", "2", "--features", "a/b,c", "--target", "x-y", "--features=d", "--features"];
        let given = given.map(String::from);
        assert_eq!(values(&given, &["--features", "-F"]), ["a/b,c", "d"]);
        assert_eq!(values(&given, &["--target"]), ["x-y"]);
        assert!(values(&[], &["--target"]).is_empty());
    }
}
