//! Which packages of others are in our programs: what they and their dependencies need to run. What only tests,
//! benchmarks and build scripts need stays with us.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};

/// What images and archives hold.
const PROGRAMS: [&str; 4] = ["shard-worker", "rendezvous", "gateway", "llama-swarm"];

/// By name and version.
pub(crate) fn packages(metadata: &Metadata) -> Result<Vec<&Package>> {
    let resolved = metadata.resolve.as_ref().context("cargo metadata gives no resolved dependencies")?;
    let needs: BTreeMap<&PackageId, _> = resolved.nodes.iter().map(|node| (&node.id, &node.deps)).collect();
    let ours = metadata.workspace_packages();
    let programs = ours.iter().filter(|package| PROGRAMS.contains(&package.name.as_str()));
    let mut open: Vec<&PackageId> = programs.map(|package| &package.id).collect();
    ensure!(open.len() == PROGRAMS.len(), "this is not the workspace of {}", PROGRAMS.join(", "));
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let normal = needs[id]
                .iter()
                .filter(|need| need.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            open.extend(normal.map(|need| &need.pkg));
        }
    }
    let mut packages: Vec<&Package> =
        found.into_iter().map(|id| &metadata[id]).filter(|package| package.source.is_some()).collect();
    packages.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(packages)
}
