//! Whether the model's file can be used, by all that nodes look at when they load it.

use std::path::Path;

use gateway::text::{ServedModel, TextOptions};
use gguf::{GgufError, Header};
use model_hub::HubError;
use shard_engine::CutError;
use swarm_types::ModelDigest;

use super::finding::{Finding, Verdict};
use crate::plan::{MemoryPlan, Shape};

const DAMAGED: &str = "fetch it again";
const READABLE: &str = "let the user that runs this read it, with chmod or chown";
const TOGETHER: &str =
    "put all files of one model into one folder, under the names that they were written with";
const CUT: &str = "give --total-shards and --shard-weights as the nodes have them";
const OTHER: &str = "another copy would be the same: take another file of the model, or another model";
const TEXT: &str =
    "workers can load it, but no gateway can: take a newer file of the model, or another model";

/// What is to be done about a model that cannot be had.
pub(super) fn cannot_be_had(error: &HubError) -> Finding {
    match error {
        HubError::Invalid { path, source } => unusable(path, source),
        HubError::Io { .. } | HubError::Torrent(_) => Finding::bad(error.to_string(), READABLE),
        error => Finding::with_cure(Verdict::Bad, error.to_string()),
    }
}

/// What is to be done about a file.
fn unusable(path: &Path, error: &GgufError) -> Finding {
    let (path, cause) = error.of_file(path);
    let what = match cause {
        // It names the file.
        GgufError::Io { .. } => cause.to_string(),
        _ => format!("{}: {cause}", path.display()),
    };
    match fix(error) {
        Some(fix) => Finding::bad(what, fix),
        None => Finding::with_cure(Verdict::Bad, what),
    }
}

/// What helps, unless the error itself says it.
fn fix(error: &GgufError) -> Option<&'static str> {
    match error {
        error if error.names_cure() => None,
        damage if damage.is_damage() => Some(DAMAGED),
        GgufError::Io { .. } => Some(READABLE),
        GgufError::InFile { source, .. } => match **source {
            GgufError::Missing(_) | GgufError::Type { .. } => Some(TOGETHER),
            _ => fix(source),
        },
        _ => Some(OTHER),
    }
}

/// What workers and gateways will make of a file, and how the model is cut if they can use it.
pub(super) async fn examine(path: &Path, shape: &Shape) -> (Vec<Finding>, Option<MemoryPlan>) {
    let shown = path.display();
    let header = match Header::read_without_arrays(path) {
        Ok(header) => header,
        Err(error) => return (vec![unusable(path, &error)], None),
    };
    let plan = match MemoryPlan::new(&header, shape) {
        Ok(plan) => plan,
        Err(error) => return (vec![not_computed(path, &error)], None),
    };
    let file = path.to_owned();
    let text = move || ServedModel::load(&file, ModelDigest([0; 32]), &TextOptions::default());
    let findings = match tokio::task::spawn_blocking(text).await {
        Err(error) => vec![Finding::bad(format!("{shown}: {error}"), "please report this")],
        Ok(Err(error)) => vec![Finding::bad(format!("{shown}: {error}"), TEXT)],
        Ok(Ok(model)) => {
            let doubts = model.doubts().into_iter();
            let doubts = doubts.map(|doubt| Finding::with_cure(Verdict::Warning, doubt));
            let sound = Finding::good(format!("{shown} is a sound model file"));
            [sound].into_iter().chain(doubts).collect()
        }
    };
    (findings, Some(plan))
}

/// Why no worker can compute a model.
fn not_computed(path: &Path, error: &CutError) -> Finding {
    let what = || format!("{}: {error}", path.display());
    match error {
        // The header came whole, so what it says is what the file's maker wrote.
        CutError::Header(error) => unusable(path, error),
        CutError::Layers(_) => Finding::bad(what(), CUT),
        CutError::OnDevices(_) => Finding::with_cure(Verdict::Bad, what()),
    }
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;

    fn shape() -> Shape {
        use clap::Parser;

        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            shape: Shape,
        }
        Flags::parse_from(["doctor", "--total-shards", "2"]).shape
    }

    /// What is found of a tiny model in whose file these bytes stand instead of others of the same length.
    async fn found(old: &str, new: &str) -> (Verdict, String) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.gguf");
        TinyModel::default().write(&path).expect("written");
        let mut bytes = std::fs::read(&path).expect("read");
        assert_eq!(old.len(), new.len());
        let place = bytes.windows(old.len()).position(|window| window == old.as_bytes()).expect("there");
        bytes[place..place + new.len()].copy_from_slice(new.as_bytes());
        std::fs::write(&path, bytes).expect("written");
        let (findings, _) = examine(&path, &shape()).await;
        let worst = findings.into_iter().max_by_key(|finding| match finding.verdict {
            Verdict::Good => 0,
            Verdict::Warning => 1,
            Verdict::Bad => 2,
        });
        let worst = worst.expect("something is found");
        (worst.verdict, worst.to_string())
    }

    #[test]
    fn what_helps_is_told_by_the_cause() {
        let in_part = |source| GgufError::InFile { path: "2".into(), source: Box::new(source) };
        let unreadable =
            GgufError::Io { path: "1".into(), source: std::io::ErrorKind::PermissionDenied.into() };
        assert_eq!(fix(&in_part(GgufError::Magic)), Some(DAMAGED));
        assert_eq!(fix(&in_part(unreadable)), Some(READABLE));
        assert_eq!(fix(&in_part(GgufError::Missing("split.no".into()))), Some(TOGETHER));
        assert_eq!(fix(&GgufError::Magic), Some(DAMAGED));
        assert_eq!(fix(&GgufError::NoTensor("output_norm.weight".into())), Some(OTHER));
        let mixed = in_part(GgufError::Mixed("split.count is 3".into()));
        for says_it in [GgufError::NoFile { path: "2".into(), count: 2 }, GgufError::Piece, mixed] {
            assert_eq!(fix(&says_it), None, "{says_it}");
        }
    }

    #[test]
    fn what_helps_is_said_once_and_of_the_file_that_is_meant() {
        let cut = GgufError::Truncated { what: "t".into(), missing: 9 };
        let second = GgufError::InFile { path: "m-2.gguf".into(), source: Box::new(cut) };
        let found = cannot_be_had(&HubError::Invalid { path: "m-1.gguf".into(), source: second });
        assert!(found.what.starts_with("m-2.gguf: the file is truncated"), "{found}");
        assert!(found.to_string().ends_with("→ fetch it again") && !found.what.contains("again"), "{found}");
        let nowhere = cannot_be_had(&HubError::NotFound { path: "m.gguf".into() });
        assert!(nowhere.what.contains("there is no file m.gguf: check the path") && nowhere.fix.is_none());
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let denied = GgufError::Io { path: "m.gguf".into(), source: denied };
        let denied = cannot_be_had(&HubError::Invalid { path: "m.gguf".into(), source: denied }).to_string();
        assert_eq!(denied.matches("m.gguf").count() + denied.matches("let the user").count(), 2, "{denied}");
    }

    #[tokio::test]
    async fn what_keeps_a_node_from_loading_is_found() {
        let (verdict, said) = found("smollm", "smollm").await;
        assert_eq!(verdict, Verdict::Good, "{said}");
        let (verdict, said) = found("smollm", "smallm").await;
        assert_eq!(verdict, Verdict::Bad);
        assert!(
            said.contains("pre-tokenizer smallm (supported: ") && said.contains("no gateway can"),
            "{said}"
        );
        let (verdict, said) = found("{% endfor %}", "{% endfur %}").await;
        assert_eq!(verdict, Verdict::Warning);
        assert!(said.contains("chat template cannot be used"), "{said}");
        let (verdict, said) = found("output_norm.weight", "output_nurm.weight").await;
        assert_eq!(verdict, Verdict::Bad, "{said}");
    }
}
