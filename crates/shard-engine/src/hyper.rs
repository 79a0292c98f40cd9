//! A model's numbers, checked before anything is allocated by them.

mod checks;
mod experts;
mod scaling;

use gguf::{GgufError, Header};

use self::checks::{MAX_SIZE, positive, unsupported};
pub(crate) use self::{
    experts::ExpertSizes,
    scaling::{FACTORS, Long, RopeScaling, Yarn},
};
use crate::arch::{self, Architecture, Multipliers, Norm, ScoreScale, Turn, Window};

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
    /// Numbers between gate and output of networks that are no experts; 0 when there are none.
    pub feed_forward: usize,
    pub experts: Option<ExpertSizes>,
    pub vocabulary: usize,
    /// Longest session that gives right results, in positions.
    pub context: u32,
    /// Positions that rows of layers with a window look at.
    pub window: Option<usize>,
    pub norm_epsilon: f32,
    /// How many numbers of each head are rotated.
    pub rope_dimensions: usize,
    pub rope_base: f32,
    /// Of layers that turn by angles of their own.
    pub rope_base_local: f32,
    pub rope_scaling: RopeScaling,
    /// What the product of a query and a key is multiplied by.
    pub score_scale: f32,
    /// What scores, and logits, are bent to stay within.
    pub score_cap: Option<f32>,
    pub logit_cap: Option<f32>,
    /// What embedded tokens, what each half of a layer adds, and logits are multiplied by.
    pub embedding_scale: f32,
    pub residual_scale: f32,
    pub logit_scale: f32,
    /// The head is the embedding.
    pub tied: bool,
}

/// Numbers of heads.
struct Heads {
    heads: usize,
    kv_heads: usize,
    head: usize,
    rope_dimensions: usize,
}

impl HyperParameters {
    /// Reads them from a header.
    pub(crate) fn read(header: &Header) -> Result<Self, GgufError> {
        let arch = architecture(header)?;
        let key = |name: &str| format!("{}.{name}", arch.name);
        let size = |name: &str| positive(&key(name), header.u32(&key(name))?);
        let hidden = size("embedding_length")?;
        let Heads { heads, kv_heads, head, rope_dimensions } = Heads::read(header, arch, hidden)?;
        let wide = header.opt_u32(&key("feed_forward_length"))?.filter(|wide| *wide > 0);
        let wide = wide.map(|wide| positive(&key("feed_forward_length"), wide)).transpose()?;
        let experts = ExpertSizes::read(header, arch, wide)?;
        let embedding = header.tensors.get("token_embd.weight");
        let embedding = embedding.ok_or_else(|| GgufError::NoTensor("token_embd.weight".into()))?;
        let vocabulary = embedding.shape.get(1).copied().unwrap_or(0);
        let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
        let context =
            positive(&key("context_length"), header.u32(&key("context_length"))?.min(MAX_SIZE))? as u32;
        let layers = size("block_count")? as u32;
        let (window, context) = window(header, arch, layers, context)?;
        let cap = |name: &str| positive_number(header, &key(name)).map(|cap| cap.filter(|_| arch.softcaps));
        let [embedding_scale, residual_scale, logit_scale] = multipliers(header, arch, hidden)?;
        let base = |name: &str, otherwise| {
            Ok::<_, GgufError>(header.opt_f32(&key(name))?.filter(|b| *b > 0.0).unwrap_or(otherwise))
        };
        Ok(Self {
            arch,
            layers,
            hidden,
            heads,
            kv_heads,
            head,
            feed_forward: match (wide, experts) {
                (_, Some(_)) => 0,
                (Some(wide), None) => wide,
                (None, None) => size("feed_forward_length")?,
            },
            experts,
            vocabulary: positive("the vocabulary of token_embd.weight", vocabulary)?,
            context,
            window,
            norm_epsilon: header.f32(&key(epsilon_key(arch.norm)))?,
            rope_dimensions,
            rope_base: base("rope.freq_base", 10_000.0)?,
            rope_base_local: base("rope.freq_base_swa", 10_000.0)?,
            rope_scaling: RopeScaling::read(header, arch, context)?,
            score_scale: score_scale(header, arch, [layers as usize, hidden, heads, head])?,
            score_cap: cap("attn_logit_softcapping")?,
            logit_cap: cap("final_logit_softcapping")?,
            embedding_scale,
            residual_scale,
            logit_scale,
            tied: !header.tensors.contains_key("output.weight"),
        })
    }

    /// Numbers in one position's keys, and in its values.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head
    }

    /// Some layers turn by angles of their own.
    pub(crate) fn turns_locally(&self) -> bool {
        (0..self.layers).any(|layer| (self.arch.turn)(layer) == Turn::Local)
    }
}

impl Heads {
    fn read(header: &Header, arch: &Architecture, hidden: usize) -> Result<Self, GgufError> {
        let key = |name: &str| format!("{}.{name}", arch.name);
        let opt_size = |name: &str, otherwise: usize| match header.opt_u32(&key(name))? {
            Some(number) => positive(&key(name), number),
            None => Ok(otherwise),
        };
        let heads = positive(&key("attention.head_count"), header.u32(&key("attention.head_count"))?)?;
        let kv_heads = opt_size("attention.head_count_kv", heads)?;
        if heads % kv_heads != 0 {
            return Err(unsupported(format!("{heads} heads with {kv_heads} key and value heads")));
        }
        let head = opt_size("attention.key_length", hidden / heads)?;
        let rope_dimensions = opt_size("rope.dimension_count", head)?;
        if head == 0 || opt_size("attention.value_length", head)? != head {
            return Err(unsupported("keys and values of different lengths"));
        }
        if rope_dimensions > head || rope_dimensions % 2 != 0 {
            return Err(unsupported(format!("{rope_dimensions} rope dimensions in heads of {head}")));
        }
        Ok(Self { heads, kv_heads, head, rope_dimensions })
    }
}

fn architecture(header: &Header) -> Result<&'static Architecture, GgufError> {
    let name = header.architecture()?;
    let unknown = || GgufError::Architecture { name: name.into(), supported: arch::names() };
    arch::find(name).ok_or_else(unknown)
}

/// What the number is called that is added so that nothing is divided by 0.
fn epsilon_key(norm: Norm) -> &'static str {
    match norm {
        Norm::RootMeanSquare => "attention.layer_norm_rms_epsilon",
        Norm::Layer => "attention.layer_norm_epsilon",
    }
}

/// A number above 0, if the key is there with one.
fn positive_number(header: &Header, key: &str) -> Result<Option<f32>, GgufError> {
    Ok(header.opt_f32(key)?.filter(|number| *number > 0.0))
}

/// The window of layers that have one, and the longest session. Where the architecture has no window and the file
/// names one, sessions stay within it: attention through a sliding window is plain attention there.
fn window(
    header: &Header,
    arch: &Architecture,
    layers: u32,
    context: u32,
) -> Result<(Option<usize>, u32), GgufError> {
    let key = format!("{}.attention.sliding_window", arch.name);
    let written = header.opt_u32(&key)?.filter(|window| *window > 0);
    let some_layer = |of: Window| (0..layers).any(|layer| (arch.window)(layer) == of);
    match written.map(|window| window as usize) {
        None if some_layer(Window::Sliding) => Err(GgufError::Missing(key)),
        window if some_layer(Window::Sliding) || some_layer(Window::SlidingIfWritten) => {
            Ok((window, context))
        }
        window => Ok((None, window.map_or(context, |window| context.min(window as u32)))),
    }
}

/// `[layers, hidden, heads, head]` are the model's.
fn score_scale(
    header: &Header,
    arch: &Architecture,
    [layers, hidden, heads, head]: [usize; 4],
) -> Result<f32, GgufError> {
    let plain = 1.0 / (head as f32).sqrt();
    Ok(match arch.score_scale {
        ScoreScale::RootOfShare(of) if of as usize == layers => 1.0 / ((hidden / heads).max(1) as f32).sqrt(),
        ScoreScale::RootOfHead | ScoreScale::RootOfShare(_) => plain,
        ScoreScale::Written => {
            positive_number(header, &format!("{}.attention.scale", arch.name))?.unwrap_or(plain)
        }
    })
}

/// Of embedded tokens, of what halves of layers add, and of logits.
fn multipliers(header: &Header, arch: &Architecture, hidden: usize) -> Result<[f32; 3], GgufError> {
    let written = |name: &str| {
        Ok::<_, GgufError>(positive_number(header, &format!("{}.{name}", arch.name))?.unwrap_or(1.0))
    };
    Ok(match arch.multipliers {
        Multipliers::None => [1.0; 3],
        Multipliers::RootOfHidden => [(hidden as f32).sqrt(), 1.0, 1.0],
        Multipliers::Written => {
            [written("embedding_scale")?, written("residual_scale")?, 1.0 / written("logit_scale")?]
        }
        Multipliers::Logits => [1.0, 1.0, written("logit_scale")?],
    })
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
            (vec![text("dynamic"), factor(4.0)], None),
        ];
        for (changes, expected) in cases {
            let expected = expected.map(RopeScaling::Linear);
            assert_eq!(read(&changes).ok().map(|hyper| hyper.rope_scaling), expected, "{changes:?}");
        }
    }

    #[test]
    fn yarn_is_read_with_the_numbers_that_it_has_by_itself() {
        let changes = |more: &[(&'static str, Value)]| {
            let scaling = [
                ("rope.scaling.type", Value::String("yarn".into())),
                ("rope.scaling.factor", Value::F32(4.0)),
            ];
            read(&[&scaling, more].concat()).expect("valid").rope_scaling
        };
        let plain = Yarn { factor: 4.0, original: 128, fast: 32.0, slow: 1.0, magnitude: 1.0, rounds: true };
        assert_eq!(changes(&[]), RopeScaling::Yarn(plain));
        let original = ("rope.scaling.original_context_length", Value::U32(32));
        let fast = ("rope.scaling.yarn_beta_fast", Value::F32(16.0));
        assert_eq!(changes(&[original, fast]), RopeScaling::Yarn(Yarn { original: 32, fast: 16.0, ..plain }));
    }

    #[test]
    fn what_is_not_supported_is_called_so_and_not_damaged() {
        let scaling = ("rope.scaling.type", Value::String("dynamic".into()));
        let refused = |change| read(&[change]).expect_err("refused").to_string();
        assert_eq!(refused((scaling.0, scaling.1)), "rope scaling dynamic with factor 0 is not supported");
        let experts = read(&[("expert_count", Value::U32(4)), ("expert_used_count", Value::U32(5))]);
        assert!(experts.expect_err("refused").to_string().contains("5 of 4 experts"));
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
