//! What chat and plain completions have in common: how tokens are picked, how many, where to stop, how to answer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use swarm_types::{SamplingParams, TokenId};
use uuid::Uuid;

use super::{
    Api,
    error::ApiError,
    fields::{Fields, whole},
    short::short,
};
use crate::record;

/// As OpenAI's API has it.
const MAX_N: u32 = 128;
/// Of one request.
const MAX_STOP_TOKENS: usize = 1024;
/// Fields that change nothing in what this gateway answers.
const IGNORED: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
];

/// One string or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What a stream says of usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamUsage {
    Nothing,
    /// In a last event.
    AtTheEnd,
    /// There, and in every event what it is so far.
    Always,
}

/// Most tokens of an answer, as they were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MaxTokens {
    /// As many as there is room for.
    Room,
    Tokens(u32),
}

/// The common parameters of one request, checked.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Params {
    /// Its seed is the first choice's.
    pub(super) sampling: SamplingParams,
    pub(super) stop: Vec<String>,
    /// Tokens that end an answer besides the model's own.
    pub(super) stop_tokens: Vec<TokenId>,
    pub(super) ignore_eos: bool,
    /// The names of tokens that steer are text as well.
    pub(super) shows_control: bool,
    /// Choices for each prompt, at least one.
    pub(super) n: u32,
    pub(super) stream: bool,
    pub(super) usage: StreamUsage,
    /// Nothing was said of it: none.
    pub(super) limit: Option<MaxTokens>,
}

impl Params {
    /// Takes the common fields. The model must be one that is served.
    pub(super) fn take(fields: &mut Fields, api: &Api) -> Result<Self, ApiError> {
        take_model(fields, api)?;
        let n = fields.take_count("n")?.unwrap_or(1);
        if !(1..=MAX_N).contains(&n) {
            return Err(ApiError::invalid("n", format!("must be 1 to {MAX_N}, got {n}")));
        }
        let params = Self {
            sampling: sampling(fields)?,
            stop: stop(fields)?,
            stop_tokens: stop_tokens(fields)?,
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            shows_control: !fields.take("skip_special_tokens")?.unwrap_or(true),
            n,
            stream: fields.take("stream")?.unwrap_or(false),
            usage: stream_usage(fields)?,
            limit: limit(fields)?,
        };
        refuse_unserved(fields, n)?;
        IGNORED.iter().for_each(|name| fields.ignore(name));
        Ok(params)
    }

    /// The sampling parameters of the choice with this index: each has randomness of its own.
    pub(super) fn sampling_of(&self, index: usize) -> SamplingParams {
        SamplingParams { seed: self.sampling.seed.wrapping_add(index as u64), ..self.sampling.clone() }
    }
}

/// The name that was asked for, if one was. It must be one of a model that is served.
pub(super) fn take_model(fields: &mut Fields, api: &Api) -> Result<Option<String>, ApiError> {
    let asked = fields.take::<String>("model")?;
    match &asked {
        Some(name) if !api.serves(name) => Err(ApiError::model_not_found(name, api.completer.model().id())),
        _ => Ok(asked),
    }
}

/// What other servers have, would change the answer, and is not to be had here.
fn refuse_unserved(fields: &mut Fields, n: u32) -> Result<(), ApiError> {
    fields.refuse_unless("best_of", |value| value.as_f64() == Some(n.into()))?;
    for typical in ["typical_p", "typical"] {
        fields.refuse_unless(typical, |value| value.as_f64() == Some(1.0))?;
    }
    fields.refuse_unless("mirostat", |value| value.as_f64() == Some(0.0))
}

/// Without `stream` it says nothing.
fn stream_usage(fields: &mut Fields) -> Result<StreamUsage, ApiError> {
    let mut options =
        Fields::inside(fields.take::<Map<String, Value>>("stream_options")?.unwrap_or_default());
    let mut wanted = |name: &str| {
        let flag =
            options.take::<bool>(name).map_err(|error| error.about(name, &format!("stream_options.{name}")));
        flag.map(Option::unwrap_or_default)
    };
    // The second is not OpenAI's.
    let usage = match (wanted("include_usage")?, wanted("continuous_usage_stats")?) {
        (true, true) => StreamUsage::Always,
        (true, false) => StreamUsage::AtTheEnd,
        (false, _) => StreamUsage::Nothing,
    };
    options.finish().0.into_iter().for_each(|name| fields.leave(format!("stream_options.{name}")));
    Ok(usage)
}

/// By any of the names that servers have for it; -1 is no limit.
fn limit(fields: &mut Fields) -> Result<Option<MaxTokens>, ApiError> {
    let names = ["max_completion_tokens", "max_tokens", "n_predict", "num_predict"];
    fields.take_either(&names, |fields, name| match fields.take_whole(name)? {
        None => Ok(None),
        Some(-1) => Ok(Some(MaxTokens::Room)),
        Some(tokens @ 0..) => Ok(Some(MaxTokens::Tokens(u32::try_from(tokens).unwrap_or(u32::MAX)))),
        Some(tokens) => {
            Err(ApiError::invalid(name, format!("must be at least 0, or -1 for no limit, got {tokens}")))
        }
    })
}

pub(super) fn sampling(fields: &mut Fields) -> Result<SamplingParams, ApiError> {
    let default = SamplingParams::default();
    let repetition = ["repetition_penalty", "repeat_penalty"];
    let repetition = fields.take_either(&repetition, |fields, name| fields.take(name))?;
    let mut params = SamplingParams {
        logit_bias: logit_bias(fields)?,
        repetition_penalty: repetition.unwrap_or(default.repetition_penalty),
        frequency_penalty: fields.take("frequency_penalty")?.unwrap_or(default.frequency_penalty),
        presence_penalty: fields.take("presence_penalty")?.unwrap_or(default.presence_penalty),
        temperature: fields.take("temperature")?.unwrap_or(default.temperature),
        top_k: top_k(fields)?.unwrap_or(default.top_k),
        top_p: fields.take("top_p")?.unwrap_or(default.top_p),
        min_p: fields.take("min_p")?.unwrap_or(default.min_p),
        seed: seed(fields)?,
        top_logprobs: None,
        min_tokens: fields.take_count("min_tokens")?.unwrap_or(default.min_tokens),
        // Known when it is known what ends the answer.
        end_tokens: vec![],
    };
    // The smallest set there is: the likeliest token.
    if params.top_p == 0.0 {
        (params.top_p, params.top_k) = (1.0, 1);
    }
    params.validated().map_err(|error| ApiError::invalid_as_said(error.field(), error))
}

/// 0 and, as other servers have it, -1 are off.
fn top_k(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    match fields.take_whole("top_k")? {
        None => Ok(None),
        Some(-1) => Ok(Some(0)),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                Err(ApiError::invalid("top_k", format!("must be 0 or more, or -1 for all, got {number}")))
            }
        },
    }
}

fn stop_tokens(fields: &mut Fields) -> Result<Vec<TokenId>, ApiError> {
    let ids: Vec<u32> = fields.take("stop_token_ids")?.unwrap_or_default();
    if ids.len() > MAX_STOP_TOKENS {
        let message = format!("at most {MAX_STOP_TOKENS} tokens, got {}", ids.len());
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    Ok(ids.into_iter().map(TokenId).collect())
}

/// Any integer of 64 bits, as clients write them; without one, randomness that nobody can repeat.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    let Some(value) = fields.take_value("seed").map(whole) else { return Ok(Uuid::new_v4().as_u64_pair().0) };
    record::seeded();
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    number.ok_or_else(|| {
        ApiError::invalid("seed", format!("must be an integer of 64 bits, got {}", short(&value)))
    })
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<TokenId, f32>, ApiError> {
    let given: BTreeMap<String, f32> = fields.take("logit_bias")?.unwrap_or_default();
    let bias = |(id, bias): (String, f32)| match id.parse() {
        Ok(id) => Ok((TokenId(id), bias)),
        Err(_) => {
            Err(ApiError::invalid("logit_bias", format!("keys must be token ids, got {:?}", short(id))))
        }
    };
    given.into_iter().map(bias).collect()
}

pub(super) fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let Some(value) = fields.take_value("stop") else { return Ok(vec![]) };
    let mut stops = match OneOrMany::deserialize(value) {
        Ok(OneOrMany::One(stop)) => vec![stop],
        Ok(OneOrMany::Many(stops)) => stops,
        Err(_) => return Err(ApiError::invalid("stop", "must be a text or a list of texts")),
    };
    // An empty one is none, as for other servers.
    stops.retain(|stop| !stop.is_empty());
    Ok(stops)
}

/// An array with nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
