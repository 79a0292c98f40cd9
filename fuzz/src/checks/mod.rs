//! What must hold for all bytes that come from outside. A check panics where it does not. The fuzzer runs these, and so
//! do the property tests of `tests/tests/fuzzed.rs`.

pub mod announcement;
pub mod gguf_header;
pub mod torrent;
pub mod wire;

/// One kind of input.
pub struct Target {
    /// As it is called on the command line.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub check: fn(&[u8]),
    /// Inputs that are in order, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 4] = [
    Target { name: "gguf_header", check: gguf_header::check, seeds: gguf_header::seeds },
    Target { name: "announcement", check: announcement::check, seeds: announcement::seeds },
    Target { name: "wire", check: wire::check, seeds: wire::seeds },
    Target { name: "torrent", check: torrent::check, seeds: torrent::seeds },
];
