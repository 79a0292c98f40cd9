//! What all sessions of a worker stand on: who it is, what it serves, its engine, and its way to other hops.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use grammar::{GrammarError, Grammars};
use shard_engine::SlotOptions;
use swarm_net::SwarmNet;
use swarm_proto::{HopFailure, OpenSession, Refusal, RefusalCause};
use swarm_types::{Cut, Grammar, ModelDigest, NodeId, Precision, ShardRange, TokenId};
use tokio::{sync::watch, time::Instant};
use tonic::transport::Channel;
use tracing::Span;

use crate::{
    engine_thread::{EngineHandle, OpenSlot},
    metrics::Metrics,
    replays::Replays,
    sessions::{Held, Place, Sessions},
};

/// What sessions must fit.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The model's file.
    pub model: PathBuf,
    pub shards: ShardRange,
    pub cut: Cut,
    pub digest: ModelDigest,
    pub precision: Precision,
}

/// What a session needs of the engine.
pub(crate) struct WantedSlot {
    /// All but the grammar.
    pub options: SlotOptions,
    /// What is generated is held to it.
    pub grammar: Option<Grammar>,
    /// The session's tokens so far, where the slot has to know them.
    pub tokens: Vec<TokenId>,
}

/// The ground of all sessions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Host(Arc<Inner>);

struct Inner {
    net: SwarmNet,
    /// There once the model's header is here.
    served: OnceLock<(Served, Grammars)>,
    /// There once the layers are loaded.
    engine: watch::Receiver<Option<EngineHandle>>,
    sessions: Sessions,
    replays: Replays,
    metrics: Metrics,
}

impl Host {
    pub(crate) fn new(
        net: SwarmNet,
        engine: watch::Receiver<Option<EngineHandle>>,
        sessions: Sessions,
        replays: Replays,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner { net, served: OnceLock::new(), engine, sessions, replays, metrics }))
    }

    /// From now on sessions must fit this. It is said once.
    pub(crate) fn serve(&self, served: Served) {
        let grammars = Grammars::new(served.model.clone());
        let _ = self.0.served.set((served, grammars));
    }

    fn served(&self) -> Result<&(Served, Grammars), Refusal> {
        let loading = || Refusal::new(RefusalCause::NotReady, "the shard is still loading");
        self.0.served.get().ok_or_else(loading)
    }

    pub(crate) fn id(&self) -> &NodeId {
        self.0.net.id()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) async fn channel(&self, worker: &NodeId) -> Result<Channel, Refusal> {
        let channel = self.0.net.channel(worker).await;
        channel.map_err(|error| Refusal::new(RefusalCause::HopFailed, error.to_string()))
    }

    /// A step's result was handed on.
    pub(crate) fn sent(&self, took: Duration) {
        self.0.metrics.send_seconds.observe(took.as_secs_f64());
    }

    /// Rows were sent again to the hop below.
    pub(crate) fn replayed(&self, rows: usize) {
        self.0.metrics.replayed.inc_by(rows as u64);
    }

    /// Counts a failure that began here; those of hops below are counted there.
    pub(crate) fn refused(&self, failure: &HopFailure) {
        let HopFailure { worker, refusal } = failure;
        self.count(refusal);
        Span::current()
            .record("otel.status_code", "ERROR")
            .record("otel.status_description", refusal.message.as_str())
            .record("error.type", refusal.cause.as_str());
        tracing::warn!(%worker, cause = %refusal.cause, error = %refusal, "session refused");
    }

    pub(crate) fn count(&self, refusal: &Refusal) {
        self.0.metrics.refused(refusal.cause);
    }

    /// The engine, if the session fits what is served here.
    pub(crate) fn admit(&self, open: &OpenSession) -> Result<EngineHandle, Refusal> {
        let (Served { shards, cut, digest, precision, .. }, _) = self.served()?;
        if open.hop.worker != *self.id() {
            let what = format!("this is worker {}, not {}", self.id(), open.hop.worker);
            return Err(Refusal::invalid("hops", what));
        }
        if open.model_digest != *digest || open.precision != *precision {
            let message = format!(
                "model: this worker serves {digest} in {precision}, the session needs {} in {}",
                open.model_digest, open.precision
            );
            return Err(Refusal::new(RefusalCause::Model, message));
        }
        let (total, theirs) = (cut.total_shards(), open.cut.total_shards());
        if theirs != total || !shards.contains(open.hop.shards) {
            let message = format!(
                "hops: this worker serves shards {shards} of {total}, the session needs {} of {theirs}",
                open.hop.shards
            );
            return Err(Refusal::new(RefusalCause::Shards, message));
        }
        if open.cut != *cut {
            let message = "layer_ends: this worker cuts the model differently: give every node the same \
                           --shard-weights";
            return Err(Refusal::new(RefusalCause::Shards, message));
        }
        let engine = self.0.engine.borrow().clone();
        engine.ok_or_else(|| Refusal::new(RefusalCause::NotReady, "the shard is still loading"))
    }

    /// A slot for a session: the one it had, where it is used in the same way, or a new one. Leased caches make room.
    pub(crate) async fn slot(
        &self,
        engine: &EngineHandle,
        wanted: WantedSlot,
        place: &Place,
        inherited: Option<Held>,
    ) -> Result<(Held, u32), Refusal> {
        let WantedSlot { mut options, grammar, tokens } = wanted;
        if let Some(grammar) = grammar {
            match self.served()?.1.ready(grammar).await {
                Ok(ready) => options.grammar = Some(ready),
                Err(error) => {
                    // Nobody else would close it.
                    if let Some(held) = inherited {
                        engine.close(held.slot).await;
                    }
                    return Err(unready(&error));
                }
            }
        }
        if let Some(held) = inherited {
            if held.options == options
                && let Ok(OpenSlot { slot, positions }) = engine.take_over(held.slot, tokens.clone()).await
            {
                self.0.metrics.taken_over.inc();
                tracing::debug!(positions, "went on with the session's cache");
                return Ok((Held { slot, ..held }, positions));
            }
            engine.close(held.slot).await;
        }
        let OpenSlot { slot, positions } = self.new_slot(engine, &options, tokens, place).await?;
        Ok((Held { slot, options, last: None, sent: self.0.replays.begin() }, positions))
    }

    async fn new_slot(
        &self,
        engine: &EngineHandle,
        options: &SlotOptions,
        tokens: Vec<TokenId>,
        place: &Place,
    ) -> Result<OpenSlot, Refusal> {
        // That the gateway has its share already is blamed on a field, and no lease of others helps there.
        let lacks_room = |refusal: &Refusal| refusal.cause == RefusalCause::Full && refusal.field.is_none();
        loop {
            match engine.open(options.clone(), tokens.clone(), place.meter()).await {
                Err(refusal) if lacks_room(&refusal) => match self.0.sessions.evict() {
                    Some(slot) => engine.close(slot).await,
                    None => return Err(refusal),
                },
                opened => return opened,
            }
        }
    }

    /// Frees the caches whose lease is over, as long as the worker runs.
    pub(crate) async fn keep_leases(self) {
        loop {
            let (slots, next) = self.0.sessions.let_go(Instant::now());
            let engine = self.0.engine.borrow().clone();
            if let Some(engine) = engine {
                for slot in slots {
                    engine.close(slot).await;
                }
            }
            let over = async {
                match next {
                    Some(time) => tokio::time::sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                () = self.0.sessions.changed() => {}
            }
        }
    }
}

/// Of a grammar that no session can be held to.
fn unready(error: &GrammarError) -> Refusal {
    match error {
        GrammarError::Vocabulary(_) | GrammarError::Internal(_) => {
            Refusal::new(RefusalCause::Internal, error.to_string())
        }
        GrammarError::Invalid(_) | GrammarError::Stuck(_) => {
            Refusal::of_field(RefusalCause::Grammar, "grammar", error)
        }
    }
}
