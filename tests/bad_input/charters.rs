//! What `heterotune charter new` writes, and what it refuses.

use crate::common::{
    inputs::{backbone, digits},
    process::{Ended, Process, heterotune},
};
use crate::desk::refuses;
use heterotune::{config::read_charter, data::Tokenizer};
use heterotune_protocol::charter::{Anchors, Charter, CodecKind, Task};
use heterotune_scenarios::anchors::{PICTURES, Shipped, TEXTS};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A folder with a founder's key, where a charter is written.
struct Office {
    home: TempDir,
    key: String,
    charter: PathBuf,
}

impl Office {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = heterotune().arg("init").arg("--state").arg(home.path().join("state")).output().unwrap();
        let key = String::from_utf8(key.stdout).unwrap().trim().into();
        Self { charter: home.path().join("charter.toml"), home, key }
    }

    fn new_charter(&self, more: &[&str]) -> Ended {
        let mut command = heterotune();
        command.args(["charter", "new"]).arg(&self.charter).args(["--name", "x", "--founder", &self.key]).args(more);
        Process::start(command, &self.home.path().join("log")).wait()
    }

    /// The charter that is written.
    fn writes(&self, more: &[&str]) -> (Charter, String) {
        let _ = fs::remove_file(&self.charter);
        let ended = self.new_charter(more);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{more:?}");
        (read_charter(&self.charter).unwrap(), ended.stdout)
    }

    /// Nothing is written.
    fn refuses(&self, more: &[&str], keywords: &[&str]) {
        let _ = fs::remove_file(&self.charter);
        refuses(self.new_charter(more), keywords);
        assert!(!self.charter.exists());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The folder of a tokenizer that knows three letters.
    fn tokenizer(&self) -> String {
        let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []});
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                          "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model});
        let folder = self.path("letters");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
        text(&folder)
    }

    /// Whether the anchors that ship are beside the charter, which names them and the output too.
    fn has(&self, shipped: &Shipped, charter: &Charter, said: &str) {
        let path = self.path(shipped.name);
        assert_eq!(fs::read(&path).unwrap(), shipped.bytes);
        assert_eq!(charter.anchors, Anchors { digest: Anchors::digest_of(shipped.bytes), count: shipped.count });
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(path.to_str().unwrap())).collect();
        assert!(lines.len() == 1 && lines[0].contains("data folder"), "{said}");
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().into()
}

#[test]
fn charters_of_every_task() {
    let office = Office::new();
    let letters = office.tokenizer();
    let (charter, said) = office.writes(&["--task", "causal-lm", "--readout", &letters]);
    let tokenizer = Tokenizer::open(Path::new(&letters)).unwrap();
    let Task::CausalLm { vocabularies } = &charter.task else { panic!("{:?}", charter.task) };
    assert_eq!((vocabularies.len(), vocabularies[0].tokenizer, vocabularies[0].tokens), (1, tokenizer.digest(), 3));
    office.has(&TEXTS, &charter, &said);
    let (charter, _) = office.writes(&["--task", "causal-lm"]);
    assert_eq!(charter.task, Task::CausalLm { vocabularies: vec![] });

    let labels = || vec!["yes".into(), "no".into()];
    let (charter, said) = office.writes(&["--task", "text-classification", "--labels", "yes,no"]);
    assert_eq!(charter.task, Task::TextClassification { labels: labels() });
    office.has(&TEXTS, &charter, &said);
    let (charter, said) = office.writes(&["--labels", "yes,no"]);
    assert_eq!(charter.task, Task::ImageClassification { labels: labels() });
    office.has(&PICTURES, &charter, &said);

    // A file that is named is taken, whatever form it has, and nothing else is written.
    fs::remove_file(office.path(PICTURES.name)).unwrap();
    let own = office.path("own.bin.gz");
    fs::write(&own, PICTURES.bytes).unwrap();
    let (charter, _) = office.writes(&["--labels", "yes,no", "--anchors", &text(&own)]);
    assert_eq!(charter.anchors.count, PICTURES.count);
    assert!(!office.path(PICTURES.name).exists());
}

/// Two slots of 4 branches of 16 x 16 values, and the readout of 64 x 2 with its bias.
#[test]
fn what_a_round_costs_follows_the_codec() {
    let office = Office::new();
    let costs = [
        ("f32", CodecKind::F32, "8712 bytes an update, 32.0 bits a value"),
        ("q8", CodecKind::Q8, "2178 bytes an update, 8.0 bits a value"),
        ("q4", CodecKind::Q4, "1124 bytes an update, 4.1 bits a value"),
        ("sign", CodecKind::Sign, "308 bytes an update, 1.1 bits a value"),
        ("topk", CodecKind::TopK, "138 bytes an update, 0.5 bits a value"),
    ];
    for (name, kind, cost) in costs {
        let (charter, said) = office.writes(&["--labels", "yes,no", "--codec", name]);
        assert_eq!(charter.codec.kind, kind);
        assert!(said.contains(cost), "{said}");
    }
    let (charter, _) = office.writes(&["--labels", "yes,no"]);
    assert_eq!(charter.codec.kind, CodecKind::Q8, "as in every charter so far");
}

#[test]
fn what_does_not_go_together() {
    let office = Office::new();
    let letters = office.tokenizer();
    office.refuses(&["--task", "causal-lm", "--labels", "a,b"], &["a language model has no --labels"]);
    office.refuses(&["--task", "text-classification"], &["--labels is missing"]);
    office.refuses(&["--task", "text-classification", "--labels", "a"], &["task.labels is 1, but must be from 2"]);
    let classes = ["--task", "text-classification", "--labels", "a,b", "--readout", &letters];
    office.refuses(&classes, &["--readout is for --task causal-lm"]);
    let twice = ["--task", "causal-lm", "--readout", &letters, "--readout", &letters];
    office.refuses(&twice, &["task.vocabularies"]);
    let nowhere = text(&office.path("nowhere"));
    office.refuses(&["--task", "causal-lm", "--readout", &nowhere], &["nowhere", "tokenizer.json"]);
    assert!(!office.path(TEXTS.name).exists() && !office.path(PICTURES.name).exists());

    // What is there is not overwritten.
    let there = office.path(TEXTS.name);
    fs::write(&there, "{\"text\": \"mine\"}\n").unwrap();
    office.refuses(&["--task", "causal-lm"], &["anchors.jsonl is there already", "--anchors"]);
    assert_eq!(fs::read_to_string(&there).unwrap(), "{\"text\": \"mine\"}\n");
    let few = ["--task", "causal-lm", "--anchors", &text(&there)];
    office.refuses(&few, &["anchors.count is 1, but must be from 8"]);
    office.refuses(&["--labels", "a,b", "--anchors", &nowhere], &["nowhere", "is of no kind that is read"]);
    let state = text(&office.path("state"));
    office.refuses(&["--labels", "a,b", "--anchors", &state], &["state", "is a folder"]);
}

#[test]
fn a_node_aligns_by_the_pictures_that_ship_if_its_processor_resizes_them() {
    let office = Office::new();
    office.writes(&["--labels", "0,1,2,3,4,5,6,7,8,9", "--rounds", "1"]);
    let (data, folder) = (office.path("data"), office.path("backbone"));
    digits(&data, 0..30, 30..100, 100..130);
    fs::remove_file(data.join("anchors.csv")).unwrap();
    fs::copy(office.path(PICTURES.name), data.join(PICTURES.name)).unwrap();
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(backbone("vit-d32-l2")).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let run = || {
        let mut command = heterotune();
        command.arg("run").arg("--state").arg(office.path("state")).arg("--charter").arg(&office.charter);
        command.arg("--backbone").arg(&folder).arg("--data").arg(&data).args(["--threads", "1", "--steps", "1"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        Process::start(command, &office.path("log")).wait()
    };
    refuses(run(), &["anchors.bin.gz", "is 32 x 32 pixels, but the backbone takes 8 x 8"]);
    let processor = folder.join("preprocessor_config.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&processor).unwrap()).unwrap();
    (file["do_resize"], file["size"]) = (true.into(), json!({"height": 8, "width": 8}));
    fs::write(&processor, file.to_string()).unwrap();
    let ended = run();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
