//! The files of a data folder: which there are, what their names say of them, and their bytes within bounds.

use super::DataError;
use flate2::read::MultiGzDecoder;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// The most bytes of a file, packed or unpacked: a million images of 28 x 28 as text.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 30;
/// The most bytes of a tokenizer or a configuration: the largest vocabularies take about 35 MB.
const JSON_BYTES_MAX: u64 = 128 << 20;

/// What a file holds, as its name says. All but Parquet may be packed (`.gz`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then a row a line (`.csv`).
    Csv,
    /// A JSON object a line (`.jsonl`).
    Jsonl,
    /// A table with typed columns (`.parquet`).
    Parquet,
    /// Plain text (`.txt`).
    Text,
    /// The CIFAR sets' binary records (`.bin`).
    Cifar,
    /// The MNIST set's layout (`*-images-idx3-ubyte`, with `*-labels-idx1-ubyte` beside it).
    Idx,
    /// A folder of images, with a folder per class where they are labelled.
    Images,
}

/// What the names of IDX images end in.
pub(super) const IDX_IMAGES: &str = "-images-idx3-ubyte";
/// What files are called besides their names; `.gz` may follow.
const ENDINGS: [&str; 6] = [".csv", ".jsonl", ".parquet", ".txt", ".bin", IDX_IMAGES];

impl Format {
    /// The format of what is at `path`.
    ///
    /// # Errors
    /// A name that says nothing.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        if path.is_dir() {
            return Ok(Self::Images);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        match plain.rsplit_once('.').map(|(_, extension)| extension) {
            _ if plain.ends_with(IDX_IMAGES) => Ok(Self::Idx),
            Some("csv") => Ok(Self::Csv),
            Some("jsonl") => Ok(Self::Jsonl),
            Some("parquet") if plain == name => Ok(Self::Parquet),
            Some("txt") => Ok(Self::Text),
            Some("bin") => Ok(Self::Cifar),
            _ => Err(DataError::file(
                path,
                "is of no kind that is read: .jsonl, .csv, .txt, .bin or *-images-idx3-ubyte (each also .gz), .parquet, \
                 or a folder of images",
            )),
        }
    }
}

/// The file or folder in `folder` that holds `name` (`train`, `test`, ..), in whatever format; none if there is none.
///
/// # Errors
/// Two of them.
pub fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>, DataError> {
    let names = ENDINGS.iter().flat_map(|ending| ["", ".gz"].map(|packed| format!("{name}{ending}{packed}")));
    let files = names.map(|name| folder.join(name)).filter(|path| path.is_file());
    let images = Some(folder.join(name)).filter(|path| path.is_dir());
    let mut found = files.chain(images);
    match (found.next(), found.next()) {
        (Some(one), Some(two)) => {
            let other = two.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(DataError::file(&one, format!("is here, but {other} is as well; keep only one of the two")))
        }
        (one, _) => Ok(one),
    }
}

/// As [`find`], where the data must be there.
///
/// # Errors
/// Nothing, or two of them.
pub fn require(folder: &Path, name: &str) -> Result<PathBuf, DataError> {
    find(folder, name)?.ok_or_else(|| {
        DataError::file(
            folder,
            format!(
                "has no {name}.jsonl, {name}.csv, {name}.parquet, {name}.txt, {name}.bin, {name}/ or {name}{IDX_IMAGES}"
            ),
        )
    })
}

/// The bytes of a file one after the other, unpacked where its name ends in `.gz`.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, DataError> {
    let file = plain(path)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        let unpacked = Bounded { reader: MultiGzDecoder::new(BufReader::new(file)), left: FILE_BYTES_MAX };
        return Ok(Box::new(BufReader::new(unpacked)));
    }
    Ok(Box::new(BufReader::new(file)))
}

/// A file as it is on the disk, if it is not too large.
pub(super) fn plain(path: &Path) -> Result<File, DataError> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    if file.metadata().map_err(|error| unreadable(path, &error))?.len() > FILE_BYTES_MAX {
        return Err(DataError::file(path, "is larger than 4 GiB; take fewer samples"));
    }
    Ok(file)
}

/// All bytes of a file, unpacked where its name ends in `.gz`.
///
/// # Errors
/// A file that can't be read, or has more than `most` bytes.
pub(super) fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > most {
        return Err(DataError::file(path, format!("has more than {most} bytes; take a smaller one")));
    }
    Ok(bytes)
}

/// The first bytes of a file, at most so many, unpacked where its name ends in `.gz`.
pub(super) fn bytes_at_most(path: &Path, most: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// A JSON file of a backbone's folder; none if it is not there.
pub(super) fn json(path: &Path) -> Result<Option<serde_json::Value>, DataError> {
    let Some(bytes) = optional(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| DataError::file(path, format!("is no JSON ({error})")))
}

/// A file of a backbone's folder; none if it is not there.
pub(super) fn optional(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
        Ok(_) => bytes(path, JSON_BYTES_MAX).map(Some),
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> DataError {
    DataError::file(path, format!("can't be read ({error})"))
}

/// A reader that fails once it has given too many bytes, so that a few packed bytes don't fill the memory.
struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| io::Error::other("it unpacks to more than 4 GiB"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn names_say_what_files_hold() {
        for (name, format) in [
            ("train.csv", Format::Csv),
            ("train.jsonl.gz", Format::Jsonl),
            ("train.parquet", Format::Parquet),
            ("a.b.txt", Format::Text),
            ("test.bin.gz", Format::Cifar),
            ("train-images-idx3-ubyte", Format::Idx),
            ("train-images-idx3-ubyte.gz", Format::Idx),
        ] {
            assert_eq!(Format::of(Path::new(name)).unwrap(), format);
        }
        for name in ["train", "train.json", "train.parquet.gz", "x.gz"] {
            assert!(Format::of(Path::new(name)).unwrap_err().to_string().contains("no kind that is read"));
        }
    }

    #[test]
    fn one_candidate_is_found_and_two_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(find(folder.path(), "train").unwrap(), None);
        assert!(require(folder.path(), "train").unwrap_err().to_string().contains("train.jsonl"));
        fs::create_dir(at("train")).unwrap();
        assert_eq!(require(folder.path(), "train").unwrap(), at("train"));
        fs::write(at("train.bin.gz"), "").unwrap();
        let told = find(folder.path(), "train").unwrap_err().to_string();
        assert!(told.contains("train.bin.gz: is here, but train is as well"), "{told}");
        fs::write(at("test-images-idx3-ubyte.gz"), "").unwrap();
        assert_eq!(find(folder.path(), "test").unwrap(), Some(at("test-images-idx3-ubyte.gz")));
    }

    #[test]
    fn bytes_are_unpacked_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt.gz");
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(b"hello").unwrap();
        let packed = packed.finish().unwrap();
        fs::write(&path, &packed).unwrap();
        assert_eq!(bytes(&path, 5).unwrap(), b"hello");
        assert!(bytes(&path, 4).unwrap_err().to_string().contains("more than 4 bytes"));
        fs::write(&path, &packed[..packed.len() - 4]).unwrap();
        assert!(bytes(&path, 5).unwrap_err().to_string().contains("can't be read"));
        let mut bounded = Bounded { reader: &b"hello"[..], left: 4 };
        assert!(bounded.read(&mut [0; 8]).unwrap_err().to_string().contains("4 GiB"));
    }
}
