//! What is done to an image before a backbone sees its pixels.

/// How images are brought to a backbone's size, as the folder's `preprocessor_config.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// To which size an image is resized first.
    pub size: Resize,
    /// The side of the square that is then cut from its middle, in pixels.
    pub crop: Option<usize>,
    /// How values between pixels are found.
    pub resample: Resample,
}

/// To which size an image is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// It stays as it is.
    None,
    /// To this size, whatever its proportions.
    Exact {
        /// In pixels.
        height: usize,
        /// In pixels.
        width: usize,
    },
    /// Its shorter edge to this many pixels, keeping its proportions.
    ShortestEdge(usize),
}

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The nearest pixel.
    Nearest,
    /// A triangle over the neighbours.
    Bilinear,
    /// A cubic over the neighbours (a = -0.5).
    Bicubic,
    /// A windowed sinc over three neighbours on each side.
    Lanczos,
}
