//! The transport, from the socket to the gate:
//!
//! ```text
//! relayed circuits ─ noise ─ yamux ─┐
//! DNS ─┬─ TCP (─ pre-shared key) ─ noise ─ yamux ─┼─ byte counters ─ timeout ─ gate ─ swarm
//!      └─ QUIC ────────────────────────────────────┘
//! ```

use super::{door::Doorkeeper, gate};
use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OptionalTransport, timeout::TransportTimeout},
        upgrade::{NegotiationError, Version},
    },
    dns,
    futures::{AsyncRead, AsyncWrite, future::Either},
    identity::Keypair,
    metrics::{BandwidthTransport, Registry},
    noise,
    pnet::{PnetConfig, PreSharedKey},
    quic, relay, tcp, yamux,
};
use std::{error::Error, sync::Arc, time::Duration};

/// A connection that is secure and multiplexed.
pub(super) type Secure = (PeerId, StreamMuxerBox);

/// How long a connection may take to be made, up to the gate: DNS, three round trips, and a relay's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A NAT forgets a UDP flow after 30 seconds of silence, so something is said every 15 (libp2p's default: 5).
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A laptop changes its Wi-Fi, or its lid is closed for a moment: QUIC goes on after that (libp2p's default: 10 s).
const QUIC_IDLE_MS: u32 = 60_000;

/// Substreams of a connection (libp2p's default: 512). A stranger can fill 256 KiB each before the gate has refused it;
/// a relay needs one a circuit.
const STREAMS_MAX: usize = 128;

/// The transport of a node, and libp2p's client of relays, which belongs to it.
///
/// # Errors
/// What libp2p refuses in a key; none in practice.
pub(super) fn build(
    key: &Keypair,
    psk: Option<PreSharedKey>,
    door: Arc<Doorkeeper>,
    registry: &mut Registry,
) -> Result<(Boxed<Secure>, relay::client::Behaviour), noise::Error> {
    let (relayed, relay_client) = relay::client::new(key.public().to_peer_id());
    let relayed = secure(relayed, key)?;
    let direct = match dns::tokio::Transport::system(direct(key, psk)?) {
        Ok(resolving) => resolving.boxed(),
        // A machine without a resolver has no use for names.
        Err(_) => direct(key, psk)?,
    };
    let all = relayed.or_transport(direct).map(|either, _| either.into_inner());
    let counted =
        BandwidthTransport::new(all, registry).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let timed = TransportTimeout::new(counted, CONNECT_TIMEOUT).boxed();
    Ok((gated(timed, door, gate::TIME_MAX), relay_client))
}

/// Whether a connection was made, and what came over it was not how a node begins: noise, by its name.
pub(super) fn is_gibberish(error: &(dyn Error + 'static)) -> bool {
    error.is::<NegotiationError>() || error.is::<noise::Error>() || error.source().is_some_and(is_gibberish)
}

/// Puts the gate before a transport.
pub(super) fn gated(transport: Boxed<Secure>, door: Arc<Doorkeeper>, time: Duration) -> Boxed<Secure> {
    transport.and_then(move |(peer, connection), endpoint| gate::pass(door, peer, connection, endpoint, time)).boxed()
}

/// TCP, and QUIC where there is no pre-shared key: libp2p has no private networks over QUIC.
fn direct(key: &Keypair, psk: Option<PreSharedKey>) -> Result<Boxed<Secure>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let tcp = match psk {
        None => secure(tcp, key)?,
        Some(psk) => secure(tcp.and_then(move |socket, _| PnetConfig::new(psk).handshake(socket)), key)?,
    };
    let quic = match psk {
        None => OptionalTransport::some(quic::tokio::Transport::new(quic_config(key))),
        Some(_) => OptionalTransport::none(),
    };
    let both = tcp.or_transport(quic).map(|either, _| match either {
        Either::Left(secure) => secure,
        Either::Right((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
    });
    Ok(both.boxed())
}

/// Noise and yamux over what carries bytes.
pub(super) fn secure<T>(raw: T, key: &Keypair) -> Result<Boxed<Secure>, noise::Error>
where
    T: Transport<Output: AsyncRead + AsyncWrite + Send + Unpin + 'static> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(STREAMS_MAX);
    Ok(raw.upgrade(Version::V1Lazy).authenticate(noise::Config::new(key)?).multiplex(multiplexer).boxed())
}

fn quic_config(key: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(key);
    (config.keep_alive_interval, config.max_idle_timeout) = (QUIC_KEEP_ALIVE, QUIC_IDLE_MS);
    config
}
