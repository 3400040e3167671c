//! `node.toml`: what a node is run with. Every key is also a flag of `run`, and the flag wins.

use super::{Training, read_toml};
use crate::{
    backbone::{Options, Precision},
    console::Level,
    device::DeviceChoice,
};
use anyhow::{Context as _, Result};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a node is run with; what is not set has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The frozen model: a folder in Hugging Face layout (config.json, model.safetensors, ..), or hf:ORG/NAME@REVISION,
    /// which is downloaded from the Hugging Face hub if the hub's cache on this machine does not hold it.
    #[arg(long, value_name = "DIR|hf:ORG/NAME")]
    pub backbone: Option<String>,
    /// Take only the model's first N layers.
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,
    /// How the frozen matrices are kept in memory: f32, f16, bf16, q8 (a quarter of f32) or q4 (an eighth) [default: f32].
    #[arg(long, value_name = "KIND")]
    pub precision: Option<Precision>,
    /// What computes: cpu, cuda (the first NVIDIA GPU), cuda:N (another one), or auto (a GPU if there is one that can be
    /// used) [default: cpu]. For a GPU the program must be built with `--features heterotune/cuda`, and the precision be
    /// f32 or bf16.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// The data: a folder with train, anchors and, if accuracy is to be measured, test. With held (samples of your own
    /// that are not in train) the node tests each mixture, and goes on using an earlier one while newer ones are worse.
    /// It never leaves this node.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Where to listen; may be given more than once [default: all interfaces, TCP and QUIC on one free port number].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Vec<Multiaddr>>,
    /// Where to find a first peer (any node of the network will do: /ip4/.., /dns4/.., /dnsaddr/..); may be given more
    /// than once. The others are learnt from it, and remembered.
    #[arg(long = "peer", alias = "bootstrap", value_name = "ADDR")]
    pub bootstrap: Option<Vec<Multiaddr>>,
    /// Where others reach this node, if you know: a forwarded port, a DNS name; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    pub external: Option<Vec<Multiaddr>>,
    /// Carry connections between nodes that cannot reach each other. For nodes that others can reach.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub relay: Option<bool>,
    /// Do not look for peers in the local network.
    #[arg(long = "no-mdns", num_args = 0, default_missing_value = "false")]
    pub mdns: Option<bool>,
    /// Do not ask the router for a port.
    #[arg(long = "no-upnp", num_args = 0, default_missing_value = "false")]
    pub upnp: Option<bool>,
    /// A file with a key that all nodes share, as other libp2p programs write it (swarm.key): without it nobody can
    /// even begin a connection. TCP only.
    #[arg(long, value_name = "FILE")]
    pub psk: Option<PathBuf>,
    /// Connections at most [default: 256].
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
    /// Threads for computing [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// What is printed on standard error: error, warn, info or debug [default: warn]. The event log always holds all.
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,
    /// How to train.
    #[command(flatten)]
    pub training: Training,
}

/// The largest `node.toml`.
const BYTES_MAX: usize = 1 << 20;

impl NodeConfig {
    /// The file in a state folder.
    pub fn path(state: &Path) -> PathBuf {
        state.join("node.toml")
    }

    /// Reads a state folder's `node.toml`; without one, nothing is set. Relative paths in it begin in that folder.
    ///
    /// # Errors
    /// A file that is not readable, or has a key that is not known, with line and column.
    pub fn read(state: &Path) -> Result<Self> {
        let path = Self::path(state);
        if !path.exists() {
            return Ok(Self::default());
        }
        let mut config: Self = read_toml(&path, BYTES_MAX)?;
        if let Some(backbone) = config.backbone.as_mut().filter(|backbone| !backbone.starts_with("hf:")) {
            *backbone = state.join(&*backbone).to_string_lossy().into_owned();
        }
        for path in [&mut config.data, &mut config.psk].into_iter().flatten() {
            *path = state.join(&*path);
        }
        Ok(config)
    }

    /// Writes `node.toml` with its comments where there is none.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn found(state: &Path) -> Result<()> {
        let path = Self::path(state);
        if path.exists() { Ok(()) } else { crate::store::write_atomically(&path, TEMPLATE.as_bytes(), false) }
    }

    /// Writes what is set here into a state folder's `node.toml`, and leaves the rest of the file as it is. Paths
    /// become absolute.
    ///
    /// # Errors
    /// A file that cannot be read or written, or is written in a way that cannot be changed line by line.
    pub fn keep(mut self, state: &Path) -> Result<()> {
        let path = Self::path(state);
        Self::found(state)?;
        if let Some(backbone) = self.backbone.as_mut().filter(|backbone| !backbone.starts_with("hf:")) {
            *backbone = std::path::absolute(&*backbone)?.to_string_lossy().into_owned();
        }
        for path in [&mut self.data, &mut self.psk].into_iter().flatten() {
            *path = std::path::absolute(&*path)?;
        }
        let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for (key, value) in toml::Table::try_from(&self)? {
            let pairs = match value {
                toml::Value::Table(table) => {
                    table.into_iter().map(|(inner, value)| (Some(&key), inner, value)).collect()
                }
                value => vec![(None, key.clone(), value)],
            };
            for (table, key, value) in pairs {
                text = super::set(&text, table.map(String::as_str), &key, &value)
                    .with_context(|| format!("cannot change {}", path.display()))?;
            }
        }
        crate::store::write_atomically(&path, text.as_bytes(), false)
    }

    /// What is set here, and what `other` says where nothing is.
    pub fn or(self, other: Self) -> Self {
        Self {
            backbone: self.backbone.or(other.backbone),
            layers: self.layers.or(other.layers),
            precision: self.precision.or(other.precision),
            device: self.device.or(other.device),
            data: self.data.or(other.data),
            listen: self.listen.or(other.listen),
            bootstrap: self.bootstrap.or(other.bootstrap),
            external: self.external.or(other.external),
            relay: self.relay.or(other.relay),
            mdns: self.mdns.or(other.mdns),
            upnp: self.upnp.or(other.upnp),
            psk: self.psk.or(other.psk),
            max_connections: self.max_connections.or(other.max_connections),
            threads: self.threads.or(other.threads),
            log: self.log.or(other.log),
            training: self.training.or(other.training),
        }
    }

    /// How the frozen model is loaded.
    pub fn frozen(&self) -> Options {
        let (precision, device) = (self.precision.unwrap_or_default(), self.device.unwrap_or_default());
        Options { layers: self.layers, precision, device }
    }
}

/// `node.toml` as `init` writes it.
pub const TEMPLATE: &str = include_str!("node.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_file_that_init_writes_and_is_read_from_it() {
        let config: NodeConfig = toml::from_str(TEMPLATE).unwrap();
        assert!(config.backbone.is_none() && config.listen.as_ref().is_some_and(|listen| listen.len() == 2));
        // With every comment sign before a key taken away.
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(char::is_alphabetic) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let full: NodeConfig = toml::from_str(&uncommented).unwrap();
        let table = toml::Table::try_from(&full).unwrap();
        assert_eq!(table.len(), 16, "{uncommented}");
        assert_eq!(table["training"].as_table().unwrap().len(), 16);
    }

    #[test]
    fn flags_win_and_relative_paths_begin_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            NodeConfig::path(folder.path()),
            "backbone = \"vit\"\ndata = \"d\"\n[training]\nsteps = 3\nrate = 0.1\n",
        )
        .unwrap();
        let file = NodeConfig::read(folder.path()).unwrap();
        assert_eq!(file.backbone.as_deref(), folder.path().join("vit").to_str());
        assert_eq!(file.data, Some(folder.path().join("d")));
        let flags =
            NodeConfig { training: Training { steps: Some(7), ..Training::default() }, ..NodeConfig::default() };
        let both = flags.or(file);
        assert_eq!((both.training.settings().steps, both.training.settings().rate), (7, 0.1));

        fs::write(NodeConfig::path(folder.path()), "listen = []\ncolour = 1\n").unwrap();
        let told = NodeConfig::read(folder.path()).unwrap_err().to_string();
        assert!(told.contains("node.toml, line 2, column 1: unknown field `colour`"), "{told}");
    }

    #[test]
    fn what_is_kept_is_read_again_and_the_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let config = NodeConfig {
            backbone: Some("hf:org/name".into()),
            data: Some("/data".into()),
            bootstrap: Some(vec![address.clone()]),
            training: Training { rate: Some(0.5), ..Training::default() },
            ..NodeConfig::default()
        };
        config.clone().keep(folder.path()).unwrap();
        let read = NodeConfig::read(folder.path()).unwrap();
        assert_eq!(read.listen, NodeConfig::read(folder.path()).unwrap().listen);
        assert_eq!(config.or(read.clone()), read);
        let text = fs::read_to_string(NodeConfig::path(folder.path())).unwrap();
        assert_eq!(text.matches('#').count(), TEMPLATE.matches('#').count() - 4);
    }
}
