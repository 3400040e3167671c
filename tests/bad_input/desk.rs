//! All that a person has before them when they run a node.

use crate::common::{
    inputs::{backbone, digits},
    process::{Ended, Node, Process, heterotune},
};
use heterotune::store::Store;
use std::{fs, path::PathBuf, process::Command};
use tempfile::TempDir;

/// Files and folders, made with the program's own verbs.
pub(crate) struct Desk {
    pub(crate) state: PathBuf,
    /// The state folder of a second founder, which may not be one.
    pub(crate) second: PathBuf,
    pub(crate) charter: PathBuf,
    pub(crate) backbone: PathBuf,
    pub(crate) data: PathBuf,
    /// The charter as it should be.
    good: String,
    pub(crate) home: TempDir,
}

impl Desk {
    /// A network of one, which has run to its end.
    pub(crate) fn used() -> Self {
        let desk = Self::new(1);
        let ended = desk.run(&[]).wait();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        desk
    }

    /// A network of two, of which none has run.
    pub(crate) fn of_two() -> Self {
        Self::new(2)
    }

    fn new(founders: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let [state, second, charter, folder, data] =
            ["state", "second", "charter.toml", "backbone", "data"].map(|name| home.path().join(name));
        digits(&data, 0..30, 30..100, 100..130);
        fs::create_dir(&folder).unwrap();
        for file in fs::read_dir(backbone("vit-d32-l2")).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        let mut command = heterotune();
        command.args(["charter", "new"]).arg(&charter).args(["--name", "desk", "--labels", "0,1,2,3,4,5,6,7,8,9"]);
        command.args(["--rounds", "2", "--anchors"]).arg(data.join("anchors.csv"));
        for state in [&state, &second].into_iter().take(founders) {
            let key = heterotune().arg("init").arg("--state").arg(state).output().unwrap();
            command.arg("--founder").arg(String::from_utf8(key.stdout).unwrap().trim());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let good = fs::read_to_string(&charter).unwrap();
        Self { state, second, charter, backbone: folder, data, good, home }
    }

    /// Writes the charter as it should be, but for one thing.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        assert!(self.good.contains(from), "{from} is not in {}", self.good);
        fs::write(&self.charter, self.good.replacen(from, to, 1)).unwrap();
    }

    /// What a node is started with, beside its state folder.
    pub(crate) fn arguments(&self, command: &mut Command) {
        command.arg("--charter").arg(&self.charter).arg("--backbone").arg(&self.backbone);
        command.arg("--data").arg(&self.data).args(["--threads", "1", "--steps", "1"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    }

    /// Starts the node.
    pub(crate) fn start(&self) -> Node {
        Node::start(&self.state, |command| self.arguments(command))
    }
}

impl Desk {
    /// Runs the node with further arguments.
    pub(crate) fn run(&self, more: &[&str]) -> Process {
        let mut command = heterotune();
        command.arg("run").arg("--state").arg(&self.state);
        self.arguments(&mut command);
        command.args(more);
        Process::start(command, &self.home.path().join("log"))
    }

    /// Runs the node where no file may be longer than this.
    pub(crate) fn run_with_files_up_to(&self, blocks: u32) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$0\" \"$@\"")]);
        command.arg(heterotune().get_program()).args(["run", "--state"]).arg(&self.state);
        self.arguments(&mut command);
        Process::start(command, &self.home.path().join("log"))
    }

    /// Runs the node; it must refuse, and nothing that it had kept may change.
    pub(crate) fn refuses(&self, keywords: &[&str]) {
        self.refuses_with(&[], keywords);
    }

    /// As [`Desk::refuses`], with further arguments.
    pub(crate) fn refuses_with(&self, more: &[&str], keywords: &[&str]) {
        let kept = self.kept();
        refuses(self.run(more).wait(), keywords);
        assert_eq!(self.kept(), kept);
    }

    /// All that a node must not lose: its key, charter and private state as bytes, its ledger as it reads it.
    pub(crate) fn kept(&self) -> (Vec<Vec<u8>>, String) {
        let files = ["identity.key", "charter.toml", "private.safetensors"];
        let files = files.map(|name| fs::read(self.state.join(name)).unwrap());
        let saved = Store::open(&self.state).unwrap().load().unwrap();
        assert!(!saved.messages.is_empty() && !saved.checkpoints.is_empty());
        (files.into(), format!("{saved:?}"))
    }
}

/// Checks that a program ended with an error and one clear sentence.
pub(crate) fn refuses(ended: Ended, keywords: &[&str]) {
    refuses_with_status(ended, 1, keywords);
}

/// As [`refuses`], where the error has an exit status of its own.
pub(crate) fn refuses_with_status(ended: Ended, status: i32, keywords: &[&str]) {
    let Ended { code, stdout, stderr } = ended;
    assert_eq!((code, stdout.as_str()), (Some(status), ""), "{stderr}");
    assert!(stderr.starts_with("heterotune: ") && stderr.lines().count() == 1, "not one sentence: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("Error("), "{stderr}");
    for keyword in keywords {
        assert!(stderr.contains(keyword), "{keyword} is not in: {stderr}");
    }
}
