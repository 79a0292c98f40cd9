//! A model's numbers, checked before anything is allocated by them.

use gguf::{GgufError, Header};

use crate::arch::{self, Architecture, Norm};

/// A model's architecture and its numbers.
#[derive(Clone, Debug)]
pub(crate) struct HyperParameters {
    pub arch: &'static Architecture,
    pub layers: u32,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Numbers in one head's query, key and value.
    pub head: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    /// Longest session that gives right results, in positions.
    pub context: u32,
    pub norm_epsilon: f32,
    /// How many numbers of each head are rotated.
    pub rope_dimensions: usize,
    pub rope_base: f32,
    /// Positions are divided by this (linear scaling).
    pub rope_factor: f32,
    /// The head is the embedding.
    pub tied: bool,
}

/// Sizes beyond those of any model; they keep all products of sizes far from overflow. A longer context is cut to it.
const MAX_SIZE: u32 = 1 << 20;

impl HyperParameters {
    /// Reads them from a header.
    pub(crate) fn read(header: &Header) -> Result<Self, GgufError> {
        let arch = architecture(header)?;
        let key = |name: &str| format!("{}.{name}", arch.name);
        let size = |name: &str| positive(&key(name), header.u32(&key(name))?);
        let opt_size = |name: &str, otherwise: usize| match header.opt_u32(&key(name))? {
            Some(number) => positive(&key(name), number),
            None => Ok(otherwise),
        };
        let hidden = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let kv_heads = opt_size("attention.head_count_kv", heads)?;
        if heads % kv_heads != 0 {
            return Err(unsupported(format!("{heads} heads with {kv_heads} key and value heads")));
        }
        let head = opt_size("attention.key_length", hidden / heads)?;
        let rope_dimensions = opt_size("rope.dimension_count", head)?;
        if head == 0 || opt_size("attention.value_length", head)? != head {
            return Err(unsupported("keys and values of different lengths".into()));
        }
        if rope_dimensions > head || rope_dimensions % 2 != 0 {
            return Err(unsupported(format!("{rope_dimensions} rope dimensions in heads of {head}")));
        }
        if header.opt_u32(&key("expert_count"))?.unwrap_or(0) > 0 {
            return Err(unsupported("a mixture of experts".into()));
        }
        let embedding = header.tensors.get("token_embd.weight");
        let embedding = embedding.ok_or_else(|| GgufError::Missing("tensor token_embd.weight".into()))?;
        let vocabulary = embedding.shape.get(1).copied().unwrap_or(0);
        let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
        let context =
            positive(&key("context_length"), header.u32(&key("context_length"))?.min(MAX_SIZE))? as u32;
        Ok(Self {
            arch,
            layers: size("block_count")? as u32,
            hidden,
            heads,
            kv_heads,
            head,
            feed_forward: size("feed_forward_length")?,
            vocabulary: positive("the vocabulary of token_embd.weight", vocabulary)?,
            // Within its window, attention through a sliding window is plain attention.
            context: header
                .opt_u32(&key("attention.sliding_window"))?
                .filter(|w| *w > 0)
                .map_or(context, |w| w.min(context)),
            norm_epsilon: header.f32(&key(epsilon_key(arch.norm)))?,
            rope_dimensions,
            rope_base: header.opt_f32(&key("rope.freq_base"))?.filter(|b| *b > 0.0).unwrap_or(10_000.0),
            rope_factor: rope_factor(header, arch.name)?,
            tied: !header.tensors.contains_key("output.weight"),
        })
    }

    /// Numbers in one position's keys, and in its values.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head
    }
}

fn architecture(header: &Header) -> Result<&'static Architecture, GgufError> {
    let name = header.architecture()?;
    let unknown = || unsupported(format!("architecture {name} (supported: {})", arch::names()));
    arch::find(name).ok_or_else(unknown)
}

/// What the number is called that is added so that nothing is divided by 0.
fn epsilon_key(norm: Norm) -> &'static str {
    match norm {
        Norm::RootMeanSquare => "attention.layer_norm_rms_epsilon",
    }
}

fn unsupported(what: String) -> GgufError {
    GgufError::Damaged(format!("{what} is not supported"))
}

fn positive(key: &str, number: u32) -> Result<usize, GgufError> {
    if (1..=MAX_SIZE).contains(&number) {
        Ok(number as usize)
    } else {
        Err(GgufError::Damaged(format!("{key} is {number}, must be 1 to {MAX_SIZE}")))
    }
}

/// As llama.cpp reads it: scaling is linear unless another kind is named, and a factor of 0 is none.
fn rope_factor(header: &Header, arch: &str) -> Result<f32, GgufError> {
    let kind = header.opt_str(&format!("{arch}.rope.scaling.type"))?.unwrap_or("linear");
    let factor = match header.opt_f32(&format!("{arch}.rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        None => header.opt_f32(&format!("{arch}.rope.scale_linear"))?,
    };
    match (kind, factor.unwrap_or(0.0)) {
        ("none", _) | ("linear", 0.0) => Ok(1.0),
        ("linear", factor) if factor > 0.0 => Ok(factor),
        (kind, factor) => Err(unsupported(format!("rope scaling {kind} with factor {factor}"))),
    }
}

#[cfg(test)]
mod tests {
    use gguf::{Array, Value, write::Writer};

    use super::*;

    /// What is read of a small model's header with these entries changed or added.
    fn read(changes: &[(&str, Value)]) -> Result<HyperParameters, GgufError> {
        let number = |key: &str, number| (format!("llama.{key}"), Value::U32(number));
        let mut entries = std::collections::BTreeMap::from([
            ("general.architecture".to_owned(), Value::String("llama".into())),
            ("llama.attention.layer_norm_rms_epsilon".to_owned(), Value::F32(1e-5)),
            number("block_count", 2),
            number("context_length", 128),
            number("embedding_length", 64),
            number("feed_forward_length", 96),
            number("attention.head_count", 4),
        ]);
        entries.extend(changes.iter().map(|(key, value)| (format!("llama.{key}"), value.clone())));
        let mut file = Writer::default();
        entries.into_iter().for_each(|(key, value)| file.metadata(key, value));
        file.tensor_f32("token_embd.weight", &[64, 2], &[0.0; 128]);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("model.gguf");
        file.write(&path).expect("written");
        HyperParameters::read(&Header::read_without_arrays(&path).expect("valid"))
    }

    #[test]
    fn rope_scaling_is_linear_by_the_factor_unless_it_says_none() {
        let text = |kind: &str| ("rope.scaling.type", Value::String(kind.into()));
        let factor = |factor| ("rope.scaling.factor", Value::F32(factor));
        let old = ("rope.scale_linear", Value::F32(2.0));
        let cases = [
            (vec![], Some(1.0)),
            (vec![factor(4.0)], Some(4.0)),
            (vec![old.clone()], Some(2.0)),
            (vec![old, factor(4.0)], Some(4.0)),
            (vec![text("none"), factor(4.0)], Some(1.0)),
            (vec![text("linear")], Some(1.0)),
            (vec![text("linear"), factor(0.0)], Some(1.0)),
            (vec![text("linear"), factor(4.0)], Some(4.0)),
            (vec![text("linear"), factor(-1.0)], None),
            (vec![text("yarn"), factor(4.0)], None),
        ];
        for (changes, expected) in cases {
            assert_eq!(read(&changes).ok().map(|hyper| hyper.rope_factor), expected, "{changes:?}");
        }
    }

    #[test]
    fn a_context_longer_than_any_session_is_cut_and_not_refused() {
        let context = |length| read(&[("context_length", Value::U32(length))]).map(|hyper| hyper.context);
        assert_eq!(context(128).expect("valid"), 128);
        assert_eq!(context(10_485_760).expect("valid"), MAX_SIZE);
        assert!(context(0).is_err());
    }

    #[test]
    fn a_list_where_a_number_belongs_is_not_a_number_that_is_missing() {
        let heads = Value::Array(Array::Unsigned(vec![4, 2]));
        let error = read(&[("attention.head_count_kv", heads)]).expect_err("refused").to_string();
        assert!(error.contains("head_count_kv must be a whole number"), "{error}");
    }
}
