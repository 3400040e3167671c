//! Data and backbones for nodes: what the repository ships.

use heterotune_protocol::charter::Anchors;
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

/// The folder of the shipped scenario.
pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios")
}

/// A shipped backbone.
pub(crate) fn backbone(name: &str) -> PathBuf {
    shipped().join("backbones").join(name)
}

/// Writes a node's data folder from rows of the shipped digits.
pub(crate) fn digits(folder: &Path, train: Range<usize>, anchors: Range<usize>, test: Range<usize>) -> Anchors {
    let text = fs::read_to_string(shipped().join("data/digits.csv")).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let header = lines.next().unwrap();
    let rows: Vec<&str> = lines.collect();
    let unlabelled = |line: &&str| line.split_once(',').unwrap().1.to_owned();
    let file = |lines: Vec<String>| lines.join("\n") + "\n";
    let labelled = |range| file([header].iter().chain(&rows[range]).map(ToString::to_string).collect());
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("train.csv"), labelled(train)).unwrap();
    fs::write(folder.join("test.csv"), labelled(test)).unwrap();
    let count = anchors.len().try_into().unwrap();
    let public = file([header].iter().chain(&rows[anchors]).map(unlabelled).collect());
    fs::write(folder.join("anchors.csv"), &public).unwrap();
    Anchors { digest: Anchors::digest_of(public.as_bytes()), count }
}

/// Something that tests share while any of them uses it: made by the first, dropped (and its folder with it) by the
/// last.
pub(crate) fn shared<T>(place: &Mutex<Weak<T>>, make: impl FnOnce() -> T) -> Arc<T> {
    // A test that failed in `make` leaves nothing behind.
    let mut place = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    place.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *place = Arc::downgrade(&made);
        made
    })
}
