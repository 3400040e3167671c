//! Images in the binary layouts of two well-known sets: MNIST's IDX and CIFAR's records.

use super::{
    DataError, Report,
    files::{self, FILE_BYTES_MAX, IDX_IMAGES},
    image::{Images, Picture},
    rows::Value,
};
use std::path::{Path, PathBuf};

/// What the names of IDX labels end in.
const IDX_LABELS: &str = "-labels-idx1-ubyte";
/// The first four bytes: unsigned bytes in three dimensions, or in one.
const IDX_MAGIC_IMAGES: u32 = 0x0803;
const IDX_MAGIC_LABELS: u32 = 0x0801;

/// A CIFAR image: three planes of 32 x 32.
const CIFAR_SIDE: usize = 32;
const CIFAR_BYTES: usize = 3 * CIFAR_SIDE * CIFAR_SIDE;

/// CIFAR-10's records, a label and the planes, or CIFAR-100's, which have a coarse label before the fine one.
pub(super) fn cifar(path: &Path, images: &mut Images<'_>) -> Result<Report, DataError> {
    let (bytes, labels) = cifar_bytes(path)?;
    let mut report = Report::new(path);
    for (index, record) in bytes.chunks_exact(labels + CIFAR_BYTES).enumerate() {
        let (labels, planes) = record.split_at(labels);
        let label = Value::Integer(labels.last().copied().unwrap_or(0).into());
        report.note(index + 1, images.push(Picture::planes(planes, CIFAR_SIDE, CIFAR_SIDE), &label));
    }
    report.finish()
}

/// How many records there are.
pub(super) fn cifar_count(path: &Path) -> Result<usize, DataError> {
    cifar_bytes(path).map(|(bytes, labels)| bytes.len() / (labels + CIFAR_BYTES))
}

/// The records, and how many bytes of each are labels.
fn cifar_bytes(path: &Path) -> Result<(Vec<u8>, usize), DataError> {
    let bytes = files::bytes(path, FILE_BYTES_MAX)?;
    let labels = [1, 2].into_iter().find(|labels| bytes.len() % (labels + CIFAR_BYTES) == 0);
    let refuse = || DataError::file(path, "is no whole number of CIFAR records (3073 bytes each, or 3074)");
    labels.map(|labels| (bytes, labels)).ok_or_else(refuse)
}

/// How many images an IDX file has.
pub(super) fn idx_count(path: &Path) -> Result<usize, DataError> {
    let bytes = files::bytes(path, FILE_BYTES_MAX)?;
    contents(path, &bytes, IDX_MAGIC_IMAGES).map(|([count, _, _], _)| count)
}

/// The images of an IDX file, with the labels of the one beside it where they are asked for.
pub(super) fn idx(path: &Path, images: &mut Images<'_>) -> Result<Report, DataError> {
    let bytes = files::bytes(path, FILE_BYTES_MAX)?;
    let ([count, height, width], values) = contents(path, &bytes, IDX_MAGIC_IMAGES)?;
    let labels = if images.labelled() { labels(path, count)? } else { vec![0; count] };
    let mut report = Report::new(path);
    let pixels = (height * width).max(1);
    for (index, (values, label)) in values.chunks_exact(pixels).zip(labels).enumerate() {
        report.note(index + 1, images.push(Picture::planes(values, height, width), &Value::Integer(label.into())));
    }
    report.finish()
}

/// The `count` labels that belong to the images at `path`.
fn labels(path: &Path, count: usize) -> Result<Vec<u8>, DataError> {
    let sibling = sibling(path);
    let bytes = files::bytes(&sibling, FILE_BYTES_MAX)?;
    let ([found], labels) = contents(&sibling, &bytes, IDX_MAGIC_LABELS)?;
    if found != count {
        return Err(DataError::file(&sibling, format!("holds {found} labels, but there are {count} images beside it")));
    }
    Ok(labels.to_vec())
}

/// The labels' file: packed if there is a packed one, and no other.
fn sibling(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".gz").unwrap_or(&name).replace(IDX_IMAGES, IDX_LABELS);
    let unpacked = path.with_file_name(&plain);
    if unpacked.is_file() { unpacked } else { path.with_file_name(format!("{plain}.gz")) }
}

/// The sizes that an IDX file says it has, and as many values.
fn contents<'a, const D: usize>(path: &Path, bytes: &'a [u8], magic: u32) -> Result<([usize; D], &'a [u8]), DataError> {
    let refuse = |problem: &str| DataError::file(path, format!("is no whole IDX file ({problem}); download it anew"));
    let mut words = bytes.chunks_exact(4).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
    if words.next() != Some(magic) {
        return Err(refuse("its first bytes are others"));
    }
    let mut sizes = [0; D];
    for size in &mut sizes {
        *size = words.next().ok_or_else(|| refuse("it ends too early"))? as usize;
    }
    let values = bytes.get(4 * (D + 1)..).unwrap_or_default();
    let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if count != Some(values.len()) {
        return Err(refuse(&format!("it says {sizes:?}, but has {} values", values.len())));
    }
    Ok((sizes, values))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            image::{Shape, read},
            labels::Classes,
        },
        *,
    };
    use std::fs;

    fn bytes(magic: u32, sizes: &[u32], values: &[u8]) -> Vec<u8> {
        let words = [magic].into_iter().chain(sizes.iter().copied()).flat_map(u32::to_be_bytes);
        words.chain(values.iter().copied()).collect()
    }

    fn names() -> Vec<String> {
        (0..3).map(|name| name.to_string()).collect()
    }

    #[test]
    fn idx_images_and_labels_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train-images-idx3-ubyte");
        let beside = folder.path().join("train-labels-idx1-ubyte");
        fs::write(&path, bytes(IDX_MAGIC_IMAGES, &[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 255])).unwrap();
        let shape = Shape { channels: 1, size: 2, processor: None };
        let names = names();
        let read = || read(&path, shape, Some(Classes::new(&names))).map_err(|error| error.to_string());
        assert!(read().unwrap_err().contains("train-labels-idx1-ubyte"));
        fs::write(&beside, bytes(IDX_MAGIC_LABELS, &[2], &[2, 0])).unwrap();
        let (pixels, labels, _) = read().unwrap();
        assert_eq!(pixels.to_vec2::<f32>().unwrap(), [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 255.0]]);
        assert_eq!(labels, [2, 0]);
        fs::write(&beside, bytes(IDX_MAGIC_LABELS, &[1], &[2])).unwrap();
        assert!(read().unwrap_err().contains("holds 1 labels, but there are 2 images"));
        for (damaged, told) in [
            (bytes(0x0802, &[2, 2, 2], &[0; 8]), "its first bytes are others"),
            (bytes(IDX_MAGIC_IMAGES, &[2, 2], &[]), "it ends too early"),
            (bytes(IDX_MAGIC_IMAGES, &[2, 2, 2], &[0; 7]), "has 7 values"),
            (bytes(IDX_MAGIC_IMAGES, &[u32::MAX; 3], &[0; 7]), "has 7 values"),
            (bytes(IDX_MAGIC_IMAGES, &[0, 2, 2], &[]), "holds 2 labels, but there are 0 images"),
            (bytes(IDX_MAGIC_IMAGES, &[2, 0, 2], &[]), "is empty"),
        ] {
            fs::write(&beside, bytes(IDX_MAGIC_LABELS, &[2], &[2, 0])).unwrap();
            fs::write(&path, damaged).unwrap();
            let refusal = read().unwrap_err();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn cifar_records_have_one_label_or_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        let names = names();
        for labels in [vec![1], vec![9, 1]] {
            let planes = (0..CIFAR_BYTES).map(|at| (at / 1_024) as u8 * 100);
            let record: Vec<u8> = labels.into_iter().chain(planes).collect();
            fs::write(&path, record.repeat(2)).unwrap();
            let shape = Shape { channels: 3, size: 32, processor: None };
            let (pixels, labels, report) = read(&path, shape, Some(Classes::new(&names))).unwrap();
            assert_eq!((labels, report.rows), (vec![1, 1], 2));
            let pixels = pixels.to_vec2::<f32>().unwrap();
            assert_eq!([pixels[1][0], pixels[1][1_024], pixels[1][3_071]], [0.0, 100.0, 200.0]);
            fs::write(&path, [record, vec![0, 0]].concat()).unwrap();
            assert!(read(&path, shape, None).unwrap_err().to_string().contains("no whole number of CIFAR records"));
        }
    }
}
