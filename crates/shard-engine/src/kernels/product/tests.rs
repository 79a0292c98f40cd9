//! Products of all types against plain loops, and bits of all sets against each other.

use gguf::Dtype;

use super::*;
use crate::bench::{TYPES, numbers, random_blocks};
use crate::kernels::arena::Arena;

/// A matrix of random weights, and these.
fn matrix(dtype: Dtype, outputs: usize, inputs: usize) -> (Packed, Vec<f32>) {
    let (count, bytes) = dtype.block();
    let row_bytes = inputs / count as usize * bytes as usize;
    let file = random_blocks(dtype, outputs * row_bytes);
    let mut packed =
        Packed::zeros(dtype, outputs, inputs, &Arena::default()).expect("memory").expect("a layout");
    let threads = Threads::exactly(1).expect("no thread is started");
    let read = |rows: Range<usize>, pack: &mut dyn FnMut(&[u8])| {
        pack(&file[rows.start * row_bytes..rows.end * row_bytes]);
        Ok::<_, std::convert::Infallible>(())
    };
    packed.fill(&threads, read).expect("nothing can fail");
    let mut weights = vec![0.0; outputs * inputs];
    for (output, row) in weights.chunks_exact_mut(inputs).enumerate() {
        packed.row(output, Isa::Portable, row);
    }
    (packed, weights)
}

fn multiply(packed: &Packed, x: &[f32], rule: Rule, isa: Isa, threads: &Threads) -> Vec<f32> {
    let input = Input::new(x, packed.inputs(), rule, isa);
    let mut y = vec![0.0; input.rows() * packed.outputs()];
    input.multiply([packed], [&mut y], threads);
    y
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// The exact rule in its plainest form.
fn exact(weights: &[f32], x: &[f32], inputs: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
    x.chunks_exact(inputs).flat_map(|x| weights.chunks_exact(inputs).map(move |w| dot(x, w))).collect()
}

#[test]
fn both_rules_are_near_the_sums_and_the_exact_one_is_a_plain_loop() {
    let one = Threads::exactly(1).expect("no thread is started");
    for dtype in TYPES {
        let (packed, weights) = matrix(dtype, 35, 512);
        let x = numbers(7 * 512);
        let plain = exact(&weights, &x, 512);
        assert!(plain.iter().all(|number| number.is_finite() && *number != 0.0), "{dtype:?}");
        let got = multiply(&packed, &x, Rule::Exact, Isa::best(), &one);
        assert_eq!(bits(&got), bits(&plain), "{dtype:?}");
        let rounded = multiply(&packed, &x, Rule::Standard, Isa::best(), &one);
        let size = (plain.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>()).sqrt();
        let apart = plain.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        assert!(apart / size < 1e-4, "{dtype:?}: {}", apart / size);
    }
}

#[test]
fn every_set_company_and_number_of_threads_gives_the_same_bits() {
    let threads = [1, 2, 3].map(|count| Threads::exactly(count).expect("started"));
    for dtype in TYPES {
        let (packed, _) = matrix(dtype, 35, 256);
        let x = numbers(33 * 256);
        for rule in [Rule::Exact, Rule::Standard] {
            let expected = bits(&multiply(&packed, &x, rule, Isa::Portable, &threads[0]));
            for isa in Isa::all() {
                for rows in [1, 2, 3, 4, 5, 7, 12, 13, 24, 33] {
                    let threads = &threads[rows % 3];
                    let apart = x.chunks(rows * 256);
                    let got: Vec<u32> =
                        apart.flat_map(|x| bits(&multiply(&packed, x, rule, isa, threads))).collect();
                    assert_eq!(got, expected, "{dtype:?}, {rule:?}, {isa:?}, {rows} rows");
                }
            }
        }
    }
}

#[test]
fn sizes_need_not_be_whole_panels_or_parts() {
    let one = Threads::exactly(1).expect("no thread is started");
    for (outputs, inputs) in [(1, 1), (16, 31), (17, 33), (40, 70)] {
        let (packed, weights) = matrix(Dtype::F32, outputs, inputs);
        let x = numbers(5 * inputs);
        for isa in Isa::all() {
            let got = multiply(&packed, &x, Rule::Standard, isa, &one);
            assert_eq!(bits(&got), bits(&exact(&weights, &x, inputs)), "{outputs} x {inputs}, {isa:?}");
        }
    }
    for outputs in [1, 15, 33] {
        let (packed, weights) = matrix(Dtype::Q8_0, outputs, 96);
        let x = numbers(6 * 96);
        let got = multiply(&packed, &x, Rule::Exact, Isa::best(), &one);
        assert_eq!(bits(&got), bits(&exact(&weights, &x, 96)), "{outputs}");
    }
}

#[test]
fn matrices_of_different_types_are_multiplied_together_as_alone() {
    let two = Threads::exactly(2).expect("started");
    let (a, b) = (matrix(Dtype::Q4K, 48, 256).0, matrix(Dtype::Q6K, 20, 256).0);
    for rows in [1, 9] {
        let x = numbers(rows * 256);
        let input = Input::new(&x, 256, Rule::Standard, Isa::best());
        let (mut left, mut right) = (vec![0.0; rows * 48], vec![0.0; rows * 20]);
        input.multiply([&a, &b], [&mut left, &mut right], &two);
        assert_eq!(bits(&left), bits(&multiply(&a, &x, Rule::Standard, Isa::best(), &two)));
        assert_eq!(bits(&right), bits(&multiply(&b, &x, Rule::Standard, Isa::best(), &two)));
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_itself_alone() {
    let one = Threads::exactly(1).expect("no thread is started");
    let (packed, _) = matrix(Dtype::Q4_1, 16, 64);
    for rule in [Rule::Exact, Rule::Standard] {
        for rows in [2, 6] {
            let mut x = numbers(rows * 64);
            x[64 + 5] = f32::INFINITY;
            let y = multiply(&packed, &x, rule, Isa::best(), &one);
            let finite = |row: usize| y[row * 16..(row + 1) * 16].iter().all(|number| number.is_finite());
            assert!((0..rows).all(|row| finite(row) == (row != 1)), "{rule:?}, {rows} rows");
        }
    }
}

#[test]
fn weights_are_those_that_candle_makes_of_the_same_bytes() {
    use candle_core::{
        Device,
        quantized::{GgmlDType, QStorage, QTensor},
    };
    let known = [
        (Dtype::F16, GgmlDType::F16),
        (Dtype::BF16, GgmlDType::BF16),
        (Dtype::Q4_0, GgmlDType::Q4_0),
        (Dtype::Q4_1, GgmlDType::Q4_1),
        (Dtype::Q5_0, GgmlDType::Q5_0),
        (Dtype::Q5_1, GgmlDType::Q5_1),
        (Dtype::Q8_0, GgmlDType::Q8_0),
        (Dtype::Q2K, GgmlDType::Q2K),
        (Dtype::Q3K, GgmlDType::Q3K),
        (Dtype::Q4K, GgmlDType::Q4K),
        (Dtype::Q5K, GgmlDType::Q5K),
        (Dtype::Q6K, GgmlDType::Q6K),
    ];
    for (dtype, theirs) in known {
        let (_, ours) = matrix(dtype, 20, 512);
        let (count, bytes) = dtype.block();
        let file = random_blocks(dtype, 20 * 512 / count as usize * bytes as usize);
        let storage = QStorage::from_data(file.into(), &Device::Cpu, theirs).expect("whole blocks");
        let tensor = QTensor::new(storage, 20 * 512).expect("as many numbers");
        let expected: Vec<f32> = tensor.dequantize(&Device::Cpu).and_then(|t| t.to_vec1()).expect("numbers");
        // Where a minimum is taken off, candle rounds the product before it, and we only the difference.
        let worst = expected.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = expected.iter().fold(0f32, |most, number| most.max(number.abs()));
        assert!(size > 0.0 && worst <= size * 1e-7, "{dtype:?}: {worst} of {size}");
    }
}

/// What the types that candle does not know make of a block, by their definitions in plain numbers.
#[test]
fn tables_are_looked_up_as_their_types_say() {
    const GROWING: [f32; 16] =
        [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];
    const E2M1: [f32; 16] = [0., 0.5, 1., 1.5, 2., 3., 4., 6., 0., -0.5, -1., -1.5, -2., -3., -4., -6.];
    let half =
        |bytes: &[u8]| crate::kernels::simd::portable::from_half(u16::from_le_bytes([bytes[0], bytes[1]]));
    let nibble = |bytes: &[u8], input: usize| usize::from(bytes[input % 16] >> (input / 16 * 4) & 15);
    let block = |dtype: Dtype| random_blocks(dtype, dtype.block().1 as usize);
    let weights = |dtype: Dtype| matrix(dtype, 1, dtype.block().0 as usize).1;

    let file = block(Dtype::Iq4Nl);
    let expected: Vec<f32> = (0..32).map(|i| half(&file) * GROWING[nibble(&file[2..], i)]).collect();
    assert_eq!(weights(Dtype::Iq4Nl), expected);

    let file = block(Dtype::Mxfp4);
    let expected: Vec<f32> =
        (0..32).map(|i| 2f32.powi(i32::from(file[0]) - 127) * E2M1[nibble(&file[1..], i)]).collect();
    assert_eq!(weights(Dtype::Mxfp4), expected);

    let file = block(Dtype::Iq4Xs);
    let scale = |part: usize| {
        let low = file[4 + part / 2] >> (part % 2 * 4) & 15;
        let high = u16::from_le_bytes([file[2], file[3]]) >> (2 * part) & 3;
        half(&file) * (f32::from(low) + 16.0 * f32::from(high) - 32.0)
    };
    let number = |i: usize| GROWING[nibble(&file[8 + i / 32 * 16..], i % 32)];
    let expected: Vec<f32> = (0..256).map(|i| scale(i / 32) * number(i)).collect();
    assert_eq!(weights(Dtype::Iq4Xs), expected);
}
