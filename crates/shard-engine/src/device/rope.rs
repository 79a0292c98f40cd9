//! Rotary position embedding on a device. The angles are those of the host: it makes sines and cosines of a pass's
//! positions once, and all layers use them.

use candle_core::{D, Result, Tensor};
use candle_nn::rotary_emb::{rope, rope_i};

use super::place::Place;
use crate::{
    arch::{RopeStyle, Turn},
    cpu::rope::{Ropes, Rotation as HostRotation},
    hyper::HyperParameters,
};

/// The rotations of a pass's rows.
#[derive(Debug)]
pub(crate) struct Rotations {
    global: Rotation,
    local: Option<Rotation>,
}

/// Cosines and sines, `[rows, pairs]`.
#[derive(Debug)]
pub(crate) struct Rotation {
    cosines: Tensor,
    sines: Tensor,
    style: RopeStyle,
}

impl Rotations {
    /// Of rows at these positions.
    pub(crate) fn at(
        positions: &[u32],
        ropes: &Ropes,
        hyper: &HyperParameters,
        place: &Place,
    ) -> Result<Self> {
        let shape = (positions.len(), hyper.rope_dimensions / 2);
        let upload = |numbers: &[f32]| Tensor::from_slice(numbers, shape, &place.device);
        let rotation = |of: &HostRotation| {
            let (cosines, sines) = (upload(of.cosines())?, upload(of.sines())?);
            Ok::<_, candle_core::Error>(Rotation { cosines, sines, style: hyper.arch.rope })
        };
        let host = ropes.at(positions);
        let global = host.of(Turn::Global).expect("every model has such angles");
        Ok(Self { global: rotation(global)?, local: host.of(Turn::Local).map(rotation).transpose()? })
    }

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
    /// Turns `[heads, rows, head]`; what a head has beyond the pairs stays.
    pub(crate) fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let (head, turned) = (x.dim(D::Minus1)?, 2 * self.cosines.dim(1)?);
        let rotate: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> = match self.style {
            RopeStyle::Adjacent => rope_i,
            RopeStyle::Halves => rope,
        };
        let x = x.unsqueeze(0)?;
        let turns = x.narrow(D::Minus1, 0, turned)?.contiguous()?;
        let mut y = rotate(&turns, &self.cosines, &self.sines)?;
        if turned < head {
            y = Tensor::cat(&[y, x.narrow(D::Minus1, turned, head - turned)?], D::Minus1)?;
        }
        y.squeeze(0)
    }
}
