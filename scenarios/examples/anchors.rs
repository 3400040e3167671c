//! Writes the pictures that networks are aligned by, `scenarios/data/anchors-images.bin.gz`, to the standard output.

use flate2::{Compression, write::GzEncoder};
use heterotune_scenarios::anchors::leaves;
use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let mut packed = GzEncoder::new(io::stdout().lock(), Compression::best());
    packed.write_all(&leaves::records())?;
    packed.finish()?.flush()
}
