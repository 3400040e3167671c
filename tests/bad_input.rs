//! What a person may get wrong: one sentence says what, where and how to mend it, the program ends with an error, and
//! nothing that a node had kept is lost.

#[path = "bad_input/charters.rs"]
mod charters;
mod common;
#[path = "bad_input/desk.rs"]
mod desk;

use common::process::{Node, Process, events, has, heterotune};
use desk::{Desk, refuses, refuses_with_status};
use std::{fs, net::TcpListener};

#[test]
fn good_input_is_taken_and_a_finished_node_may_run_again() {
    let desk = Desk::used();
    let kept = desk.kept();
    let ended = desk.run(&[]).wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(desk.kept(), kept);
}

#[test]
fn a_charter_that_is_missing_or_broken() {
    let desk = Desk::used();
    fs::remove_file(&desk.charter).unwrap();
    desk.refuses(&["cannot read", "charter.toml", "No such file"]);
    desk.rewrite("[anchors]", "[anchors");
    desk.refuses(&["charter.toml, line ", ", column "]);
    desk.rewrite("name = ", "colour = \"red\"\nname = ");
    desk.refuses(&["charter.toml, line 2, column 1", "unknown field `colour`"]);
    desk.rewrite("\nrank = 16", "\nrank = 4000");
    desk.refuses(&["charter.toml", "adapter.rank is 4000, but must be from 1 to"]);
    desk.rewrite("quorum = 1", "quorum = \"all\"");
    desk.refuses(&["charter.toml, line ", ", column 10: invalid type: string \"all\""]);
}

#[test]
fn a_scenario_that_is_missing_or_broken() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("net.toml");
    let out = home.path().join("out");
    let refused = |keywords: &[&str]| {
        let mut command = heterotune();
        command.args(["scenario", "run"]).arg(&file).arg("--out").arg(&out);
        refuses(Process::start(command, &home.path().join("runner")).wait(), keywords);
        assert!(!out.exists());
    };
    let shipped = include_str!("../scenarios/quickstart.toml");
    refused(&["cannot read", "net.toml", "No such file"]);
    fs::write(&file, "name = \"x\"\nseed = \n").unwrap();
    refused(&["net.toml:2:8: "]);
    fs::write(&file, format!("colour = 1\n{shipped}")).unwrap();
    refused(&["net.toml:1:1: unknown field `colour`"]);
    let line = shipped.lines().position(|line| line.contains("slots = 1")).unwrap() + 1;
    fs::write(&file, shipped.replace("slots = 1", "slits = 1")).unwrap();
    refused(&[&format!("net.toml:{line}:13: "), "unknown field `slits`"]);
}

#[test]
fn a_port_in_use() {
    let desk = Desk::used();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    desk.refuses_with(&["--listen", &address], &[&address, "the port is in use", "--listen"]);
    desk.refuses_with(&["--listen", "/dns4/localhost/tcp/1"], &["cannot listen on /dns4/localhost"]);
}

#[test]
fn a_backbone_that_is_missing_or_damaged() {
    let desk = Desk::used();
    let (weights, config) = (desk.backbone.join("model.safetensors"), desk.backbone.join("config.json"));
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    desk.refuses(&["model.safetensors", "not a whole safetensors file", "download it anew"]);
    for at in [0, 9] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x80;
        fs::write(&weights, flipped).unwrap();
        desk.refuses(&["model.safetensors", "not a whole safetensors file"]);
    }
    fs::write(&weights, &whole).unwrap();
    fs::write(&config, "{ \"model_type\": ").unwrap();
    desk.refuses(&["config.json", "is not a configuration"]);
    fs::remove_dir_all(&desk.backbone).unwrap();
    desk.refuses(&["config.json", "can't be read", "No such file"]);
}

#[test]
fn a_backbone_that_is_too_large_for_the_memory() {
    let desk = Desk::used();
    let config = desk.backbone.join("config.json");
    let mut larger: serde_json::Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    larger["num_hidden_layers"] = 1_000_000_000.into();
    fs::write(&config, larger.to_string()).unwrap();
    desk.refuses(&["needs about", "of memory, but there are", "take a smaller backbone"]);
}

#[test]
fn data_that_is_wrong() {
    let desk = Desk::used();
    let train = desk.data.join("train.csv");
    let rows = fs::read_to_string(&train).unwrap();
    let with_third_line = |change: &dyn Fn(&str) -> String| {
        let lines = rows.lines().enumerate().map(|(index, line)| if index == 2 { change(line) } else { line.into() });
        fs::write(&train, lines.collect::<Vec<_>>().join("\n")).unwrap();
    };
    with_third_line(&|line| line.replacen(',', ",x", 1));
    desk.refuses(&["train.csv", "line 3", "is no pixel value"]);
    with_third_line(&|line| format!("{line},1"));
    desk.refuses(&["train.csv", "line 3", "65 pixels, but the header has 64"]);
    with_third_line(&|line| format!("cat{line}"));
    desk.refuses(&["train.csv", "line 3", "is none of the charter's labels"]);
    fs::remove_file(&train).unwrap();
    desk.refuses(&["has no train.jsonl, train.csv"]);
    fs::write(&train, rows).unwrap();
    let anchors = desk.data.join("anchors.csv");
    let rows = fs::read_to_string(&anchors).unwrap();
    fs::write(&anchors, rows.replacen('0', "1", 1)).unwrap();
    desk.refuses(&["anchors.csv", "is not the file that the charter names"]);
}

#[test]
fn a_state_folder_that_is_damaged_or_anothers() {
    let desk = Desk::used();
    let key = desk.state.join("identity.key");
    let good = fs::read_to_string(&key).unwrap();
    fs::write(&key, "not a key").unwrap();
    desk.refuses(&["identity.key", "is not a key file", "restore it from a backup"]);
    fs::write(&key, good).unwrap();
    desk.rewrite("\nrank = 16", "\nrank = 8");
    desk.refuses(&["belongs to another network", "adapter.rank (here 16, there 8)", "--state", "identity.key"]);
    desk.rewrite("", "");
    let ledger = desk.state.join("ledger.redb");
    let whole = fs::read(&ledger).unwrap();
    fs::write(&ledger, b"not a ledger").unwrap();
    let ended = desk.run(&[]).wait();
    refuses(ended, &["cannot open", "ledger.redb", "restore it from a backup"]);
    assert_eq!(fs::read(&ledger).unwrap(), b"not a ledger");
    fs::write(&ledger, whole).unwrap();
    assert_eq!(desk.run(&[]).wait().code, Some(0));
}

#[test]
fn a_key_that_is_not_among_the_founders() {
    let desk = Desk::used();
    let state = desk.home.path().join("other");
    let key = heterotune().arg("init").arg("--state").arg(&state).output().unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    let ended = Node::start(&state, |command| desk.arguments(command)).process.wait();
    refuses_with_status(ended, 3, &[key.trim(), "is neither among the founders nor among the members", "charter.toml"]);
}

#[test]
fn a_key_that_anyone_can_guess_stays_on_the_loopback() {
    let desk = Desk::used();
    let flags = ["--scenario", "1/ada", "--listen", "/ip4/0.0.0.0/tcp/0"];
    desk.refuses_with(&flags, &["--scenario", "the loopback only", "/ip4/0.0.0.0/tcp/0"]);
}

#[test]
fn a_state_folder_in_use() {
    let desk = Desk::of_two();
    let mut first = desk.start();
    first.wait_for("its kernels", |event| has(event, "published", None));
    let mut command = heterotune();
    command.arg("run").arg("--state").arg(&desk.state);
    desk.arguments(&mut command);
    refuses(
        Process::start(command, &desk.home.path().join("second")).wait(),
        &["is in use by another node", "--state"],
    );
    assert!(first.process.ended().is_none());
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full() {
    let desk = Desk::used();
    // The event log on a device that is always full.
    let log = desk.state.join("events.jsonl");
    let kept = log.with_extension("kept");
    fs::rename(&log, &kept).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    desk.refuses(&["cannot write", "events.jsonl", "No space left", "is the disk full? Nothing is lost"]);
    fs::remove_file(&log).unwrap();
    fs::rename(&kept, &log).unwrap();

    // A ledger that may not grow: a node that waits for another keeps its kernels, and so needs to write. An empty
    // ledger has 20 KiB, and more than 60 once something is in it; a block has 512 bytes, in some shells 1,024.
    let desk = Desk::of_two();
    let ended = desk.run_with_files_up_to(48).wait();
    refuses(ended, &["ledger.redb", "File too large", "is the disk full? Nothing is lost"]);
    let mut node = desk.start();
    node.wait_for("its kernels", |event| has(event, "published", None));
}

#[test]
fn two_nodes_with_different_charters() {
    let desk = Desk::of_two();
    let mut patient = desk.start();
    let address = patient.address();

    desk.rewrite("\nrank = 16", "\nrank = 8");
    let dial = |state| {
        Node::start(state, |command| {
            desk.arguments(command);
            command.args(["--peer", &address]);
        })
    };
    let ended = dial(&desk.second).process.wait();
    refuses_with_status(
        ended,
        3,
        &["does not belong to this network", "adapter.rank (here 8, there 16)", "the same charter file"],
    );
    let misfit = patient.wait_for("the misfit", |event| has(event, "misfit", None));
    assert!(misfit["reason"].as_str().unwrap().contains("adapter.rank (here 16, there 8)"), "{misfit}");
    let told = events(&desk.second).into_iter().find(|event| has(event, "misfit", None)).unwrap();
    assert!(told["reason"].as_str().unwrap().contains("adapter.rank (here 8, there 16)"), "{told}");

    // With the right charter and the same key, in a state folder of its own, it is welcome.
    desk.rewrite("", "");
    let anew = desk.home.path().join("anew");
    fs::create_dir(&anew).unwrap();
    fs::copy(desk.second.join("identity.key"), anew.join("identity.key")).unwrap();
    let mut second = dial(&anew);
    let hash = |node: &mut Node| node.wait_for("its end", |event| has(event, "finished", None))["mixture_hash"].clone();
    assert_eq!(hash(&mut patient), hash(&mut second));
    assert_eq!(second.process.wait().code, Some(0));
    let ended = patient.process.wait();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("a peer that does not belong to this network has called"), "{}", ended.stderr);
    assert!(!events(&patient.state).iter().any(|event| has(event, "error", None)));
}
