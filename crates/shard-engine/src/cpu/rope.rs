//! Rotary position embedding (Su et al., "RoFormer", 2021).

use gguf::GgufError;

use super::angles::Angles;
use crate::{
    EngineError,
    arch::{RopeStyle, Turn},
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

/// The angles of a model's layers.
#[derive(Debug)]
pub(crate) struct Ropes {
    global: Rope,
    /// Of layers that turn by angles of their own.
    local: Option<Rope>,
}

/// Some rows' rotations in all layers.
#[derive(Debug)]
pub(crate) struct Rotations {
    global: Rotation,
    local: Option<Rotation>,
}

/// Angles a position, for each rotated pair of a head.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f64>,
    style: RopeStyle,
    /// What sines and cosines are multiplied by.
    magnitude: f64,
}

/// Cosines and sines of some rows' positions.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// `[rows][pairs]`.
    cosines: Buffer<f32>,
    sines: Buffer<f32>,
}

/// What is said where nobody can tell the angles of the last positions.
const TOO_FAST: &str = "rope.freq_base or factors that turn positions so fast";

/// Refuses what loading would refuse, as far as the header tells.
///
/// # Errors
/// When nobody can tell the angles of the last positions.
pub(crate) fn check(hyper: &HyperParameters) -> Result<(), GgufError> {
    let global = Angles::scaled(hyper, &vec![1.0; hyper.rope_dimensions / 2]);
    let local = hyper.turns_locally().then(|| Angles::plain(hyper, hyper.rope_base_local));
    match [Some(global), local].iter().flatten().all(|angles| angles.can_be_told(hyper)) {
        true => Ok(()),
        false => Err(GgufError::Unsupported(TOO_FAST.into())),
    }
}

impl Ropes {
    /// With the factors that the file has.
    pub(crate) fn load(source: &mut TensorSource, hyper: &HyperParameters) -> Result<Self, EngineError> {
        let global = Angles::load(source, hyper)?;
        let local = hyper.turns_locally().then(|| Angles::plain(hyper, hyper.rope_base_local));
        if ![Some(&global), local.as_ref()].into_iter().flatten().all(|angles| angles.can_be_told(hyper)) {
            return Err(source.failed(GgufError::Unsupported(TOO_FAST.into())));
        }
        let rope = |angles: Angles| Rope {
            frequencies: angles.frequencies,
            style: hyper.arch.rope,
            magnitude: angles.magnitude,
        };
        Ok(Self { global: rope(global), local: local.map(rope) })
    }

    /// The rotations of rows at these positions.
    pub(crate) fn at(&self, positions: &[u32]) -> Rotations {
        let local = self.local.as_ref().map(|rope| rope.at(positions));
        Rotations { global: self.global.at(positions), local }
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
        // All have the same pairs.
        self.global.rotate(rows, head, rotation, isa, threads);
    }
}

impl Rotations {
    /// Of layers that turn like this.
    pub(crate) fn of(&self, turn: Turn) -> Option<&Rotation> {
        match turn {
            Turn::Global => Some(&self.global),
            Turn::Local => self.local.as_ref(),
            Turn::None => None,
        }
    }
}

impl Rotation {
    /// `[rows][pairs]`.
    pub(crate) fn cosines(&self) -> &[f32] {
        &self.cosines
    }

    /// `[rows][pairs]`.
    pub(crate) fn sines(&self) -> &[f32] {
        &self.sines
    }
}

impl Rope {
    /// `frequencies` are the angles a position of each pair.
    pub(crate) fn new(frequencies: Vec<f64>, style: RopeStyle) -> Self {
        Self { frequencies, style, magnitude: 1.0 }
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
            (*sine, *cosine) = ((exact.0 * self.magnitude) as f32, (exact.1 * self.magnitude) as f32);
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
        Ropes::load(&mut source, &hyper).expect("loaded").global
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
