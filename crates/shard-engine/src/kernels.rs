//! The innermost loops: each in plain Rust and, where it pays, in an instruction set that is found at run time.
//!
//! One file for each format of weights and one for attention. [`isa`] alone knows which instruction sets there are and
//! how they are detected; [`threads`] alone knows on which threads work runs. Every sum has one fixed order, which only
//! the row itself decides: not the number of rows or threads.

pub(crate) mod attention;
pub(crate) mod f32;
pub(crate) mod isa;
mod panel;
pub(crate) mod threads;
