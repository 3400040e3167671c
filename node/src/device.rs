//! Which processor computes: the CPU, or an NVIDIA GPU where the program is built with the feature `cuda`.

use candle_core::Device;
use std::{fmt, str::FromStr};

/// What a node computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
    /// The first GPU, if there is one that can be used, else the CPU.
    Auto,
}

/// Why a device can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program has no code for GPUs.
    #[error(
        "device {0}: this program is built without CUDA; build it with `cargo build --release --features \
         heterotune/cuda` on a machine with the CUDA toolkit, or take device cpu"
    )]
    NotBuilt(DeviceChoice),
    /// There is no such GPU, or its driver refuses.
    #[error("device {0} can't be used ({1}); look whether `nvidia-smi` lists it, or take device cpu")]
    NotThere(DeviceChoice, String),
}

impl DeviceChoice {
    /// Whether this program can do it at all. No driver is asked.
    ///
    /// # Errors
    /// A GPU, in a program without CUDA.
    pub fn check(self) -> Result<(), DeviceError> {
        match self {
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt(self)),
            _ => Ok(()),
        }
    }

    /// The device. Tensors of two that were opened one after the other can't meet, even where it is one GPU.
    ///
    /// # Errors
    /// A GPU, in a program without CUDA, or one that can't be used.
    pub fn open(self) -> Result<Device, DeviceError> {
        self.check()?;
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => cuda(number).map_err(|problem| DeviceError::NotThere(self, problem)),
            Self::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
        }
    }
}

/// A GPU by its number. The library that talks to the driver panics where there is none.
fn cuda(number: usize) -> Result<Device, String> {
    match std::panic::catch_unwind(|| Device::new_cuda(number)) {
        Ok(device) => device.map_err(|error| error.to_string()),
        Err(_) => Err("there is no CUDA driver".into()),
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = name.strip_prefix("cuda:").map(str::parse);
        match (name, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("auto", _) => Ok(Self::Auto),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err("must be cpu, cuda, cuda:N or auto".into()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Auto => write!(f, "auto"),
            Self::Cuda(0) => write!(f, "cuda"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl serde::Serialize for DeviceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for DeviceChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|problem| serde::de::Error::custom(format!("device is \"{name}\", but {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["cpu", "auto", "cuda", "cuda:1"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_gpu_is_refused_in_a_sentence_and_auto_falls_back() {
        // No machine has so many.
        let refusal = DeviceChoice::Cuda(4_096).open().unwrap_err().to_string();
        assert!(refusal.contains("device cuda:4096") && refusal.ends_with("or take device cpu"), "{refusal}");
        assert!(matches!(DeviceChoice::Cpu.open(), Ok(Device::Cpu)));
        assert!(DeviceChoice::Auto.open().is_ok());
    }
}
