//! What a decoder's configuration says about its rotary embedding, in the old wording (`rope_theta`, `rope_scaling`) and
//! the new (`rope_parameters`).

use crate::ops::Rotary;
use serde::Deserialize;
use std::f64::consts::TAU;

/// The parameters of one rotation.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Parameters {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// Parameters for all layers, or by the kind of layer.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ByKind {
    #[serde(flatten)]
    all: Parameters,
    full_attention: Option<Parameters>,
    sliding_attention: Option<Parameters>,
}

/// All fields of a configuration that matter to the rotation.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rope {
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Parameters>,
    rope_parameters: Option<ByKind>,
    partial_rotary_factor: Option<f64>,
}

/// The base of the frequencies where the configuration names none.
const THETA: f64 = 10_000.0;

impl Rope {
    /// The rotation of layers that see everything, in heads of `size` values.
    pub(super) fn full(&self, size: usize, theta: Option<f64>) -> Result<Rotary, String> {
        let new = self.rope_parameters.as_ref().map(|by| by.full_attention.as_ref().unwrap_or(&by.all));
        let parameters = new.or(self.rope_scaling.as_ref()).cloned().unwrap_or_default();
        self.rotary(&parameters, size, self.rope_theta.or(theta).unwrap_or(THETA))
    }

    /// The rotation of Gemma 3's layers that see a window only.
    pub(super) fn local(&self, size: usize) -> Result<Rotary, String> {
        let new = self.rope_parameters.as_ref().and_then(|by| by.sliding_attention.clone());
        self.rotary(&new.unwrap_or_default(), size, self.rope_local_base_freq.unwrap_or(THETA))
    }

    fn rotary(&self, parameters: &Parameters, size: usize, theta: f64) -> Result<Rotary, String> {
        let theta = parameters.rope_theta.unwrap_or(theta);
        let share = parameters.partial_rotary_factor.or(self.partial_rotary_factor).unwrap_or(1.0);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(format!("rope_theta is {theta}, but must be more than 0"));
        }
        let turning = (size as f64 * share) as usize;
        if !(share > 0.0 && share <= 1.0) || turning == 0 || !turning.is_multiple_of(2) {
            return Err(format!("{turning} of a head's {size} values would turn, which must be an even number"));
        }
        let plain = (0..turning / 2).map(|pair| theta.powf(-((2 * pair) as f64) / turning as f64));
        let scaled = plain.map(|frequency| parameters.scale(frequency)).collect::<Result<Vec<_>, _>>()?;
        Ok(Rotary::new(scaled.into_iter().map(|frequency| frequency as f32).collect::<Vec<_>>()))
    }
}

impl Parameters {
    /// A frequency as the kind of scaling has it.
    fn scale(&self, frequency: f64) -> Result<f64, String> {
        match self.rope_type.as_ref().or(self.r#type.as_ref()).map_or("default", String::as_str) {
            "default" => Ok(frequency),
            "linear" => Ok(frequency / positive("factor", self.factor)?),
            "llama3" => self.llama3(frequency),
            other => {
                Err(format!("the rope type is \"{other}\", but only \"default\", \"linear\" and \"llama3\" are known"))
            }
        }
    }

    /// Long waves are stretched, short ones stay, and those between get something between.
    fn llama3(&self, frequency: f64) -> Result<f64, String> {
        let factor = positive("factor", self.factor)?;
        let low = positive("low_freq_factor", self.low_freq_factor)?;
        let high = positive("high_freq_factor", self.high_freq_factor)?;
        let context = positive("original_max_position_embeddings", self.original_max_position_embeddings)?;
        if low >= high {
            return Err(format!("low_freq_factor is {low}, but must be less than high_freq_factor, {high}"));
        }
        // 0 for waves longer than context / low, 1 for those shorter than context / high.
        let kept = ((context * frequency / TAU - low) / (high - low)).clamp(0.0, 1.0);
        Ok(kept * frequency + (1.0 - kept) * frequency / factor)
    }
}

fn positive(name: &str, value: Option<f64>) -> Result<f64, String> {
    match value {
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        Some(value) => Err(format!("{name} is {value}, but must be more than 0")),
        None => Err(format!("{name} of the rotary embedding is missing")),
    }
}
