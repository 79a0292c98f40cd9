//! Cuts of models that there are, and of all small ones against every other cut.

use proptest::prelude::*;

use super::*;

/// Layers of each shard.
fn counts(layers: &[u64], head: u64, total_shards: u32, weights: Option<&str>) -> Vec<u32> {
    let weights = weights.map(|text| text.parse().expect("weights"));
    let cut = Cut::new(CutCosts { layers, head }, total_shards, weights.as_ref()).expect("valid");
    cut.iter().map(|(_, layers)| layers.count()).collect()
}

#[test]
fn layers_are_cut_by_what_they_cost() {
    let even = |layers: usize| vec![10; layers];
    let cases = [
        ("one shard has all", even(30), 136, 1, None, vec![30]),
        ("no head", even(30), 0, 8, None, vec![4, 4, 4, 4, 4, 4, 3, 3]),
        ("a light head", even(30), 10, 8, None, vec![4, 4, 4, 4, 4, 4, 4, 2]),
        ("a head of 13.6 layers", even(30), 136, 8, None, vec![5, 5, 4, 4, 4, 4, 4, 0]),
        ("the same in three", even(30), 136, 3, None, vec![15, 14, 1]),
        ("the same in two", even(30), 136, 2, None, vec![22, 8]),
        ("as many layers as shards", even(3), 1, 3, None, vec![1, 1, 1]),
        ("and a heavy head", even(3), 100, 3, None, vec![2, 1, 0]),
        ("fewer layers than shards", even(5), 100, 8, None, vec![1, 1, 1, 1, 1, 0, 0, 0]),
        ("one layer", even(1), 100, 2, None, vec![1, 0]),
        ("layers of different cost", vec![50, 10, 10, 10, 10, 10], 0, 3, None, vec![1, 3, 2]),
        ("a machine that is twice as fast", even(10), 0, 4, Some("2,1,1,1"), vec![4, 2, 2, 2]),
        ("the last one three times as fast", even(10), 20, 3, Some("1,1,2"), vec![3, 3, 4]),
        (
            "weights that are all the same",
            even(30),
            0,
            8,
            Some("7,7,7,7,7,7,7,7"),
            vec![4, 4, 4, 4, 4, 4, 3, 3],
        ),
    ];
    for (name, layers, head, total, weights, expected) in cases {
        assert_eq!(counts(&layers, head, total, weights), expected, "{name}");
    }
}

#[test]
fn layers_and_heads_that_cost_nothing_are_cut_all_the_same() {
    assert_eq!(counts(&[0; 6], 0, 3, None).iter().sum::<u32>(), 6);
    assert_eq!(counts(&[u64::MAX; 6], u64::MAX, 3, Some("1,1000,3")).iter().sum::<u32>(), 6);
}

#[test]
fn the_largest_cut_that_is_accepted_is_found() {
    let layers: Vec<u64> =
        (0..u64::from(MAX_LAYERS)).map(|layer| 1_000_000 + layer * 7919 % 50_000).collect();
    for total in [MAX_SHARDS / 2 + 1, MAX_SHARDS] {
        assert_eq!(counts(&layers, 300_000_000, total, None).iter().sum::<u32>(), MAX_LAYERS);
    }
}

#[test]
fn impossible_cuts_are_refused_by_cause() {
    let cut = |layers: usize, total, weights: Option<&str>| {
        let weights = weights.map(|text| text.parse().expect("weights"));
        Cut::new(CutCosts { layers: &vec![1; layers], head: 1 }, total, weights.as_ref())
            .expect_err("refused")
    };
    assert_eq!(cut(30, 0, None), LayersError::TotalShards(0));
    assert_eq!(cut(30, MAX_SHARDS + 1, None), LayersError::TotalShards(MAX_SHARDS + 1));
    assert_eq!(cut(0, 8, None), LayersError::NoLayers);
    assert_eq!(cut(1025, 8, None), LayersError::TooManyLayers(1025));
    assert_eq!(cut(30, 8, Some("1,2")), LayersError::WeightCount { got: 2, total_shards: 8 });
    for wrong in ["", "1,,2", "0,1", "1001", "-1", "1.5", "a"] {
        assert_eq!(wrong.parse::<ShardWeights>(), Err(LayersError::Weights(wrong.into())));
    }
    assert_eq!("2, 1,1".parse::<ShardWeights>().expect("valid").to_string(), "2,1,1");
}

#[test]
fn a_shard_that_is_not_there_has_no_layers() {
    let cut = Cut::from_ends(vec![2, 2, 5]).expect("valid");
    let layers = |start, end| cut.layers(ShardRange::new(start, end).expect("valid"));
    assert_eq!(layers(0, 1), LayerRange::new(0, 2));
    assert_eq!(layers(1, 2), LayerRange::new(2, 2));
    assert_eq!(layers(1, 3), LayerRange::new(2, 5));
    assert_eq!((cut.total_shards(), cut.total_layers()), (3, 5));
    assert_eq!(layers(2, 4), Err(LayersError::ShardOutOfRange { shard: 3, total_shards: 3 }));
    let last = ShardRange::one(ShardId(u32::MAX));
    assert_eq!(cut.layers(last), Err(LayersError::ShardOutOfRange { shard: u32::MAX - 1, total_shards: 3 }));
    assert_eq!(Cut::from_ends(vec![2, 1]), Err(LayersError::Reversed { start: 2, end: 1 }));
    assert_eq!(Cut::from_ends(vec![0, 0]), Err(LayersError::NoLayers));
    assert_eq!(Cut::from_ends(vec![]), Err(LayersError::TotalShards(0)));
}

/// All ways to give each of `total` shards a layer at least, but the last none if it likes.
fn all_cuts(layers: usize, total: usize) -> Vec<Vec<usize>> {
    if total == 1 {
        return vec![vec![layers]];
    }
    let first = 1..=layers.saturating_sub(total - 2);
    let with = |count: usize| {
        let rest = all_cuts(layers - count, total - 1).into_iter();
        rest.map(move |rest| [vec![count], rest].concat())
    };
    first.filter(|count| *count <= layers).flat_map(with).collect()
}

/// The largest load as a fraction, of costs below 2^32.
fn largest_load(layers: &[u64], head: u64, counts: &[usize], weights: &[u16]) -> (u64, u64) {
    let mut rest = layers;
    let mut largest = (0, 1);
    for (shard, count) in counts.iter().enumerate() {
        let (own, others) = rest.split_at(*count);
        rest = others;
        let head = if shard + 1 == counts.len() { head } else { 0 };
        let load = (own.iter().sum::<u64>() + head, u64::from(weights[shard]));
        if load.0 * largest.1 > largest.0 * load.1 {
            largest = load;
        }
    }
    largest
}

proptest! {
    #[test]
    fn no_other_cut_has_a_smaller_largest_shard(
        layers in proptest::collection::vec(0u64..100, 1..9),
        head in 0u64..500,
        weights in proptest::collection::vec(1u16..=1000, 1..6),
    ) {
        let total = weights.len();
        let text = weights.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let found = counts(&layers, head, total as u32, Some(&text));
        prop_assert_eq!(found.iter().sum::<u32>() as usize, layers.len());
        if layers.len() >= total {
            let found: Vec<usize> = found.iter().map(|count| *count as usize).collect();
            let (cost, weight) = largest_load(&layers, head, &found, &weights);
            let every = all_cuts(layers.len(), total);
            prop_assert!(every.contains(&found), "{:?} leaves a shard without layers", found);
            for other in every {
                let (other_cost, other_weight) = largest_load(&layers, head, &other, &weights);
                prop_assert!(cost * other_weight <= other_cost * weight, "{:?} is better than {:?}", other, found);
            }
        }
    }

    #[test]
    fn every_cut_covers_every_layer_once(
        layers in proptest::collection::vec(0u64..1 << 40, 1..100),
        head in 0u64..1 << 50,
        total in 1u32..120,
    ) {
        let cut = Cut::new(CutCosts { layers: &layers, head }, total, None).expect("valid");
        let covered: Vec<u32> = cut.iter().flat_map(|(_, layers)| layers.iter()).collect();
        prop_assert_eq!(covered, (0..layers.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(Cut::from_ends(cut.ends().to_vec()), Ok(cut));
    }
}
