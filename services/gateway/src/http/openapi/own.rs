//! What is this gateway's own: the swarm, health, versions, the page and this document.

use serde_json::Value;
use utoipa::ToSchema;

use super::{
    describe::{ASKED, Described, SHOWN},
    failures::Failure,
};

/// Whether an answer could begin now.
#[derive(ToSchema)]
struct Readiness {
    ready: bool,
    /// Why not.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// Which version answers.
#[derive(ToSchema)]
struct Version {
    version: String,
}

/// The swarm as this gateway sees it.
#[derive(ToSchema)]
struct Swarm {
    /// The swarm's name.
    cluster: String,
    /// This gateway's peer id.
    node: String,
    /// Who may take part.
    admission: Value,
    total_shards: u32,
    discovered_shards: u32,
    pipeline_complete: bool,
    swarm_ready: bool,
    shards: Vec<Shard>,
    /// The model that every shard can serve.
    model: Value,
    /// Why it is not ready; empty when it is.
    missing: Vec<String>,
    revision: u64,
}

/// A part of the model and who has it.
#[derive(ToSchema)]
struct Shard {
    shard_id: u32,
    replicas: Vec<Value>,
}

/// The OpenAPI document.
#[derive(ToSchema)]
struct Document {
    openapi: String,
    info: Value,
    paths: Value,
}

pub(super) fn operations() -> Vec<Described> {
    const TAG: &str = "gateway";
    let ready = |path| {
        Described::get(path, TAG, "whether an answer could begin now")
            .answers::<Readiness>()
            .fails::<Readiness>(&[ASKED[9]])
            .open()
    };
    vec![
        Described::get("/", TAG, "the live page")
            .tells("text/html", "a page")
            .fails::<Failure>(&[SHOWN[1]])
            .open(),
        Described::get("/openapi.json", TAG, "this document").answers::<Document>().fails::<Failure>(&SHOWN),
        Described::get("/v1/swarm", TAG, "the swarm as this gateway sees it")
            .answers::<Swarm>()
            .tells("text/event-stream", "events status and load, for who accepts them")
            .fails::<Failure>(&[SHOWN[0], SHOWN[1], ASKED[7]]),
        Described::get("/version", TAG, "which version answers")
            .answers::<Version>()
            .fails::<Failure>(&SHOWN),
        Described::get("/healthz", TAG, "the process answers").tells("text/plain", "ok").open(),
        ready("/readyz"),
        ready("/health"),
    ]
}
