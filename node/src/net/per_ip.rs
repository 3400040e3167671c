//! How much of a node's attention strangers get: inbound connections of one address, and attempts of all.

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Inbound connections of one address, under way or made: a household or a small laboratory behind one NAT.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// Inbound attempts that may come at once: everybody who was connected to a node that starts again.
pub(super) const BURST: u32 = 256;

/// How fast the room for attempts grows again: a handshake costs a signature and a key exchange, about 0.3 ms.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(50);

/// Why an inbound connection is refused before its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// One address has enough.
    #[error("{0} has {CONNECTIONS_MAX} connections to this node already")]
    Address(IpAddr),
    /// There are too many attempts, whoever makes them.
    #[error("too many connections are attempted at once; try again in a minute")]
    Attempts,
}

/// Refuses inbound connections beyond the limits, but never those of this machine to itself.
pub(super) struct Behaviour {
    /// The block behind each inbound connection.
    connections: HashMap<ConnectionId, IpAddr>,
    per_block: HashMap<IpAddr, usize>,
    attempts: Bucket,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { connections: HashMap::new(), per_block: HashMap::new(), attempts: Bucket::full(Instant::now()) }
    }
}

impl Behaviour {
    fn admit(&mut self, connection: ConnectionId, from: &Multiaddr, now: Instant) -> Result<(), Crowded> {
        // A circuit through a relay has no address of its own; the relay limits it.
        let Some(block) = block(from).filter(|block| !block.is_loopback()) else { return Ok(()) };
        if self.per_block.get(&block).is_some_and(|count| *count >= CONNECTIONS_MAX) {
            return Err(Crowded::Address(block));
        }
        if !self.attempts.take(now) {
            return Err(Crowded::Attempts);
        }
        *self.per_block.entry(block).or_default() += 1;
        self.connections.insert(connection, block);
        Ok(())
    }

    fn release(&mut self, connection: ConnectionId) {
        let Some(block) = self.connections.remove(&connection) else { return };
        if let Some(count) = self.per_block.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                self.per_block.remove(&block);
            }
        }
    }
}

/// What one party has of the address space: an IPv4 address, or the /64 of an IPv6 address.
fn block(address: &Multiaddr) -> Option<IpAddr> {
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(ip.into()),
            None if ip.is_loopback() => Some(ip.into()),
            None => Some(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into()),
        },
        _ => None,
    }
}

/// Room for attempts that fills up with time.
struct Bucket {
    room: u32,
    filled: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { room: BURST, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let intervals = now.saturating_duration_since(self.filled).as_millis() / ATTEMPT_INTERVAL.as_millis();
        let intervals = u32::try_from(intervals).unwrap_or(BURST).min(BURST);
        if intervals > 0 {
            self.room = (self.room + intervals).min(BURST);
            self.filled = now;
        }
        let granted = self.room > 0;
        self.room = self.room.saturating_sub(1);
        granted
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit(connection, remote, Instant::now()).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.release(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_room_back() {
        let (mut behaviour, now) = (Behaviour::default(), Instant::now());
        let crowd = address("/ip4/203.0.113.7/tcp/9");
        for number in 0..CONNECTIONS_MAX {
            assert_eq!(behaviour.admit(connection(number), &crowd, now), Ok(()));
        }
        let refused = Err(Crowded::Address("203.0.113.7".parse().unwrap()));
        assert_eq!(behaviour.admit(connection(90), &crowd, now), refused);
        assert_eq!(behaviour.admit(connection(91), &address("/ip4/203.0.113.8/tcp/9"), now), Ok(()));
        behaviour.release(connection(90));
        assert_eq!(behaviour.admit(connection(92), &crowd, now), refused, "a refused one held no room");
        behaviour.release(connection(0));
        assert_eq!(behaviour.admit(connection(93), &crowd, now), Ok(()));
        (1..CONNECTIONS_MAX).for_each(|number| behaviour.release(connection(number)));
        [91, 93].into_iter().for_each(|number| behaviour.release(connection(number)));
        assert!(behaviour.per_block.is_empty() && behaviour.connections.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_the_loopback_none() {
        let of = |text: &str| block(&address(text));
        assert_eq!(of("/ip6/2001:db8::1/tcp/9"), of("/ip6/2001:db8::ffff:2/udp/9/quic-v1"));
        assert_ne!(of("/ip6/2001:db8::1/tcp/9"), of("/ip6/2001:db8:0:1::1/tcp/9"));
        assert_eq!(of("/ip6/::ffff:203.0.113.7/tcp/9"), of("/ip4/203.0.113.7/tcp/9"));
        let relay = PeerId::random();
        assert_eq!(of(&format!("/ip4/203.0.113.7/tcp/9/p2p/{relay}/p2p-circuit")), None);
        let (mut behaviour, now) = (Behaviour::default(), Instant::now());
        for number in 0..2 * BURST as usize {
            for own in ["/ip4/127.0.0.1/tcp/9", "/ip6/::1/tcp/9"] {
                assert_eq!(behaviour.admit(connection(number), &address(own), now), Ok(()));
            }
        }
    }

    #[test]
    fn attempts_of_all_are_bounded() {
        let (mut behaviour, now) = (Behaviour::default(), Instant::now());
        let from = |number: u32| address(&format!("/ip4/203.0.{}.{}/tcp/9", number / 250, number % 250));
        for number in 0..BURST {
            assert_eq!(behaviour.admit(connection(number as usize), &from(number), now), Ok(()));
        }
        let next = connection(9_000);
        assert_eq!(behaviour.admit(next, &from(BURST), now), Err(Crowded::Attempts));
        assert_eq!(behaviour.admit(next, &from(BURST), now + ATTEMPT_INTERVAL / 2), Err(Crowded::Attempts));
        assert_eq!(behaviour.admit(next, &from(BURST), now + ATTEMPT_INTERVAL), Ok(()));
    }
}
