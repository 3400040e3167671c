//! `heterotune peers`: who is connected, and how.

use super::state::Question;
use crate::status::{Peer, Status};
use anyhow::{Context as _, Result};

pub(super) fn run(flags: &Question) -> Result<()> {
    let state = flags.state.folder();
    let (status, runs) = Status::read(&state)?.with_context(|| format!("no node has run in {}", state.display()))?;
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&status.peers)?);
        return Ok(());
    }
    if !runs {
        println!("the node does not run; its peers were:");
    }
    table(&status);
    Ok(())
}

/// Prints a line for each peer.
pub(super) fn table(status: &Status) {
    println!(
        "{:<10}  {:<7}  {:>6}  {:>5}  {:>10}  {:>7}  address",
        "peer", "path", "since", "round", "received", "clock"
    );
    for Peer { node, address, relayed, since_ms, round, bytes_in, ahead_s } in &status.peers {
        let path = if *relayed { "relayed" } else { "direct" };
        let since = age(status.time_ms.saturating_sub(*since_ms));
        let round = round.map_or("-".into(), |round| round.to_string());
        let clock = ahead_s.map_or("-".into(), |seconds| format!("{seconds:+}s"));
        let (node, bytes) = (node.short(), bytes(*bytes_in));
        println!("{node:<10}  {path:<7}  {since:>6}  {round:>5}  {bytes:>10}  {clock:>7}  {address}");
    }
}

/// A span of time, in ms, in its largest unit.
pub(super) fn age(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let ages = [0, 119_000, 120_000, 7_200_000, 172_800_000].map(age);
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d"]);
        let sizes = [0, 9_999, 10_000, 12_345_678, 99_000_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "9999 B", "10.0 kB", "12.3 MB", "99.0 GB"]);
    }
}
