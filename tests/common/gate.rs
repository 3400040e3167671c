//! The gate of a node, seen from outside: who is turned away, and what is said to it.

use super::process::{Node, has};
use futures::{AsyncReadExt, AsyncWriteExt, future};
use heterotune::net::{NetEvent, Network, Settings, keypair};
use heterotune_crypto::Identity;
use heterotune_protocol::{limits::PROTOCOL_VERSION, message::Context, wire};
use libp2p::{
    Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerExt,
        transport::{DialOpts, PortUse},
        upgrade::Version,
    },
    noise, tcp, yamux,
};
use serde_json::Value;
use std::{collections::BTreeMap, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

/// Longer than any peer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the log to hold a refusal with these words.
pub(crate) fn is_misfit(node: &mut Node, words: &str) -> Value {
    let reason = |event: &Value| event["reason"].as_str().is_some_and(|reason| reason.contains(words));
    node.wait_for(words, |event| has(event, "misfit", None) && reason(event))
}

/// What a peer that has the charter, and nothing else, is told at the gate.
pub(crate) async fn turned_away(identity: &Identity, context: &Arc<Context>, address: &str) -> String {
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
pub(crate) async fn greeted(greeting: &[u8], identity: &Identity, address: &str) -> Vec<u8> {
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

/// What a node says of a peer of the next version of the protocol.
pub(crate) fn of_the_next_version() -> String {
    let (theirs, ours) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION);
    format!("it speaks version {theirs} of the protocol and this node version {ours}; update the older")
}

/// A greeting of that version, with a field that this one does not know.
pub(crate) fn greeting_to_come() -> Vec<u8> {
    wire::encode(&BTreeMap::from([("colour", 3), ("version", PROTOCOL_VERSION + 1)]), 64).unwrap()
}
