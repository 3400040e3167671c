//! Public samples that networks align their backbones by where they have none of their own; built into the program.
//! `data/README` says what they are and whose.

pub mod leaves;

/// A file of unlabelled samples.
#[derive(Debug)]
pub struct Shipped {
    /// What the file is called in a node's data folder.
    pub name: &'static str,
    /// How many samples it holds.
    pub count: u16,
    /// What they are.
    pub holds: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

/// English sentences.
pub const TEXTS: Shipped = Shipped {
    name: "anchors.jsonl",
    count: 256,
    holds: "general English sentences",
    bytes: include_bytes!("../data/anchors-text.jsonl"),
};

/// The pictures of [`leaves`].
pub const PICTURES: Shipped = Shipped {
    name: "anchors.bin.gz",
    count: 128,
    holds: "drawn pictures",
    bytes: include_bytes!("../data/anchors-images.bin.gz"),
};
