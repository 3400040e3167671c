//! Whole files through the doors that callers use, and real data sets.

use super::*;
use crate::backbone::{Resample, Resize};
use heterotune_scenarios::anchors::{self, PICTURES};
use std::{fs, path::PathBuf};

/// The folder with real models and data, or a word why the test is skipped. Where everything must be tested, it fails.
pub(super) fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/, text/ and vision/");
    }
    folder
}

fn names(folder: &Path) -> Vec<String> {
    serde_json::from_slice(&fs::read(folder.join("labels.json")).unwrap()).unwrap()
}

fn counts(labels: &[u32], classes: usize) -> Vec<usize> {
    (0..classes).map(|class| labels.iter().filter(|label| **label as usize == class).count()).collect()
}

const IMAGES: Takes = Takes::Pixels { channels: 1, size: 2 };
const TEXTS: Takes = Takes::Tokens { vocabulary: 127, context: 8 };

#[test]
fn what_a_backbone_takes_decides_what_is_read() {
    let (tokenizer, folder) = tokenizer::tests::characters();
    let labels = ["a".to_string(), "b".to_string()];
    let reader = |takes| Reader { takes, tokenizer: Some(&tokenizer), processor: None, labels: &labels };
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let table = path("pixels.csv", "label,p0,p1,p2,p3\nb,1,2,3,4\n");
    let (images, report) = classification(&table, &reader(IMAGES)).unwrap();
    assert_eq!((images.labels, report.rows), (vec![1], 1));
    assert!(matches!(images.inputs, Inputs::Pixels(pixels) if pixels.dims() == [1, 4]));
    let texts = path("texts.csv", "label,text\nb,xy\na,z\n");
    let (found, _) = classification(&texts, &reader(TEXTS)).unwrap();
    assert_eq!(found.labels, [1, 0]);
    assert!(matches!(found.inputs, Inputs::Tokens(texts) if texts == [vec![1, 120, 121], vec![1, 122]]));
    let (anchors, _) = unlabelled(&texts, &reader(TEXTS)).unwrap();
    assert_eq!(anchors.len(), 2);

    let refused = |path: &Path, reader: &Reader<'_>| classification(path, reader).map(|_| ()).unwrap_err().to_string();
    for (path, reader, told) in [
        (&table, reader(TEXTS), "is a table of pixels, but text is needed"),
        (&texts, reader(IMAGES), "holds no images"),
        (&path("x.jsonl", "{}"), reader(IMAGES), "holds no images"),
        (&path("x.bin", ""), reader(TEXTS), "holds images, but text is needed"),
        (&texts, Reader { tokenizer: None, ..reader(TEXTS) }, "has no tokenizer"),
        (&texts, Reader { labels: &[], ..reader(TEXTS) }, "no names of classes"),
        (&folder.path().join("missing.jsonl"), reader(TEXTS), "missing.jsonl: can't be read"),
    ] {
        let refusal = refused(path, &reader);
        assert!(refusal.contains(told), "{refusal}");
    }
}

#[test]
fn samples_are_counted_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let counted = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        count(&path).map_err(|error| error.to_string())
    };
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2][..], &[7; 6]].concat();
    for (name, bytes, expected) in [
        ("a.csv", &b"# by somebody\n\n# p0\np0,p1\n1,2\n3,4\n\n"[..], 2),
        ("b.csv", b"text\n\"two\nlines\"\nb\n", 2),
        ("c.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n", 2),
        ("d.txt", b"a\n\nb\nc", 3),
        ("e.bin", &[0; 2 * 3_073], 2),
        ("f.bin", &[0; 3_074], 1),
        ("g-images-idx3-ubyte", &idx, 3),
        (PICTURES.name, PICTURES.bytes, 128),
        (anchors::TEXTS.name, anchors::TEXTS.bytes, 256),
    ] {
        assert_eq!(counted(name, bytes), Ok(expected), "{name}");
    }
    assert!(counted("h.bin", b"abc").unwrap_err().contains("no whole number of CIFAR records"));
    assert!(count(folder.path()).unwrap_err().to_string().contains("is a folder"));
}

#[test]
fn the_pictures_that_ship_fit_every_backbone_whose_processor_resizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PICTURES.name);
    fs::write(&path, PICTURES.bytes).unwrap();
    let read = |channels, size, resize| {
        let processor = Processor { size: resize, crop: None, resample: Resample::Bicubic };
        let takes = Takes::Pixels { channels, size };
        unlabelled(&path, &Reader { takes, tokenizer: None, processor: Some(processor), labels: &[] })
    };
    for (channels, size) in [(3, 224), (1, 28), (1, 8), (3, 32)] {
        let resize = Resize::Exact { height: size, width: size };
        let (Inputs::Pixels(pixels), report) = read(channels, size, resize).unwrap() else { panic!("no pixels") };
        assert_eq!((pixels.dims(), report.bad_rows), (&[128, channels * size * size][..], 0));
    }
    assert!(read(1, 32, Resize::None).is_ok());
    let refusal = read(1, 8, Resize::None).map(|_| ()).unwrap_err().to_string();
    assert!(
        refusal.contains("is 32 x 32 pixels, but the backbone takes 8 x 8 and its processor does not"),
        "{refusal}"
    );
}

#[test]
fn real_texts_have_the_classes_that_are_known_of_them() {
    let Some(data) = real_data() else { return };
    let tokenizer = Tokenizer::open(&data.join("models/bert-minilm-l6-v2")).unwrap();
    let takes = Takes::Tokens { vocabulary: 30_522, context: 64 };
    for (set, file, rows, expected) in [
        ("trec6", "train", 5_452, vec![86, 1_162, 1_250, 1_223, 835, 896]),
        ("sst2", "train", 6_920, vec![3_310, 3_610]),
        ("sms_spam", "test", 1_000, vec![]),
    ] {
        let folder = data.join("text").join(set);
        let labels = names(&folder);
        let reader = Reader { takes, tokenizer: Some(&tokenizer), processor: None, labels: &labels };
        let (texts, report) = classification(&require(&folder, file).unwrap(), &reader).unwrap();
        let found = counts(&texts.labels, labels.len());
        println!("{report}; {found:?}");
        assert_eq!((report.rows, texts.inputs.len(), found.iter().sum::<usize>()), (rows, rows, rows));
        assert!(expected.is_empty() || found == expected, "{found:?}");
        let Inputs::Tokens(texts) = texts.inputs else { panic!("texts are no tokens") };
        assert!(texts.iter().all(|ids| ids.len() <= 64 && ids.starts_with(&[101]) && ids.ends_with(&[102])));
        // In another order of names, the same rows have other classes.
        let mut turned = labels.clone();
        turned.reverse();
        let reader = Reader { labels: &turned, ..reader };
        let (texts, _) = classification(&require(&folder, file).unwrap(), &reader).unwrap();
        assert_eq!(counts(&texts.labels, labels.len()), found.into_iter().rev().collect::<Vec<_>>());
    }
}

#[test]
fn real_images_are_the_same_in_every_layout() {
    let Some(data) = real_data() else { return };
    let digits = data.join("vision/digits8x8");
    let labels: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    let reader =
        Reader { takes: Takes::Pixels { channels: 1, size: 8 }, tokenizer: None, processor: None, labels: &labels };
    let (table, _) = classification(&digits.join("digits.csv"), &reader).unwrap();
    let (train, _) = classification(&require(&digits, "train").unwrap(), &reader).unwrap();
    let (test, report) = classification(&require(&digits, "test").unwrap(), &reader).unwrap();
    assert_eq!(report.rows, 360);
    assert_eq!([train.labels, test.labels].concat(), table.labels);
    let pixels = |inputs: Inputs| match inputs {
        Inputs::Pixels(pixels) => pixels.to_vec2::<f32>().unwrap(),
        Inputs::Tokens(_) => panic!("images are no pixels"),
    };
    assert_eq!([pixels(train.inputs), pixels(test.inputs)].concat(), pixels(table.inputs));

    let cifar = data.join("vision/cifar10_4k");
    let labels = names(&cifar);
    let takes = Takes::Pixels { channels: 3, size: 32 };
    let (images, report) =
        classification(&require(&cifar, "test").unwrap(), &Reader { takes, labels: &labels, ..reader }).unwrap();
    assert_eq!((report.rows, counts(&images.labels, 10)), (1_000, vec![100; 10]));
    assert_eq!(pixels(images.inputs)[0].len(), 3_072);
}
