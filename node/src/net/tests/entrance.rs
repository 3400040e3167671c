//! The gate, between two swarms and before peers that are none of ours.

use crate::net::{
    Doorkeeper, Refusal,
    bans::{Ban, Bans},
    gate, keypair,
    revoked::Revoked,
    testing::{NOW, context_of, door, identity, invited_by, membership},
    transport::{gated, secure},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use heterotune_crypto::Identity;
use heterotune_protocol::{
    admission::{Admission, Revocations},
    limits,
    message::{Context, Greeting},
    wire,
};
use libp2p::{
    Multiaddr, Swarm, Transport, TransportError,
    core::{
        Endpoint,
        transport::{DialOpts, MemoryTransport, PortUse},
    },
    swarm::{self, DialError, ListenError, SwarmEvent, dummy},
};
use std::{future::poll_fn, io, pin::pin, sync::Arc, task::Poll, time::Duration};

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a connection: why it did not come to be, if it did not.
type Outcome = Result<(), String>;

fn swarm(identity: &Identity, door: Arc<Doorkeeper>, time: Duration) -> Swarm<dummy::Behaviour> {
    let key = keypair(identity).unwrap();
    let transport = gated(secure(MemoryTransport::default(), &key).unwrap(), door, time);
    Swarm::new(transport, dummy::Behaviour, key.public().to_peer_id(), swarm::Config::with_tokio_executor())
}

fn told(error: &io::Error) -> Outcome {
    Err(Refusal::find(error).map_or_else(|| format!("broken: {error}"), |refusal| refusal.reason.clone()))
}

/// The next outcome at a swarm.
async fn outcome(swarm: &mut Swarm<dummy::Behaviour>) -> Outcome {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
            SwarmEvent::IncomingConnectionError {
                error: ListenError::Transport(TransportError::Other(error)), ..
            } => return told(&error),
            SwarmEvent::OutgoingConnectionError { error: DialError::Transport(failed), .. } => match &failed[0].1 {
                TransportError::Other(error) => return told(error),
                error => panic!("{error}"),
            },
            _ => {}
        }
    }
}

async fn listening(swarm: &mut Swarm<dummy::Behaviour>) -> Multiaddr {
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// What comes of it when `caller` dials `host`, at the host and at the caller.
async fn meet(host: (&Identity, Doorkeeper), caller: (&Identity, Doorkeeper)) -> (Outcome, Outcome) {
    let mut host = swarm(host.0, Arc::new(host.1), gate::TIME_MAX);
    let mut caller = swarm(caller.0, Arc::new(caller.1), gate::TIME_MAX);
    caller.dial(listening(&mut host).await).unwrap();
    let (mut there, mut here) = (None, None);
    let both = async {
        while there.is_none() || here.is_none() {
            tokio::select! {
                outcome = outcome(&mut host) => there = there.take().or(Some(outcome)),
                outcome = outcome(&mut caller) => here = here.take().or(Some(outcome)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    (there.unwrap(), here.unwrap())
}

fn is_refusal(outcome: &Outcome, words: &str) {
    assert!(outcome.as_ref().is_err_and(|reason| reason.contains(words)), "{words} is not in {outcome:?}");
}

/// Both sides are told the host's reason.
async fn host_refuses(host: Doorkeeper, caller: (&Identity, Doorkeeper), words: &str) {
    let (there, here) = meet((&identity("host"), host), caller).await;
    is_refusal(&there, words);
    is_refusal(&here, &format!("it does not let this node in: {}", there.unwrap_err()));
}

fn listed(names: &[&str]) -> Arc<Context> {
    context_of(names, Admission::Allowlist)
}

#[tokio::test]
async fn a_fitting_peer_comes_in() {
    let context = listed(&["host", "caller"]);
    let (host, caller) = (identity("host"), identity("caller"));
    let met = meet((&host, door(&context, None)), (&caller, door(&context, None))).await;
    assert_eq!(met, (Ok(()), Ok(())));
}

#[tokio::test]
async fn strangers_stay_out_and_both_sides_know_why() {
    let context = listed(&["host"]);
    let words = "is neither among the founders nor among the members in the charter";
    host_refuses(door(&context, None), (&identity("stranger"), door(&context, None)), words).await;
}

#[tokio::test]
async fn each_side_names_what_differs_in_its_own_terms() {
    let (ours, theirs) = (listed(&["host", "caller"]), context_of(&["host", "caller"], Admission::Open));
    let (host, caller) = (identity("host"), identity("caller"));
    let (there, here) = meet((&host, door(&ours, None)), (&caller, door(&theirs, None))).await;
    is_refusal(&there, "admission.kind (here \"allowlist\", there \"open\")");
    is_refusal(&here, "admission.kind (here \"open\", there \"allowlist\")");
}

#[tokio::test]
async fn memberships_let_in_until_they_expire_or_are_revoked() {
    let context = context_of(&["host"], invited_by(&["admin"]));
    let newcomer = identity("newcomer");
    let with = |expires| door(&context, Some(membership(&context, &newcomer, expires)));
    let far = NOW + 3_600;
    let met = meet((&identity("host"), door(&context, None)), (&newcomer, with(far))).await;
    assert_eq!(met, (Ok(()), Ok(())));
    host_refuses(door(&context, None), (&newcomer, with(1)), "has expired; ask an admin").await;
    host_refuses(door(&context, None), (&newcomer, door(&context, None)), "has no membership").await;
    let list = Revocations::sign(&identity("admin"), &context.network, 1, [newcomer.id()].into()).unwrap();
    let host = door(&context, None);
    host.revoke(list).unwrap();
    host_refuses(host, (&newcomer, with(far)), "is revoked by").await;
}

#[tokio::test]
async fn who_is_banned_stays_out() {
    let context = listed(&["host", "liar"]);
    let liar = identity("liar");
    let mut bans = Bans::default();
    bans.insert(Ban { peer: liar.id(), reason: "it lies".into(), proof: None, since: 7 });
    let host = Doorkeeper::new(context.clone(), None, Revoked::default(), bans, || NOW).unwrap();
    host_refuses(host, (&liar, door(&context, None)), "is banned here (it lies)").await;
}

/// What the host makes of a peer that opens a substream, says these bytes, and then listens for as long as it may.
async fn host_hears(bytes: &[u8], time: Duration) -> Outcome {
    let context = listed(&["host", "caller"]);
    let mut host = swarm(&identity("host"), Arc::new(door(&context, None)), time);
    let address = listening(&mut host).await;
    let mut transport = secure(MemoryTransport::default(), &keypair(&identity("caller")).unwrap()).unwrap();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let call = async {
        let (_, mut connection) = transport.dial(address, options).unwrap().await.unwrap();
        let mut stream = gate::open(&mut connection, Endpoint::Dialer).await.unwrap();
        let words = pin!(async {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            stream.read_to_end(&mut Vec::new()).await
        });
        let _ = gate::driven(&mut connection, words).await;
        // It hangs up on nobody.
        poll_fn(|_| Poll::<()>::Pending).await;
    };
    tokio::select! {
        outcome = tokio::time::timeout(PATIENCE, outcome(&mut host)) => outcome.unwrap(),
        () = call => unreachable!(),
    }
}

#[tokio::test]
async fn who_says_too_much_or_something_else_is_told_apart() {
    let frame = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let context = listed(&["host", "caller"]);
    let greeting = Greeting { version: 9, network: context.network, charter: vec![], membership: None, seconds: 7 };
    let cases = [
        (frame(&vec![7; limits::GREETING_BYTES_MAX + 1]), "more than the"),
        (u32::MAX.to_be_bytes().into(), "4294967295 bytes, more than the"),
        // A node of a version that had no gate.
        (b"\x13/multistream/1.0.0\n".to_vec(), "is it a node of this version?"),
        (frame(b"nonsense"), "its greeting is not readable"),
        (frame(&wire::encode(&greeting, limits::GREETING_BYTES_MAX).unwrap()), "it speaks version 9 of the protocol"),
    ];
    // Each waits a while for the caller to have read why.
    let hear = cases.iter().map(async |(bytes, words)| is_refusal(&host_hears(bytes, gate::TIME_MAX).await, words));
    futures::future::join_all(hear).await;
}

#[tokio::test]
async fn who_is_silent_or_slow_is_not_waited_for() {
    let little = Duration::from_millis(300);
    for bytes in [&b""[..], b"\0", b"\0\0\0\x09half"] {
        is_refusal(
            &host_hears(bytes, little).await,
            "broken: the peer has not said who it is (it was silent for too long)",
        );
    }
}
