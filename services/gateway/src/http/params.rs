//! What chat and plain completions have in common: how tokens are picked, how many, where to stop, how to answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use swarm_types::{SamplingParams, TokenId};
use uuid::Uuid;

use super::{error::ApiError, fields::Fields};
use crate::text::ServedModel;

/// As OpenAI's API has it.
const MAX_N: u32 = 128;
/// Fields that change nothing in what this gateway answers.
const IGNORED: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
];

/// One string or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    /// Pads events against traffic analysis; changes no result.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// The common parameters of one request, checked.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Params {
    /// Its seed is the first choice's.
    pub(super) sampling: SamplingParams,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    /// Choices for each prompt, at least one.
    pub(super) n: u32,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

impl Params {
    /// Takes the common fields. The model must be the served one.
    pub(super) fn take(fields: &mut Fields, model: &ServedModel) -> Result<Self, ApiError> {
        if let Some(asked) = fields.take::<String>("model")?
            && asked != model.id()
        {
            return Err(ApiError::model_not_found(&asked, model.id()));
        }
        let n = fields.take("n")?.unwrap_or(1);
        if !(1..=MAX_N).contains(&n) {
            return Err(ApiError::invalid("n", format!("must be 1 to {MAX_N}, got {n}")));
        }
        let stream = fields.take("stream")?.unwrap_or(false);
        let options = fields.take::<StreamOptions>("stream_options")?;
        if options.is_some() && !stream {
            return Err(ApiError::invalid("stream_options", "only together with stream: true"));
        }
        let params = Self {
            sampling: sampling(fields)?,
            stop: stop(fields)?,
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            n,
            stream,
            include_usage: options.unwrap_or_default().include_usage.unwrap_or(false),
        };
        IGNORED.iter().for_each(|name| fields.ignore(name));
        Ok(params)
    }

    /// The sampling parameters of the choice with this index: each has randomness of its own.
    pub(super) fn sampling_of(&self, index: usize) -> SamplingParams {
        SamplingParams { seed: self.sampling.seed.wrapping_add(index as u64), ..self.sampling.clone() }
    }
}

fn sampling(fields: &mut Fields) -> Result<SamplingParams, ApiError> {
    let default = SamplingParams::default();
    let params = SamplingParams {
        logit_bias: logit_bias(fields)?,
        repetition_penalty: fields.take("repetition_penalty")?.unwrap_or(default.repetition_penalty),
        frequency_penalty: fields.take("frequency_penalty")?.unwrap_or(default.frequency_penalty),
        presence_penalty: fields.take("presence_penalty")?.unwrap_or(default.presence_penalty),
        temperature: fields.take("temperature")?.unwrap_or(default.temperature),
        top_k: fields.take("top_k")?.unwrap_or(default.top_k),
        top_p: fields.take("top_p")?.unwrap_or(default.top_p),
        min_p: fields.take("min_p")?.unwrap_or(default.min_p),
        seed: seed(fields)?,
        top_logprobs: None,
    };
    params.validated().map_err(|error| ApiError::invalid(error.field(), error))
}

/// Any integer of 64 bits, as clients write them; without one, randomness that nobody can repeat.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    let Some(value) = fields.take_value("seed") else { return Ok(Uuid::new_v4().as_u64_pair().0) };
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    number.ok_or_else(|| ApiError::invalid("seed", format!("must be an integer of 64 bits, got {value}")))
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<TokenId, f32>, ApiError> {
    let given: BTreeMap<String, f32> = fields.take("logit_bias")?.unwrap_or_default();
    let bias = |(id, bias): (String, f32)| match id.parse() {
        Ok(id) => Ok((TokenId(id), bias)),
        Err(_) => Err(ApiError::invalid("logit_bias", format!("keys must be token ids, got {id:?}"))),
    };
    given.into_iter().map(bias).collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    Ok(match fields.take("stop")? {
        None => vec![],
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    })
}

/// An array with nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
