//! What to load, and where to compute it.

use std::{fmt, path::PathBuf, str::FromStr};

use swarm_types::{Precision, ShardRange, ShardWeights};

use crate::EngineError;

/// candle's kernels on a processor (backend `candle`) run in a pool of candle's own. It is as large as this
/// environment variable says when the process starts, and there is no other way to tell it: a process that means
/// [`EngineConfig::threads`] to hold for them too must be started with it.
pub const CANDLE_THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// What an engine loads.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The GGUF file.
    pub model: PathBuf,
    /// The shards to hold.
    pub shards: ShardRange,
    /// Into how many the model is cut.
    pub total_shards: u32,
    /// How much each shard takes beside the others; the same on all nodes.
    pub shard_weights: Option<ShardWeights>,
    /// Which arithmetic gives the answers. How weights are held for it is the engine's own business.
    pub precision: Precision,
    /// Whose kernels.
    pub backend: BackendChoice,
    /// Where.
    pub device: DeviceChoice,
    /// Bound of all sessions' caches together, in bytes.
    pub kv_bytes: u64,
    /// How numbers of caches are held.
    pub kv_type: KvType,
    /// Threads of our own matrix products, at least 1; see [`CANDLE_THREADS_VARIABLE`] for candle's.
    pub threads: usize,
    /// The same for steps of many rows: pieces of a prompt, and what is computed again after a loss. At least as many.
    pub threads_batch: usize,
}

/// More gain little where weights come from memory.
const USUAL_THREADS_AT_MOST: usize = 8;

/// Threads of an engine that has the machine to itself: one for each core that the process may use, to a bound.
#[must_use]
pub fn usual_threads() -> u16 {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(USUAL_THREADS_AT_MOST));
    u16::try_from(cores).expect("the bound is small")
}

/// Whose kernels compute the layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// Ours, on a processor; on any other device candle's.
    #[default]
    Native,
    /// candle's everywhere: what computes on GPUs, on a processor too, for comparison. Its answers are not bit for bit
    /// those of the other.
    Candle,
}

impl FromStr for BackendChoice {
    type Err = String;

    /// `native` or `candle`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "native" => Ok(Self::Native),
            "candle" => Ok(Self::Candle),
            _ => Err(format!("backend must be native or candle, got {text:?}")),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Candle => "candle",
        })
    }
}

/// How numbers of caches are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KvType {
    /// In half precision: half the memory, and attention over long contexts takes about half the time.
    #[default]
    F16,
    /// In single precision.
    F32,
}

impl FromStr for KvType {
    type Err = String;

    /// `f16` or `f32`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => Err(format!("type of caches must be f16 or f32, got {text:?}")),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// The Metal device of this number.
    Metal(usize),
    /// The first CUDA device, without one the first Metal device, without either the processor.
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = String;

    /// `cpu`, `cuda`, `cuda:1`, `metal`, `metal:0`, `auto`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let wrong = || format!("device must be auto, cpu, cuda, cuda:N, metal or metal:N, got {text:?}");
        let number = number.parse().map_err(|_| wrong())?;
        match kind {
            "cpu" if text == "cpu" => Ok(Self::Cpu),
            "auto" if text == "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(number)),
            "metal" => Ok(Self::Metal(number)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl DeviceChoice {
    /// What it means on this machine: never [`Self::Auto`]. To try a device may take some hundred milliseconds.
    #[must_use]
    pub fn resolved(self) -> Self {
        let is_there = |choice: &Self| choice.open().is_ok();
        match self {
            Self::Auto => [Self::Cuda(0), Self::Metal(0)].into_iter().find(is_there).unwrap_or(Self::Cpu),
            named => named,
        }
    }

    /// Who computes on it, for whoever asks for this: off a processor there is only one.
    #[must_use]
    pub fn backend(self, asked: BackendChoice) -> BackendChoice {
        match self.resolved() {
            Self::Cpu => asked,
            _ => BackendChoice::Candle,
        }
    }

    /// The device, if this build and this machine have it.
    pub(crate) fn open(self) -> Result<candle_core::Device, EngineError> {
        let failed = |reason: String| EngineError::Device { device: self.to_string(), reason };
        match self {
            Self::Auto => self.resolved().open(),
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => {
                Err(failed("this build has no CUDA: build with --features cuda".into()))
            }
            Self::Metal(_) if !cfg!(feature = "metal") => {
                Err(failed("this build has no Metal: build with --features metal".into()))
            }
            Self::Cuda(number) => {
                candle_core::Device::new_cuda(number).map_err(|error| failed(error.to_string()))
            }
            Self::Metal(number) => {
                candle_core::Device::new_metal(number).map_err(|error| failed(error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_caches_are_read_back_as_written() {
        for text in ["f16", "f32"] {
            assert_eq!(text.parse::<KvType>().expect("valid").to_string(), text);
        }
        assert!("bf16".parse::<KvType>().expect_err("refused").contains("f16 or f32"));
    }

    #[test]
    fn devices_are_read_back_as_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "metal:1"] {
            assert_eq!(text.parse::<DeviceChoice>().expect("valid").to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["", "gpu", "cpu:1", "auto:0", "cuda:x", "cuda:"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn auto_is_a_device_that_is_there_and_only_a_processor_can_be_asked_for_our_kernels() {
        let found = DeviceChoice::Auto.resolved();
        assert!(found != DeviceChoice::Auto && found.open().is_ok(), "{found}");
        if !cfg!(any(feature = "cuda", feature = "metal")) {
            assert_eq!(found, DeviceChoice::Cpu);
        }
        for asked in [BackendChoice::Native, BackendChoice::Candle] {
            assert_eq!(DeviceChoice::Cpu.backend(asked), asked);
            assert_eq!(DeviceChoice::Cuda(0).backend(asked), BackendChoice::Candle);
            assert_eq!(DeviceChoice::Metal(1).backend(asked), BackendChoice::Candle);
        }
    }
}
