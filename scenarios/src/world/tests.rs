//! Whole worlds. What fails says its options, the seed among them: the same options fail again.

use super::*;
use heterotune_protocol::{charter::Closing, limits};
use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A world in which all nodes found, and so contribute.
fn world(nodes: usize, rounds: u64, seed: u64) -> Options {
    Options { nodes, rounds, seed, founders: nodes, threads: 1, ..Options::default() }
}

fn run(options: &Options) -> Report {
    let report = simulate(options).unwrap();
    assert_eq!((report.diverged, report.perjured), (0, 0), "{options:?}");
    report
}

/// All that happens to a network at once.
fn stormy(seed: u64) -> Options {
    Options {
        loss: 0.2,
        crash: 0.1,
        churn: 0.05,
        skew_s: 3.0,
        partition: "2..3.5:0.5|0.5".parse().ok(),
        liars: ["equivocate:0.1", "garbage:0.05", "half:0.1"].iter().filter_map(|lie| lie.parse().ok()).collect(),
        ..world(24, 4, seed)
    }
}

#[test]
fn undisturbed_everybody_gets_everything() {
    for options in [world(1, 3, 1), world(2, 3, 2), world(24, 3, 3), Options { genesis: true, ..world(6, 2, 4) }] {
        let report = run(&options);
        let all = options.nodes as u64 * options.nodes as u64 * options.rounds;
        let rounds = (report.rounds_done, report.rounds_sealed);
        assert_eq!((rounds, report.accepted), ((options.rounds, options.rounds), all), "{options:?}: {report:?}");
        // What still comes of a genesis step that has closed is stale.
        assert!(report.conflicts == 0 && (options.genesis || report.refused.is_empty()), "{options:?}: {report:?}");
    }
}

#[test]
fn a_seed_is_a_world_on_any_number_of_threads() {
    let json = |seed: u64, threads: usize| {
        let report = simulate(&Options { threads, ..stormy(seed) }).unwrap();
        Report { wall_s: 0.0, ..report }.to_json()
    };
    let first = json(5, 1);
    assert_eq!(json(5, 1), first);
    for threads in [2, 3, SHARDS] {
        assert_eq!(json(5, threads), first, "{threads} threads");
    }
    assert_ne!(json(6, 1), first);
}

/// A crash between any two outputs never makes a node say two different things.
#[test]
fn crashes_make_nobody_contradict_itself() {
    for seed in 0..6 {
        let options = Options { crash: 0.5, loss: 0.1, ..world(12, 4, seed) };
        let report = run(&options);
        assert_eq!(report.conflicts, 0, "{options:?}: {report:?}");
        assert!(report.rounds_sealed >= 1, "{options:?}: {report:?}");
    }
}

/// Where there are more members than contributors, each round's are drawn, and everybody follows.
#[test]
fn whoever_does_not_contribute_follows() {
    for closing in [Closing::Everyone, Closing::Leader] {
        let options = Options { contributors: 8, closing, ..world(24, 4, 1) };
        let report = run(&options);
        assert_eq!((report.rounds_sealed, report.accepted), (4, 24 * 8 * 4), "{report:?}");
    }
}

/// Sealers that start again ask a quorum what they have said; that must not take as long as they live.
#[test]
fn sealers_that_fall_often_still_seal() {
    for seed in 0..4 {
        let options = Options { sealers: 12, loss: 0.3, crash: 0.2, ..world(12, 4, seed) };
        assert_eq!(run(&options).rounds_sealed, 4, "{options:?}");
    }
}

/// An old disk holds less than what its node has said since, and what it trains again is something else. It must ask
/// the others before it speaks; where answers take longer than training, nothing else keeps it from contradicting
/// itself.
#[test]
fn an_old_backup_makes_nobody_contradict_itself() {
    let near = |seed| Options { loss: 0.1, ..world(12, 6, seed) };
    let far = |seed| Options { delay: "1000..3000".parse().unwrap(), ..world(12, 6, seed) };
    for options in (0..6).map(near).chain((0..8).map(far)) {
        let options = Options { liars: vec!["backup:0.25".parse().unwrap()], sealers: 12, ..options };
        let report = run(&options);
        assert_eq!((report.rounds_sealed, report.conflicts), (6, 0), "{options:?}: {report:?}");
    }
}

/// What gossip has lost, or brought while a node was away, comes by pulls or not at all.
#[test]
fn without_anti_entropy_who_was_away_stays_behind() {
    let options = Options { churn: 0.2, loss: 0.1, ..world(12, 6, 1) };
    let (with, without) = (run(&options), run(&Options { anti_entropy: false, ..options.clone() }));
    assert_eq!(with.rounds_sealed, 6, "{with:?}");
    assert!(without.rounds_sealed < 6, "{without:?}");
}

/// Every fourth answers pulls with half of what it has, or nothing: the others are asked too. Without pulls these
/// worlds get nowhere.
#[test]
fn who_withholds_keeps_nobody_behind() {
    for seed in 5..8 {
        let liars = vec!["withhold:0.25".parse().unwrap()];
        let options = Options { liars, loss: 0.3, churn: 0.1, ..world(12, 6, seed) };
        assert_eq!(run(&options).rounds_sealed, 6, "{options:?}");
        let without = run(&Options { anti_entropy: false, ..options.clone() });
        assert!(without.rounds_sealed < 6, "{options:?}: {without:?}");
    }
}

#[test]
fn clocks_may_be_half_a_day_off() {
    for seed in 0..3 {
        let report = run(&Options { skew_s: 43_200.0, ..world(16, 4, seed) });
        assert_eq!((report.rounds_sealed, report.accepted, report.conflicts), (4, 16 * 16 * 4, 0), "{report:?}");
    }
}

#[test]
fn nothing_closes_in_half_a_network() {
    let whole = world(12, 3, 1);
    let torn = Options { partition: "0.05..13:0.5|0.5".parse().ok(), ..whole.clone() };
    let later = Options { partition: "0.05..6:0.5|0.5".parse().ok(), ..whole };
    assert_eq!(run(&torn).rounds_sealed, 0);
    assert_eq!(run(&later).rounds_sealed, 3);
}

#[test]
fn who_has_left_is_missed_and_comes_back() {
    let (still, restless) = (run(&world(12, 6, 1)), run(&Options { churn: 0.2, ..world(12, 6, 1) }));
    assert!(restless.accepted < still.accepted, "{restless:?}");
    assert!(restless.rounds_done >= 4, "{restless:?}");
}

/// Each lie has the effect that it is named for, and rounds go on.
#[test]
fn liars_lie() {
    let told_in = |lie: &str, rounds: u64| {
        let options = Options { liars: vec![lie.parse().unwrap()], ..world(16, rounds, 3) };
        let report = run(&options);
        assert!(report.rounds_sealed + 1 >= rounds, "{lie}: {report:?}");
        report
    };
    let told = |lie: &str| told_in(lie, 4);
    let honest = run(&world(16, 4, 3));
    let refused = |report: &Report, reason: &str| report.refused.get(reason).copied().unwrap_or(0);
    assert!(told("equivocate:0.13").conflicts > 0);
    assert!(told("double-vote:0.13").conflicts > 0);
    // Its turn must come.
    assert!(refused(&told_in("bad-proposal:0.13", 12), "unsound seal") > 0);
    assert!(told("mute-sealer:0.13").seal_delay_ms.p99 > honest.seal_delay_ms.p99);
    let flooded = told("garbage:0.13");
    assert!(refused(&flooded, "forged") > 100 && refused(&flooded, "flood") > 0, "{flooded:?}");
    assert!(refused(&told("replay:0.13"), "forged") > 10);
    assert!(told("silent:0.13").accepted < honest.accepted);
    for lie in ["sign-flip", "scale", "noise", "tiny", "copy", "withhold", "clock", "false-list"] {
        let report = told(&format!("{lie}:0.13"));
        assert_eq!((report.accepted, report.conflicts), (honest.accepted, 0), "{lie}: {report:?}");
    }
    for lie in ["dribble:0.13", "half:0.13", "flip-heads:0.13", "backup:0.13", "strangers:0.13"] {
        assert_eq!(told(lie).conflicts, 0, "{lie}");
    }
    // Its updates come when their round is sealed; who is honest is never so late.
    assert_eq!(refused(&honest, "stale"), 0);
    assert!(refused(&told_in("dribble:0.13", 12), "stale") > 0);
    // Peers who seem to hold something else are asked for it.
    let asked = |report: &Report| report.bytes_by_traffic[&Traffic::Pulls];
    assert!(asked(&told("flip-heads:0.13")) > asked(&honest));
    assert_eq!(KINDS.len(), 20);
}

#[test]
fn a_seed_draws_as_many_liars_as_were_asked_for_and_few_sealers() {
    for seed in 0..20 {
        let options = Options { liars: vec!["silent:0.5".parse().unwrap()], ..world(20, 1, seed) };
        let identities = options.identities();
        let charter = options.charter(&identities).unwrap();
        let context = Arc::new(Context::new(charter).unwrap());
        let liars = draw_liars(&options, &context, &identities);
        let lies = |at: &usize| liars[*at].is_some();
        assert_eq!((0..20).filter(lies).count(), 10, "seed {seed}");
        assert!((0..7).filter(lies).count() <= 2, "seed {seed}");
        let of_sealers = Options { liars: vec!["mute-sealer:0.1".parse().unwrap()], ..options };
        let liars = draw_liars(&of_sealers, &context, &identities);
        assert_eq!((0..7).filter(|at: &usize| liars[*at].is_some()).count(), 2, "seed {seed}");
    }
}

/// Newcomers become members and contribute, more at once than a round enrols, and where there are fewer seats than
/// members.
#[test]
fn newcomers_become_members() {
    for closing in [Closing::Everyone, Closing::Leader] {
        let few = Options { newcomers: 6, closing, ..world(8, 16, 1) };
        let with_genesis = Options { genesis: true, ..few.clone() };
        let open = Options { open: true, ..few.clone() };
        let many = Options { newcomers: 24, contributors: 12, rounds: 32, ..few.clone() };
        for options in [few, with_genesis, open, many] {
            let report = run(&options);
            let newcomers = options.newcomers;
            assert_eq!((report.enrolled, report.contributing), (newcomers, newcomers), "{options:?}: {report:?}");
            assert_eq!((report.rounds_sealed, report.conflicts), (options.rounds, 0), "{options:?}: {report:?}");
        }
    }
}

/// And so while messages are lost, the network falls apart, and whoever it is crashes and leaves.
#[test]
fn newcomers_weather_a_storm() {
    for seed in 0..8 {
        let closing = if seed % 2 == 0 { Closing::Everyone } else { Closing::Leader };
        let options = Options { newcomers: 6, closing, rounds: 24, liars: Vec::new(), ..stormy(seed) };
        let options = Options { nodes: 12, founders: 12, ..options };
        let report = run(&options);
        assert_eq!((report.enrolled, report.contributing, report.conflicts), (6, 6, 0), "{options:?}: {report:?}");
    }
}

/// Strangers whom nobody has invited cost a few checks; where anyone may join, they take no seat of the charter's
/// members, and rounds go on.
#[test]
fn floods_of_strangers_stop_nobody() {
    let options =
        |open| Options { newcomers: 2, open, liars: vec!["strangers:0.1".parse().unwrap()], ..world(10, 16, 2) };
    let invited = run(&options(false));
    assert_eq!((invited.rounds_sealed, invited.enrolled, invited.contributing), (16, 2, 2), "{invited:?}");
    assert!(invited.refused["not admitted"] > 100 && invited.refused["flood"] > 0, "{invited:?}");
    let open = run(&options(true));
    assert_eq!(open.rounds_sealed, 16, "{open:?}");
    assert!(open.enrolled > 64 && open.enrolled <= 16 * limits::ENROLMENTS_MAX, "{open:?}");
    assert!(open.refused["crowded"] > 0, "{open:?}");
}

/// Everything at once, with other liars in every seed.
fn tempest(seed: u64) -> Options {
    let (of_sealers, others): (Vec<Kind>, Vec<Kind>) =
        KINDS.iter().map(|(_, kind, _)| *kind).partition(|kind| kind.is_of_sealers());
    let pick = |kinds: &[Kind], turn: u64| kinds[turn as usize % kinds.len()];
    let kinds = [pick(&of_sealers, seed), pick(&of_sealers, seed / 4 + 1), pick(&others, seed), Kind::Equivocate];
    Options {
        loss: 0.15,
        crash: 0.1,
        churn: 0.03,
        skew_s: 3.0,
        partition: "2..4:0.5|0.5".parse().ok(),
        newcomers: (seed % 3) as usize,
        liars: kinds.into_iter().map(|kind| Lie { kind, share: 1.0 / 12.0 }).collect(),
        closing: if seed.is_multiple_of(2) { Closing::Everyone } else { Closing::Leader },
        ..world(12, 5, seed)
    }
}

/// Runs all these seeds, and says which are broken. How many have sealed all rounds in time.
fn weather(seeds: Range<u64>) -> u64 {
    let (broken, finished) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let tell = |options: &Options, report: &Report| {
        finished.fetch_add(u64::from(report.rounds_sealed == options.rounds), Relaxed);
        if report.rounds_sealed < options.rounds {
            println!("seed {}: {} sealed", options.seed, report.rounds_sealed);
        }
        if !report.is_sound() {
            broken.lock().unwrap().push(format!("{options:?}: {report:?}"));
        }
    };
    simulate_seeds(seeds, thread::available_parallelism().map_or(1, usize::from), tempest, tell).unwrap();
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    finished.into_inner()
}

#[test]
fn no_tempest_breaks_what_must_never_break() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("the fresh seed is {now}");
    weather(now..now + 1);
    let finished = weather(0..50);
    println!("{finished} of 50 have sealed all rounds");
    assert!(finished >= 40);
}

#[test]
#[ignore = "takes minutes; cargo test --release -p heterotune-scenarios nor_do_a_thousand -- --ignored --nocapture"]
fn nor_do_a_thousand() {
    println!("{} of 1,000 have sealed all rounds", weather(0..1_000));
}
