//! Whole worlds.

use super::*;

#[test]
fn a_small_world_runs() {
    let options = Options { nodes: 8, rounds: 3, founders: 8, goal: Goal::Closed, ..Options::default() };
    let report = simulate(&options).unwrap();
    assert_eq!((report.rounds_done, report.accepted), (3, 8 * 8 * 3), "{report:?}");
}
