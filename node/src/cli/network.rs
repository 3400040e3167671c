//! The flags of `heterotune run` that say how a node is reached, and how it reaches others.

use crate::net::{CONNECTIONS_MAX, Settings, default_listen};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use libp2p::{Multiaddr, pnet::PreSharedKey};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// The fewest connections with which a node is of use to others.
const CONNECTIONS_MIN: u32 = 8;

#[derive(Debug, Args)]
pub(super) struct Network {
    /// Where to listen; may be given more than once [default: all interfaces, TCP and QUIC on one free port number].
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Multiaddr>,
    /// Where to find a first peer (any node of the network will do: /ip4/.., /dns4/.., /dnsaddr/..); may be given more
    /// than once. The others are learnt from it, and remembered.
    #[arg(long = "peer", value_name = "ADDR")]
    peers: Vec<Multiaddr>,
    /// Where others reach this node, if you know: a forwarded port, a DNS name; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    external: Vec<Multiaddr>,
    /// Carry connections between nodes that cannot reach each other. For nodes that others can reach.
    #[arg(long)]
    relay: bool,
    /// Do not look for peers in the local network.
    #[arg(long)]
    no_mdns: bool,
    /// Do not ask the router for a port.
    #[arg(long)]
    no_upnp: bool,
    /// A file with a key that all nodes share, as other libp2p programs write it (swarm.key): without it nobody can
    /// even begin a connection. TCP only.
    #[arg(long, value_name = "FILE")]
    psk: Option<PathBuf>,
    /// Connections at most.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX,
        value_parser = clap::value_parser!(u32).range(i64::from(CONNECTIONS_MIN)..))]
    max_connections: u32,
}

impl Network {
    pub(super) fn settings(self) -> Result<Settings> {
        let psk = self.psk.as_deref().map(read_psk).transpose()?;
        let listen = if self.listen.is_empty() { default_listen(psk.is_some()) } else { self.listen };
        Ok(Settings {
            listen,
            bootstrap: self.peers,
            external: self.external,
            relay: self.relay,
            mdns: !self.no_mdns,
            upnp: !self.no_upnp,
            psk,
            connections_max: self.max_connections,
            ..Settings::default()
        })
    }
}

/// The longest key file: three lines, the last of 64 digits.
const PSK_BYTES_MAX: u64 = 256;

fn read_psk(path: &Path) -> Result<PreSharedKey> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PSK_BYTES_MAX).read_to_string(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    match text.parse() {
        Ok(key) => Ok(key),
        Err(_) => bail!(
            "{} is not a pre-shared key; it must have three lines: /key/swarm/psk/1.0.0/, /base16/, and 64 hexadecimal digits",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_or_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swarm.key");
        let key = PreSharedKey::new([7; 32]);
        std::fs::write(&path, key.to_key_file()).unwrap();
        assert!(read_psk(&path).unwrap() == key);
        for spoilt in ["", "07070707", "/key/swarm/psk/1.0.0/\n/base16/\n0707"] {
            std::fs::write(&path, spoilt).unwrap();
            let told = read_psk(&path).unwrap_err().to_string();
            assert!(told.contains("swarm.key is not a pre-shared key; it must have three lines"), "{told}");
        }
    }
}
