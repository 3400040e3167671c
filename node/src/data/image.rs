//! Images: from files, folders and tables to the pixels that a backbone takes.

use super::{
    DataError, Report, binary,
    files::{self, Format},
    labels::Classes,
    resize::Plane,
    rows::{self, ROW_BYTES_MAX, Row, Value},
};
use crate::backbone::{Processor, Resample, Resize};
use candle_core::{Device, Tensor};
use image::{ColorType, ImageReader};
use std::{
    fs,
    io::{self, Cursor},
    path::{Path, PathBuf},
};

/// The most pixels of an image: the largest cameras' photographs.
const PIXELS_MAX: u64 = 100_000_000;
/// The most values of all images of a file together: 16 GiB of them.
const VALUES_MAX: usize = 4 << 30;
/// What image files are called.
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// An image: one plane a channel.
pub(super) struct Picture(pub(super) Vec<Plane>);

/// What a backbone takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) size: usize,
    pub(super) processor: Option<Processor>,
}

/// Images on their way to a backbone.
pub(super) struct Images<'a> {
    shape: Shape,
    classes: Option<Classes<'a>>,
    values: Vec<f32>,
    labels: Vec<u32>,
}

/// The pixels `[n, channels x size x size]` of a file's or folder's images, and their classes if they are asked for.
pub(super) fn read(
    path: &Path,
    shape: Shape,
    classes: Option<Classes<'_>>,
) -> Result<(Tensor, Vec<u32>, Report), DataError> {
    let mut images = Images { shape, classes, values: Vec::new(), labels: Vec::new() };
    let report = match Format::of(path)? {
        Format::Images => images.folder(path)?,
        Format::Cifar => binary::cifar(path, &mut images)?,
        Format::Idx => binary::idx(path, &mut images)?,
        Format::Parquet => rows::each(path, |row| images.row(&row))?,
        Format::Csv | Format::Jsonl | Format::Text => {
            return Err(DataError::file(
                path,
                "holds no images; those come from a table of pixels (.csv with p0, p1, ..), .bin, IDX, .parquet, or a \
                 folder of images",
            ));
        }
    };
    let width = shape.channels * shape.size * shape.size;
    let count = images.values.len() / width.max(1);
    Ok((Tensor::from_vec(images.values, (count, width), &Device::Cpu)?, images.labels, report))
}

impl Images<'_> {
    /// Whether labels are asked for.
    pub(super) fn labelled(&self) -> bool {
        self.classes.is_some()
    }

    /// Takes an image in, with the label it has.
    pub(super) fn push(&mut self, picture: Picture, label: &Value) -> Result<(), String> {
        let label = self.classes.map(|classes| classes.index(label)).transpose()?;
        let picture = self.shape.fit(picture)?;
        if self.values.len() > VALUES_MAX {
            return Err("the images together take more than 16 GiB; take fewer".into());
        }
        self.values.extend(picture.0.iter().flat_map(|plane| &plane.values).map(|value| f32::from(*value)));
        self.labels.extend(label);
        Ok(())
    }

    /// A table's image: its bytes, as they are or in a group with `bytes`.
    fn row(&mut self, row: &Row) -> Result<(), String> {
        let image = row.get("image").or_else(|| row.get("img")).ok_or("there is no field image (or img)")?;
        let image = match image {
            Value::Row(group) => group.get("bytes").ok_or("the image has no bytes")?,
            other => other,
        };
        let Value::Bytes(bytes) = image else { return Err("the image is no bytes".into()) };
        let picture = decode(bytes)?;
        let label = self.classes.map_or(Ok(0), |classes| classes.of(row))?;
        self.push(picture, &Value::Integer(label.into()))
    }

    /// Images in a folder; where labels are asked for, in a folder per class.
    fn folder(&mut self, path: &Path) -> Result<Report, DataError> {
        let mut report = Report::new(path);
        let mut number = 0;
        for entry in entries(path)? {
            let label = Value::Text(entry.file_name().unwrap_or_default().to_string_lossy().into_owned());
            let files = if entry.is_dir() { entries(&entry)? } else { vec![entry.clone()] };
            if let Some(classes) = self.classes {
                if !entry.is_dir() {
                    return Err(DataError::file(&entry, "must be in a folder with the name of its class"));
                }
                classes.index(&label).map_err(|problem| DataError::file(&entry, problem))?;
            }
            for file in files {
                number += 1;
                let image = self.file(&file, &label);
                let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
                report.note(number, image.map_err(|problem| format!("{name} {problem}")));
            }
        }
        report.finish()
    }

    fn file(&mut self, path: &Path, label: &Value) -> Result<(), String> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if !EXTENSIONS.contains(&extension.as_str()) {
            return Err("is no .png, .jpg, .webp or .bmp file".into());
        }
        let size = fs::metadata(path).map_err(|error| format!("can't be read ({error})"))?.len();
        if size > ROW_BYTES_MAX as u64 {
            return Err(format!("is larger than {ROW_BYTES_MAX} bytes"));
        }
        let bytes = fs::read(path).map_err(|error| format!("can't be read ({error})"))?;
        self.push(decode(&bytes)?, label)
    }
}

/// What is in a folder and not hidden, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let all = fs::read_dir(folder).and_then(|all| all.collect::<io::Result<Vec<_>>>());
    let all = all.map_err(|error| files::unreadable(folder, &error))?;
    let mut paths: Vec<PathBuf> = all
        .into_iter()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .collect();
    paths.sort_unstable();
    Ok(paths)
}

/// A PNG, JPEG, WebP or BMP image: grey, or red, green and blue. What is transparent is taken as if it were not.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let refuse = |error: &dyn std::fmt::Display| format!("does not decode as an image ({error})");
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| refuse(&error));
    let (width, height) = reader()?.into_dimensions().map_err(|error| refuse(&error))?;
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(format!("is {width} x {height} pixels large, more than {PIXELS_MAX}"));
    }
    let image = reader()?.decode().map_err(|error| refuse(&error))?;
    let (width, height) = (width as usize, height as usize);
    Ok(match image.color() {
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16 => {
            Picture::interleaved(&image.into_luma8(), 1, height, width)
        }
        _ => Picture::interleaved(&image.into_rgb8(), 3, height, width),
    })
}

impl Picture {
    /// From values pixel by pixel.
    fn interleaved(values: &[u8], channels: usize, height: usize, width: usize) -> Self {
        let plane = |channel: usize| values.iter().skip(channel).step_by(channels).copied().collect();
        Self((0..channels).map(|channel| Plane { height, width, values: plane(channel) }).collect())
    }

    /// From values plane by plane.
    pub(super) fn planes(values: &[u8], height: usize, width: usize) -> Self {
        let planes = values.chunks_exact((height * width).max(1));
        Self(planes.map(|values| Plane { height, width, values: values.to_vec() }).collect())
    }

    /// In so many channels: grey is repeated, colours are weighed as the eye does (ITU-R 601, in Pillow's fixed point).
    fn in_channels(self, channels: usize) -> Result<Self, String> {
        match (self.0.as_slice(), channels) {
            (planes, channels) if planes.len() == channels => Ok(self),
            ([grey], 3) => Ok(Self(vec![grey.clone(); 3])),
            ([red, green, blue], 1) => {
                let weigh = |((red, green), blue): ((&u8, &u8), &u8)| {
                    let sum = u32::from(*red) * 19_595 + u32::from(*green) * 38_470 + u32::from(*blue) * 7_471;
                    u8::try_from((sum + 0x8000) >> 16).unwrap_or(u8::MAX)
                };
                let values = red.values.iter().zip(&green.values).zip(&blue.values).map(weigh).collect();
                Ok(Self(vec![Plane { height: red.height, width: red.width, values }]))
            }
            (planes, channels) => Err(format!("has {} channels, but the backbone takes {channels}", planes.len())),
        }
    }
}

impl Shape {
    /// The picture in the backbone's channels and size.
    fn fit(self, picture: Picture) -> Result<Picture, String> {
        let planes = picture.in_channels(self.channels)?.0;
        let planes = planes.into_iter().map(|plane| self.sized(plane)).collect::<Result<Vec<_>, _>>()?;
        Ok(Picture(planes))
    }

    fn sized(self, plane: Plane) -> Result<Plane, String> {
        let asked = Processor { size: Resize::None, crop: None, resample: Resample::Bilinear };
        let Processor { size, crop, resample } = self.processor.unwrap_or(asked);
        let (height, width) = (plane.height, plane.width);
        let plane = match size {
            Resize::None => plane,
            Resize::Exact { height, width } => plane.resized(height, width, resample),
            Resize::ShortestEdge(edge) => {
                let longer = edge * height.max(width) / height.min(width).max(1);
                // Beyond that an image is but a line.
                if longer > edge.saturating_mul(256) {
                    return Err(format!("is {width} x {height} pixels: too narrow to be resized"));
                }
                let (height, width) = if height <= width { (edge, longer) } else { (longer, edge) };
                plane.resized(height, width, resample)
            }
        };
        let plane = match crop {
            Some(side) => plane.cropped(side)?,
            None => plane,
        };
        if (plane.height, plane.width) != (self.size, self.size) {
            return Err(format!(
                "is {width} x {height} pixels, but the backbone takes {0} x {0} and its processor does not resize to \
                 that",
                self.size
            ));
        }
        Ok(plane)
    }
}

impl Plane {
    /// The square in its middle.
    fn cropped(&self, side: usize) -> Result<Self, String> {
        let room = |length: usize| length.checked_sub(side).map(|room| room / 2);
        let (Some(top), Some(left)) = (room(self.height), room(self.width)) else {
            return Err(format!(
                "is {} x {} pixels, too small to cut {side} x {side} from it",
                self.width, self.height
            ));
        };
        let rows = self.values.chunks_exact(self.width.max(1)).skip(top).take(side);
        let values = rows.flat_map(|row| row.iter().skip(left).take(side)).copied().collect();
        Ok(Self { height: side, width: side, values })
    }
}

#[cfg(test)]
mod tests;
