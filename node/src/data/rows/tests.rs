//! Tables in every format, good and damaged.

use super::*;
use ::parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, Int64Type},
    file::writer::SerializedFileWriter,
    schema::parser::parse_message_type,
};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{fs, io::Write, sync::Arc};

type Rows = (Vec<Row>, Report);

fn read_file(path: &Path) -> Result<Rows, String> {
    let mut rows = Vec::new();
    let report = each(path, |row| {
        rows.push(row);
        Ok(())
    });
    report.map(|report| (rows, report)).map_err(|error| error.to_string())
}

fn read(name: &str, contents: &[u8]) -> Result<Rows, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    read_file(&path)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn row(fields: &[(&str, Value)]) -> Row {
    Row(fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
}

#[test]
fn jsonl_keeps_types_and_nesting() {
    let json = "\u{feff}{\"text\": \"a\\nb\", \"label\": 3, \"x\": [1.5, null, true]}\r\n\n{\"m\": {\"k\": -2}}";
    let (rows, report) = read("x.jsonl", json.as_bytes()).unwrap();
    assert_eq!((report.rows, report.bad_rows), (2, 0));
    let list = Value::List(vec![Value::Real(1.5), Value::Null, Value::Bool(true)]);
    assert_eq!(rows[0].get("text"), Some(&text("a\nb")));
    assert_eq!((rows[0].get("label"), rows[0].get("x")), (Some(&Value::Integer(3)), Some(&list)));
    assert_eq!(rows[1].get("m"), Some(&Value::Row(row(&[("k", Value::Integer(-2))]))));
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(json.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(read("x.jsonl.gz", &packed).unwrap().0, rows);
    assert!(read("x.jsonl.gz", &packed[..packed.len() - 9]).unwrap_err().contains("can't be read"));
}

#[test]
fn csv_has_quotes_and_lines_within_fields() {
    let (rows, _) = read("x.csv", b"text, label\n\"a, \"\"b\"\"\nc\",1\nd,2\n").unwrap();
    assert_eq!(rows[0], row(&[("text", text("a, \"b\"\nc")), ("label", text("1"))]));
    assert_eq!(rows[1], row(&[("text", text("d")), ("label", text("2"))]));
}

#[test]
fn plain_text_is_a_row_a_line() {
    let (rows, _) = read("x.txt", b"one\n\n two \n").unwrap();
    assert_eq!(rows, [row(&[("text", text("one"))]), row(&[("text", text("two"))])]);
}

#[test]
fn bad_rows_are_told_by_line() {
    let good = "{\"text\": \"a\"}\n".repeat(200);
    for (bad, told) in [
        (&b"{\"text\": \n"[..], "is no JSON object"),
        (b"{\"text\": \"\xff\"}\n", "is not UTF-8"),
        (b"[]\n", "is no JSON object"),
    ] {
        let (rows, report) = read("x.jsonl", &[good.as_bytes(), bad, good.as_bytes()].concat()).unwrap();
        assert_eq!((rows.len(), report.rows, report.bad_rows), (400, 401, 1));
        assert_eq!(report.bad[0].0, 201);
        assert!(report.bad[0].1.contains(told), "{}", report.bad[0].1);
    }
    let table = [b"text,label\n", "a,1\n".repeat(150).as_bytes(), b"b\n", b"\xff,1\n"].concat();
    let refusal = read("x.csv", &table).unwrap_err();
    assert!(refusal.contains("2 of 152 rows") && refusal.contains("line 152: has 1 fields"), "{refusal}");
    for name in ["x.jsonl", "x.csv", "x.txt"] {
        assert!(read(name, b"").unwrap_err().contains("is empty"));
    }
    assert!(read("x.csv", b"text,label\n").unwrap_err().contains("is empty"));
    assert!(read("x.bin", b"").unwrap_err().contains("holds images, but text is needed"));
}

#[test]
fn a_row_that_does_not_end_is_not_kept_in_memory() {
    let long = vec![b'a'; ROW_BYTES_MAX + 1];
    let (rows, report) = read("x.txt", &[&long[..], b"its end\n", &b"b\n".repeat(99)].concat()).unwrap();
    assert_eq!((rows.len(), report.bad[0].0), (99, 1));
    assert!(report.bad[0].1.contains("is longer than"));
    let refusal = read("x.csv", &[b"text\n\"", &long[..], &long[..]].concat()).unwrap_err();
    assert!(refusal.contains("is a quote not closed?"), "{refusal}");
}

/// Writes one column.
fn column<T: DataType>(
    group: &mut ::parquet::file::writer::SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, definition, repetition).unwrap();
    column.close().unwrap();
}

/// A Parquet file with a text (one missing), a label, an image group, and messages.
fn parquet() -> Vec<u8> {
    let schema = "message rows {
        OPTIONAL BYTE_ARRAY text (UTF8);
        REQUIRED INT64 label;
        OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
        OPTIONAL group messages (LIST) { REPEATED group list { OPTIONAL group element {
            OPTIONAL BYTE_ARRAY role (UTF8); OPTIONAL BYTE_ARRAY content (UTF8); } } }
    }";
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(parse_message_type(schema).unwrap()), Arc::default());
    let file = file.as_mut().unwrap();
    let mut group = file.next_row_group().unwrap();
    let bytes = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    column::<ByteArrayType>(&mut group, &bytes(&["a"]), Some(&[1, 0]), None);
    column::<Int64Type>(&mut group, &[3, 4], None, None);
    column::<ByteArrayType>(&mut group, &[vec![0xff, 0].into(), vec![1].into()], Some(&[2, 2]), None);
    column::<ByteArrayType>(&mut group, &bytes(&["x.png"]), Some(&[2, 1]), None);
    column::<ByteArrayType>(&mut group, &bytes(&["user", "assistant", "user"]), Some(&[4; 3]), Some(&[0, 1, 0]));
    column::<ByteArrayType>(&mut group, &bytes(&["Hi", "Ho", "Hu"]), Some(&[4; 3]), Some(&[0, 1, 0]));
    group.close().unwrap();
    file.finish().unwrap();
    file.inner().clone()
}

#[test]
fn parquet_keeps_types_and_nesting() {
    let (rows, report) = read("x.parquet", &parquet()).unwrap();
    assert_eq!(report.rows, 2);
    assert_eq!((rows[0].get("text"), rows[1].get("text")), (Some(&text("a")), None));
    assert_eq!((rows[0].get("label"), rows[1].get("label")), (Some(&Value::Integer(3)), Some(&Value::Integer(4))));
    let image = row(&[("bytes", Value::Bytes(vec![0xff, 0])), ("path", text("x.png"))]);
    assert_eq!(rows[0].get("image"), Some(&Value::Row(image)));
    let message = |role, content| Value::Row(row(&[("role", text(role)), ("content", text(content))]));
    let messages = |at: usize| rows[at].get("messages").unwrap().clone();
    assert_eq!(messages(0), Value::List(vec![message("user", "Hi"), message("assistant", "Ho")]));
    assert_eq!(messages(1), Value::List(vec![message("user", "Hu")]));
}

#[test]
fn damaged_parquet_is_refused_and_does_not_panic() {
    let whole = parquet();
    for cut in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        assert!(read("x.parquet", &whole[..cut]).unwrap_err().contains("is no whole Parquet file"));
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x15;
        // Whatever it is read as: only not a panic.
        drop(read("x.parquet", &damaged));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a table says does not depend on its format.
    #[test]
    fn texts_come_back_as_they_were_written(texts in prop::collection::vec("\\PC{0,12}[a-z\"',\n]", 1..6)) {
        let json: String = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["text", "x"]).unwrap();
        texts.iter().for_each(|text| table.write_record([text, "1"]).unwrap());
        let table = table.into_inner().unwrap();
        for (name, contents) in [("x.jsonl", json.as_bytes()), ("x.csv", &table)] {
            let (rows, _) = read(name, contents).unwrap();
            let found: Vec<_> = rows.iter().map(|row| row.required("text").unwrap().into_owned()).collect();
            prop_assert_eq!(&found, &texts);
        }
    }
}
