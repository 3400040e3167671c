//! What `heterotune bench` measures, as far as it does not depend on the machine.

mod common;

use common::process::{Process, heterotune};
use serde_json::Value;
use std::{fs, path::Path};

fn bench(folder: &Path, arguments: &[&str]) -> String {
    let mut command = heterotune();
    command.arg("bench").args(arguments);
    let ended = Process::start(command, &folder.join("bench")).wait();
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

#[test]
fn a_step_is_timed_and_another_program_can_take_it() {
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("model");
    let path = model.to_str().unwrap();
    bench(home.path(), &["step", "encoder", "--write", path]);
    for file in ["config.json", "model.safetensors", "step.safetensors"] {
        assert!(model.join(file).is_file(), "{file}");
    }
    // The header is JSON, behind its length.
    let step = fs::read(model.join("step.safetensors")).unwrap();
    let length = u64::from_le_bytes(step[..8].try_into().unwrap());
    let header: Value = serde_json::from_slice(&step[8..8 + usize::try_from(length).unwrap()]).unwrap();
    for name in ["inputs", "labels", "loss", "gate.2", "slot.0.up", "readout.down", "branches.1", "gradient.branches.1"]
    {
        assert!(header.get(name).is_some(), "{name} is not among {header}");
    }
    let timed = |more: &[&str]| -> Value {
        let flags = [&["step", "encoder", "--from", path, "--steps", "1", "--json"][..], more].concat();
        serde_json::from_str(&bench(home.path(), &flags)).unwrap()
    };
    let (kept, made_again) = (timed(&[]), timed(&["--checkpoint"]));
    assert_eq!((&kept["batch"], &kept["trained"]), (&32.into(), &3_722.into()));
    assert_eq!(kept["loss"], made_again["loss"]);
    let peak = |step: &Value| step["peak_bytes"].as_u64().unwrap();
    assert!(kept["seconds"].as_f64().unwrap() > 0.0);
    // Four blocks' insides, or one's: as planned.
    assert!(peak(&made_again) < peak(&kept), "{made_again} and {kept}");
    for (step, more) in [(&kept, &[][..]), (&made_again, &["--checkpoint"])] {
        let mut command = heterotune();
        command.args(["plan", "--backbone", path, "--charter"]).arg(model.join("charter.toml"));
        command.args(["--batch", "32", "--tokens", "64", "--json"]).args(more);
        let ended = Process::start(command, &home.path().join("plan")).wait();
        let planned: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let share = planned["peak"].as_f64().unwrap() / peak(step) as f64;
        assert!((0.85..1.15).contains(&share), "{planned} for {step}");
        assert!(planned["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_round_of_eight_real_nodes_is_timed() {
    let home = tempfile::tempdir().unwrap();
    let round: Value = serde_json::from_str(&bench(home.path(), &["round", "--rounds", "3", "--json"])).unwrap();
    assert_eq!((&round["nodes"], &round["rounds"]), (&8.into(), &3.into()));
    let number = |key: &str| round[key].as_f64().unwrap();
    // Every update goes to somebody, and nobody sends it to each of the seven others twice.
    assert!(number("update_bytes") > 65_536.0 && number("sent_bytes") > number("update_bytes"), "{round}");
    assert!(number("sent_bytes") < 14.0 * number("update_bytes"), "{round}");
    assert!(number("seconds") > 0.0 && number("cpu_seconds") > 0.0);
}

#[test]
fn codecs_and_fusion_are_timed() {
    let home = tempfile::tempdir().unwrap();
    let codecs: Value = serde_json::from_str(&bench(home.path(), &["codec", "--json"])).unwrap();
    let bytes: Vec<u64> = codecs.as_array().unwrap().iter().map(|codec| codec["bytes"].as_u64().unwrap()).collect();
    assert!(bytes.len() == 5 && bytes.is_sorted_by(|a, b| a > b), "{codecs}");
    let fused: Value = serde_json::from_str(&bench(home.path(), &["fusion", "--threads", "1", "--json"])).unwrap();
    assert!(["mean_seconds", "cmga_seconds"].iter().all(|key| fused[key].as_f64().unwrap() > 0.0), "{fused}");
}
