//! Bytes, counted at the transport: everything that the connections' streams carry, all protocols, either way. Below
//! that lie only the handshakes and the frames of noise, yamux and QUIC.

use libp2p::metrics::Registry;
use prometheus_client::encoding::text;

/// Bytes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Sent.
    pub bytes_out: u64,
    /// Received.
    pub bytes_in: u64,
}

impl Traffic {
    /// Reads the transport's counters, which libp2p offers in Prometheus' text form only.
    pub(super) fn read(registry: &Registry) -> Self {
        let mut encoded = String::new();
        if text::encode(&mut encoded, registry).is_err() {
            return Self::default();
        }
        let sum = |direction: &str| {
            let lines = encoded
                .lines()
                .filter(|line| line.starts_with("libp2p_bandwidth_bytes_total") && line.contains(direction));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Self { bytes_out: sum("\"Outbound\""), bytes_in: sum("\"Inbound\"") }
    }
}
