//! Nodes that find each other on the loopback.

use crate::net::{
    Ban, NetEvent, Network, Path, Settings,
    files::unix_seconds,
    settings::free_port,
    testing::{context_of, identity, invited_by, membership},
};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    admission::{Admission, Revocations},
    message::Context,
};
use libp2p::{Multiaddr, pnet::PreSharedKey};
use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{interval, timeout},
};

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a test tells a node.
enum Order {
    Revoke(Revocations),
    Ban(Ban),
    Close,
}

/// A network in a task of its own.
struct Node {
    id: NodeId,
    orders: UnboundedSender<Order>,
    events: UnboundedReceiver<NetEvent>,
    task: JoinHandle<()>,
    /// Who is connected, by what has been heard so far.
    connected: BTreeMap<NodeId, Path>,
}

impl Node {
    fn start(context: &Arc<Context>, name: &str, settings: Settings) -> Self {
        let network = Network::new(&identity(name), context.clone(), settings).unwrap();
        let (orders, told) = unbounded_channel();
        let (tell, events) = unbounded_channel();
        let task = tokio::spawn(drive(network, told, tell));
        Self { id: identity(name).id(), orders, events, task, connected: BTreeMap::new() }
    }

    /// The first event that is wanted.
    async fn wait_for<T>(&mut self, what: &str, mut wanted: impl FnMut(&Self, &NetEvent) -> Option<T>) -> T {
        let look = async {
            loop {
                let event = self.events.recv().await.expect("the node runs");
                match &event {
                    NetEvent::Connected(node, _, path) => drop(self.connected.insert(*node, *path)),
                    NetEvent::Disconnected(node, _) => drop(self.connected.remove(node)),
                    _ => {}
                }
                if let Some(found) = wanted(self, &event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn address(&mut self) -> Multiaddr {
        self.wait_for("an address", |_, event| match event {
            NetEvent::Listening(address) => Some(address.clone()),
            _ => None,
        })
        .await
    }

    async fn meets(&mut self, others: &[NodeId]) {
        let all = |connected: &BTreeMap<NodeId, Path>| others.iter().all(|other| connected.contains_key(other));
        if !all(&self.connected) {
            self.wait_for("all others", |node, _| all(&node.connected).then_some(())).await;
        }
    }

    async fn loses(&mut self, other: NodeId) {
        if self.connected.contains_key(&other) {
            self.wait_for("an end", |node, _| (!node.connected.contains_key(&other)).then_some(())).await;
        }
    }

    async fn is_refused(&mut self, words: &str) {
        self.wait_for(words, |_, event| match event {
            NetEvent::Misfit { reason, .. } => reason.contains(words).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Ends as a power cut would.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn close(self) {
        self.orders.send(Order::Close).unwrap();
        self.task.await.unwrap();
    }
}

async fn drive(mut network: Network, mut orders: UnboundedReceiver<Order>, events: UnboundedSender<NetEvent>) {
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            event = network.next() => drop(events.send(event)),
            _ = ticks.tick() => network.tick(),
            Some(order) = orders.recv() => match order {
                Order::Revoke(list) => assert_eq!(network.revoke(list), Ok(true)),
                Order::Ban(ban) => network.ban(ban),
                Order::Close => return network.close().unwrap(),
            },
        }
    }
}

fn on_loopback(bootstrap: &[&Multiaddr]) -> Settings {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    Settings { listen, bootstrap: bootstrap.iter().copied().cloned().collect(), ..Settings::default() }
}

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_keep_meeting_when_the_one_that_all_knew_is_gone() {
    let context = context_of(&NAMES, Admission::Allowlist);
    let ids = NAMES.map(|name| identity(name).id());
    let mut first = Node::start(&context, "a", on_loopback(&[]));
    let known = first.address().await;
    let mut others: Vec<_> =
        NAMES[1..6].iter().map(|name| Node::start(&context, name, on_loopback(&[&known]))).collect();
    let mut addresses = Vec::new();
    for (at, node) in others.iter_mut().enumerate() {
        addresses.push(node.address().await);
        let expected: Vec<_> = ids[..6].iter().copied().filter(|id| *id != ids[at + 1]).collect();
        node.meets(&expected).await;
    }
    first.kill().await;
    for node in &mut others {
        node.loses(ids[0]).await;
    }
    // Told of the dead one and of another, which is as good as any.
    let mut last = Node::start(&context, "g", on_loopback(&[&known, &addresses[3]]));
    last.meets(&ids[1..6]).await;
    for node in &mut others {
        node.meets(&ids[6..]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_differs_is_told_by_both_who_meet() {
    let context = context_of(&["a", "b"], Admission::Allowlist);
    let mut a = Node::start(&context, "a", Settings { clock: || 1_000, ..on_loopback(&[]) });
    let at_a = a.address().await;
    let mut b = Node::start(&context, "b", Settings { clock: || 1_300, ..on_loopback(&[&at_a]) });
    let clock = |_: &Node, event: &NetEvent| match event {
        NetEvent::Clock(node, ahead) => Some((*node, *ahead)),
        _ => None,
    };
    assert_eq!(a.wait_for("b's clock", clock).await, (b.id, 300));
    assert_eq!(b.wait_for("a's clock", clock).await, (a.id, -300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_remembers_its_peers() {
    let context = context_of(&["a", "b", "c"], Admission::Open);
    let folder = tempfile::tempdir().unwrap();
    let settings =
        |bootstrap: &[&Multiaddr]| Settings { folder: Some(folder.path().to_owned()), ..on_loopback(bootstrap) };
    let (mut a, mut b) = (Node::start(&context, "a", on_loopback(&[])), Node::start(&context, "b", on_loopback(&[])));
    let (known, other) = (a.address().await, b.address().await);
    let mut c = Node::start(&context, "c", settings(&[&known, &other]));
    c.meets(&[a.id, b.id]).await;
    c.close().await;
    a.kill().await;
    let mut again = Node::start(&context, "c", settings(&[&known]));
    again.meets(&[b.id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_nobody_can_dial_meet_through_a_relay() {
    let context = context_of(&["a", "b", "relay"], Admission::Allowlist);
    let at: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", free_port().unwrap()).parse().unwrap();
    let relay = Settings { listen: vec![at.clone()], external: vec![at.clone()], relay: true, ..Settings::default() };
    let relay = Node::start(&context, "relay", relay);
    let hidden = || Settings { bootstrap: vec![at.clone()], ..Settings::default() };
    let (mut a, mut b) = (Node::start(&context, "a", hidden()), Node::start(&context, "b", hidden()));
    a.meets(&[relay.id, b.id]).await;
    b.meets(&[relay.id, a.id]).await;
    assert_eq!((a.connected[&relay.id], a.connected[&b.id]), (Path::Direct, Path::Relayed));
    assert_eq!((b.connected[&relay.id], b.connected[&a.id]), (Path::Direct, Path::Relayed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_all_and_outlives_them() {
    let context = context_of(&["a", "b"], invited_by(&["admin"]));
    let folder = tempfile::tempdir().unwrap();
    let membership = membership(&context, &identity("guest"), unix_seconds() + 3_600);
    let mut a = Node::start(&context, "a", on_loopback(&[]));
    let at_a = a.address().await;
    let kept = |settings| Settings { folder: Some(folder.path().to_owned()), ..settings };
    let mut b = Node::start(&context, "b", kept(on_loopback(&[&at_a])));
    let at_b = b.address().await;
    let guest = Settings { membership: Some(membership), ..on_loopback(&[&at_a, &at_b]) };
    let mut guest = Node::start(&context, "guest", guest);
    guest.meets(&[a.id, b.id]).await;
    a.meets(&[b.id, guest.id]).await;
    b.meets(&[a.id, guest.id]).await;
    let list = Revocations::sign(&identity("admin"), &context.network, 1, [guest.id].into()).unwrap();
    a.orders.send(Order::Revoke(list)).unwrap();
    a.loses(guest.id).await;
    b.loses(guest.id).await;
    guest.is_refused("is revoked by").await;
    // Another life of b knows it without being told.
    b.close().await;
    a.kill().await;
    let mut b = Node::start(&context, "b", kept(on_loopback(&[])));
    let at_b = b.address().await;
    guest.kill().await;
    let mut guest = Node::start(&context, "guest", on_loopback(&[&at_b]));
    guest.is_refused("is revoked by").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_ends_the_connection_and_outlives_the_process() {
    let context = context_of(&["a", "b"], Admission::Allowlist);
    let folder = tempfile::tempdir().unwrap();
    let kept = || Settings { folder: Some(folder.path().to_owned()), ..on_loopback(&[]) };
    let mut a = Node::start(&context, "a", kept());
    let at_a = a.address().await;
    let mut b = Node::start(&context, "b", on_loopback(&[&at_a]));
    a.meets(&[b.id]).await;
    b.meets(&[a.id]).await;
    a.orders.send(Order::Ban(Ban { peer: b.id, reason: "it lies".into(), proof: None, since: 7 })).unwrap();
    b.loses(a.id).await;
    b.is_refused("is banned here (it lies)").await;
    let banned = b.id.to_string();
    a.close().await;
    b.kill().await;
    let file = folder.path().join("bans.json");
    assert!(fs::read_to_string(&file).unwrap().contains(&banned));
    let mut a = Node::start(&context, "a", kept());
    let at_a = a.address().await;
    let mut b = Node::start(&context, "b", on_loopback(&[&at_a]));
    b.is_refused("is banned here (it lies)").await;
    // Whoever runs the node thinks better of it.
    fs::remove_file(&file).unwrap();
    b.meets(&[a.id]).await;
}

/// QUIC ends connections otherwise than TCP does: the reason must have been read before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_is_before_quic_too() {
    let context = context_of(&["a", "b"], Admission::Allowlist);
    let quic = || "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    let mut a = Node::start(&context, "a", Settings { listen: vec![quic()], ..Settings::default() });
    let at_a = a.address().await;
    let calling = || Settings { listen: vec![quic()], bootstrap: vec![at_a.clone()], ..Settings::default() };
    let mut stranger = Node::start(&context, "stranger", calling());
    let words = "is neither among the founders nor among the members in the charter";
    stranger.is_refused(&format!("it does not let this node in: {}", stranger.id)).await;
    a.is_refused(words).await;
    let mut b = Node::start(&context, "b", calling());
    b.meets(&[a.id]).await;
    a.meets(&[b.id]).await;
    assert!(stranger.connected.is_empty() && !a.connected.contains_key(&stranger.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_may_be_given_by_name() {
    let context = context_of(&["a", "b"], Admission::Allowlist);
    let mut a = Node::start(&context, "a", on_loopback(&[]));
    let named = a.address().await.to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/").parse().unwrap();
    let mut b = Node::start(&context, "b", on_loopback(&[&named]));
    b.meets(&[a.id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_shared_key_shuts_out_who_lacks_it() {
    let context = context_of(&["a", "b", "c"], Admission::Allowlist);
    let with = |settings, psk| Settings { psk: Some(PreSharedKey::new(psk)), ..settings };
    let mut a = Node::start(&context, "a", with(on_loopback(&[]), [1; 32]));
    let at_a = a.address().await;
    let mut b = Node::start(&context, "b", with(on_loopback(&[&at_a]), [1; 32]));
    b.meets(&[a.id]).await;
    for settings in [on_loopback(&[&at_a]), with(on_loopback(&[&at_a]), [2; 32])] {
        let mut c = Node::start(&context, "c", settings);
        c.wait_for("no way in", |_, event| matches!(event, NetEvent::Unreachable(_)).then_some(())).await;
        assert!(c.connected.is_empty());
        c.kill().await;
    }
    let quic = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let settings = with(Settings { listen: quic, ..Settings::default() }, [1; 32]);
    let told = Network::new(&identity("c"), context, settings).err().unwrap().to_string();
    assert!(told.contains("there is no QUIC; give a --listen"), "{told}");
}
