//! Where in the model's files the tensors of some shards lie.

use std::ops::Range;

use gguf::Header;
use swarm_types::{Cut, ShardRange};

use crate::{cut::CutError, part::Part};

/// The bytes that loading these shards reads behind the headers, counted over all files, one behind the other; in
/// order. Neighbours are one range.
///
/// # Errors
/// When the header does not tell the layers, or there are no such shards.
pub fn places(header: &Header, cut: &Cut, shards: ShardRange) -> Result<Vec<Range<u64>>, CutError> {
    let (parts, part) = (header.parts()?, Part::of(shards, cut)?);
    let mut tensors: Vec<_> = part.layers.iter().flat_map(|layer| &parts.layers[layer as usize]).collect();
    if part.embeds {
        tensors.extend(&parts.embedding);
    }
    if part.samples {
        tensors.extend(&parts.head);
    }
    // Of no layer, and read by all: the factors of a rotation.
    let everywhere = header.tensors.iter().filter(|(name, _)| name.starts_with("rope_"));
    let everywhere = everywhere.map(|(_, tensor)| tensor);
    let mut ranges: Vec<Range<u64>> = tensors
        .into_iter()
        .map(|(_, tensor)| tensor)
        .copied()
        .chain(everywhere)
        .map(|tensor| header.range(tensor))
        .collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = vec![];
    for range in ranges {
        match joined.last_mut() {
            // What aligns tensors lies between them.
            Some(last) if range.start <= last.end.next_multiple_of(1 << 12) => {
                last.end = last.end.max(range.end)
            }
            _ => joined.push(range),
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use gguf::{
        tiny::{TinyModel, cases},
        write::split,
    };

    use super::*;
    use crate::cut_of;

    #[test]
    fn all_shards_together_are_all_tensors_and_one_alone_is_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        TinyModel { layers: 6, ..TinyModel::default() }.write(&path).expect("written");
        let several = folder.path().join("m-00001-of-00002.gguf");
        split(&path, &several, &[20, 0]).expect("split");
        for path in [path, several] {
            are_places_of_all_and_of_one(&Header::read_without_arrays(&path).expect("valid"));
        }
    }

    #[test]
    fn every_tensor_of_every_architecture_is_in_a_place_of_some_shard() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        for (name, tiny) in cases() {
            tiny.write(&path).expect("written");
            let header = Header::read_without_arrays(&path).expect("valid");
            let cut = cut_of(&header, 3, None).expect("a cut");
            let of = |shard: u32| {
                let shard = ShardRange::new(shard, shard + 1).expect("valid");
                places(&header, &cut, shard).expect("places")
            };
            let ranges = [of(0), of(1), of(2)].concat();
            for (tensor, info) in &header.tensors {
                let place = header.range(info);
                let inside = |range: &Range<u64>| range.start <= place.start && place.end <= range.end;
                assert!(ranges.iter().any(inside), "{name}: {tensor}");
            }
        }
    }

    fn are_places_of_all_and_of_one(header: &Header) {
        let cut = cut_of(header, 3, None).expect("a cut");
        let of = |shards: &str| places(header, &cut, shards.parse().expect("shards")).expect("places");
        let has = |ranges: &[Range<u64>], name: &str| {
            let place = header.range(&header.tensors[name]);
            ranges.iter().any(|range| range.start <= place.start && place.end <= range.end)
        };
        let (all, middle) = (of("0-2"), of("1"));
        assert!(header.tensors.keys().all(|name| has(&all, name)));
        assert!(has(&middle, "blk.2.attn_q.weight") && !has(&middle, "token_embd.weight"), "{middle:?}");
        assert!(!has(&middle, "blk.0.attn_q.weight") && !has(&of("0"), "blk.5.attn_q.weight"));
    }
}
