//! A weight matrix in memory, in panels (`formats.rs`).

use std::{
    io,
    marker::PhantomData,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use gguf::Dtype;

use super::{
    arena::{Arena, Region},
    formats::{
        Bf16, F16, F32, Format, Iq4Nl, Iq4Xs, Mxfp4, PART, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K,
        Q8_0, Quantised, panels,
    },
    isa::Isa,
    simd::{Kernel, LANES, Simd, lanes_mut},
    threads::Threads,
};

/// Bytes that are packed at once: well within the second cache, with what they are packed from.
const PIECE: usize = 256 << 10;

/// What is done with a matrix of each type: [`Packed::with`] picks the one.
pub(crate) trait ForFormat {
    type Output;

    /// For numbers as they are.
    fn plain<F: Format>(self) -> Self::Output;

    /// For whole numbers with scales.
    fn quantised<Q: Quantised>(self) -> Self::Output;
}

/// Calls the method for a type of weights; `None` for one that has no layout.
pub(crate) fn for_format<T: ForFormat>(dtype: Dtype, what: T) -> Option<T::Output> {
    Some(match dtype {
        Dtype::F32 => what.plain::<F32>(),
        Dtype::F16 => what.plain::<F16>(),
        Dtype::BF16 => what.plain::<Bf16>(),
        Dtype::Q4_0 => what.quantised::<Q4_0>(),
        Dtype::Q4_1 => what.quantised::<Q4_1>(),
        Dtype::Q5_0 => what.quantised::<Q5_0>(),
        Dtype::Q5_1 => what.quantised::<Q5_1>(),
        Dtype::Q8_0 => what.quantised::<Q8_0>(),
        Dtype::Q2K => what.quantised::<Q2K>(),
        Dtype::Q3K => what.quantised::<Q3K>(),
        Dtype::Q4K => what.quantised::<Q4K>(),
        Dtype::Q5K => what.quantised::<Q5K>(),
        Dtype::Q6K => what.quantised::<Q6K>(),
        Dtype::Iq4Nl => what.quantised::<Iq4Nl>(),
        Dtype::Iq4Xs => what.quantised::<Iq4Xs>(),
        Dtype::Mxfp4 => what.quantised::<Mxfp4>(),
        Dtype::Q8_1 | Dtype::Q8K => return None,
    })
}

/// A packed weight matrix.
#[derive(Debug)]
pub(crate) struct Packed {
    dtype: Dtype,
    /// Panel after panel.
    memory: Region,
    layout: Layout,
    inputs: usize,
    outputs: usize,
}

/// Sizes of a type's blocks.
#[derive(Clone, Copy, Debug)]
struct Layout {
    block_inputs: usize,
    block_bytes: usize,
    quantised: bool,
    pack: fn(&[u8], usize, &mut [u8]),
}

struct LayoutOf;

impl ForFormat for LayoutOf {
    type Output = Layout;

    fn plain<F: Format>(self) -> Layout {
        Layout { block_inputs: F::INPUTS, block_bytes: F::BYTES, quantised: false, pack: pack_row::<F> }
    }

    fn quantised<Q: Quantised>(self) -> Layout {
        Layout { quantised: true, ..self.plain::<Q>() }
    }
}

/// Puts a row of the file into its lane of a panel; what is left of the panel's last block stays zero.
fn pack_row<F: Format>(row: &[u8], lane: usize, panel: &mut [u8]) {
    let blocks = row.chunks(F::BYTES).zip(panel.chunks_exact_mut(LANES * F::BYTES));
    for (from, to) in blocks {
        if from.len() == F::BYTES {
            F::pack(from, lane, to);
        } else {
            // Numbers as they are need not fill a block.
            let mut whole = [0; 4 * PART];
            whole[..from.len()].copy_from_slice(from);
            F::pack(&whole[..F::BYTES], lane, to);
        }
    }
}

impl Packed {
    /// Room for a matrix of `outputs` × `inputs`, all zeros; `None` for a type that has no layout.
    ///
    /// # Errors
    /// When the system gives no memory for it.
    pub(crate) fn zeros(
        dtype: Dtype,
        outputs: usize,
        inputs: usize,
        arena: &Arena,
    ) -> io::Result<Option<Self>> {
        let Some(layout) = for_format(dtype, LayoutOf) else { return Ok(None) };
        let blocks = inputs.div_ceil(layout.block_inputs);
        let memory = arena.region(panels(outputs) * LANES * blocks * layout.block_bytes)?;
        Ok(Some(Self { dtype, memory, layout, inputs, outputs }))
    }

    /// Bytes that such a matrix takes in memory.
    pub(crate) fn bytes_of(dtype: Dtype, outputs: u64, inputs: u64) -> Option<u64> {
        let layout = for_format(dtype, LayoutOf)?;
        let blocks = inputs.div_ceil(layout.block_inputs as u64);
        Some(outputs.next_multiple_of(LANES as u64) * blocks * layout.block_bytes as u64)
    }

    /// Bytes of a row in the file.
    fn row_bytes(&self) -> usize {
        let (numbers, bytes) = self.dtype.block();
        self.inputs / numbers as usize * bytes as usize
    }

    /// Bytes of a panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        LANES * self.inputs.div_ceil(self.layout.block_inputs) * self.layout.block_bytes
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// They are whole numbers with scales.
    pub(crate) fn is_quantised(&self) -> bool {
        self.layout.quantised
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn panels(&self) -> usize {
        panels(self.outputs)
    }

    /// All panels.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// Reads rows as they are in the file and packs them, on all threads. `read` shows some rows' bytes.
    pub(crate) fn fill<E: Send>(
        &mut self,
        threads: &Threads,
        read: impl Fn(Range<usize>, &mut dyn FnMut(&[u8])) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (row_bytes, panel_bytes, pack) = (self.row_bytes(), self.panel_bytes(), self.layout.pack);
        let at_once = (PIECE / panel_bytes.max(1)).max(1);
        let outputs = self.outputs;
        let failed = Mutex::new(None);
        threads.for_chunks(&mut self.memory, at_once * panel_bytes, |piece, panels| {
            let first = piece * at_once * LANES;
            let rows = first..(first + panels.len() / panel_bytes * LANES).min(outputs);
            let packed = read(rows, &mut |rows| {
                let lanes = panels.chunks_exact_mut(panel_bytes).zip(rows.chunks(LANES * row_bytes));
                for (panel, rows) in lanes {
                    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                        pack(row, lane, panel);
                    }
                }
            });
            if let Err(error) = packed {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One output's weights as f32, into `out` `[inputs]`.
    pub(crate) fn row(&self, output: usize, isa: Isa, out: &mut [f32]) {
        let panel_bytes = self.panel_bytes();
        let panel = &self.bytes()[output / LANES * panel_bytes..][..panel_bytes];
        let row = Row { panel, lane: output % LANES, isa, out };
        for_format(self.dtype, row).expect("what is packed has a layout");
    }
}

/// One output of a panel.
struct Row<'a> {
    panel: &'a [u8],
    lane: usize,
    isa: Isa,
    out: &'a mut [f32],
}

impl ForFormat for Row<'_> {
    type Output = ();

    fn plain<F: Format>(self) {
        let Self { panel, lane, isa, out } = self;
        isa.run(RowOf::<F> { panel, lane, out, format: PhantomData });
    }

    fn quantised<Q: Quantised>(self) {
        self.plain::<Q>();
    }
}

struct RowOf<'a, F> {
    panel: &'a [u8],
    lane: usize,
    out: &'a mut [f32],
    format: PhantomData<F>,
}

impl<F: Format> Kernel for RowOf<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut weights = [0.0; PART * LANES];
        for (place, out) in self.out.chunks_mut(PART).enumerate() {
            let (block, part) = (place / (F::INPUTS / PART), place % (F::INPUTS / PART));
            let block = &self.panel[block * LANES * F::BYTES..][..LANES * F::BYTES];
            F::weights(simd, block, part, |input, weight| {
                simd.store(weight, lanes_mut(&mut weights, input * LANES))
            });
            out.iter_mut().enumerate().for_each(|(input, out)| *out = weights[input * LANES + self.lane]);
        }
    }
}
