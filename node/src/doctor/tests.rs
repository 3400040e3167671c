//! What has its own edges. Planted faults, one by one, are in `tests/join/doctor.rs`.

use super::*;
use crate::{
    events::unix_ms,
    folder::write_cbor,
    store::{Store, write_atomically},
};
use heterotune_crypto::Digest;
use heterotune_protocol::{
    admission::{Admission, Membership},
    charter::{Anchors, Task},
};
use std::fs;
use tempfile::TempDir;

/// A state folder with a key, and the charter of a network that invites, by a key that is not this node's.
fn invited() -> (TempDir, Charter, NodeId) {
    let (state, founder) = (tempfile::tempdir().unwrap(), Identity::from_seed(1, "admin").id());
    let own = Store::open(state.path()).unwrap().identity().unwrap().id();
    let task = Task::ImageClassification { labels: vec!["0".into(), "1".into()] };
    let mut charter = Charter::new("clinic", vec![founder], task, Anchors { digest: Digest::ZERO, count: 128 });
    charter.admission = Admission::Invited { admins: vec![founder] };
    let path = state.path().join(files::CHARTER);
    write_atomically(&path, toml::to_string(&charter).unwrap().as_bytes(), false).unwrap();
    (state, charter, own)
}

#[test]
fn a_membership_is_missing_current_soon_over_or_damaged() {
    let (state, charter, own) = invited();
    let looked_at = || folder::membership(&Patient::new(state.path(), NodeConfig::default()));
    let missing = looked_at();
    assert_eq!(missing.severity, Severity::Error);
    assert!(missing.mend.contains(&format!("heterotune invite --for {own}")), "{missing}");
    let until = |expires: u64| {
        let membership =
            Membership::sign(&Identity::from_seed(1, "admin"), &charter.id().unwrap(), own, expires).unwrap();
        write_cbor(&state.path().join(files::MEMBERSHIP), &membership).unwrap();
        looked_at()
    };
    let now = unix_ms() / 1_000;
    assert_eq!(until(now + 8 * 86_400).severity, Severity::Ok);
    assert!(membership(state.path()).is_none());
    let soon = until(now + 2 * 86_400 - 60);
    assert!(soon.severity == Severity::Warning && soon.cause == "expires in 1 days and 23 hours", "{soon}");
    assert_eq!(membership(state.path()), Some(soon.clone()));
    let config = NodeConfig::default();
    assert!(quick(state.path(), &config).contains(&soon));
    let over = until(now - 7_200);
    assert!(over.severity == Severity::Error && over.cause.contains("has expired 2 hours ago"), "{over}");
    assert!(!quick(state.path(), &config).contains(&over), "the node says so itself");
    fs::write(state.path().join(files::MEMBERSHIP), Digest::ZERO.as_bytes()).unwrap();
    assert!(looked_at().cause.contains("membership.cbor is damaged"));
}

#[cfg(unix)]
#[test]
fn a_start_warns_of_a_key_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let (state, ..) = invited();
    let warned = || quick(state.path(), &NodeConfig::default()).iter().any(|finding| finding.check == "key");
    assert!(!warned());
    let key = state.path().join(files::IDENTITY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warned());
}

#[test]
fn who_can_not_be_dialled_is_told_what_helps() {
    let listen = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"].map(|text| text.parse().unwrap());
    let circuit: Multiaddr =
        "/ip4/203.0.113.7/tcp/9/p2p/12D3KooWGatU9YvZz9XfZ8Jp9JqM1gU5r7kxvY5mEXpkX5H9k5bQ/p2p-circuit".parse().unwrap();
    let told = |missed: &[&str], circuit, known| {
        let missed = missed.iter().map(ToString::to_string).collect();
        let [call, relay] = <[Finding; 2]>::try_from(settle(missed, circuit, known, &listen)).unwrap();
        assert!(call.severity == Severity::Warning && call.mend.starts_with("forward TCP and UDP port 4001"), "{call}");
        (call, relay)
    };
    let (call, relay) = told(&["/ip4/203.0.113.9/tcp/7"], None, false);
    assert!(call.cause.ends_with("peers have tried in vain at /ip4/203.0.113.9/tcp/7"), "{call}");
    assert!(relay.severity == Severity::Warning && relay.mend.contains("--relay"), "{relay}");
    let (call, relay) = told(&[], Some(&circuit), true);
    assert!(call.mend.contains("leave it so: the network is reached through the relay /ip4/203.0.113.7/tcp/9/p2p/"));
    assert!(relay.severity == Severity::Ok && relay.cause.ends_with("/p2p-circuit"), "{relay}");
    assert!(told(&[], None, true).1.cause.contains("no relay has reserved a place"));
}
