//! How peers are found, met, and sent away.

use super::{
    NetEvent, Network, Path,
    address::{ip, is_relayed, is_useful},
    bans::Ban,
    files::unix_seconds,
    gate::Refusal,
    links::Change,
    node_id, peer_id,
    peers::Dial,
    requests::ADDRESSES_MAX,
    swarm::root_cause,
    transport::is_gibberish,
};
use heterotune_crypto::NodeId;
use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::ConnectedPoint,
    dcutr, identify, mdns, relay,
    swarm::{ConnectionError, ConnectionId, DialError, ListenError, dial_opts::DialOpts},
};
use std::time::Instant;

/// What a connection that comes to nothing most likely means, where nobody can know: what is encrypted with another key
/// is noise.
const OTHER_KEY: &str = "; if that is a node of this network, have both the same pre-shared key (`psk`), or none?";

impl Network {
    /// Whether a member is connected.
    pub fn is_connected(&self, member: &NodeId) -> bool {
        peer_id(member).is_some_and(|peer| self.links.contains(&peer))
    }

    /// Closes all connections. Peers wait for one that just vanishes, over QUIC for a minute.
    pub async fn depart(&mut self) {
        let peers: Vec<_> = self.links.peers().copied().collect();
        for peer in peers {
            // An error means that it has gone meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while self.links.len() > 0 {
            self.next().await;
        }
    }

    /// Has nothing more to do with a peer, now and after every restart.
    pub fn ban(&mut self, ban: Ban) {
        if self.door.ban(ban) {
            self.keep_bans();
            self.send_away();
        }
    }

    /// Closes the connections of peers against whom something is held by now.
    pub(super) fn send_away(&mut self) {
        let tolerated = |peer: &PeerId| node_id(peer).is_some_and(|node| self.door.tolerates(&node).is_ok());
        let unwanted: Vec<_> = self.links.peers().filter(|peer| !tolerated(peer)).copied().collect();
        for peer in unwanted {
            // An error means that it has gone meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Dials who is missing and asks those who are there for more, when it is time to.
    pub(super) fn look_for_peers(&mut self, now: Instant) {
        let (room, own) = (self.room(), self.peer_id());
        let (links, door) = (&self.links, &self.door);
        let may_come = |peer: &PeerId| node_id(peer).is_some_and(|node| door.may_come(&node));
        let absent = |peer: &PeerId| *peer != own && !links.contains(peer) && may_come(peer);
        let Some(dials) = self.peers.retry(now, room, links.len() == 0, absent) else { return };
        dials.into_iter().for_each(|dial| self.dial(dial));
        // An error means that the table is empty, as it is at first.
        let _ = self.swarm.behaviour_mut().kad.bootstrap();
        self.say_hello_to_all();
    }

    fn dial(&mut self, dial: Dial) {
        let options = match (dial.peer, dial.addresses.first()) {
            (Some(peer), _) => DialOpts::peer_id(peer).addresses(dial.addresses).build(),
            (None, Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).build(),
            (None, None) => return,
        };
        // Being dialled already, or too many dials under way: there is a next time.
        let _ = self.swarm.dial(options);
    }

    /// Remembers where a peer is said to be, and dials it if it is new and there is room.
    pub(super) fn on_discovered(&mut self, peer: PeerId, address: &Multiaddr) {
        let may_come = node_id(&peer).is_some_and(|node| self.door.may_come(&node));
        if peer == self.peer_id() || !may_come || !self.peers.learn(&peer, address) {
            return;
        }
        if !self.links.contains(&peer) && self.room() > 0 {
            self.dial(Dial { peer: Some(peer), addresses: vec![address.clone()] });
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        if let mdns::Event::Discovered(found) = event {
            found.iter().for_each(|(peer, address)| self.on_discovered(*peer, address));
        }
    }

    /// Learns where a connected peer listens, and what it does for others.
    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id: peer, info, .. } = event else { return };
        let Some(via) = self.links.address(&peer).cloned() else { return };
        let kad = &mut self.swarm.behaviour_mut().kad;
        let in_table = info.protocols.iter().any(|protocol| kad.protocol_names().contains(protocol));
        for address in info.listen_addrs.iter().filter(|address| is_useful(address, &via)).take(ADDRESSES_MAX) {
            if self.peers.learn(&peer, address) && is_relayed(address) {
                // Who else can't dial it waits for this.
                self.peers.stirred();
            }
            if in_table {
                kad.add_address(&peer, address.clone());
            }
        }
        if info.protocols.contains(&relay::HOP_PROTOCOL_NAME) && !is_relayed(&via) {
            let dialled = self.peers.best(&peer).filter(|address| !is_relayed(address));
            self.reach.found(peer, dialled.cloned().unwrap_or(via));
        }
    }

    pub(super) fn on_opened(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        if endpoint.is_dialer() {
            self.peers.succeeded(&peer, endpoint.get_remote_address(), unix_seconds());
        }
        let change = self.links.opened(peer, id, endpoint);
        let (Some(node), Some(address)) = (node_id(&peer), self.links.address(&peer).cloned()) else { return };
        let ahead = self.door.take_ahead(&node);
        match change {
            Change::Met => {
                let path = self.links.path(&peer).unwrap_or(Path::Direct);
                self.peers.connected();
                self.told.forget(&peer);
                self.events.push_back(NetEvent::Connected(node, address, path));
                self.events.extend(ahead.map(|ahead| NetEvent::Clock(node, ahead)));
                self.say_hello(peer);
            }
            Change::Upgraded => self.events.push_back(NetEvent::Upgraded(node, address)),
            Change::None => {}
        }
        self.choose_kad_mode();
        // It may have been banned between the gate and here.
        if self.door.tolerates(&node).is_err() {
            self.send_away();
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId, id: ConnectionId, cause: Option<&ConnectionError>) {
        if !self.links.closed(&peer, id) {
            return;
        }
        self.peers.stirred();
        self.choose_kad_mode();
        if let Some(node) = node_id(&peer) {
            self.events.push_back(NetEvent::Disconnected(node, closing_cause(cause)));
        }
    }

    /// Closes connections beside a better one of the same peer.
    pub(super) fn close_surplus(&mut self, now: Instant) {
        for id in self.links.surplus(&self.peer_id(), now) {
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn on_hole_punch(&mut self, event: &dcutr::Event) {
        if let Err(error) = &event.result {
            let told = format!("{} stays relayed: {}", event.remote_peer_id, root_cause(error));
            self.events.push_back(NetEvent::Notice(told));
        }
    }

    pub(super) fn on_dial_error(&mut self, error: &DialError) {
        match error {
            DialError::Transport(failed) => failed.iter().for_each(|(address, why)| self.on_unreachable(address, why)),
            DialError::WrongPeerId { address, .. } => self.peers.failed(address),
            DialError::LocalPeerId { address } => {
                let own = self.peer_id();
                self.peers.answered(address, &own);
            }
            _ => {}
        }
    }

    fn on_unreachable(&mut self, address: &Multiaddr, why: &TransportError<std::io::Error>) {
        if let TransportError::Other(error) = why
            && let Some(Refusal { peer, reason }) = Refusal::find(error).cloned()
        {
            let hopeless = self.peers.refused(address);
            self.on_misfit(peer, reason, hopeless);
            return;
        }
        self.peers.failed(address);
        if !self.peers.is_given(address) {
            return;
        }
        let (reason, key_differs) = match why {
            TransportError::MultiaddrNotSupported(_) => ("this form of address is not supported".into(), false),
            TransportError::Other(error) => {
                let reason = root_cause(error);
                let answered = is_gibberish(error) || (self.private && !reason.contains("refused"));
                (reason, answered)
            }
        };
        let hint = if key_differs { OTHER_KEY } else { "" };
        // However differently one cause ends each time.
        if self.told_unreachable.is_news(address, hint, Instant::now()) {
            let told = format!("no answer from {address} yet ({reason}); trying on{hint}");
            self.events.push_back(NetEvent::Unreachable(told));
        }
    }

    pub(super) fn on_caller_error(&mut self, from: &Multiaddr, error: &ListenError) {
        let ListenError::Transport(TransportError::Other(error)) = error else { return };
        if let Some(Refusal { peer, reason }) = Refusal::find(error).cloned() {
            self.on_misfit(peer, reason, false);
        } else if let Some(ip) = ip(from).filter(|_| is_gibberish(error))
            && self.told.is_news(&ip, OTHER_KEY, Instant::now())
        {
            let told = format!("who has called from {ip} was not understood ({}){OTHER_KEY}", root_cause(error));
            self.events.push_back(NetEvent::Notice(told));
        }
    }

    /// Tells that a peer was refused, or has refused this node, unless that is known.
    fn on_misfit(&mut self, peer: PeerId, reason: String, hopeless: bool) {
        if self.told.is_news(&peer, &reason, Instant::now()) || hopeless {
            self.events.push_back(NetEvent::Misfit { peer, reason, hopeless });
        }
    }
}

fn closing_cause(cause: Option<&ConnectionError>) -> String {
    match cause {
        None => "closed by this node".into(),
        Some(ConnectionError::KeepAliveTimeout) => "idle".into(),
        Some(ConnectionError::IO(error)) => error.to_string(),
    }
}
