//! The swarm, driven: connections, hellos, gossip in and out, requests.

use super::{
    Traffic,
    behaviour::{Behaviour, BehaviourEvent},
    hello, keypair, node_id, peer_id,
    peers::{Peers, named_peer},
    topic,
};
use futures::StreamExt;
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    limits,
    message::{Batch, Context, Hello, Message, Pull, Request, Response},
    round::Ticket,
    verdict::Verdict,
    wire,
};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, TransportError,
    gossipsub::{self, MessageAcceptance, MessageId, PublishError},
    identify,
    metrics::Registry,
    noise,
    request_response::{self as requests, OutboundRequestId, ResponseChannel},
    swarm::{ConnectionError, DialError, SwarmEvent},
    tcp, yamux,
};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages waiting for the first peer to publish to: the genesis steps, two rounds and some heads.
const OUTBOX_MAX: usize = 32;

/// Messages and questions handed on and not answered yet. The state answers at once, so more is a flood.
const PENDING_MAX: usize = 256;

/// Rounds may be minutes apart, and between them nobody says a word but heads.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a peer has to introduce itself, and a misfit to read why it is one.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// This node can be reached here.
    Listening(Multiaddr),
    /// A member is connected and in the same network.
    Connected(NodeId, Multiaddr),
    /// It is gone.
    Disconnected(NodeId, String),
    /// A gossiped message; answer with [`Network::judge`].
    Message(Ticket, NodeId, Vec<u8>),
    /// A question; answer with [`Network::answer`].
    Asked(Ticket, Pull),
    /// An answer to [`Network::pull`].
    Answered(NodeId, Batch),
    /// None came.
    Unanswered(NodeId),
    /// A peer does not belong here.
    Misfit {
        /// Who.
        peer: PeerId,
        /// Why, in words.
        reason: String,
        /// Whether it answers at an address that the user gave.
        given: bool,
    },
    /// An address could not be reached.
    Unreachable(String),
    /// A message could not be published, or a peer is too slow for its messages.
    Dropped(String),
}

/// How a connected peer was met.
struct Meeting {
    address: Multiaddr,
    /// Whether the user gave that address.
    given: bool,
    since: Instant,
}

/// A node's network.
pub struct Network {
    swarm: Swarm<Behaviour>,
    registry: Registry,
    context: Arc<Context>,
    charter_bytes: Vec<u8>,
    topic: gossipsub::IdentTopic,
    peers: Peers,
    /// Connected peers, whoever they are.
    met: BTreeMap<PeerId, Meeting>,
    /// Those that are members and have said a fitting hello.
    welcome: BTreeSet<PeerId>,
    outbox: VecDeque<Arc<Message>>,
    events: VecDeque<NetEvent>,
    judging: BTreeMap<Ticket, (MessageId, PeerId)>,
    asked: BTreeMap<Ticket, ResponseChannel<ByteBuf>>,
    pulls: BTreeMap<OutboundRequestId, PeerId>,
    hellos: BTreeMap<OutboundRequestId, PeerId>,
    next_ticket: Ticket,
    told_unreachable: bool,
}

impl Network {
    /// A network of the charter's founders, not listening yet. `given` are the addresses to find the first peers at.
    ///
    /// # Errors
    /// What libp2p refuses in its settings; none in practice.
    pub fn new(identity: &Identity, context: Arc<Context>, given: Vec<Multiaddr>) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let network = context.network;
        let swarm = SwarmBuilder::with_existing_identity(keypair(identity)?)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_quic()
            .with_bandwidth_metrics(&mut registry)
            .with_behaviour(|key| Behaviour::new(key, &network))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
            .with_connection_timeout(CONNECT_TIMEOUT)
            .build();
        let members = context.members.iter().filter(|member| **member != identity.id());
        Ok(Self {
            peers: Peers::new(members.filter_map(peer_id), given),
            charter_bytes: hello::charter_bytes(&context.charter)?,
            topic: topic(&network),
            swarm,
            registry,
            context,
            met: BTreeMap::new(),
            welcome: BTreeSet::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            judging: BTreeMap::new(),
            asked: BTreeMap::new(),
            pulls: BTreeMap::new(),
            hellos: BTreeMap::new(),
            next_ticket: 0,
            told_unreachable: false,
        })
    }

    /// Listens.
    ///
    /// # Errors
    /// One sentence on what is wrong with the address.
    pub fn listen(&mut self, address: &Multiaddr) -> anyhow::Result<()> {
        self.swarm.listen_on(address.clone()).map(drop).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => anyhow::anyhow!(
                "cannot listen on {address}: only /ip4/../tcp/PORT, /ip4/../udp/PORT/quic-v1 and their /ip6 forms are supported"
            ),
            TransportError::Other(error) => {
                let cause = root_cause(&error);
                if cause.contains("in use") {
                    anyhow::anyhow!("cannot listen on {address}: the port is in use; stop what uses it or choose another --listen")
                } else {
                    anyhow::anyhow!("cannot listen on {address}: {cause}; choose another --listen")
                }
            }
        })
    }

    /// This node's peer id.
    pub fn peer_id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Bytes so far.
    pub fn traffic(&self) -> Traffic {
        Traffic::read(&self.registry)
    }

    /// Gossips a message; keeps it until there is somebody to gossip it to.
    pub fn publish(&mut self, message: Arc<Message>) {
        if self.outbox.len() >= OUTBOX_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(message);
        self.flush_outbox();
    }

    fn flush_outbox(&mut self) {
        while let Some(message) = self.outbox.pop_front() {
            match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), message.bytes.clone()) {
                // Said before, in the life before a restart: pulls bring it to who lacks it.
                Ok(_) | Err(PublishError::Duplicate) => {}
                Err(PublishError::NoPeersSubscribedToTopic) => {
                    self.outbox.push_front(message);
                    return;
                }
                Err(error) => self.events.push_back(NetEvent::Dropped(format!(
                    "a {} of {} bytes could not be published ({error}); peers will pull it",
                    message.kind,
                    message.bytes.len()
                ))),
            }
        }
    }

    /// Says what became of a message.
    pub fn judge(&mut self, ticket: Ticket, verdict: &Verdict) {
        let Some((id, from)) = self.judging.remove(&ticket) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Heard | Verdict::Ignore(_) => MessageAcceptance::Ignore,
            Verdict::Reject(_) => MessageAcceptance::Reject,
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, acceptance);
    }

    /// Asks a member for messages.
    pub fn pull(&mut self, to: &NodeId, pull: Pull) {
        let Some(peer) = peer_id(to) else { return };
        match wire::encode(&Request::Pull(pull), limits::REQUEST_BYTES_MAX) {
            Ok(bytes) => {
                let id = self.swarm.behaviour_mut().requests.send_request(&peer, ByteBuf::from(bytes));
                self.pulls.insert(id, peer);
            }
            Err(_) => self.events.push_back(NetEvent::Unanswered(*to)),
        }
    }

    /// Answers a question.
    pub fn answer(&mut self, ticket: Ticket, batch: Batch) {
        if let Some(channel) = self.asked.remove(&ticket) {
            self.respond(channel, &Response::Batch(batch));
        }
    }

    fn respond(&mut self, channel: ResponseChannel<ByteBuf>, response: &Response) {
        if let Ok(bytes) = wire::encode(response, limits::RESPONSE_BYTES_MAX) {
            // An error means that the peer has gone meanwhile.
            let _ = self.swarm.behaviour_mut().requests.send_response(channel, ByteBuf::from(bytes));
        }
    }

    /// Whether a member is connected and in the same network.
    pub fn is_connected(&self, member: &NodeId) -> bool {
        peer_id(member).is_some_and(|peer| self.welcome.contains(&peer))
    }

    /// Dials who is missing and asks around for addresses, when it is time to.
    pub fn tick(&mut self) {
        let strangers = self
            .met
            .iter()
            .filter(|(peer, met)| !self.welcome.contains(peer) && met.since.elapsed() > INTRODUCTION_TIMEOUT);
        for peer in strangers.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let Some(addresses) = self.peers.retry(Instant::now()) else { return };
        for address in addresses {
            // Being dialled already is the one error here, and it is fine.
            let _ = self.swarm.dial(address);
        }
        let connected: Vec<_> = self.welcome.iter().copied().collect();
        for peer in connected {
            self.say_hello(peer);
        }
    }

    fn own_hello(&self) -> Hello {
        let peers = self.peers.known_addresses().take(hello::ADDRESSES_MAX).map(ToString::to_string).collect();
        let (version, network) = (limits::PROTOCOL_VERSION, self.context.network);
        Hello { version, network, charter: self.charter_bytes.clone(), peers }
    }

    fn say_hello(&mut self, peer: PeerId) {
        if let Ok(bytes) = wire::encode(&Request::Hello(self.own_hello()), limits::REQUEST_BYTES_MAX) {
            let id = self.swarm.behaviour_mut().requests.send_request(&peer, ByteBuf::from(bytes));
            self.hellos.insert(id, peer);
        }
    }

    /// The next thing that happens. Cancel-safe.
    pub async fn next(&mut self) -> NetEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let event = self.swarm.select_next_some().await;
            self.on_swarm_event(event);
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.with(libp2p::multiaddr::Protocol::P2p(self.peer_id()));
                self.events.push_back(NetEvent::Listening(address));
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                let address = endpoint.get_remote_address().clone();
                let given = endpoint.is_dialer() && self.peers.is_given(&address);
                if endpoint.is_dialer() {
                    self.peers.learn(&peer_id, address.clone());
                }
                if self.peers.connected(peer_id) {
                    self.met.insert(peer_id, Meeting { address, given, since: Instant::now() });
                    self.say_hello(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                self.on_closed(peer_id, num_established, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { error: DialError::Transport(failed), .. } => {
                failed.iter().for_each(|(address, why)| self.on_unreachable(address, why));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                for address in info.listen_addrs.into_iter().take(hello::ADDRESSES_MAX) {
                    self.peers.learn(&peer_id, address);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.on_request(event),
            _ => {}
        }
    }

    fn on_unreachable(&mut self, address: &Multiaddr, why: &TransportError<std::io::Error>) {
        if !self.peers.is_given(address) {
            self.peers.forget(address);
        } else if !self.told_unreachable {
            self.told_unreachable = true;
            let reason = match why {
                TransportError::MultiaddrNotSupported(_) => "this form of address is not supported".into(),
                TransportError::Other(error) => root_cause(error),
            };
            let told = format!("no answer from {address} yet ({reason}); trying on");
            self.events.push_back(NetEvent::Unreachable(told));
        }
    }

    fn on_closed(&mut self, peer: PeerId, left: u32, cause: Option<&ConnectionError>) {
        if !self.peers.disconnected(&peer, left) {
            return;
        }
        self.met.remove(&peer);
        let was_welcome = self.welcome.remove(&peer);
        if let Some(node) = node_id(&peer).filter(|_| was_welcome) {
            self.events.push_back(NetEvent::Disconnected(node, closing_cause(cause)));
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Subscribed { .. } => self.flush_outbox(),
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                // Strangers' messages are dropped unread; members that are not welcome yet are pulled from once they are.
                let heard = self.welcome.contains(&propagation_source) && self.judging.len() < PENDING_MAX;
                let Some(from) = node_id(&propagation_source).filter(|_| heard) else { return };
                let ticket = self.ticket();
                self.judging.insert(ticket, (message_id, propagation_source));
                self.events.push_back(NetEvent::Message(ticket, from, message.data));
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                self.events
                    .push_back(NetEvent::Dropped(format!("{peer_id} is too slow for gossip: {failed_messages:?}")));
            }
            _ => {}
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn on_request(&mut self, event: requests::Event<ByteBuf, ByteBuf>) {
        match event {
            requests::Event::Message { peer, message: requests::Message::Request { request, channel, .. }, .. } => {
                match wire::decode(&request, limits::REQUEST_BYTES_MAX) {
                    Ok(Request::Hello(hello)) => {
                        self.respond(channel, &Response::Hello(self.own_hello()));
                        self.greet(peer, &hello);
                    }
                    Ok(Request::Pull(pull)) if self.welcome.contains(&peer) && self.asked.len() < PENDING_MAX => {
                        let ticket = self.ticket();
                        self.asked.insert(ticket, channel);
                        self.events.push_back(NetEvent::Asked(ticket, pull));
                    }
                    // No answer: the channel is dropped, and the asker sees its request fail.
                    _ => {}
                }
            }
            requests::Event::Message {
                peer, message: requests::Message::Response { request_id, response }, ..
            } => {
                let response = wire::decode(&response, limits::RESPONSE_BYTES_MAX);
                if self.hellos.remove(&request_id).is_some() {
                    if let Ok(Response::Hello(hello)) = &response {
                        self.greet(peer, hello);
                    }
                } else if self.pulls.remove(&request_id).is_some()
                    && let Some(node) = node_id(&peer)
                {
                    self.events.push_back(match response {
                        Ok(Response::Batch(batch)) => NetEvent::Answered(node, batch),
                        _ => NetEvent::Unanswered(node),
                    });
                }
            }
            requests::Event::OutboundFailure { peer, request_id, .. } => {
                self.hellos.remove(&request_id);
                if self.pulls.remove(&request_id).is_some()
                    && let Some(node) = node_id(&peer)
                {
                    self.events.push_back(NetEvent::Unanswered(node));
                }
            }
            _ => {}
        }
    }

    /// Takes in a peer's hello: welcomes it, or tells it apart; learns whom it knows.
    fn greet(&mut self, peer: PeerId, hello: &Hello) {
        let Some(Meeting { address, given, .. }) = self.met.get(&peer) else { return };
        // A peer that has been in this network and changes its mind does not take this node down with it.
        let (address, given) = (address.clone(), *given && !self.peers.was_welcome(&peer));
        let mismatch = hello::mismatch(&self.context, hello);
        let stranger = || "its key is not among the founders in the charter; add it there, on all nodes".to_string();
        if let Some(reason) = mismatch.or_else(|| (!self.peers.is_member(&peer)).then(stranger)) {
            // It is sent away at a later tick, when the answer to its own hello has reached it.
            self.events.push_back(NetEvent::Misfit { peer, reason, given });
            return;
        }
        for text in hello.peers.iter().take(hello::ADDRESSES_MAX) {
            let Ok(address) = text.parse::<Multiaddr>() else { continue };
            if let Some(member) = named_peer(&address)
                && self.peers.learn(&member, address.clone())
            {
                let _ = self.swarm.dial(address);
            }
        }
        self.peers.welcomed(&peer);
        if self.welcome.insert(peer)
            && let Some(node) = node_id(&peer)
        {
            self.events.push_back(NetEvent::Connected(node, address));
        }
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn closing_cause(cause: Option<&ConnectionError>) -> String {
    match cause {
        None => "closed by this node".into(),
        Some(ConnectionError::KeepAliveTimeout) => "idle".into(),
        Some(ConnectionError::IO(error)) => error.to_string(),
    }
}
