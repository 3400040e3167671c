//! What `node.toml` says of the network, as the network takes it.

use super::NodeConfig;
use crate::net::{CONNECTIONS_MAX, Settings, default_listen};
use anyhow::{Context as _, Result, bail};
use libp2p::pnet::PreSharedKey;
use std::{fs::File, io::Read, path::Path};

/// The fewest connections with which a node is of use to others.
const CONNECTIONS_MIN: u32 = 8;

impl NodeConfig {
    /// How the node is reached, and reaches others.
    ///
    /// # Errors
    /// A pre-shared key that cannot be read, or too few connections.
    pub fn network(&self) -> Result<Settings> {
        let connections_max = self.max_connections.unwrap_or(CONNECTIONS_MAX);
        if connections_max < CONNECTIONS_MIN {
            bail!("max_connections is {connections_max}, but must be {CONNECTIONS_MIN} or more");
        }
        let psk = self.psk.as_deref().map(read_psk).transpose()?;
        Ok(Settings {
            listen: self.listen.clone().unwrap_or_else(|| default_listen(psk.is_some())),
            bootstrap: self.bootstrap.clone().unwrap_or_default(),
            external: self.external.clone().unwrap_or_default(),
            relay: self.relay.unwrap_or(false),
            mdns: self.mdns.unwrap_or(true),
            upnp: self.upnp.unwrap_or(true),
            call_back: true,
            psk,
            connections_max,
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
