//! Files as they are, with a bound on their size.

use crate::RunError;
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The largest file that is dealt, uncompressed: all of it is held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The bytes of the file at `path`, uncompressed where its name ends in `.gz`.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, RunError> {
    let error = |source| RunError::Read { path: path.into(), source };
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    let read = if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    if read.map_err(error)? as u64 > FILE_BYTES_MAX {
        let message = format!("it has more than {FILE_BYTES_MAX} bytes, the most that a scenario deals");
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}

/// The text of the file at `path`.
pub(super) fn text(path: &Path) -> Result<String, RunError> {
    String::from_utf8(bytes(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        RunError::Data { path: path.into(), message: format!("it is no UTF-8 text: byte {at} is part of no character") }
    })
}
