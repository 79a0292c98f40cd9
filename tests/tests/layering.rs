//! Which of our crates may depend on which. A new arrow is a change of the design: change docs/architecture.md
//! with it. And what the workspace lists must be true: in order, and used.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Each crate with those of ours it may name. Lower crates stand first.
const ARROWS: &[(&str, &[&str])] = &[
    ("swarm-types", &[]),
    ("swarm-proto", &["swarm-types"]),
    ("gguf", &[]),
    ("grammar", &["swarm-types", "gguf"]),
    ("shard-engine", &["swarm-types", "gguf", "grammar"]),
    ("model-torrent", &["swarm-types"]),
    ("model-hub", &["swarm-types", "gguf", "model-torrent"]),
    ("torrent-exchange", &["swarm-types", "model-torrent"]),
    ("swarm-net", &["swarm-types", "swarm-proto"]),
    ("swarm-process", &["swarm-types", "swarm-proto"]),
    ("model-files", &["swarm-types", "gguf", "model-hub", "model-torrent", "swarm-net", "torrent-exchange"]),
    ("shard-client", &["swarm-types", "swarm-proto", "swarm-process"]),
    (
        "shard-worker",
        &[
            "swarm-types",
            "swarm-proto",
            "gguf",
            "grammar",
            "shard-engine",
            "model-hub",
            "model-files",
            "swarm-net",
            "shard-client",
            "swarm-process",
        ],
    ),
    ("rendezvous", &["swarm-types", "swarm-proto", "swarm-net", "swarm-process"]),
    (
        "gateway",
        &[
            "swarm-types",
            "swarm-proto",
            "gguf",
            "grammar",
            "model-hub",
            "model-files",
            "swarm-net",
            "shard-client",
            "swarm-process",
        ],
    ),
    (
        "llama-swarm",
        &[
            "swarm-types",
            "swarm-proto",
            "gguf",
            "shard-engine",
            "model-hub",
            "model-files",
            "swarm-net",
            "swarm-process",
            "shard-worker",
            "rendezvous",
            "gateway",
        ],
    ),
    // Prints what images carry; nothing of ours is in it.
    ("notices", &[]),
    // An example: what a client of others would name.
    ("grpc-client", &["swarm-proto"]),
];

/// Crates of others that just one of ours may name: its job is to keep them away from the rest.
const ENCLOSED: &[(&str, &str)] = &[
    ("candle-core", "shard-engine"),
    ("candle-nn", "shard-engine"),
    ("candle-transformers", "shard-engine"),
    ("libp2p", "swarm-net"),
    ("hf-hub", "model-hub"),
    ("bendy", "model-torrent"),
    ("llguidance", "grammar"),
    ("tokenizers", "gateway"),
    ("minijinja", "gateway"),
    ("opentelemetry", "swarm-process"),
];

/// Our packages but the tests, which may see everything.
fn packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs in a checkout");
    metadata.packages.into_iter().filter(|package| package.name != "swarm-tests").collect()
}

/// What the workspace's list of dependencies names, in its order, each with the rest of its line.
fn listed() -> Vec<(String, String)> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs in a checkout");
    let manifest = std::fs::read_to_string(metadata.workspace_root.join("Cargo.toml")).expect("a manifest");
    let list = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = list.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

fn shipped(package: &Package) -> BTreeSet<&str> {
    let dependencies = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
    dependencies.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn arrows_between_our_crates_go_down_only() {
    let packages = packages();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "every crate has its line in ARROWS");
    for package in &packages {
        let ours: BTreeSet<&str> = shipped(package).intersection(&names).copied().collect();
        let may: BTreeSet<&str> = allowed[package.name.as_str()].iter().copied().collect();
        let forbidden: Vec<_> = ours.difference(&may).collect();
        assert!(forbidden.is_empty(), "{} must not depend on {forbidden:?}", package.name);
    }
    for (place, (name, below)) in ARROWS.iter().enumerate() {
        let lower: BTreeSet<&str> = ARROWS[..place].iter().map(|(name, _)| *name).collect();
        assert!(below.iter().all(|dependency| lower.contains(dependency)), "an arrow of {name} goes up");
    }
}

#[test]
fn what_only_tests_need_is_in_no_program() {
    let support = |features: &[String]| features.iter().any(|feature| feature == "test-support");
    for package in packages() {
        let shipped = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        let with_support: Vec<_> =
            shipped.filter(|dependency| support(&dependency.features)).map(|d| d.name.as_str()).collect();
        assert!(with_support.is_empty(), "{} ships the test support of {with_support:?}", package.name);
        let default = package.features.get("default").is_some_and(|features| support(features));
        assert!(!default, "{} has its test support on by default", package.name);
    }
}

#[test]
fn a_library_with_a_keeper_is_named_by_its_keeper_only() {
    for package in packages() {
        for (library, keeper) in ENCLOSED {
            let names_it = package.dependencies.iter().any(|dependency| dependency.name == *library);
            assert!(
                !names_it || package.name == *keeper,
                "{} must leave {library} to {keeper}",
                package.name
            );
        }
    }
}

#[test]
fn the_list_of_our_crates_has_the_lower_ones_first() {
    let ours = listed().into_iter().filter(|(_, rest)| rest.contains("path = ")).map(|(name, _)| name);
    let ours: Vec<String> = ours.collect();
    let place = |name: &str| ours.iter().position(|listed| listed == name);
    for (name, below) in ARROWS {
        let up = below.iter().filter(|dependency| place(name) < place(dependency));
        let up: Vec<_> = up.filter(|_| place(name).is_some()).collect();
        assert!(up.is_empty(), "in [workspace.dependencies] {name} stands above {up:?}, which it needs");
    }
    for name in &ours {
        assert!(ARROWS.iter().any(|(known, _)| known == name), "{name} is listed, and no crate of ours");
    }
}

#[test]
fn what_the_workspace_lists_is_used() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs in a checkout");
    let named: BTreeSet<String> =
        metadata.packages.iter().flat_map(|package| &package.dependencies).map(|d| d.name.clone()).collect();
    let unused: Vec<String> =
        listed().into_iter().map(|(name, _)| name).filter(|name| !named.contains(name)).collect();
    assert!(unused.is_empty(), "no crate uses {unused:?}: remove it from [workspace.dependencies]");
}
