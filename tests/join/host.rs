//! A host of its own: a state folder, data and a backbone.

use crate::common::{
    inputs::{backbone, digits},
    process::{Node, heterotune},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Host {
    pub(crate) home: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) backbone: PathBuf,
}

impl Host {
    pub(crate) fn new(home: &Path, model: &str, part: usize) -> Self {
        let (state, data) = (home.join("state"), home.join("data"));
        digits(&data, 30 * part..30 * (part + 1), 200..270, 300..330);
        Self { home: home.into(), state, data, backbone: backbone(model) }
    }

    pub(crate) fn three(home: &Path) -> [Self; 3] {
        let models = ["vit-d32-l2", "vit-d48-l3", "vit-d64-l4"];
        std::array::from_fn(|part| Self::new(&home.join(format!("host-{part}")), models[part], part))
    }

    pub(crate) fn verb(&self, verb: &str) -> Command {
        let mut command = heterotune();
        command.arg(verb).arg("--state").arg(&self.state);
        command
    }

    /// `heterotune init`: the key.
    pub(crate) fn init(&self) -> String {
        stdout(&mut self.verb("init")).trim().into()
    }

    /// `heterotune charter new`, into the state folder.
    pub(crate) fn charter(&self, more: &[&str]) -> Command {
        let mut command = heterotune();
        command.args(["charter", "new", "--name", "evening", "--labels", "0,1,2,3,4,5,6,7,8,9"]);
        // A flag that is given twice counts where it comes last.
        if !more.contains(&"--rounds") {
            command.args(["--rounds", "2"]);
        }
        command.arg("--state").arg(&self.state).arg("--anchors").arg(self.data.join("anchors.csv")).args(more);
        command
    }

    pub(crate) fn invite(&self, address: &str, more: &[&str]) -> String {
        stdout(self.verb("invite").args(["--address", address]).args(more)).trim().into()
    }

    fn settings(&self, command: &mut Command) {
        command.arg("--backbone").arg(&self.backbone).arg("--data").arg(&self.data);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--threads", "1", "--steps", "1"]);
    }

    /// `heterotune run`.
    pub(crate) fn run(&self) -> Node {
        self.run_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn run_with(&self, more: &[&str]) -> Node {
        Node::start(&self.state, |command| {
            self.settings(command);
            command.args(more);
        })
    }

    pub(crate) fn joining(&self, invite: &str) -> Command {
        let mut command = heterotune();
        command.args(["join", invite]).arg("--state").arg(&self.state);
        self.settings(&mut command);
        command
    }

    /// `heterotune join`, which ends in `run`.
    pub(crate) fn join(&self, invite: &str, more: &[&str]) -> Node {
        let mut command = self.joining(invite);
        command.args(more);
        Node::of(command, &self.state)
    }
}

/// `heterotune charter new`: what it says.
pub(crate) fn charter_new(host: &Host, more: &[&str]) -> String {
    stdout(&mut host.charter(more))
}

/// What a verb prints that must succeed.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Sends a signal.
pub(crate) fn kill(pid: u64, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}
