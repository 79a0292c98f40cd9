//! Against plain loops in double precision, and bits against bits.

use super::*;
use crate::bench::numbers;

/// A slot's cache and the queries of its last rows.
struct Scene {
    shape: Shape<'static>,
    pages: Vec<Page>,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    /// Positions in the cache.
    positions: usize,
}

impl Scene {
    /// What lies behind the last position in its page is not a number.
    fn new(positions: usize, rows: usize, heads: usize, layout: Layout) -> Self {
        let width = layout.kv_heads * layout.head;
        let all = numbers(2 * positions * width + rows * heads * layout.head);
        let (keys, rest) = all.split_at(positions * width);
        let (values, queries) = rest.split_at(positions * width);
        // Scores that differ by some units, as in a model.
        let queries = queries.iter().map(|number| number * 3.0).collect();
        let nothing = vec![f32::NAN; POSITIONS * width];
        let rows = keys.chunks(POSITIONS * width).zip(values.chunks(POSITIONS * width));
        let page = |(keys, values): (&[f32], &[f32])| {
            let mut page = Page::new(layout);
            page.put(0, &nothing, &nothing, Isa::best());
            page.put(0, keys, values, Isa::best());
            page
        };
        let pages = rows.map(page).collect();
        let scale = 1.0 / (layout.head as f32).sqrt();
        let shape = Shape { layout, heads, scale, window: ALL, cap: None, sinks: None };
        Self { shape, pages, keys: keys.to_vec(), values: values.to_vec(), queries, positions }
    }

    fn row(&self) -> usize {
        self.shape.heads * self.shape.layout.head
    }

    /// The position of the first row.
    fn first(&self) -> usize {
        self.positions - self.queries.len() / self.row()
    }

    /// The rows in chunks of so many, each chunk a pass of its own.
    fn attended(&self, chunk: usize, isa: Isa) -> Vec<f32> {
        let chunks = self.queries.chunks(chunk * self.row()).enumerate();
        let rows =
            |(number, queries)| Rows { pages: &self.pages, first: self.first() + number * chunk, queries };
        let one = one();
        chunks.flat_map(|part| attend(1, |_| rows(part), self.shape, isa, &one).to_vec()).collect()
    }

    /// The definition.
    fn expected(&self) -> Vec<f64> {
        let Shape { layout: Layout { kv_heads, head, .. }, heads, scale, window, cap, sinks } = self.shape;
        let mut out = vec![];
        for (number, query) in self.queries.chunks_exact(head).enumerate() {
            let (row, kv_head) = (number / heads, number % heads / (heads / kv_heads));
            let own = |part: &[f32], position: usize| -> Vec<f64> {
                let start = (position * kv_heads + kv_head) * head;
                part[start..start + head].iter().copied().map(f64::from).collect()
            };
            let seen = self.first() + row + 1;
            let score = |position| -> f64 {
                let products = own(&self.keys, position).into_iter().zip(query);
                let score =
                    products.map(|(key, query)| key * f64::from(*query)).sum::<f64>() * f64::from(scale);
                cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
            };
            let from = seen.saturating_sub(window);
            let scores: Vec<f64> = (from..seen).map(score).collect();
            let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| sinks[number % heads].into());
            let largest = scores.iter().copied().fold(sink, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total = weights.iter().sum::<f64>() + (sink - largest).exp();
            let mut sums = vec![0.0; head];
            for (position, weight) in weights.iter().enumerate() {
                sums.iter_mut()
                    .zip(own(&self.values, from + position))
                    .for_each(|(sum, v)| *sum += weight / total * v);
            }
            out.extend(sums);
        }
        out
    }
}

fn one() -> Threads {
    Threads::new(1).expect("no thread is started")
}

fn layout(kv_heads: usize, head: usize, kv_type: KvType) -> Layout {
    Layout { kv_heads, head, kv_type }
}

/// Positions, rows, heads, kv heads, head.
const SIZES: [[usize; 5]; 16] = [
    [1, 1, 3, 1, 16],
    [15, 2, 2, 2, 32],
    [16, 16, 4, 2, 40],
    [17, 1, 9, 3, 64],
    [31, 5, 6, 6, 24],
    [63, 3, 5, 1, 64],
    [64, 1, 6, 1, 64],
    [65, 40, 9, 3, 64],
    [66, 66, 14, 2, 64],
    [127, 2, 8, 1, 128],
    [128, 70, 7, 1, 80],
    [129, 1, 12, 1, 96],
    [150, 64, 24, 2, 40],
    [191, 4, 11, 1, 33],
    [192, 33, 32, 8, 128],
    [200, 200, 10, 1, 16],
];

/// A score for each of so many heads as any scene has: below those of positions, among them, and far above.
static SINKS: [f32; 32] = {
    let mut sinks = [-3.0; 32];
    let mut head = 0;
    while head < sinks.len() {
        sinks[head] = [-3.0, 0.5, 2.0, 30.0, 1.0][head % 5];
        head += 1;
    }
    sinks
};

/// Of all sizes and types; with windows that end in, at and beyond blocks, with scores that are bent, and with sinks.
fn scenes() -> impl Iterator<Item = Scene> {
    let types = [KvType::F32, KvType::F16];
    let kinds = [
        (ALL, None, None),
        (ALL, Some(1.5), None),
        (1, None, None),
        (50, None, None),
        (64, None, None),
        (100, Some(3.0), None),
        (ALL, None, Some(&SINKS[..])),
        (50, None, Some(&SINKS[..])),
    ];
    let cases = types.into_iter().flat_map(move |kv_type| kinds.map(|kind| (kv_type, kind)));
    cases.flat_map(|(kv_type, (window, cap, sinks))| {
        SIZES.into_iter().map(move |[positions, rows, heads, kv_heads, head]| {
            let scene = Scene::new(positions, rows, heads, layout(kv_heads, head, kv_type));
            Scene { shape: Shape { window, cap, sinks, ..scene.shape }, ..scene }
        })
    })
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn rows_weigh_values_as_they_should() {
    let mut worst = [0f64; 2];
    for scene in scenes() {
        let bound = if scene.shape.layout.kv_type == KvType::F32 { 3e-6 } else { 2e-3 };
        for isa in Isa::all() {
            let got = scene.attended(usize::MAX / scene.row(), isa);
            for (got, expected) in got.iter().zip(scene.expected()) {
                let error = (f64::from(*got) - expected).abs();
                assert!(error < bound, "{isa:?} {:?}: {got} for {expected}", scene.shape);
                let worst = &mut worst[usize::from(scene.shape.layout.kv_type == KvType::F16)];
                *worst = worst.max(error);
            }
        }
    }
    eprintln!("largest error in f32 {:.1e}, in f16 {:.1e}", worst[0], worst[1]);
}

#[test]
fn every_length_is_weighed_whole_and_no_further() {
    for positions in 1..=200 {
        let scene = Scene::new(positions, 1, 3, layout(1, 16, KvType::F32));
        for isa in Isa::all() {
            for (got, expected) in scene.attended(1, isa).iter().zip(scene.expected()) {
                assert!((f64::from(*got) - expected).abs() < 3e-6, "{isa:?} {positions}");
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_any_chunk_on_every_instruction_set() {
    for scene in scenes() {
        let expected = bits(&scene.attended(1, Isa::Portable));
        for isa in Isa::all() {
            for chunk in [1, 2, 5, 31, 64, 1000] {
                let same = bits(&scene.attended(chunk, isa)) == expected;
                assert!(same, "{isa:?} chunks of {chunk}: {:?}", scene.shape);
            }
        }
    }
}

#[test]
fn company_and_threads_change_no_bit() {
    let make = |[positions, rows]: [usize; 2]| Scene::new(positions, rows, 9, layout(3, 64, KvType::F16));
    let scenes = [[130, 1], [65, 65], [200, 70], [3, 2], [64, 1]].map(make);
    let rows = |scene: &Scene| -> Vec<f32> { scene.attended(1, Isa::best()) };
    let alone: Vec<f32> = scenes.iter().flat_map(rows).collect();
    let slots: Vec<Rows<'_>> = scenes
        .iter()
        .map(|scene| Rows { pages: &scene.pages, first: scene.first(), queries: &scene.queries })
        .collect();
    for threads in [1, 2, 3] {
        let threads = Threads::exactly(threads).expect("started");
        let together = attend(slots.len(), |slot| slots[slot], scenes[0].shape, Isa::best(), &threads);
        assert!(bits(&together) == bits(&alone), "{threads:?}");
    }
}

#[test]
fn what_is_no_number_makes_its_own_row_and_later_ones_none() {
    for kv_type in [KvType::F32, KvType::F16] {
        let mut scene = Scene::new(70, 70, 2, layout(1, 16, kv_type));
        let good = scene.attended(1, Isa::best());
        scene.keys[66 * 16 + 3] = f32::NAN;
        let (keys, values) = (&scene.keys[64 * 16..], &scene.values[64 * 16..]);
        scene.pages[1].put(0, keys, values, Isa::best());
        for isa in Isa::all() {
            let got = scene.attended(1, isa);
            assert_eq!(bits(&got[..66 * 32]), bits(&good[..66 * 32]), "{isa:?}");
            assert!(got[66 * 32..].iter().all(|number| number.is_nan()), "{isa:?}");
        }
    }
}
