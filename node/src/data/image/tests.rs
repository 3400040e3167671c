//! Images from folders and tables, in every format, brought to a backbone's size.

use super::*;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, RgbaImage};

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture of 4 x 3 whose values are all different.
fn colours() -> RgbImage {
    RgbImage::from_raw(4, 3, (0..36u32).map(|i| (i * 37 % 256) as u8).collect()).unwrap()
}

fn values(picture: Picture) -> Vec<u8> {
    picture.0.into_iter().flat_map(|plane| plane.values).collect()
}

fn shape(channels: usize, size: usize, resize: Resize, crop: Option<usize>) -> Shape {
    Shape { channels, size, processor: Some(Processor { size: resize, crop, resample: Resample::Bilinear }) }
}

#[test]
fn every_format_decodes_and_transparency_is_dropped() {
    let planes: Vec<u8> =
        (0..3).flat_map(|channel| colours().pixels().map(move |p| p.0[channel]).collect::<Vec<_>>()).collect();
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        assert_eq!(values(decode(&encoded(&colours().into(), format)).unwrap()), planes, "{format:?}");
    }
    let jpeg = decode(&encoded(&RgbImage::from_pixel(8, 8, image::Rgb([200; 3])).into(), ImageFormat::Jpeg)).unwrap();
    assert!(values(jpeg).iter().all(|value| value.abs_diff(200) < 3));
    let clear = RgbaImage::from_pixel(1, 1, image::Rgba([9, 8, 7, 0]));
    assert_eq!(values(decode(&encoded(&clear.into(), ImageFormat::Png)).unwrap()), [9, 8, 7]);
    let grey = GrayImage::from_raw(2, 1, vec![5, 250]).unwrap();
    assert_eq!(values(decode(&encoded(&grey.into(), ImageFormat::Png)).unwrap()), [5, 250]);
}

#[test]
fn what_does_not_decode_is_told() {
    let whole = encoded(&colours().into(), ImageFormat::Png);
    for bytes in [&b""[..], b"hello", &whole[..whole.len() / 2]] {
        assert!(decode(bytes).map(|_| ()).unwrap_err().contains("does not decode as an image"));
    }
    // A header that promises too much is refused before the pixels are read: width and height, and its checksum.
    let mut huge = encoded(&colours().into(), ImageFormat::Png);
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let mut sum = flate2::Crc::new();
    sum.update(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    let refusal = decode(&huge).map(|_| ()).unwrap_err();
    assert!(refusal.contains("is 65536 x 65536 pixels large"), "{refusal}");
}

#[test]
fn channels_and_size_become_the_backbones() {
    let picture = || decode(&encoded(&colours().into(), ImageFormat::Png)).unwrap();
    // As Pillow 12.3.0 makes it grey.
    let grey = [30, 141, 73, 107, 189, 73, 184, 39, 150, 82, 116, 198];
    assert_eq!(values(picture().in_channels(1).unwrap()), grey);
    let three = Picture::planes(&grey, 3, 4).in_channels(3).unwrap();
    assert_eq!(values(three), grey.repeat(3));
    // The middle of it.
    let cut = shape(1, 2, Resize::None, Some(2)).fit(Picture::planes(&grey, 3, 4)).unwrap();
    assert_eq!(values(cut), [141, 73, 73, 184]);
    let fitted = shape(3, 6, Resize::Exact { height: 6, width: 6 }, None).fit(picture()).unwrap();
    assert_eq!(values(fitted).len(), 3 * 36);
    let fitted = shape(1, 6, Resize::ShortestEdge(6), Some(6)).fit(Picture::planes(&grey, 3, 4)).unwrap();
    let whole = Plane { height: 3, width: 4, values: grey.to_vec() }.resized(6, 8, Resample::Bilinear);
    assert_eq!(fitted.0, [whole.cropped(6).unwrap()]);
    for (shape, told) in [
        (shape(1, 3, Resize::None, None), "is 4 x 3 pixels, but the backbone takes 3 x 3"),
        (shape(1, 4, Resize::None, Some(4)), "too small to cut 4 x 4"),
        (shape(4, 4, Resize::None, None), "has 1 channels, but the backbone takes 4"),
        (Shape { channels: 1, size: 4, processor: None }, "is 4 x 3 pixels"),
    ] {
        let refusal = shape.fit(Picture::planes(&grey, 3, 4)).map(|_| ()).unwrap_err();
        assert!(refusal.contains(told), "{refusal}");
    }
    let narrow = Picture::planes(&vec![0; 3_000], 1, 3_000);
    assert!(shape(1, 6, Resize::ShortestEdge(6), Some(6)).fit(narrow).map(|_| ()).unwrap_err().contains("too narrow"));
}

#[test]
fn a_folder_per_class_is_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let image = |value: u8| encoded(&GrayImage::from_raw(1, 1, vec![value]).unwrap().into(), ImageFormat::Png);
    for (name, value) in [("dog/b.png", 3), ("dog/a.PNG", 2), ("cat/z.png", 1), ("dog/.hidden", 9)] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, image(value)).unwrap();
    }
    let names = ["dog".to_string(), "cat".to_string()];
    let shape = Shape { channels: 1, size: 1, processor: None };
    let labelled = || read(folder.path(), shape, Some(Classes::new(&names))).map_err(|error| error.to_string());
    let (pixels, labels, report) = labelled().unwrap();
    assert_eq!((pixels.to_vec2::<f32>().unwrap(), labels), (vec![vec![1.0], vec![2.0], vec![3.0]], vec![1, 0, 0]));
    assert_eq!(report.rows, 3);
    assert_eq!(read(folder.path(), shape, None).unwrap().0.dims(), [3, 1]);

    fs::write(folder.path().join("dog/notes.md"), "x").unwrap();
    let refusal = labelled().unwrap_err();
    assert!(refusal.contains("1 of 4 rows") && refusal.contains("dog/notes.md is no .png"), "{refusal}");
    fs::remove_file(folder.path().join("dog/notes.md")).unwrap();
    fs::write(folder.path().join("a.png"), image(1)).unwrap();
    assert!(labelled().unwrap_err().contains("a.png: must be in a folder"));
    fs::remove_file(folder.path().join("a.png")).unwrap();
    fs::rename(folder.path().join("cat"), folder.path().join("cow")).unwrap();
    assert!(labelled().unwrap_err().contains("cow: \"cow\" is none of the labels"));
}

#[test]
fn a_tables_image_is_bytes_or_a_group_with_bytes() {
    let names = ["no".to_string(), "yes".to_string()];
    let shape = Shape { channels: 1, size: 1, processor: None };
    let png = encoded(&GrayImage::from_raw(1, 1, vec![7]).unwrap().into(), ImageFormat::Png);
    let group = Row(vec![("bytes".into(), Value::Bytes(png.clone())), ("path".into(), Value::Null)]);
    let mut images = Images { shape, classes: Some(Classes::new(&names)), values: Vec::new(), labels: Vec::new() };
    let label = ("label".to_string(), Value::Integer(1));
    images.row(&Row(vec![("image".into(), Value::Row(group)), label.clone()])).unwrap();
    images.row(&Row(vec![("img".into(), Value::Bytes(png)), label.clone()])).unwrap();
    assert_eq!((images.values.as_slice(), images.labels.as_slice()), (&[7.0, 7.0][..], &[1, 1][..]));
    for (field, told) in [
        (("picture".to_string(), Value::Null), "there is no field image"),
        (("image".to_string(), Value::Row(Row::default())), "the image has no bytes"),
        (("image".to_string(), Value::Integer(3)), "the image is no bytes"),
        (("image".to_string(), Value::Bytes(vec![1, 2])), "does not decode"),
    ] {
        assert!(images.row(&Row(vec![field, label.clone()])).unwrap_err().contains(told));
    }
}
