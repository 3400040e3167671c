//! Who is not let in, and that both sides are told why.

use super::host::{Host, charter_new, stdout};
use crate::common::process::{Node, events, has, wait_for};
use futures::{AsyncReadExt, AsyncWriteExt, future};
use heterotune::{
    config::read_charter,
    folder::read_identity,
    invite::Invite,
    net::{NetEvent, Network, Settings, keypair, peer_id},
};
use heterotune_crypto::Identity;
use heterotune_protocol::{admission::Membership, limits::PROTOCOL_VERSION, message::Context, wire};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerExt,
        transport::{DialOpts, PortUse},
        upgrade::Version,
    },
    noise, tcp, yamux,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    future::poll_fn,
    net::TcpListener,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

/// Longer than any peer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the log to hold a refusal with these words.
pub(crate) fn is_misfit(node: &mut Node, words: &str) -> Value {
    let reason = |event: &Value| event["reason"].as_str().is_some_and(|reason| reason.contains(words));
    node.wait_for(words, |event| has(event, "misfit", None) && reason(event))
}

/// A network of one that invites, and what makes it.
fn inviting(home: &std::path::Path) -> (Host, Arc<Context>) {
    let host = Host::new(&home.join("host"), "vit-d32-l2", 0);
    host.init();
    charter_new(&host, &["--admission", "invited", "--rounds", "0"]);
    let charter = read_charter(&host.state.join("charter.toml")).unwrap();
    (host, Arc::new(Context::new(charter).unwrap()))
}

/// What a peer that has the charter, and nothing else, is told at the gate.
async fn turned_away(identity: &Identity, context: &Arc<Context>, address: &str) -> String {
    let settings = Settings { bootstrap: vec![address.parse().unwrap()], ..Settings::default() };
    let mut network = Network::new(identity, context.clone(), settings).unwrap();
    network.tick();
    let told = async {
        loop {
            match network.next().await {
                NetEvent::Misfit { reason, .. } => return reason,
                NetEvent::Connected(..) => panic!("it was let in"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap()
}

/// All that a node says at the gate to a peer that greets it with these bytes.
async fn greeted(greeting: &[u8], identity: &Identity, address: &str) -> Vec<u8> {
    let raw = tcp::tokio::Transport::new(tcp::Config::default()).upgrade(Version::V1);
    let secure = raw.authenticate(noise::Config::new(&keypair(identity).unwrap()).unwrap());
    let mut transport = secure.multiplex(yamux::Config::default()).boxed();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut connection) = transport.dial(address.parse().unwrap(), options).unwrap().await.unwrap();
    let mut stream = poll_fn(|context| connection.poll_outbound_unpin(context)).await.unwrap();
    let exchange = pin!(async {
        let frame = [&u32::try_from(greeting.len()).unwrap().to_be_bytes(), greeting].concat();
        stream.write_all(&frame).await.unwrap();
        stream.flush().await.unwrap();
        let mut said = Vec::new();
        // It may hang up as it likes.
        let _ = stream.read_to_end(&mut said).await;
        said
    });
    let moved_on = poll_fn(|context| {
        while let Poll::Ready(Ok(_)) = connection.poll_unpin(context) {}
        Poll::<()>::Pending
    });
    let both = future::select(exchange, moved_on);
    match tokio::time::timeout(PATIENCE, both).await.unwrap() {
        future::Either::Left((said, _)) => said,
        future::Either::Right(_) => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_each_time_and_the_log_once() {
    let home = tempfile::tempdir().unwrap();
    let (host, context) = inviting(home.path());
    let mut node = host.run();
    let address = node.address();
    let stranger = Identity::from_seed(1, "stranger");
    let words = format!("{} has no membership", stranger.id());
    for _ in 0..3 {
        let told = turned_away(&stranger, &context, &address).await;
        assert!(told.contains(&format!("it does not let this node in: {words}")), "{told}");
    }
    is_misfit(&mut node, &words);

    // The same peer, and another reason: a version to come, with a field that this one does not know.
    let greeting = wire::encode(&BTreeMap::from([("colour", 3), ("version", PROTOCOL_VERSION + 1)]), 64).unwrap();
    let said = greeted(&greeting, &stranger, &address).await;
    let (theirs, ours) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION);
    let words = format!("it speaks version {theirs} of the protocol and this node version {ours}; update the older");
    assert!(String::from_utf8_lossy(&said).contains(&words), "{}", String::from_utf8_lossy(&said));
    is_misfit(&mut node, &words);
    let peer = peer_id(&stranger.id()).unwrap().to_string();
    let told = |event: &Value| has(event, "misfit", None) && event["peer"] == peer.as_str();
    assert_eq!(events(&host.state).iter().filter(|event| told(event)).count(), 2);
    let status = stdout(&mut host.verb("status"));
    assert!(status.contains(&format!("turned away {peer}: {words}")), "{status}");
}

#[test]
fn a_membership_that_has_expired_meanwhile_lets_nobody_in() {
    let home = tempfile::tempdir().unwrap();
    let (host, context) = inviting(home.path());
    let guest = Host::new(&home.path().join("guest"), "vit-d48-l3", 1);
    let key = guest.init();
    let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let (admin, expires) = (read_identity(&host.state.join("identity.key")).unwrap(), seconds() + 6);
    let membership = Membership::sign(&admin, &context.network, key.parse().unwrap(), expires).unwrap();
    let addresses: Vec<Multiaddr> = vec![address.parse().unwrap()];
    let invite = Invite { charter: context.charter.clone(), addresses, membership: Some(membership), psk: None };
    // It starts in time, and finds nobody until it is too late.
    let mut late = guest.join(&invite.encode().unwrap(), &[]);
    late.wait_for("its start", |event| has(event, "started", None));
    wait_for("the end of its membership", || (seconds() > expires).then_some(()));
    let mut node = host.run_with(&["--listen", &address]);
    let words = format!("the membership of {key} has expired");
    is_misfit(&mut node, &words);
    let ended = late.process.wait();
    assert!(ended.code == Some(3) && ended.stderr.contains(&words), "{ended:?}");
    let told = events(&guest.state).into_iter().find(|event| has(event, "misfit", None)).unwrap();
    assert!(told["reason"].as_str().unwrap().contains(&format!("it does not let this node in: {words}")), "{told}");
}

/// Nobody can read what the other says, be it why: both guess, and rightly.
#[test]
fn another_pre_shared_key_or_none_is_what_both_sides_suspect() {
    let home = tempfile::tempdir().unwrap();
    let hosts = Host::three(home.path());
    let keys = hosts.each_ref().map(Host::init);
    let founders: Vec<&str> = keys.iter().flat_map(|key| ["--founder", key]).collect();
    charter_new(&hosts[0], &[&founders[..], &["--rounds", "0"]].concat());
    let [right, wrong] = ["07", "08"].map(|digits| {
        let path = home.path().join(digits);
        fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digits.repeat(32))).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let words = "have both the same pre-shared key (`psk`), or none?";
    let suspects = |event: &Value, kind: &str, field: &str| {
        has(event, kind, None) && event[field].as_str().is_some_and(|told| told.contains(words))
    };
    for (host, psk) in hosts[1..].iter().zip([&["--psk", &wrong][..], &[]]) {
        fs::copy(hosts[0].state.join("charter.toml"), host.state.join("charter.toml")).unwrap();
        let mut private = hosts[0].run_with(&["--psk", &right]);
        let mut other = host.run_with(&[&["--peer", &private.address()], psk].concat());
        other.wait_for("a suspicion", |event| suspects(event, "unreachable", "reason"));
        private.wait_for("a suspicion", |event| suspects(event, "notice", "notice"));
        assert!(!events(&host.state).iter().any(|event| has(event, "connected", None)));
    }
    let mut private = hosts[0].run_with(&["--psk", &right]);
    let mut other = hosts[1].run_with(&["--peer", &private.address(), "--psk", &right]);
    other.wait_for("a peer", |event| has(event, "connected", None));
}
