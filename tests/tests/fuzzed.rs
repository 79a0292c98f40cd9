//! What the fuzzer checks, on some thousand inputs: arbitrary bytes, and inputs in order with a few bytes changed.

#[expect(unreachable_pub, reason = "it is a crate of its own where it is fuzzed")]
#[path = "../../fuzz/src/checks/mod.rs"]
mod checks;

use checks::TARGETS;
use proptest::{collection::vec, prelude::*, sample::Index};

/// A change of an input: where, and to what. Without a value the byte goes.
type Change = (Index, Option<u8>);

fn change(input: &mut Vec<u8>, changes: &[Change]) {
    for (place, value) in changes {
        match (input.len(), value) {
            (0, _) => return,
            (length, Some(value)) => input[place.index(length)] = *value,
            (length, None) => drop(input.remove(place.index(length))),
        }
    }
}

#[test]
fn what_is_in_order_is_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        seeds.iter().for_each(|seed| (target.check)(seed));
    }
    let headers = checks::gguf_header::seeds();
    let read = |seed: &Vec<u8>| gguf::Header::from_bytes(&checks::gguf_header::files(seed));
    assert!(headers.iter().all(|seed| read(seed).is_ok()));
    let announcements = checks::announcement::seeds();
    assert!(announcements.iter().all(|seed| swarm_types::Announcement::from_json(seed).is_ok()));
    let torrents = checks::torrent::seeds();
    assert!(torrents.iter().all(|seed| model_torrent::Metainfo::from_bytes(seed, 1 << 16).is_ok()));
    assert!(checks::wire::seeds().iter().all(|seed| checks::wire::is_taken(seed)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_bytes_break_no_promise(bytes in vec(any::<u8>(), 0..300)) {
        TARGETS.iter().for_each(|target| (target.check)(&bytes));
    }

    #[test]
    fn changed_inputs_break_no_promise(seed in any::<Index>(), changes in vec(any::<Change>(), 1..6)) {
        for target in TARGETS {
            let mut seeds = (target.seeds)();
            let mut input = seeds.swap_remove(seed.index(seeds.len()));
            change(&mut input, &changes);
            (target.check)(&input);
        }
    }
}
