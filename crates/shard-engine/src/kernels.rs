//! The innermost loops, each written once for all instruction sets.
//!
//! [`simd`] has the operations that they are written in, [`isa`] alone knows which instruction sets there are and how
//! they are detected, [`threads`] alone on which threads work runs. [`formats`] says how weights lie in memory,
//! [`product`] what they are multiplied by. Every sum has one fixed order, which only the row itself decides: not the
//! number of rows or threads, nor the instruction set.

pub(crate) mod arena;
pub(crate) mod attention;
pub(crate) mod buffer;
pub(crate) mod formats;
pub(crate) mod isa;
pub(crate) mod math;
pub(crate) mod packed;
pub(crate) mod page;
pub(crate) mod product;
pub(crate) mod rotation;
pub(crate) mod rounded;
pub(crate) mod rows;
pub(crate) mod simd;
pub(crate) mod threads;
