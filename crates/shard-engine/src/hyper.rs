//! A model's numbers, checked before anything is allocated by them.

mod checks;
mod experts;
mod scaling;

use gguf::{GgufError, Header};

use self::checks::{positive, unsupported};
pub(crate) use self::{
    experts::ExpertSizes,
    scaling::{FACTORS, Long, RopeScaling, Yarn},
};
use crate::arch::{self, Architecture, Multipliers, Norm, QueryNorm, ScoreScale, Turn, Window};

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
        let wide = header.opt_u32_of_layers(&key("feed_forward_length"))?.filter(|wide| *wide > 0);
        let wide = wide.map(|wide| positive(&key("feed_forward_length"), wide)).transpose()?;
        let experts = ExpertSizes::read(header, arch, wide)?;
        let embedding = header.tensors.get("token_embd.weight");
        let embedding = embedding.ok_or_else(|| GgufError::NoTensor("token_embd.weight".into()))?;
        let vocabulary = embedding.shape.get(1).copied().unwrap_or(1);
        let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
        let context = header.session_length()?;
        let layers = size("block_count")? as u32;
        let window = window(header, arch, layers)?;
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

    /// Positions that rows of this layer look at, the last of them their own; `None` for all.
    pub(crate) fn window_of(&self, layer: u32) -> Option<usize> {
        match (self.arch.window)(layer) {
            Window::Whole => None,
            Window::Sliding | Window::SlidingIfWritten => self.window,
        }
    }

    /// The shapes of a norm of queries, and of one of keys: numbers that it is over, and how many of these have weights
    /// of their own, where they have.
    pub(crate) fn query_norms(&self) -> [Vec<usize>; 2] {
        match self.arch.query_norm {
            QueryNorm::Head => [vec![self.head], vec![self.head]],
            QueryNorm::OwnHead => [vec![self.head, self.heads], vec![self.head, self.kv_heads]],
            QueryNorm::Row => [vec![self.heads * self.head], vec![self.kv_width()]],
        }
    }

    /// Some layers turn by angles of their own.
    pub(crate) fn turns_locally(&self) -> bool {
        (0..self.layers).any(|layer| (self.arch.turn)(layer) == Turn::Local)
    }
}

impl Heads {
    fn read(header: &Header, arch: &Architecture, hidden: usize) -> Result<Self, GgufError> {
        let key = |name: &str| format!("{}.{name}", arch.name);
        let opt_size = |name: &str, otherwise: usize| match header.opt_u32_of_layers(&key(name))? {
            Some(number) => positive(&key(name), number),
            None => Ok(otherwise),
        };
        let heads_key = key("attention.head_count");
        let heads = header.opt_u32_of_layers(&heads_key)?;
        let heads = heads.ok_or_else(|| GgufError::Missing(heads_key.clone()))?;
        let heads = positive(&heads_key, heads)?;
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

/// Whether it is one that is supported: of another nothing else can be told.
pub(crate) fn check_architecture(header: &Header) -> Result<(), GgufError> {
    architecture(header).map(|_| ())
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

/// The window of layers that have one. Where the architecture has no window and the file names one, sessions stay
/// within it ([`Header::session_length`]): attention through a sliding window is plain attention there.
fn window(header: &Header, arch: &Architecture, layers: u32) -> Result<Option<usize>, GgufError> {
    if !header.has_windows()? {
        return Ok(None);
    }
    let key = format!("{}.attention.sliding_window", arch.name);
    let written = header.opt_u32(&key)?.filter(|window| *window > 0);
    let slides = |layer| (arch.window)(layer) == Window::Sliding;
    match written.map(|window| window as usize) {
        None if (0..layers).any(slides) => Err(GgufError::Missing(key)),
        window => Ok(window),
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
        let alone = read(&[("rope.scaling.type", Value::String("yarn".into()))]).expect("valid").rope_scaling;
        assert_eq!(alone, RopeScaling::Yarn(Yarn { factor: 1.0, ..plain }), "angles stay as they are");
    }

    #[test]
    fn what_is_not_supported_is_called_so_and_not_damaged() {
        let scaling = ("rope.scaling.type", Value::String("dynamic".into()));
        let refused = |change| read(&[change]).expect_err("refused").to_string();
        let said = refused((scaling.0, scaling.1));
        assert!(said.starts_with("rope scaling dynamic with factor 0 (supported: none, linear,"), "{said}");
        let experts = read(&[("expert_count", Value::U32(4)), ("expert_used_count", Value::U32(5))]);
        assert!(experts.expect_err("refused").to_string().contains("5 of 4 experts"));
    }

    #[test]
    fn a_context_longer_than_any_session_is_cut_and_not_refused() {
        let context = |length| read(&[("context_length", Value::U32(length))]).map(|hyper| hyper.context);
        assert_eq!(context(128).expect("valid"), 128);
        assert_eq!(context(10_485_760).expect("valid"), gguf::MAX_CONTEXT);
        assert!(context(0).is_err());
    }

    #[test]
    fn a_number_for_each_layer_is_one_where_all_are_the_same() {
        let heads = |list: &[u64]| ("attention.head_count_kv", Value::Array(Array::Unsigned(list.into())));
        assert_eq!(read(&[heads(&[2, 2])]).expect("valid").kv_heads, 2);
        let error = read(&[heads(&[4, 2])]).expect_err("refused").to_string();
        let expected =
            "llama.attention.head_count_kv with other numbers for other layers (4, 2) is not supported";
        assert_eq!(error, expected);
        assert!(read(&[heads(&[])]).is_err(), "no number at all");
    }

    #[test]
    fn the_header_tells_windows_of_the_same_architectures() {
        for arch in arch::ALL {
            let mut file = Writer::default();
            file.metadata("general.architecture", Value::String(arch.name.into()));
            let dir = tempfile::tempdir().expect("a temporary folder");
            let path = dir.path().join("model.gguf");
            file.write(&path).expect("written");
            let header = Header::read_without_arrays(&path).expect("valid");
            let some = (0..16).any(|layer| (arch.window)(layer) != Window::Whole);
            assert_eq!(header.has_windows().expect("an architecture"), some, "{}", arch.name);
        }
    }
}
