//! Rotary position embedding (Su et al., "RoFormer", 2021).

use crate::{
    EngineError,
    arch::RopeStyle,
    hyper::HyperParameters,
    kernels::{
        buffer::Buffer,
        isa::Isa,
        math::double,
        rotation::{Pairs, rotate},
        rows::PIECE_ROWS,
        threads::Threads,
    },
    source::TensorSource,
};

/// Angles a position, for each rotated pair of a head.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f64>,
    style: RopeStyle,
}

/// Cosines and sines of some rows' positions.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// `[rows][pairs]`.
    cosines: Buffer<f32>,
    sines: Buffer<f32>,
}

impl Rope {
    /// With Llama 3's factors when the file has them.
    pub(crate) fn load(source: &mut TensorSource, hyper: &HyperParameters) -> Result<Self, EngineError> {
        let pairs = hyper.rope_dimensions / 2;
        let factors = source.opt_vector("rope_freqs.weight", pairs)?.unwrap_or_else(|| vec![1.0; pairs]);
        if factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)) {
            return Err(source.failed("tensor rope_freqs.weight has factors that are not positive"));
        }
        let base = f64::from(hyper.rope_base);
        let frequency = |(pair, factor): (usize, &f32)| {
            let exponent = -2.0 * pair as f64 / hyper.rope_dimensions as f64;
            double::power(base, exponent) / (f64::from(*factor) * f64::from(hyper.rope_factor))
        };
        let frequencies: Vec<f64> = factors.iter().enumerate().map(frequency).collect();
        let longest = f64::from(hyper.context);
        if !frequencies.iter().all(|frequency| frequency * longest <= double::LARGEST_ANGLE) {
            return Err(source.failed("rope.freq_base or its factors turn positions too fast"));
        }
        Ok(Self::new(frequencies, hyper.arch.rope))
    }

    /// `frequencies` are the angles a position of each pair.
    pub(crate) fn new(frequencies: Vec<f64>, style: RopeStyle) -> Self {
        Self { frequencies, style }
    }

    /// The rotation of rows at these positions.
    pub(crate) fn at(&self, positions: &[u32]) -> Rotation {
        let count = positions.len() * self.frequencies.len();
        let (mut cosines, mut sines) = (Buffer::stale(count), Buffer::stale(count));
        let angles = positions.iter().flat_map(|position| {
            self.frequencies.iter().map(move |frequency| f64::from(*position) * frequency)
        });
        for ((cosine, sine), angle) in cosines.iter_mut().zip(sines.iter_mut()).zip(angles) {
            let exact = double::sin_cos(angle);
            (*sine, *cosine) = (exact.0 as f32, exact.1 as f32);
        }
        Rotation { cosines, sines }
    }

    /// Rotates `[rows][heads][head]` in place.
    pub(crate) fn rotate(
        &self,
        rows: &mut [f32],
        head: usize,
        rotation: &Rotation,
        isa: Isa,
        threads: &Threads,
    ) {
        let pairs = self.frequencies.len();
        let style = match self.style {
            RopeStyle::Adjacent => Pairs::Adjacent,
            RopeStyle::Halves => Pairs::Halves,
        };
        let row_length = rows.len() / (rotation.cosines.len() / pairs);
        threads.for_chunks(rows, PIECE_ROWS * row_length, |number, rows| {
            let from = number * PIECE_ROWS * pairs;
            let (cosines, sines) = (&rotation.cosines[from..], &rotation.sines[from..]);
            let angles = cosines.chunks_exact(pairs).zip(sines.chunks_exact(pairs));
            for (row, (cosines, sines)) in rows.chunks_exact_mut(row_length).zip(angles) {
                rotate(row, head, cosines, sines, style, isa);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use gguf::tiny::TinyModel;

    use super::*;

    const HEAD: usize = 16;

    fn rope(tiny: &TinyModel) -> Rope {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.gguf");
        tiny.write(&path).expect("written");
        let mut source = TensorSource::open(&path).expect("valid");
        let hyper = HyperParameters::read(source.header()).expect("valid");
        assert_eq!(hyper.rope_dimensions, HEAD);
        Rope::load(&mut source, &hyper).expect("loaded")
    }

    /// The definition in f64: pair i turns by position · base^(-2i / head) / factor(i).
    fn expected(row: &[f32], position: u32, factor: impl Fn(usize) -> f64, style: RopeStyle) -> Vec<f64> {
        let mut out: Vec<f64> = row.iter().copied().map(f64::from).collect();
        for pair in 0..HEAD / 2 {
            let frequency = 10_000f64.powf(-2.0 * pair as f64 / HEAD as f64) / factor(pair);
            let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
            let (a, b) = match style {
                RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + HEAD / 2),
            };
            let (x, y) = (out[a], out[b]);
            (out[a], out[b]) = (x * cosine - y * sine, x * sine + y * cosine);
        }
        out
    }

    #[test]
    fn rotations_are_those_of_the_definition_with_and_without_llama_3s_factors() {
        let positions = [0, 1, 17, 499];
        // One head a row.
        let rows: Vec<f32> =
            (0..positions.len() * HEAD).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        for (architecture, rope_factors) in [("llama", true), ("llama", false), ("qwen3", false)] {
            let rope = rope(&TinyModel { architecture, rope_factors, ..TinyModel::default() });
            let mut rotated = rows.clone();
            let one = Threads::new(1).expect("no thread is started");
            rope.rotate(&mut rotated, HEAD, &rope.at(&positions), Isa::best(), &one);
            // As the tiny model writes them.
            let factor = |pair: usize| if rope_factors { 1.0 + pair as f64 } else { 1.0 };
            for (row, position) in positions.into_iter().enumerate() {
                let place = row * HEAD..(row + 1) * HEAD;
                let expected = expected(&rows[place.clone()], position, factor, rope.style);
                for (got, expected) in rotated[place].iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-6, "{architecture} at {position}");
                }
            }
        }
    }
}
