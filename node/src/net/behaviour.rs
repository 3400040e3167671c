//! What a node does on its connections.

use super::gossip;
use heterotune_protocol::{charter::NetworkId, limits};
use libp2p::{
    StreamProtocol, connection_limits, gossipsub, identify,
    identity::Keypair,
    ping,
    request_response::{self, ProtocolSupport, cbor},
    swarm::NetworkBehaviour,
};
use serde_bytes::ByteBuf;
use std::time::Duration;

/// The protocol of hellos and pulls. The bytes inside are `heterotune_protocol::message::{Request, Response}`.
const REQUESTS: StreamProtocol = StreamProtocol::new("/heterotune/requests/1");

/// A CBOR byte string's header, at its longest.
const CBOR_HEADER_BYTES: u64 = 9;

/// Answers may be megabytes on a slow link.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Questions of one peer that are answered at a time; one pull and one hello are the normal case.
const STREAMS_MAX: usize = 16;

/// Connections in all: twice the largest membership (two a peer while both sides dial), and room for strangers until
/// they are told apart.
const CONNECTIONS_MAX: u32 = 2 * limits::FOUNDERS_MAX as u32 + 32;

/// Handshakes under way at once.
const PENDING_MAX: u32 = 64;

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) requests: cbor::Behaviour<ByteBuf, ByteBuf>,
}

impl Behaviour {
    pub(super) fn new(key: &Keypair, network: &NetworkId) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_established(Some(CONNECTIONS_MAX))
            .with_max_established_per_peer(Some(2))
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX));
        let identify = identify::Config::new("/heterotune/1".into(), key.public())
            .with_agent_version(concat!("heterotune/", env!("CARGO_PKG_VERSION")).into());
        let codec = cbor::codec::Codec::default()
            .set_request_size_maximum(limits::REQUEST_BYTES_MAX as u64 + CBOR_HEADER_BYTES)
            .set_response_size_maximum(limits::RESPONSE_BYTES_MAX as u64 + CBOR_HEADER_BYTES);
        let config = request_response::Config::default()
            .with_request_timeout(REQUEST_TIMEOUT)
            .with_max_concurrent_streams(STREAMS_MAX);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify),
            gossip: gossip::behaviour(network)?,
            requests: cbor::Behaviour::with_codec(codec, [(REQUESTS, ProtocolSupport::Full)], config),
        })
    }
}
