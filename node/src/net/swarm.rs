//! The swarm, driven: what comes from it and what goes to it.

use super::{
    NetEvent, Settings, Traffic,
    bans::Bans,
    behaviour::{Behaviour, BehaviourEvent},
    door::Doorkeeper,
    files::Files,
    keypair,
    links::Links,
    node_id,
    peers::Peers,
    reach::Reach,
    requests::Asking,
    revoked::Revoked,
    told::Told,
    topic, transport,
};
use anyhow::bail;
use futures::StreamExt;
use heterotune_crypto::Identity;
use heterotune_protocol::{
    admission::Admission,
    message::{Context, Message},
    round::Ticket,
    verdict::Verdict,
};
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    gossipsub::{self, MessageAcceptance, MessageId, PublishError},
    metrics::Registry,
    multiaddr::Protocol,
    ping,
    swarm::{self, SwarmEvent},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages waiting for the first peer to publish to: the genesis steps, two rounds and some heads.
const OUTBOX_MAX: usize = 32;

/// Messages and questions handed on and not answered yet. The state answers at once, so more is a flood.
pub(super) const PENDING_MAX: usize = 256;

/// Rounds may be minutes apart, and between them nobody says a word but heads (libp2p's default: 10 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Peers that a node looks for by itself: four meshes of the largest network.
const PEERS_WANTED: usize = 32;

/// A node's network.
pub struct Network {
    pub(super) swarm: Swarm<Behaviour>,
    registry: Registry,
    topic: gossipsub::IdentTopic,
    pub(super) door: Arc<Doorkeeper>,
    pub(super) peers: Peers,
    pub(super) links: Links,
    pub(super) reach: Reach,
    pub(super) files: Files,
    /// How many peers to look for.
    wanted: usize,
    outbox: VecDeque<Arc<Message>>,
    pub(super) events: VecDeque<NetEvent>,
    judging: BTreeMap<Ticket, (MessageId, PeerId)>,
    pub(super) asking: Asking,
    next_ticket: Ticket,
    /// What was told of those who do not come in, and of those who are not reached.
    pub(super) told: Told,
    pub(super) told_unreachable: Told,
    /// Whether there is a pre-shared key.
    pub(super) private: bool,
}

impl Network {
    /// A node's network, listening where the settings say.
    ///
    /// # Errors
    /// Addresses that cannot be listened on; files in the settings' folder that cannot be read.
    pub fn new(identity: &Identity, context: Arc<Context>, settings: Settings) -> anyhow::Result<Self> {
        let (mut registry, mut events) = (Registry::default(), VecDeque::new());
        let key = keypair(identity)?;
        let files = Files::new(settings.folder.clone());
        let revoked =
            files.revocations().map_or_else(|| Ok(Revoked::default()), |path| Revoked::load(&path, &context))?;
        let bans = files.bans().map_or_else(|| Ok(Bans::default()), |path| Bans::load(&path))?;
        let door =
            Arc::new(Doorkeeper::new(context.clone(), settings.membership.clone(), revoked, bans, settings.clock)?);
        let mut peers = Peers::new(settings.bootstrap.clone());
        if let Some(path) = files.peers()
            && let Err(error) = peers.load(&path)
        {
            // What it held is learnt again.
            events.push_back(NetEvent::Notice(format!("{error:#}")));
        }
        let (transport, relay_client) = transport::build(&key, settings.psk, door.clone(), &mut registry)?;
        let behaviour = Behaviour::new(&key, &context, &settings, relay_client).map_err(anyhow::Error::from_boxed)?;
        let config = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            // QUIC first, relays last, some time apart: connections that would only be closed again are not made.
            .with_smart_dial();
        let others = context.members.len() - usize::from(context.members.contains(&identity.id()));
        let wanted = match context.charter.admission {
            Admission::Allowlist => others.min(PEERS_WANTED),
            Admission::Invited { .. } | Admission::Open => PEERS_WANTED,
        };
        let mut network = Self {
            swarm: Swarm::new(transport, behaviour, key.public().to_peer_id(), config),
            registry,
            topic: topic(&context.network),
            door,
            peers,
            links: Links::default(),
            reach: Reach::new(settings.listen.is_empty()),
            files,
            wanted,
            outbox: VecDeque::new(),
            events,
            judging: BTreeMap::new(),
            asking: Asking::default(),
            next_ticket: 0,
            told: Told::default(),
            told_unreachable: Told::default(),
            private: settings.psk.is_some(),
        };
        network.listen(&settings)?;
        Ok(network)
    }

    fn listen(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let is_quic = |address: &Multiaddr| address.iter().any(|part| part == Protocol::QuicV1);
        let private = settings.psk.is_some();
        let (left_out, listen): (Vec<_>, Vec<_>) =
            settings.listen.iter().partition(|address| private && is_quic(address));
        if listen.is_empty() && !left_out.is_empty() {
            bail!("with a pre-shared key there is no QUIC; give a --listen like /ip4/0.0.0.0/tcp/0");
        }
        if private {
            self.events.push_back(NetEvent::Notice("QUIC is off: the pre-shared key works over TCP only".into()));
        }
        for address in listen {
            self.swarm.listen_on(address.clone()).map_err(|error| cannot_listen(address, &error))?;
        }
        for address in &settings.external {
            self.swarm.add_external_address(address.clone());
        }
        Ok(())
    }

    /// Sets the addresses to find first peers at.
    pub fn set_bootstrap(&mut self, addresses: Vec<Multiaddr>) {
        self.peers.set_given(addresses);
    }

    /// This node's peer id.
    pub fn peer_id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Bytes so far.
    pub fn traffic(&self) -> Traffic {
        Traffic::read(&self.registry)
    }

    /// How many peers to look for beside those that are connected.
    pub(super) fn room(&self) -> usize {
        self.wanted.saturating_sub(self.links.len())
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
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

    /// Does what is due: dials who is missing, asks around for addresses, looks after relays, connections and files.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.look_for_peers(now);
        self.close_surplus(now);
        self.look_after_relays(now);
        self.look_after_files(now);
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
                let address = address.clone().with_p2p(self.peer_id()).unwrap_or(address);
                self.events.push_back(NetEvent::Listening(address));
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => self.reach.closed(listener_id),
            SwarmEvent::ExternalAddrConfirmed { address } => self.events.push_back(NetEvent::Reachable(address)),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_opened(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.on_closed(peer_id, connection_id, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => self.on_dial_error(&error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_caller_error(&send_back_addr, &error);
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Requests(event) => self.on_request(event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Reachable(event) => self.on_called_back(event),
            BehaviourEvent::Dcutr(event) => self.on_hole_punch(&event),
            // A peer that says nothing for a minute is gone, whatever TCP thinks.
            BehaviourEvent::Ping(ping::Event { connection, result: Err(ping::Failure::Timeout), .. }) => {
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Subscribed { .. } => self.flush_outbox(),
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let heard = self.judging.len() < PENDING_MAX;
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
}

fn cannot_listen(address: &Multiaddr, error: &TransportError<std::io::Error>) -> anyhow::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => anyhow::anyhow!(
            "cannot listen on {address}: only /ip4/../tcp/PORT, /ip4/../udp/PORT/quic-v1 and their /ip6 forms are supported"
        ),
        TransportError::Other(error) => {
            let cause = root_cause(error);
            if cause.contains("in use") {
                anyhow::anyhow!(
                    "cannot listen on {address}: the port is in use; stop what uses it or choose another --listen"
                )
            } else {
                anyhow::anyhow!("cannot listen on {address}: {cause}; choose another --listen")
            }
        }
    }
}

/// What lies behind all that wraps it.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
