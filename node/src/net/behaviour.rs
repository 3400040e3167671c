//! What a node does on its connections.

use super::{Settings, gossip, links, per_ip};
use heterotune_protocol::{limits, message::Context};
use libp2p::{
    PeerId, StreamProtocol, autonat, connection_limits, dcutr, gossipsub, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    mdns, memory_connection_limits, ping, relay,
    request_response::{self, ProtocolSupport, cbor},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};
use serde_bytes::ByteBuf;
use std::{error::Error, time::Duration};

/// The protocol of hellos and pulls. The bytes inside are `heterotune_protocol::message::{Request, Response}`.
const REQUESTS: StreamProtocol = StreamProtocol::new("/heterotune/requests/2");

/// A CBOR byte string's header, at its longest.
const CBOR_HEADER_BYTES: u64 = 9;

/// Answers may be megabytes on a slow link (libp2p's default: 10 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Questions of one peer that are answered at a time; one pull and one hello are the normal case (libp2p's default:
/// 100).
const STREAMS_MAX: usize = 16;

/// Handshakes under way at once, in either direction.
const PENDING_MAX: u32 = 64;

/// The share of the machine's memory beyond which this process takes no more connections.
const MEMORY_SHARE_MAX: f64 = 0.9;

/// A NAT forgets a TCP flow after minutes of silence, and a peer whose link is cut says nothing at all.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// On a slow link a ping waits behind an answer of megabytes.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// A circuit through this node may carry so much in each direction. libp2p's default of 128 KiB and two minutes is made
/// for punching holes; peers that stay relayed gossip through it: 64 updates of 2 KB a round, each twice, are 15 MB in an
/// hour of rounds of a minute.
const CIRCUIT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// After that, peers that stay relayed connect anew.
const CIRCUIT_DURATION_MAX: Duration = Duration::from_secs(3_600);

/// Circuits at once, of all and of one peer.
const CIRCUITS_MAX: usize = 64;

/// See [`CIRCUITS_MAX`].
const CIRCUITS_PER_PEER_MAX: usize = 8;

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // Those that refuse connections come first: the later ones need not hear of these.
    limits: connection_limits::Behaviour,
    per_ip: per_ip::Behaviour,
    memory: memory_connection_limits::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) requests: cbor::Behaviour<ByteBuf, ByteBuf>,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) reachable: Toggle<autonat::v2::client::Behaviour>,
    probes: autonat::v2::server::Behaviour,
    relay_client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: dcutr::Behaviour,
    upnp: Toggle<upnp::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(
        key: &Keypair,
        context: &Context,
        settings: &Settings,
        relay_client: relay::client::Behaviour,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let own = key.public().to_peer_id();
        // A machine whose multicast is shut off finds nobody by it, and runs.
        let mdns = (settings.mdns && settings.is_public())
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own).ok())
            .flatten();
        let upnp = (settings.upnp && settings.is_public()).then(upnp::tokio::Behaviour::default);
        let reachable = settings.call_back.then(autonat::v2::client::Behaviour::default);
        Ok(Self {
            limits: connection_limits::Behaviour::new(connection_limits(settings)),
            per_ip: per_ip::Behaviour::default(),
            memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
            identify: identify::Behaviour::new(
                identify::Config::new("/heterotune/1".into(), key.public())
                    .with_agent_version(concat!("heterotune/", env!("CARGO_PKG_VERSION")).into())
                    // A relay's or a router's address comes minutes after the connection.
                    .with_push_listen_addr_updates(true),
            ),
            gossip: gossip::behaviour(&context.network, &context.charter)?,
            requests: requests(),
            kad: kad(own, context)?,
            mdns: mdns.into(),
            reachable: reachable.into(),
            probes: autonat::v2::server::Behaviour::default(),
            relay_client,
            relay: settings.relay.then(|| relay(own)).into(),
            dcutr: dcutr::Behaviour::new(own),
            upnp: upnp.into(),
        })
    }
}

fn connection_limits(settings: &Settings) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(settings.connections_max))
        // A quarter is kept for those whom the node itself chooses, so that callers cannot surround it.
        .with_max_established_incoming(Some(settings.connections_max - settings.connections_max / 4))
        .with_max_established_per_peer(Some(links::PER_PEER_MAX))
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
}

fn requests() -> cbor::Behaviour<ByteBuf, ByteBuf> {
    // libp2p's defaults: 1 MiB and 10 MiB.
    let codec = cbor::codec::Codec::default()
        .set_request_size_maximum(limits::REQUEST_BYTES_MAX as u64 + CBOR_HEADER_BYTES)
        .set_response_size_maximum(limits::RESPONSE_BYTES_MAX as u64 + CBOR_HEADER_BYTES);
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(STREAMS_MAX);
    cbor::Behaviour::with_codec(codec, [(REQUESTS, ProtocolSupport::Full)], config)
}

/// Kademlia finds peers and stores nothing: what is put is filtered out. Its protocol has the network's own name, so no
/// other network's nodes get into the tables.
fn kad(own: PeerId, context: &Context) -> Result<kad::Behaviour<MemoryStore>, Box<dyn Error + Send + Sync>> {
    let name = StreamProtocol::try_from_owned(format!("/heterotune/kad/{}", context.network))?;
    let mut config = kad::Config::new(name);
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    Ok(kad::Behaviour::with_config(own, MemoryStore::new(own), config))
}

/// A relay serves for meeting, and for peers that stay relayed; how many, how long and how much is bounded here, how
/// often by libp2p's defaults.
fn relay(own: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT_DURATION_MAX,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        ..Default::default()
    };
    let mut relay = relay::Behaviour::new(own, config);
    relay.set_status(Some(relay::Status::Enable));
    relay
}
