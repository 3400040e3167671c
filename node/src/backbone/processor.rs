//! `preprocessor_config.json`: how an image comes to a backbone's size, and what its values become there.

use super::{BackboneError, parse, read_text};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The file in a backbone's folder.
pub(super) const FILE: &str = "preprocessor_config.json";

/// The longest side that images are made to have, in pixels.
const SIDE_MAX: usize = 4_096;

/// What happens to pixel values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pixels {
    /// Whether values are multiplied by the factor.
    #[serde(default = "yes")]
    pub do_rescale: bool,
    /// The factor.
    #[serde(default = "of_bytes")]
    pub rescale_factor: f64,
    /// Whether mean and deviation are used after that.
    #[serde(default = "yes")]
    pub do_normalize: bool,
    /// A mean for every channel.
    #[serde(default = "halves")]
    pub image_mean: Vec<f64>,
    /// A deviation for every channel.
    #[serde(default = "halves")]
    pub image_std: Vec<f64>,
}

fn yes() -> bool {
    true
}

fn of_bytes() -> f64 {
    1.0 / 255.0
}

fn halves() -> Vec<f64> {
    vec![0.5; 3]
}

impl Pixels {
    /// Reads the file in `folder`; images of `channels` channels must be able to pass.
    pub(super) fn read(folder: &Path, channels: usize) -> Result<Self, BackboneError> {
        let path = folder.join(FILE);
        let pixels: Self = parse(&path, &read_text(&path)?)?;
        pixels.tensors(channels).map_err(|problem| BackboneError::file(&path, problem))?;
        Ok(pixels)
    }

    /// A factor and a shift `[channels, 1]`.
    pub(super) fn tensors(&self, channels: usize) -> Result<(Tensor, Tensor), String> {
        let factor = if self.do_rescale { self.rescale_factor } else { 1.0 };
        let (mean, deviation) = match self.do_normalize {
            true => (self.image_mean.clone(), self.image_std.clone()),
            false => (vec![0.0; channels], vec![1.0; channels]),
        };
        if mean.len() != channels || deviation.len() != channels {
            return Err(format!("image_mean and image_std must have {channels} numbers, one for each channel"));
        }
        let scale: Vec<f32> = deviation.iter().map(|deviation| (factor / deviation) as f32).collect();
        let shift: Vec<f32> = mean.iter().zip(&deviation).map(|(mean, std)| (-mean / std) as f32).collect();
        if !scale.iter().chain(&shift).all(|value| value.is_finite()) {
            return Err("rescale_factor, image_mean and image_std do not give finite numbers".into());
        }
        let tensor = |values| Tensor::from_vec(values, (channels, 1), &Device::Cpu).map_err(|error| error.to_string());
        Ok((tensor(scale)?, tensor(shift)?))
    }
}

/// How an image of any size comes to the backbone's: it is resized, then cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// What it is resized to.
    pub size: Resize,
    /// Height and width of the square that is then cut from its middle, if one is.
    pub crop: Option<usize>,
    /// How it is resized.
    pub resample: Resample,
}

/// What an image is resized to, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// It stays as it is.
    None,
    /// To this, whatever its shape was.
    Exact {
        /// Height.
        height: usize,
        /// Width.
        width: usize,
    },
    /// Until the shorter side is this long; the shape stays.
    ShortestEdge(usize),
}

/// How pixels between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The nearest one.
    Nearest,
    /// A line through two.
    Bilinear,
    /// A cubic curve through four.
    Bicubic,
    /// A windowed sinc over six.
    Lanczos,
}

impl Processor {
    /// Height and width of what comes out of a square image; none where images keep their size.
    pub fn output(&self) -> Option<(usize, usize)> {
        match (self.crop, self.size) {
            (Some(side), _) | (None, Resize::ShortestEdge(side)) => Some((side, side)),
            (None, Resize::Exact { height, width }) => Some((height, width)),
            (None, Resize::None) => None,
        }
    }
}

/// What the file says of sizes.
#[derive(Deserialize)]
struct File {
    do_resize: Option<bool>,
    size: Option<Size>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    resample: Option<u8>,
    image_processor_type: Option<String>,
    /// What older files call it.
    feature_extractor_type: Option<String>,
}

/// A size as files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(usize),
    Sides(BTreeMap<String, Option<usize>>),
}

impl Size {
    /// What is meant; a number is the shorter side where `shortest` says so, else both.
    fn resize(&self, key: &str, shortest: bool) -> Result<Resize, String> {
        let sides: Vec<(&str, usize)> = match self {
            Self::Number(side) if shortest => vec![("shortest_edge", *side)],
            Self::Number(side) => vec![("height", *side), ("width", *side)],
            Self::Sides(sides) => sides.iter().filter_map(|(name, side)| Some((name.as_str(), (*side)?))).collect(),
        };
        if let Some((name, side)) = sides.iter().find(|(_, side)| !(1..=SIDE_MAX).contains(side)) {
            return Err(format!("{name} of {key} is {side}, but must be from 1 to {SIDE_MAX}"));
        }
        match sides.as_slice() {
            [("height", height), ("width", width)] => Ok(Resize::Exact { height: *height, width: *width }),
            [("shortest_edge", side)] => Ok(Resize::ShortestEdge(*side)),
            other => {
                let names: Vec<&str> = other.iter().map(|(name, _)| *name).collect();
                let known = "a number, height and width, or shortest_edge";
                Err(format!("{key} says [{}], but only {known} are known", names.join(", ")))
            }
        }
    }
}

impl File {
    fn processor(&self) -> Result<Processor, String> {
        let kind = self.image_processor_type.as_ref().or(self.feature_extractor_type.as_ref());
        let is = |names: &[&str]| kind.is_some_and(|kind| names.iter().any(|name| kind.starts_with(name)));
        let shortest = is(&["Bit", "CLIP"]);
        let size = match (self.do_resize, &self.size) {
            (Some(false), _) | (None, None) => Resize::None,
            (Some(true), None) => return Err("do_resize is true, but there is no size".into()),
            (_, Some(size)) => size.resize("size", shortest)?,
        };
        let crop = match (self.do_center_crop, &self.crop_size) {
            (Some(false), _) | (None, None) => None,
            (Some(true), None) => return Err("do_center_crop is true, but there is no crop_size".into()),
            (_, Some(size)) => match size.resize("crop_size", false)? {
                Resize::Exact { height, width } if height == width => Some(height),
                _ => return Err("crop_size is no square".into()),
            },
        };
        let resample = match self.resample {
            Some(0) => Resample::Nearest,
            Some(1) => Resample::Lanczos,
            Some(2) => Resample::Bilinear,
            Some(3) => Resample::Bicubic,
            // What the processors of these families do where the file does not say.
            None if shortest || is(&["DeiT"]) => Resample::Bicubic,
            None => Resample::Bilinear,
            Some(other) => {
                let known = "0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 (bicubic)";
                return Err(format!("resample is {other}, but only {known} are known"));
            }
        };
        Ok(Processor { size, crop, resample })
    }
}

/// What the backbone in `folder` says of the size of images; none where it has no `preprocessor_config.json`.
///
/// # Errors
/// A file that is damaged, or asks for what is not known.
pub fn processor(folder: &Path) -> Result<Option<Processor>, BackboneError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let file: File = parse(&path, &read_text(&path)?)?;
    file.processor().map(Some).map_err(|problem| BackboneError::file(&path, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Processor, String> {
        serde_json::from_value::<File>(value.clone()).unwrap().processor()
    }

    #[test]
    fn sizes_are_read_in_all_forms_of_the_hub() {
        let exact = |side| Resize::Exact { height: side, width: side };
        for (file, size, crop, resample) in [
            (json!({}), Resize::None, None, Resample::Bilinear),
            (json!({"size": 224, "resample": 2, "do_resize": true}), exact(224), None, Resample::Bilinear),
            (json!({"size": {"height": 8, "width": 8}, "resample": 0}), exact(8), None, Resample::Nearest),
            (json!({"size": 8, "do_resize": false, "resample": 1}), Resize::None, None, Resample::Lanczos),
            (
                json!({"size": 256, "crop_size": 224, "feature_extractor_type": "DeiTFeatureExtractor"}),
                exact(256),
                Some(224),
                Resample::Bicubic,
            ),
            (
                json!({
                    "size": {"shortest_edge": 256, "longest_edge": null}, "do_center_crop": true, "resample": 3,
                    "crop_size": {"height": 224, "width": 224}, "image_processor_type": "BitImageProcessor",
                }),
                Resize::ShortestEdge(256),
                Some(224),
                Resample::Bicubic,
            ),
            (
                json!({"size": 9, "crop_size": 8, "do_center_crop": false, "image_processor_type": "BitImageProcessor"}),
                Resize::ShortestEdge(9),
                None,
                Resample::Bicubic,
            ),
        ] {
            assert_eq!(read(&file), Ok(Processor { size, crop, resample }), "{file}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (file, told) in [
            (json!({"do_resize": true}), "no size"),
            (json!({"do_center_crop": true}), "no crop_size"),
            (json!({"crop_size": {"height": 8, "width": 9}}), "no square"),
            (json!({"size": {"shortest_edge": 8, "longest_edge": 9}}), "[longest_edge, shortest_edge]"),
            (json!({"size": {}}), "size says []"),
            (json!({"size": 1_000_000_000}), "height of size is 1000000000"),
            (json!({"size": {"shortest_edge": 0}}), "shortest_edge of size is 0"),
            (json!({"resample": 5}), "resample is 5"),
        ] {
            let refusal = read(&file).unwrap_err();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn a_folder_without_the_file_has_no_processor() {
        assert_eq!(processor(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }
}
