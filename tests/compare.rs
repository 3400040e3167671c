//! Scenarios in one process, over several seeds, and comparisons of methods, as a user runs them.

mod common;

use common::{inputs::shipped, process::Process, process::heterotune, scenario::Scenario};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Runs a scenario file and reads the summary that it prints.
fn run(file: &Path, flags: &[&str], out: &Path) -> Value {
    let mut command = heterotune();
    command.args(["scenario", "run"]).arg(file).args(flags).args(["--json", "--out"]).arg(out);
    let ended = Process::start(command, &out.with_extension("runner")).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn method<'a>(study: &'a Value, name: &str) -> &'a Value {
    study["methods"].as_array().unwrap().iter().find(|method| method["name"] == name).unwrap()
}

#[test]
fn seeds_come_to_the_same_in_one_process() {
    let home = tempfile::tempdir().unwrap();
    let scenario = Scenario::short(home.path(), 2);
    let processes = run(&scenario.file, &["--seeds", "2"], &home.path().join("processes"));
    let inproc = run(&scenario.file, &["--seeds", "2", "--inproc"], &home.path().join("inproc"));
    assert_eq!(processes["methods"], inproc["methods"]);
    assert_eq!(inproc["seeds"], serde_json::json!([1, 2]));
    let seeds = |name: &str| method(&inproc, name)["per_seed"].as_array().unwrap().clone();
    assert_ne!(seeds("full")[0]["picked"], seeds("full")[1]["picked"]);
    // The second seed by itself.
    let second = run(&scenario.file, &["--seed", "2", "--inproc"], &home.path().join("second"));
    assert_eq!(second["mean"]["network_global"], seeds("full")[1]["picked"]["global"]);
    assert_eq!(second["mean"]["alone_own"], seeds("local")[1]["picked"]["own"]);
}

#[test]
fn methods_are_compared_with_settings_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let scenario = Scenario::short(home.path(), 3);
    let text = fs::read_to_string(&scenario.file).unwrap();
    fs::write(&scenario.file, text + "\n[search]\nrate = [0.001, 0.01]\n").unwrap();
    let flags = ["--compare", "local,centralised,unaligned,full,statistics", "--seeds", "2", "--inproc"];
    let out = home.path().join("out");
    let study = run(&scenario.file, &flags, &out);
    let score = |name: &str| method(&study, name)["global"]["mean"].as_f64().unwrap();
    assert!(score("local") < score("full") && score("unaligned") < score("full"), "{study}");
    assert!(score("local") < score("centralised"), "{study}");
    let full = method(&study, "full");
    assert_eq!(full["against"]["global_won"], 2, "{study}");
    assert_eq!(full["tried"].as_array().unwrap().len(), 2);
    assert_eq!(full["by_round"].as_array().unwrap().len(), 4);
    assert_eq!(full["by_round"][0]["global"], method(&study, "statistics")["global"]);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Methods compared"));
}

#[test]
fn updates_that_travel_in_pieces_come_to_the_same_in_one_process() {
    let Some(data) = std::env::var_os("HETEROTUNE_DATA").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "HETEROTUNE_DATA is not set");
        println!("skipped: HETEROTUNE_DATA does not name a folder with models/, text/ and vision/");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let model = |name: &str| data.join("models").join(name).display().to_string();
    let text = data.join("text/tinyshakespeare/input.txt").display().to_string();
    let anchors = shipped().join("data/anchors-text.jsonl").display().to_string();
    let (one, other) = (model("llama-ts-d48-l3"), model("llama-ts-d64-l4"));
    // A readout of 128 x 512 values makes updates longer than 256 KiB, which are only announced.
    let scenario = format!(
        "name = 'texts'\nseed = 1\n[task]\nkind = 'causal-lm'\nreadouts = ['{one}']\n\
         [data]\nfile = '{text}'\ntest_rows = 16\nanchors_file = '{anchors}'\nanchors = 200\npartition = 'iid'\n\
         labelled_per_node = 16\nheld_per_node = 8\n\
         [[node]]\nname = 'ada'\nbackbone = '{one}'\n[[node]]\nname = 'blaise'\nbackbone = '{other}'\n\
         [network]\nadapter = {{ slots = 2, branches = 1, rank = 32, readout_rank = 128, readout = 'trained' }}\n\
         codec = {{ kind = 'f32' }}\nrounds = {{ total = 2 }}\n\
         [train]\nsteps = 2\nbatch = 4\nrate = 0.004\nlength = 64\n"
    );
    let file = home.path().join("texts.toml");
    fs::write(&file, scenario).unwrap();
    let processes = run(&file, &[], &home.path().join("processes"));
    let inproc = run(&file, &["--inproc"], &home.path().join("inproc"));
    assert_eq!(inproc["round_log"], processes["round_log"]);
    assert_eq!(inproc["mean"], processes["mean"]);
    assert!(inproc["nodes"][0]["bytes_out"].as_u64().unwrap() > 2 * 256 * 1024, "{inproc}");
}
