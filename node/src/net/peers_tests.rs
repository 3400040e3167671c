use super::*;
use crate::net::peer_id;
use heterotune_crypto::Identity;

fn peer(number: usize) -> PeerId {
    peer_id(&Identity::from_seed(1, &number.to_string()).id()).unwrap()
}

fn at(port: usize) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
}

fn full(peer: &PeerId, port: usize) -> Multiaddr {
    at(port).with_p2p(*peer).unwrap()
}

#[test]
fn a_peer_has_eight_addresses_and_bad_ones_make_room() {
    let (mut peers, a) = (Peers::new(vec![]), peer(0));
    assert!(peers.learn(&a, &at(1)) && !peers.learn(&a, &at(1)) && !peers.learn(&a, &full(&a, 1)));
    assert!(!peers.learn(&a, &full(&peer(1), 2)), "another peer's");
    assert!(!peers.learn(&a, &format!("/dns4/{}/tcp/1", "x".repeat(300)).parse().unwrap()), "too long");
    (2..=ADDRESSES_MAX).for_each(|port| assert!(peers.learn(&a, &at(port))));
    assert!(!peers.learn(&a, &at(9)), "all are as good as a new one");
    peers.failed(&full(&a, 3));
    assert!(peers.learn(&a, &at(9)));
    assert!(peers.entry(&a, &full(&a, 3)).is_none() && peers.entries[&a].len() == ADDRESSES_MAX);
}

#[test]
fn others_are_told_the_best_address_and_a_way_through_a_relay() {
    let (mut peers, a) = (Peers::new(vec![]), peer(0));
    let told = |peers: &Peers| peers.told(&a).cloned().collect::<Vec<_>>();
    assert!(peers.learn(&a, &at(1)) && peers.learn(&a, &at(2)));
    assert_eq!(told(&peers), [full(&a, 1)]);
    let circuit: Multiaddr = format!("{}/p2p-circuit", full(&peer(1), 3)).parse().unwrap();
    assert!(peers.learn(&a, &circuit));
    let circuit = circuit.with_p2p(a).unwrap();
    assert_eq!(told(&peers), [full(&a, 1), circuit.clone()]);
    peers.succeeded(&a, &circuit, 100);
    assert_eq!(told(&peers), [circuit]);
}

#[test]
fn the_book_has_an_end_and_who_was_met_is_not_pushed_out() {
    let mut peers = Peers::new(vec![]);
    peers.succeeded(&peer(0), &at(1), 100);
    (1..PEERS_MAX).for_each(|number| assert!(peers.learn(&peer(number), &at(1))));
    peers.failed(&full(&peer(7), 1));
    assert!(peers.learn(&peer(PEERS_MAX), &at(1)));
    assert!(peers.best(&peer(7)).is_none(), "the worst made room");
    assert!(peers.best(&peer(0)).is_some() && peers.entries.len() == PEERS_MAX);
    let known: Vec<_> = peers.entries.keys().copied().collect();
    known.iter().for_each(|peer| peers.succeeded(peer, &at(1), 100));
    assert!(!peers.learn(&peer(PEERS_MAX + 1), &at(1)));
}

#[test]
fn the_best_address_comes_first_and_hopeless_ones_are_forgotten() {
    let (mut peers, a) = (Peers::new(vec![at(5)]), peer(0));
    (1..=3).for_each(|port| assert!(peers.learn(&a, &at(port))));
    peers.succeeded(&a, &at(2), 100);
    peers.succeeded(&a, &at(3), 200);
    assert_eq!(peers.best(&a), Some(&full(&a, 3)));
    peers.failed(&full(&a, 3));
    assert_eq!(peers.best(&a), Some(&full(&a, 2)));
    for _ in 0..FAILURES_MAX {
        peers.failed(&full(&a, 3));
    }
    let order: Vec<_> = sorted(&peers.entries[&a]).into_iter().map(|entry| entry.address.clone()).collect();
    assert_eq!(order, [full(&a, 2), full(&a, 1)]);
    // The last ones are kept: it may be this node's own link that is down.
    for _ in 0..2 * FAILURES_MAX {
        [1, 2].into_iter().for_each(|port| peers.failed(&full(&a, port)));
    }
    assert_eq!(peers.entries[&a].len(), 1);
}

#[test]
fn who_is_absent_is_dialled_again_in_growing_pauses() {
    let mut peers = Peers::new(vec![at(1)]);
    let (a, b, now) = (peer(0), peer(1), Instant::now() + Duration::from_millis(1));
    peers.learn(&a, &at(2));
    let given = Dial { peer: None, addresses: vec![at(1)] };
    let known = Dial { peer: Some(a), addresses: vec![full(&a, 2)] };
    let later = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(peers.retry(now, 5, true, |_| true), Some(vec![given.clone(), known]));
    assert_eq!(peers.retry(now, 5, true, |_| true), None);
    assert_eq!(peers.retry(later(1), 5, true, |peer| *peer != a), Some(vec![given.clone()]));
    assert_eq!(peers.retry(later(2), 5, true, |_| true), None);
    // Who has answered at a given address is not dialled there while it is connected.
    peers.succeeded(&b, &at(1), 7);
    assert_eq!(peers.retry(later(3), 5, false, |_| false), Some(vec![]));
    assert_eq!(peers.retry(later(9), 0, false, |_| true), None, "there is no room for more");
    assert_eq!(peers.retry(later(9), 1, false, |_| true).unwrap().len(), 2, "the given, and the best of the known");
    // A node that is alone does not wait for a minute.
    for _ in 0..9 {
        peers.retry(later(100), 5, true, |_| true);
        peers.retry_at = later(100);
    }
    assert!(peers.retry(later(100), 5, true, |_| true).is_some());
    assert!(peers.retry(later(110), 5, true, |_| true).is_some());
}

#[test]
fn a_node_gives_up_only_when_every_way_is_barred() {
    let mut peers = Peers::new(vec![at(1), full(&peer(2), 2)]);
    assert!(!peers.refused(&at(3)) && !peers.refused(&at(1)));
    assert!(peers.refused(&full(&peer(2), 2)));
    peers.succeeded(&peer(0), &at(1), 100);
    assert!(!peers.refused(&full(&peer(2), 2)));
    let mut settled = Peers::new(vec![at(1)]);
    settled.connected();
    assert!(!settled.refused(&at(1)));
}

#[test]
fn the_book_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.json");
    let mut peers = Peers::new(vec![]);
    assert!(peers.changes().is_none() && peers.load(&path).is_ok());
    peers.learn(&peer(0), &at(1));
    peers.succeeded(&peer(0), &at(2), 100);
    fs::write(&path, peers.changes().unwrap()).unwrap();
    assert!(peers.changes().is_none());
    let mut read = Peers::new(vec![]);
    read.load(&path).unwrap();
    assert_eq!(read.entries, peers.entries);
    assert_eq!(read.best(&peer(0)), Some(&full(&peer(0), 2)));
    fs::write(&path, "{}").unwrap();
    assert!(read.load(&path).unwrap_err().to_string().contains("is not an address book; delete it"));
}

#[test]
fn given_addresses_that_stay_are_remembered_and_others_are_tried_at_once() {
    let mut peers = Peers::new(vec![at(1), at(2)]);
    peers.answered(&at(1), &peer(1));
    let now = Instant::now() + Duration::from_secs(1);
    let dialled = |peers: &mut Peers, now| -> Vec<Multiaddr> {
        let dials = peers.retry(now, 8, false, |absent| *absent != peer(1)).unwrap_or_default();
        dials.into_iter().flat_map(|dial| dial.addresses).collect()
    };
    assert_eq!(dialled(&mut peers, now), [at(2)]);
    peers.set_given(vec![at(3), at(1)]);
    assert!(peers.is_given(&at(1)) && !peers.is_given(&at(2)));
    // Who answers at the first is connected.
    assert_eq!(dialled(&mut peers, now), [at(3)]);
}
