use super::*;
use crate::testing;
use std::{fs, io::Write as _};

const DIRICHLET: &str = "labelled_per_node = 1\nalpha = 1.0\nmin_per_class = 0\nclasses_per_node = [1, 9]";

/// The data of `[data]` keys and files in a folder of their own.
fn read(task: TaskKind, keys: &str, files: &[(&str, &[u8])]) -> Result<Data, String> {
    let home = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(home.path().join(name), bytes).unwrap();
    }
    let mut plan: DataPlan = toml::from_str(keys).unwrap();
    plan.check(task).unwrap();
    let path = |path: &mut std::path::PathBuf| *path = home.path().join(&*path);
    [Some(&mut plan.file), plan.test.as_mut(), plan.anchors_file.as_mut()].into_iter().flatten().for_each(path);
    let home = format!("{}/", home.path().display());
    Data::read(&plan, task).map_err(|error| error.to_string().replace(&home, ""))
}

fn images(text: &str) -> Result<Data, String> {
    let keys = format!("file = \"x.csv\"\ntrain = 2\nanchors = 1\n{DIRICHLET}");
    read(TaskKind::ImageClassification, &keys, &[("x.csv", text.as_bytes())])
}

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap()
}

#[test]
fn csv_rows_keep_their_text_and_labels_their_order() {
    let data = images("# from somewhere\nlabel,p0,p1\n10,1,2\n9,3,4\n\n10,5,6\n").unwrap();
    assert_eq!(data.labels, ["9", "10"]);
    assert_eq!(data.rows.iter().map(|row| row.class).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(text(&data.file(&[2, 0])), "label,p0,p1\n10,5,6\n10,1,2\n");
    assert_eq!(text(&data.unlabelled_file(&[2])), "p0,p1\n5,6\n");
}

#[test]
fn mistakes_in_csv_have_a_place() {
    for (text, said) in [
        ("", "x.csv:1:1: there is no header"),
        ("# c\n1,2\n", "x.csv:2:1: not a header"),
        ("p0,p1\n1,2\n", "x.csv:1:1: not a header"),
        ("label,p0\n", "x.csv: it has no rows"),
        ("label,p0\n1,2\n1,2,3\n", "x.csv:3:1: 3 columns, but the header has 2"),
        ("label,p0\n,2\n", "x.csv:2:1: the label is missing"),
    ] {
        let message = images(text).unwrap_err();
        assert!(message.starts_with(said), "{message}");
    }
}

#[test]
fn csv_may_come_in_three_files() {
    let keys = format!("file = \"x.csv\"\ntest = \"t.csv\"\nanchors_file = \"a.csv\"\n{DIRICHLET}");
    let read = |test: &[u8], anchors: &[u8]| {
        let files: [(&str, &[u8]); 3] = [("x.csv", b"label,p0\n1,2\n0,3\n"), ("t.csv", test), ("a.csv", anchors)];
        read(TaskKind::ImageClassification, &keys, &files)
    };
    for anchors in ["p0\n7\n", "label,p0\n1,7\n"] {
        let data = read(b"label,p0\n1,5\n", anchors.as_bytes()).unwrap();
        assert_eq!((data.own.clone(), data.test.clone(), data.anchors.clone()), (0..2, Some(2..3), Some(3..4)));
        assert_eq!(text(&data.unlabelled_file(&[3])), "p0\n7\n");
    }
    assert_eq!(
        read(b"label,p0\n1,5\n2,5\n", b"p0\n7\n").unwrap_err(),
        "t.csv:3:1: the label 2 is not among those of the training data"
    );
    assert_eq!(read(b"label,p0,p1\n1,5,6\n", b"p0\n7\n").unwrap_err(), "t.csv: its columns are not those of x.csv");
    assert_eq!(read(b"label,p0\n1,5\n", b"p0,p1\n7,8\n").unwrap_err(), "a.csv: its columns are not those of x.csv");
}

fn labelled_texts(lines: &str) -> Result<Data, String> {
    let keys = format!("file = \"x.jsonl\"\ntrain = 2\nanchors = 1\n{DIRICHLET}");
    read(TaskKind::TextClassification, &keys, &[("x.jsonl", lines.as_bytes())])
}

#[test]
fn jsonl_rows_are_kept_whole_and_anchors_lose_their_labels() {
    let lines = "{\"text\": \"a\", \"label\": 1, \"label_text\": \"b\", \"fine_label\": \"b:c\"}\n{\"text\":\"b\",\"label\":\"a\"}\n";
    let data = labelled_texts(lines).unwrap();
    assert_eq!(data.labels, ["a", "b"]);
    assert_eq!(data.rows.iter().map(|row| row.class).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(text(&data.file(&[0, 1])), lines);
    assert_eq!(text(&data.unlabelled_file(&[0, 1])), "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
    let numbers = labelled_texts("{\"label\": 10}\n{\"label\": 9, \"label_text\": null}\n").unwrap();
    assert_eq!(numbers.labels, ["9", "10"]);
}

#[test]
fn mistakes_in_jsonl_have_a_place() {
    for (line, said) in [
        ("{\"label\": }", "x.jsonl:2:11: not a JSON object on one line: "),
        ("[1]", "x.jsonl:2:1: not a JSON object on one line: "),
        ("{\"text\": \"a\"}", "x.jsonl:2:1: the row has no label"),
        ("{\"label\": true}", "x.jsonl:2:1: the row has no label"),
    ] {
        let message = labelled_texts(&format!("{{\"label\": 1}}\n{line}\n")).unwrap_err();
        assert!(message.starts_with(said), "{message}");
    }
    // Rows that are not dealt need no column.
    let keys = "file = \"x.jsonl\"\ntest = \"t.jsonl\"\nanchors_file = \"a.jsonl\"\n\
                partition = \"column\"\ncolumn = \"speaker\"\nheld_per_node = 1";
    let files = [("t.jsonl", b"{\"text\": \"t\"}".as_slice()), ("a.jsonl", b"{}")];
    let read = |lines: &[u8]| read(TaskKind::CausalLm, keys, &[&files[..], &[("x.jsonl", lines)]].concat());
    let data = read(b"{\"text\": \"a\", \"speaker\": \"Ada\"}\n{\"text\": \"a\", \"speaker\": 7}\n").unwrap();
    assert_eq!((data.rows[0].group.as_str(), data.rows[1].group.as_str()), ("Ada", "7"));
    assert!(data.labels.is_empty());
    assert!(read(b"{\"text\": \"a\"}\n").unwrap_err().starts_with("x.jsonl:1:1: the row has no \"speaker\""));
}

/// Records of these labels, each with its place as its first pixel.
fn records(labels: &[u8]) -> Vec<u8> {
    (0..).zip(labels).flat_map(|(place, label)| [&[*label, place][..], &[7; 3071]].concat()).collect()
}

#[test]
fn cifar_records_are_read_and_written() {
    let keys = format!("file = \"x.bin.gz\"\ntest = \"t.bin\"\nanchors_file = \"a.bin\"\n{DIRICHLET}");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&records(&[1, 0, 1])).unwrap();
    let gzip = gzip.finish().unwrap();
    let (test, anchors) = (records(&[0]), records(&[255]));
    let files: [(&str, &[u8]); 4] =
        [("x.bin.gz", &gzip), ("t.bin", &test), ("a.bin", &anchors), ("labels.json", b"[\"cat\", \"dog\", \"emu\"]")];
    let data = read(TaskKind::ImageClassification, &keys, &files).unwrap();
    assert_eq!(data.labels, ["cat", "dog", "emu"]);
    assert_eq!(data.rows.iter().map(|row| row.class).collect::<Vec<_>>(), [1, 0, 1, 0, 0]);
    assert_eq!(data.unlabelled_file(&[4]), records(&[0]));
    assert_eq!(data.file(&[0, 1, 2]), records(&[1, 0, 1]));
    assert_eq!(data.unlabelled_file(&[0, 1, 2]), records(&[0, 0, 0]));
    assert_eq!(data.extension(), "bin");

    let plain = read(TaskKind::ImageClassification, &keys, &files[..3]).unwrap();
    assert_eq!((plain.labels.len(), plain.labels[9].as_str()), (10, "9"));
    let broken = |train: &[u8], labels: &[u8]| {
        let files: [(&str, &[u8]); 4] =
            [("x.bin", train), ("t.bin", &test), ("a.bin", &anchors), ("labels.json", labels)];
        read(TaskKind::ImageClassification, &keys.replace("x.bin.gz", "x.bin"), &files).unwrap_err()
    };
    assert!(broken(&records(&[0])[1..], b"[\"a\"]").starts_with("x.bin: its 3072 bytes are no records of 3073"));
    assert!(broken(&records(&[0, 2]), b"[\"a\", \"b\"]").starts_with("x.bin: record 2 has label 2, but there are 2"));
    assert!(broken(&records(&[0]), b"{}").starts_with("labels.json: it is no JSON list of names"));
    assert!(broken(b"", b"[\"a\"]").starts_with("x.bin: it has no rows"));
}

#[test]
fn plain_text_becomes_rows_and_a_test() {
    let words: String = (100..200).map(|word| format!("{word} ")).collect();
    let files: [(&str, &[u8]); 2] = [("x.txt", words.as_bytes()), ("a.jsonl", b"{\"text\": \"public\"}\n")];
    let keys = "file = \"x.txt\"\npiece_bytes = 19\ntest_share = 0.25\nheld_per_node = 1\nanchors_file = \"a.jsonl\"\npartition = \"iid\"";
    let data = read(TaskKind::CausalLm, keys, &files).unwrap();
    assert_eq!((data.own.clone(), data.test.clone(), data.anchors.clone()), (0..15, Some(15..20), Some(20..21)));
    assert_eq!(
        text(&data.file(&[0, 15, 20])),
        "{\"text\":\"100 101 102 103 104\"}\n{\"text\":\"175 176 177 178 179\"}\n{\"text\": \"public\"}\n"
    );
    assert_eq!(data.extension(), "jsonl");
    let message = read(TaskKind::CausalLm, keys, &[("x.txt", b"\xff"), files[1]]).unwrap_err();
    assert_eq!(message, "x.txt: it is no UTF-8 text: byte 0 is part of no character");
}

#[test]
fn real_data_is_read() {
    let Some(folder) = testing::real_data() else { return };
    let trec = format!(
        "file = \"{0}/train.jsonl\"\ntest = \"{0}/test.jsonl\"\nanchors = 128\n{DIRICHLET}",
        folder.join("text/trec6").display()
    );
    let data = Data::read(&toml::from_str(&trec).unwrap(), TaskKind::TextClassification).unwrap();
    assert_eq!(data.labels, ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]);
    assert_eq!((data.own.len(), data.test.map(|test| test.len())), (5_452, Some(500)));
    let cifar = format!(
        "file = \"{0}/train.bin.gz\"\ntest = \"{0}/test.bin.gz\"\nanchors = 128\n{DIRICHLET}",
        folder.join("vision/cifar10_4k").display()
    );
    let data = Data::read(&toml::from_str(&cifar).unwrap(), TaskKind::ImageClassification).unwrap();
    assert_eq!((data.labels.len(), data.labels[0].as_str()), (10, "airplane"));
    assert_eq!((data.own.len(), data.test.map(|test| test.len())), (3_000, Some(1_000)));
    for class in 0..10 {
        assert_eq!(data.rows.iter().filter(|row| row.class == class).count(), 400);
    }
}
