//! Rows of Parquet files.

use super::{
    DataError, files,
    rows::{Numbered, ROW_BYTES_MAX, Row, Value},
};
use parquet::{
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::{Field, Row as Record, reader::RowIter},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// The rows of a file, numbered from 1.
pub(super) fn rows(path: &Path) -> Result<impl Iterator<Item = Numbered> + use<>, DataError> {
    let file = files::plain(path)?;
    let owned = path.to_path_buf();
    let refuse = move |error: String| DataError::file(&owned, format!("is no whole Parquet file ({error})"));
    let reader = guarded(|| SerializedFileReader::new(file).map_err(|error| error.to_string())).map_err(&refuse)?;
    let columns = reader.metadata().file_metadata().schema_descr().num_columns();
    if columns == 0 {
        return Err(refuse("it has no columns".into()));
    }
    let mut records = RowIter::from_file_into(Box::new(reader));
    let mut number = 0;
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        number += 1;
        let next = guarded(|| records.next().transpose().map_err(|error| error.to_string()));
        ended = next.is_err();
        match next {
            Ok(record) => record.map(|record| Ok((number, row(record)))),
            Err(error) => Some(Err(refuse(error))),
        }
    }))
}

/// What the library does, which panics on some damaged files.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it is damaged".into()))
}

fn row(record: Record) -> Result<Row, String> {
    let row = fields(record);
    if row.size() > ROW_BYTES_MAX {
        return Err(format!("is larger than {ROW_BYTES_MAX} bytes"));
    }
    Ok(row)
}

fn fields(record: Record) -> Row {
    Row(record.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect())
}

/// Dates, decimals and maps are of no use here: they count as absent.
fn value(field: Field) -> Value {
    match field {
        Field::Bool(value) => Value::Bool(value),
        Field::Byte(value) => Value::Integer(value.into()),
        Field::Short(value) => Value::Integer(value.into()),
        Field::Int(value) => Value::Integer(value.into()),
        Field::Long(value) => Value::Integer(value),
        Field::UByte(value) => Value::Integer(value.into()),
        Field::UShort(value) => Value::Integer(value.into()),
        Field::UInt(value) => Value::Integer(value.into()),
        Field::ULong(value) => i64::try_from(value).map_or(Value::Real(value as f64), Value::Integer),
        Field::Float(value) => Value::Real(value.into()),
        Field::Double(value) => Value::Real(value),
        Field::Str(text) => Value::Text(text),
        Field::Bytes(bytes) => Value::Bytes(bytes.data().to_vec()),
        Field::Group(record) => Value::Row(fields(record)),
        Field::ListInternal(list) => Value::List(list.elements().iter().cloned().map(value).collect()),
        _ => Value::Null,
    }
}
