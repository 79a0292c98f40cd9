//! `llama-swarm list`: the models that are kept on this machine.

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Args;
use model_files::{CachedFrom, CachedModel, cached_models};
use serde_json::{Value, json};
use swarm_types::visible;

use super::{Cache, spoken};

/// Digits of an info-hash that are shown; `rm` takes six.
const DIGITS: usize = 12;
/// Cells of texts begin on the left, those of numbers end on the right.
const TEXTS: usize = 3;

/// What to list, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    cache: Cache,

    /// One JSON array, with whole info-hashes and paths.
    #[arg(long)]
    json: bool,
}

/// Prints the list.
///
/// # Errors
/// When nobody can tell where the cache is.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let hub = config.cache.hub();
    let models = cached_models(&hub).await?;
    if config.json {
        let listed = Value::Array(models.iter().map(told).collect());
        println!("{}", visible::json(&serde_json::to_string_pretty(&listed)?));
    } else if models.is_empty() {
        println!("no model is kept in {}: `llama-swarm pull MODEL` fetches one", hub.cache_dir()?.display());
    } else {
        println!("{}", table(&models, SystemTime::now()));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(model: &CachedModel) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    let copy = match model.source {
        CachedFrom::Swarm { copy } => Some(copy),
        CachedFrom::Named(_) => None,
    };
    json!({
        "name": model.name,
        "model": model.model_ref().to_string(),
        "copy": copy,
        "info_hash": model.info_hash.map(|hash| hash.to_string()),
        "path": model.path,
        "bytes_on_disk": model.bytes_on_disk,
        "bytes": model.bytes,
        "pieces_here": model.pieces.map(|(here, _)| here),
        "pieces": model.pieces.map(|(_, all)| all),
        "last_used": model.used.and_then(seconds),
        "in_use": model.in_use,
    })
}

fn table(models: &[CachedModel], now: SystemTime) -> String {
    let heads = ["NAME", "FROM", "INFO-HASH", "ON DISK", "WHOLE", "PIECES", "LAST USED"].map(str::to_owned);
    let rows: Vec<Vec<String>> =
        [heads.to_vec()].into_iter().chain(models.iter().map(|model| row(model, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let cell = |(column, text): (usize, &String)| match widths[column] {
        width if column < TEXTS => format!("{text:<width$}"),
        width => format!("{text:>width$}"),
    };
    let line = |row: &Vec<String>| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(model: &CachedModel, now: SystemTime) -> Vec<String> {
    let unknown = || "–".to_owned();
    let digits = |hash: String| hash[..DIGITS].to_owned();
    let (from, copy) = match &model.source {
        CachedFrom::Named(source) => (source.to_string(), String::new()),
        CachedFrom::Swarm { copy: 0 } => ("swarm:".into(), String::new()),
        CachedFrom::Swarm { copy } => ("swarm:".into(), format!(".{copy}")),
    };
    vec![
        visible::one_line(&model.name).into_owned(),
        visible::one_line(&from).into_owned(),
        model.info_hash.map_or_else(unknown, |hash| digits(hash.to_string()) + &copy),
        spoken(model.bytes_on_disk),
        spoken(model.bytes),
        model.pieces.map_or_else(unknown, |(here, all)| format!("{here} of {all}")),
        match (model.in_use, model.used) {
            (true, _) => "in use".into(),
            (false, Some(used)) => ago(used, now),
            (false, None) => unknown(),
        },
    ]
}

fn ago(used: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(used).map_or(0, |since| since.as_secs());
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    match units.into_iter().find(|(length, _)| seconds >= *length) {
        Some((length, unit)) => {
            let count = seconds / length;
            format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn when_a_model_was_used_is_said_in_whole_units() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let said = |seconds| ago(now - Duration::from_secs(seconds), now);
        assert_eq!(said(59), "just now");
        assert_eq!((said(60), said(7200)), ("1 minute ago".into(), "2 hours ago".into()));
        assert_eq!(said(200_000), "2 days ago");
        assert_eq!(ago(now + Duration::from_secs(5), now), "just now", "a clock that was set back");
    }
}
