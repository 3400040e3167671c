//! Who is not let in, and that both sides are told why.

use super::host::{Host, charter_new, stdout};
use crate::common::{
    gate::{greeted, greeting_to_come, is_misfit, of_the_next_version, turned_away},
    process::{events, has, wait_for},
};
use heterotune::{config::read_charter, folder::read_identity, invite::Invite, net::peer_id};
use heterotune_crypto::Identity;
use heterotune_protocol::{admission::Membership, message::Context};
use libp2p::Multiaddr;
use serde_json::Value;
use std::{fs, net::TcpListener, sync::Arc, time::SystemTime};

/// A network of one that invites, and what makes it.
fn inviting(home: &std::path::Path) -> (Host, Arc<Context>) {
    let host = Host::new(&home.join("host"), "vit-d32-l2", 0);
    host.init();
    charter_new(&host, &["--admission", "invited", "--rounds", "0"]);
    let charter = read_charter(&host.state.join("charter.toml")).unwrap();
    (host, Arc::new(Context::new(charter).unwrap()))
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

    // The same peer, and another reason.
    let said = greeted(&greeting_to_come(), &stranger, &address).await;
    let words = of_the_next_version();
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
