//! The real model over eight worker processes: the reference's tokens, many clients at once, clients we did not write.
//!
//! One swarm for all scenarios: loading the real model eight times over is what takes long.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use futures::future::try_join_all;
use gateway::clients::{Entry, Limits};
use model_hub::HubConfig;
use serde_json::{Value, json};
use shard_engine::cut_of;
use swarm_proto::wire::{self, generate_request::Input};
use swarm_tests::{
    Swarm, SwarmSpec, ask, chat, expected_tokens, generate, ids, oracle, python, python_script, real_model,
    stream_chat,
};
use swarm_types::{ShardId, ShardRange};

swarm_tests::scenarios! {
    Eight::start;
    // Before the first session.
    a_middle_worker_holds_and_reads_only_its_layers,
    eight_workers_take_what_the_file_takes,
    tokens_and_logprobs_equal_the_reference,
    long_prompts_do_not_depend_on_their_chunks,
    sixteen_at_once_equal_their_solo_runs,
    a_client_that_leaves_frees_its_session_everywhere,
    clients_of_others_are_served,
}

/// Eight workers with the real model.
struct Eight {
    model: PathBuf,
    swarm: Swarm,
}

impl Eight {
    async fn start() -> anyhow::Result<Self> {
        let model = real_model().await?;
        // All of the file is read once for this; who starts then reads what it serves alone.
        model_hub::identify(&model, &HubConfig::default()).await?;
        let swarm = Swarm::ready(SwarmSpec::new(model.clone())).await?;
        Ok(Self { model, swarm })
    }
}

/// What a worker takes besides its weights and caches: libp2p, buffers, its share of the program.
const OF_A_PROCESS: u64 = 24 << 20;

/// By what the kernel counts, after loading and before the first session.
async fn eight_workers_take_what_the_file_takes(eight: &Eight) -> anyhow::Result<()> {
    let mut all = 0;
    for worker in &eight.swarm.workers {
        // What several processes share, which is the program, counts once for all of them.
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", worker.pid()))?;
        let line = maps.lines().find_map(|line| line.strip_prefix("Pss:")).context("resident memory")?;
        all += line.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
    }
    // The embedding is also the head, and both ends hold it.
    let header = gguf::Header::read_without_arrays(&eight.model)?;
    let embedding = header.tensors.get("token_embd.weight").context("an embedding")?.bytes;
    let file = std::fs::metadata(&eight.model)?.len();
    let mib = |bytes: u64| bytes >> 20;
    eprintln!("eight workers: {} MiB resident, the file has {} MiB", mib(all), mib(file));
    let bound = file + embedding + 8 * OF_A_PROCESS;
    assert!(all <= bound, "{} MiB are resident, more than {}", mib(all), mib(bound));
    Ok(())
}

/// By what the kernel counts, after loading and before the first session.
async fn a_middle_worker_holds_and_reads_only_its_layers(eight: &Eight) -> anyhow::Result<()> {
    let worker = &eight.swarm.workers[3];
    let number = |file: &str, key: &str| -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", worker.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).context(key.to_owned())?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let header = gguf::Header::read_without_arrays(&eight.model)?;
    let layers = cut_of(&header, 8, None)?.layers(ShardRange::one(ShardId(3)))?;
    let own =
        |name: &str| (layers.start()..layers.end()).any(|layer| name.starts_with(&format!("blk.{layer}.")));
    let tensors = || header.tensors.iter().filter(|(name, _)| own(name)).map(|(_, tensor)| tensor);
    let stored: u64 = tensors().map(|tensor| tensor.bytes).sum();
    let (resident, read) = (number("status", "RssAnon:")? << 10, number("io", "rchar:")?);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    eprintln!(
        "layers {layers}: {:.1} MiB stored, {:.1} MiB resident, {:.1} MiB read",
        mib(stored),
        mib(resident),
        mib(read)
    );
    assert!(resident <= stored + OF_A_PROCESS, "{resident} bytes are resident, {stored} are its tensors'");
    // What stands before the tensors is read by the service and by the engine. Which model it is was known.
    assert!(
        read <= stored + 3 * header.files[0].data_offset + (4 << 20),
        "{read} bytes were read, {stored} are its own"
    );
    Ok(())
}

async fn tokens_and_logprobs_equal_the_reference(eight: &Eight) -> anyhow::Result<()> {
    let oracle = oracle()?;
    let cases = oracle["f32"]["cases"].as_array().context("the oracle has cases")?;
    for case in cases {
        let name = case["name"].as_str().unwrap_or_default();
        let prompt = Input::PromptTokens(wire::TokenIds { ids: ids(&case["prompt_tokens"]) });
        let got = generate(&eight.swarm.gateway, prompt, 48).await?;
        let expected = expected_tokens(case);
        assert_eq!(got.iter().map(|token| token.id).collect::<Vec<_>>(), expected, "case {name}");
        let steps = ids(&case["logprob_steps"]);
        for (step, reference) in steps.iter().zip(case["logprobs"].as_array().into_iter().flatten()) {
            let Some(token) = got.get(*step as usize) else { continue };
            let expected = reference["logprob"].as_f64().context("a number")?;
            let logprob = f64::from(token.logprob.context("log-probabilities were asked for")?);
            assert!((logprob - expected).abs() < 1e-2, "case {name} step {step}: {logprob} for {expected}");
        }
    }
    assert!(cases.len() >= 7);
    Ok(())
}

/// The gateway cuts a prompt into chunks; `echo` with `max_tokens` asks for its scores in the same chunks.
async fn long_prompts_do_not_depend_on_their_chunks(Eight { swarm, .. }: &Eight) -> anyhow::Result<()> {
    let oracle = oracle()?;
    let words: Vec<u32> = ids(&oracle["f32"]["cases"][1]["prompt_tokens"]);
    let prompt: Vec<u32> = words.iter().copied().cycle().take(1500).collect();
    let input = || Input::PromptTokens(wire::TokenIds { ids: prompt.clone() });
    let many = generate(&swarm.gateway, input(), 8).await?;
    let whole = swarm.another_gateway("one-chunk", &["--prefill-chunk", "2048"]).await?;
    whole.sees("swarm ready", |status| status.swarm_ready).await?;
    let one = generate(&whole, input(), 8).await?;
    let seen = |tokens: &[wire::ChunkToken]| {
        tokens.iter().map(|t| (t.id, t.logprob.map(f32::to_bits))).collect::<Vec<_>>()
    };
    assert_eq!(seen(&many), seen(&one), "the same tokens, and log-probabilities to the bit");
    Ok(())
}

async fn sixteen_at_once_equal_their_solo_runs(eight: &Eight) -> anyhow::Result<()> {
    let gateway = &eight.swarm.gateway;
    let questions: Vec<String> = (0..16).map(|n| format!("What is {n} plus {}?", n * 3 + 1)).collect();
    let mut solo = vec![];
    for question in &questions {
        solo.push(chat(gateway, question, 12).await?);
    }
    let together = try_join_all(questions.iter().map(|question| chat(gateway, question, 12))).await?;
    assert_eq!(together, solo);
    Ok(())
}

async fn a_client_that_leaves_frees_its_session_everywhere(
    Eight { swarm, .. }: &Eight,
) -> anyhow::Result<()> {
    let body = json!({"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 500});
    let mut events = 0;
    let done = stream_chat(&swarm.gateway, body, |_| {
        events += 1;
        events < 4
    });
    assert!(!done.await?, "the client left early");
    let idle = |status: &wire::SwarmStatus| {
        status.shards.iter().flat_map(|shard| &shard.replicas).all(|replica| replica.active_sessions == 0)
    };
    swarm.gateway.sees("no session on any hop", idle).await?;
    let (status, answer) = ask(&swarm.gateway, "/v1/chat/completions", &json!({"messages": []})).await?;
    assert_eq!(status, 400, "{answer}");
    Ok(())
}

async fn clients_of_others_are_served(eight: &Eight) -> anyhow::Result<()> {
    let gateway = &eight.swarm.gateway;
    let python = python()?;
    let grpc = gateway.grpc_url().replace("http://", "");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grpc.md").display().to_string();
    let keys = tempfile::NamedTempFile::new()?;
    let (key, entry) = Entry::new("python", Limits::default()).map_err(anyhow::Error::msg)?;
    std::fs::write(keys.path(), entry.to_string())?;
    let flags = ["--api-keys-file", keys.path().to_str().context("a path in UTF-8")?];
    let keyed = eight.swarm.another_gateway("keyed", &flags).await?;
    keyed.is_ready().await?;
    let runs = [
        ("openai_client.py", vec![gateway.http_url()]),
        ("openai_client.py", vec![keyed.http_url(), key.as_str().to_owned()]),
        ("grpc_client.py", vec![grpc.clone()]),
        ("grpc_docs.py", vec![grpc, page]),
    ];
    for (script, args) in runs {
        let run = Command::new(&python).arg(python_script(script)).args(args).output()?;
        let printed = String::from_utf8_lossy(&run.stdout);
        anyhow::ensure!(run.status.success(), "{script}: {printed}{}", String::from_utf8_lossy(&run.stderr));
        assert!(printed.starts_with("ok:"), "{script}: {printed}");
        eprint!("{script}: {printed}");
    }
    let curl = Command::new("curl")
        .args(["-sS", "--fail-with-body", "-H", "content-type: application/json", "-d"])
        .arg(r#"{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}"#)
        .arg(format!("{}/v1/chat/completions", gateway.http_url()))
        .output()?;
    let answer: Value = serde_json::from_slice(&curl.stdout)?;
    assert!(
        answer["choices"][0]["message"]["content"].as_str().is_some_and(|t| t.contains("Paris")),
        "{answer}"
    );
    Ok(())
}
