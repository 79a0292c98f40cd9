//! What the scenarios share: a swarm of real processes on loopback, started and ended by id.
//!
//! Every process is the `llama-swarm` binary of the same build, with port 0 and an address file; nothing here waits
//! for time, only for events with a bound.

mod answer;
mod http;
mod hub;
mod model;
mod network;
mod pieces;
mod process;
mod python;
mod reference;
mod scenarios;
mod swarm;

pub use answer::{Answer, Scored};
pub use http::{ask, chat, counted, counted_at, counts, stream_chat};
pub use hub::Hub;
pub use model::{ModelFile, model_of_many_pieces, real_model, tiny_model};
pub use network::Network;
pub use pieces::SharedModel;
pub use process::{Process, ProcessSpec, replica_state};
pub use python::{chromium, needed, otelcol, python, python_script, python_with};
pub use reference::{expected_tokens, generate, ids, oracle};
pub use scenarios::{Scenario, run_scenarios};
pub use swarm::{Swarm, SwarmSpec};

use std::{path::PathBuf, time::Duration};

/// Nothing in a scenario may take longer; a loaded machine with two cores stays far below it.
pub const BOUND: Duration = Duration::from_secs(90);

/// The operator's command of this build.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn llama_swarm() -> PathBuf {
    program("llama-swarm")
}

/// A program of this build.
///
/// # Panics
/// When it was not built: the README's test command builds the whole workspace.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let binary = profile().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is missing: cargo build --release --workspace", binary.display());
    binary
}

/// Where this build's programs lie.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("tests lie in target/<profile>/deps");
    profile.into()
}
