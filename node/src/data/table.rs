//! Samples from CSV files: a header (`label,p0,p1,..`, or without `label`), then integer pixel values line by line,
//! row by row and channel by channel. Lines that start with `#` before the header are comments.

use super::{
    DataError,
    files::{self, FILE_BYTES_MAX},
};
use candle_core::{Device, Tensor};
use std::path::Path;

/// How far into a file its header is looked for.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Table {
    /// Pixel values `[rows, pixels]`.
    pub(crate) pixels: Tensor,
    /// The index of each row's label; empty where the file has none.
    pub(crate) labels: Vec<u32>,
}

/// What a file must say about labels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Labels<'a> {
    /// Every row starts with one of these.
    OneOf(&'a [String]),
    /// There are none: the file is public.
    Absent,
    /// There may be some, but they are not looked at.
    Ignored,
}

/// The bytes of a file, if they are not too many.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    files::bytes(path, FILE_BYTES_MAX)
}

/// Whether a table's header names pixels. Comments and empty lines may stand before it.
pub(crate) fn has_pixels(path: &Path) -> Result<bool, DataError> {
    let start = files::bytes_at_most(path, HEADER_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&start);
    let header = text.lines().map(str::trim).find(|line| !line.starts_with('#') && !line.is_empty());
    Ok(header.is_some_and(|header| header.split(',').any(|column| column.trim() == "p0")))
}

/// How many rows a table has.
pub(super) fn count(path: &Path) -> Result<usize, DataError> {
    let bytes = bytes(path)?;
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    Ok(lines.skip_while(|line| line.starts_with(b"#")).skip(1).count())
}

/// Reads the rows in `bytes`, which came from `path`.
pub(crate) fn parse(path: &Path, bytes: &[u8], pixels: usize, expected: Labels<'_>) -> Result<Table, DataError> {
    let text = std::str::from_utf8(bytes).map_err(|error| DataError::file(path, format!("is not text ({error})")))?;
    let refuse = |line: usize, problem: String| DataError::Line { path: path.into(), line, problem };
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let Some((line, header)) = lines.find(|(_, line)| !line.starts_with('#') && !line.is_empty()) else {
        return Err(DataError::file(path, "is empty; the first line must be a header like label,p0,p1"));
    };
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    let labelled = columns.first() == Some(&"label");
    match expected {
        Labels::OneOf(_) if !labelled => return Err(refuse(line, "the header must start with label".into())),
        Labels::Absent if labelled => {
            return Err(refuse(line, "the header must not have label, as the file is public".into()));
        }
        _ => (),
    }
    let found = columns.len() - usize::from(labelled);
    if found != pixels {
        return Err(refuse(line, format!("{found} pixels in a row, but the backbone takes {pixels}")));
    }
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (line, row) in lines.filter(|(_, row)| !row.is_empty()) {
        let mut cells = row.split(',').map(str::trim);
        let label = if labelled { cells.next().unwrap_or_default() } else { "" };
        if let Labels::OneOf(names) = expected {
            let index = names.iter().position(|name| name == label);
            let index = index.ok_or_else(|| refuse(line, format!("\"{label}\" is none of the charter's labels")))?;
            labels.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
        let before = values.len();
        for cell in cells {
            let value: u16 =
                cell.parse().map_err(|_| refuse(line, format!("\"{cell}\" is no pixel value (0 to 65535)")))?;
            values.push(f32::from(value));
        }
        if values.len() - before != pixels {
            return Err(refuse(line, format!("{} pixels, but the header has {pixels}", values.len() - before)));
        }
    }
    let rows = values.len() / pixels.max(1);
    if rows == 0 {
        return Err(DataError::file(path, "has a header, but no samples"));
    }
    Ok(Table { pixels: Tensor::from_vec(values, (rows, pixels), &Device::Cpu)?, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, names: Option<&[&str]>) -> Result<Table, String> {
        let names: Option<Vec<String>> = names.map(|names| names.iter().map(|name| name.to_string()).collect());
        let labels = names.as_deref().map_or(Labels::Absent, Labels::OneOf);
        parse(Path::new("x.csv"), text.as_bytes(), 2, labels).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_and_pixels_are_read() {
        let table = read("# by somebody\nlabel,p0,p1\nb,1,2\r\na, 3,4\n\n", Some(&["a", "b"])).unwrap();
        assert_eq!(table.labels, [1, 0]);
        assert_eq!(table.pixels.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
        assert!(read("p0,p1\n1,2\n", None).unwrap().labels.is_empty());
    }

    #[test]
    fn mistakes_are_told_by_file_and_line() {
        let names = Some(&["a", "b"][..]);
        for (text, names, told) in [
            ("", names, "x.csv: is empty"),
            ("label,p0,p1\n", names, "no samples"),
            ("label,p0\na,1\n", names, "line 1: 1 pixels"),
            ("p0,p1\n1,2\n", names, "line 1: the header must start with label"),
            ("label,p0,p1\na,1,2\n", None, "line 1: the header must not have label"),
            ("#\nlabel,p0,p1\nc,1,2\n", names, "line 3: \"c\" is none"),
            ("label,p0,p1\na,1,2\na,1,-2\n", names, "line 3: \"-2\" is no pixel"),
            ("label,p0,p1\na,1,2,3\n", names, "line 2: 3 pixels"),
            ("label,p0,p1\na,1\n", names, "line 2: 1 pixels"),
        ] {
            let error = read(text, names).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(parse(Path::new("x.csv"), &[0xff, 0xfe], 2, Labels::Absent).is_err());
    }
}
