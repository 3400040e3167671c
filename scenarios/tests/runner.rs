//! The runner against stand-ins for nodes: shell scripts that report what a node would, or misbehave.
#![cfg(unix)]

use heterotune_scenarios::{RunError, Runner, Scenario, Summary};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The stand-in, written once and before any test starts a process: a program that is open for writing in a process
/// about to be forked can't be started.
static FAKE_NODE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fake_node.sh");
    fs::write(&path, include_str!("fake_node.sh")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (home, path)
});

/// A home for a scenario of three nodes, the last of which behaves as told.
fn home(behaviour: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (backbone, behaviour) in [("good", "good"), ("other", behaviour)] {
        fs::create_dir(home.path().join(backbone)).unwrap();
        fs::write(home.path().join(backbone).join("config.json"), behaviour).unwrap();
    }
    let rows: String = (0..40).map(|row| format!("{},{row},{}\n", row % 2, row * 2)).collect();
    fs::write(home.path().join("data.csv"), format!("label,p0,p1\n{rows}")).unwrap();
    let scenario = r#"
        name = "small"
        seed = 1
        [data]
        file = "data.csv"
        split_seed = 0
        train = 30
        anchors = 10
        labelled_per_node = 4
        alpha = 1.0
        min_per_class = 2
        classes_per_node = [1, 2]
        [[node]]
        name = "a"
        backbone = "good"
        [[node]]
        name = "b"
        backbone = "good"
        [[node]]
        name = "c"
        backbone = "other"
        [network]
        adapter = { rank = 4, readout_rank = 8 }
        rounds = { total = 2 }
        [train]
        steps = 1
        batch = 2
        rate = 0.01
        [[ablation]]
        name = "all"
        [[ablation]]
        name = "no-branches"
        network.adapter.branches = 0
    "#;
    fs::write(home.path().join("small.toml"), scenario).unwrap();
    home
}

fn run(home: &Path, ablation: bool) -> (Result<Summary, RunError>, String) {
    let scenario = Scenario::from_file(&home.join("small.toml")).unwrap();
    let (binary, out) = (FAKE_NODE.1.clone(), home.join("out"));
    let mut progress = Vec::new();
    let result =
        Runner { binary, out, seed: scenario.seed, ablation, lies: false, progress: &mut progress }.run(&scenario);
    (result, String::from_utf8(progress).unwrap())
}

/// Whether a node that was started still runs.
fn runs(home: &Path, node: &str) -> bool {
    // One that was ended before it could write its number does not.
    let Ok(pid) = fs::read_to_string(home.join("out/nodes").join(node).join("pid")) else { return false };
    let check = Command::new("kill").args(["-0", pid.trim()]).stderr(Stdio::null()).status();
    check.unwrap().success()
}

#[test]
fn a_good_run_ends_with_a_summary_and_a_report() {
    let home = home("good");
    let (summary, progress) = run(home.path(), true);
    let summary = summary.unwrap_or_else(|error| panic!("{error}\n{progress}"));
    assert_eq!((summary.rounds, summary.nodes.len()), (2, 3));
    assert!((summary.mean.network_global - 0.8).abs() < 1e-9);
    let variants: Vec<_> = summary.ablation.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(variants, ["all", "no-branches"]);
    assert!(home.path().join("out/ablation/no-branches/nodes/c/events.jsonl").is_file());
    assert!(!home.path().join("out/ablation/all").exists());
    for text in ["draw ", "aligned    to fits of 0.90, 0.95", "3/3", "ablation no-branches"] {
        assert!(progress.contains(text), "{text} is missing in\n{progress}");
    }
    let read = |path: &str| fs::read_to_string(home.path().join("out").join(path)).unwrap();
    assert!(read("summary.json").contains("\"network_global\": 0.8"));
    assert!(read("report.html").contains("<svg"));
    assert!(read("nodes/b/stdout.log").contains("peer: /ip4/127.0.0.1/udp/1/quic-v1/p2p/a"));
    assert!(read("nodes/c/stdout.log").contains("peer: /ip4/127.0.0.1/tcp/1/p2p/a"));
    assert!(!runs(home.path(), "a"));
    // The same folder again; what is no longer there fails before the earlier results are gone.
    run(home.path(), false).0.unwrap();
    fs::remove_file(home.path().join("data.csv")).unwrap();
    run(home.path(), false).0.unwrap_err();
    assert!(read("summary.json").contains("\"network_global\": 0.8"));
}

#[test]
fn whatever_fails_is_one_sentence_and_leaves_no_process() {
    for (behaviour, said) in [
        ("dies", "node c ended early (exit status: 3), saying: reading the weights / the weights are corrupt; its log"),
        ("fails", "node c failed: the disk is full; its log is "),
        ("babbles", "events.jsonl:5: not an event: "),
        ("waits", "node c waited in vain for "),
        ("differs", "the nodes disagree: after round 2, a holds mixture 0000000002 and c holds 0000000099"),
    ] {
        let home = home(behaviour);
        let message = run(home.path(), false).0.unwrap_err().to_string();
        assert!(message.contains(said), "{behaviour}: {message}");
        assert!(["a", "b", "c"].iter().all(|node| !runs(home.path(), node)), "{behaviour}");
    }
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let home = home("good");
    fs::remove_file(home.path().join("other/config.json")).unwrap();
    let message = run(home.path(), false).0.unwrap_err().to_string();
    assert!(message.starts_with("node c: ") && message.contains("it has no config.json"), "{message}");
    assert!(message.contains("`heterotune pretrain` makes"), "{message}");
    fs::remove_file(home.path().join("data.csv")).unwrap();
    fs::write(home.path().join("other/config.json"), "good").unwrap();
    assert!(run(home.path(), false).0.unwrap_err().to_string().starts_with("cannot read "));
    assert!(!home.path().join("out/nodes").exists());
}

/// A home for three nodes that write, dealt from plain text.
fn writers() -> tempfile::TempDir {
    let home = home("good");
    for backbone in ["good", "other"] {
        fs::write(home.path().join(backbone).join("config.json"), "writes").unwrap();
    }
    fs::write(home.path().join("good/tokenizer.json"), "{}").unwrap();
    let words: String = (0..400).map(|word| format!("word{word} ")).collect();
    fs::write(home.path().join("words.txt"), words).unwrap();
    let public: String = (0..20).map(|row| format!("{{\"text\": \"public {row}\"}}\n")).collect();
    fs::write(home.path().join("public.jsonl"), public).unwrap();
    let scenario = r#"
        name = "writers"
        seed = 1
        [task]
        kind = "causal-lm"
        readouts = ["good"]
        [data]
        file = "words.txt"
        piece_bytes = 40
        anchors_file = "public.jsonl"
        anchors = 16
        partition = "iid"
        labelled_per_node = 6
        held_per_node = 2
        [[node]]
        name = "a"
        backbone = "good"
        [[node]]
        name = "b"
        backbone = "good"
        layers = 3
        precision = "q8"
        [[node]]
        name = "c"
        backbone = "other"
        [network]
        adapter = { rank = 4, readout_rank = 8 }
        rounds = { total = 2 }
        [train]
        steps = 1
        batch = 2
        rate = 0.01
        projection_rate = 0.002
        length = 64
    "#;
    fs::write(home.path().join("small.toml"), scenario).unwrap();
    home
}

#[test]
fn language_models_are_dealt_text_and_scored_by_perplexity() {
    let home = writers();
    let (summary, progress) = run(home.path(), false);
    let summary = summary.unwrap_or_else(|error| panic!("{error}\n{progress}"));
    // Each node stops at its first round: its own is worse after the second.
    assert!(
        (summary.mean.network_global - 36.0).abs() < 1e-9 && (summary.round_log[1].network_global - 50.0).abs() < 1e-9
    );
    for text in ["rows to train on, dealt at random", "perplexity before training: global 100.00, own 90.00"] {
        assert!(progress.contains(text), "{text} is missing in\n{progress}");
    }
    let read = |path: &str| fs::read_to_string(home.path().join("out").join(path)).unwrap();
    let charter = read("charter.toml");
    assert!(charter.contains("kind = \"causal-lm\"") && charter.contains("tokens = 512"), "{charter}");
    assert!(charter.contains("count = 16") && charter.contains("readout = \"trained\""), "{charter}");
    let arguments = read("nodes/b/stdout.log");
    assert!(arguments.contains("--layers 3 --precision q8 ") && arguments.contains("--length 64"), "{arguments}");
    assert!(!read("nodes/a/stdout.log").contains("--precision"));
    let rows = |file: &str| read(&format!("data/a/{file}.jsonl")).lines().count();
    assert_eq!(["train", "held", "anchors"].map(rows), [6, 2, 16]);
    let json = read("summary.json");
    assert!(json.contains("\"metric\": \"perplexity\"") && json.contains("\"text\": \" thou art\""), "{json}");
    assert!(read("report.html").contains("<b>ROMEO:</b> thou art"));

    fs::remove_file(home.path().join("good/tokenizer.json")).unwrap();
    let message = run(home.path(), false).0.unwrap_err().to_string();
    assert!(message.ends_with("good: error: there is no tokenizer.json"), "{message}");
}
