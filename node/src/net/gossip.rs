//! Gossip: gossipsub, set for few peers and messages of some kilobytes.

use heterotune_protocol::{charter::NetworkId, limits};
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, Message, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode,
};
use std::{error::Error, time::Duration};

/// The network's one topic.
pub fn topic(network: &NetworkId) -> IdentTopic {
    IdentTopic::new(format!("/heterotune/1/{network}"))
}

/// A frame may hold 8 KiB of the next message beside a whole one; too tight a limit breaks the stream in bursts.
const FRAME_SLACK_BYTES: usize = 768 * 1024;

/// An update is signed by its author, so gossip adds no signature of its own; a message is known by its content.
pub(super) fn behaviour(network: &NetworkId) -> Result<Behaviour, Box<dyn Error + Send + Sync>> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        // Nothing is passed on before the protocol has judged it.
        .validate_messages()
        .message_id_fn(|message: &Message| {
            let digest = blake3::hash(&message.data);
            MessageId::new(&digest.as_bytes()[..20])
        })
        .max_transmit_size(limits::MESSAGE_BYTES_MAX + FRAME_SLACK_BYTES)
        // Two to eight nodes are the normal case. outbound_min <= low <= n <= high and 2 outbound_min <= n.
        .mesh_outbound_min(1)
        .mesh_n_low(2)
        .mesh_n(3)
        .mesh_n_high(5)
        .gossip_lazy(3)
        // Publishing to everybody known sends each message once per peer and again along the mesh.
        .flood_publish(false)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        // Judged late is judged still: a message waits at most for a fold's input queue.
        .history_length(20)
        .history_gossip(6)
        .duplicate_cache_time(Duration::from_secs(120))
        // Updates of 2 KB are worth a word of 30 bytes that saves a copy.
        .idontwant_message_size_threshold(1_000)
        .idontwant_on_publish(true)
        // A big message on a slow link is late, not lost.
        .publish_queue_duration(Duration::from_secs(60))
        .forward_queue_duration(Duration::from_secs(60))
        .build()?;
    let mut gossip = Behaviour::new(MessageAuthenticity::Anonymous, config)?;
    let topic = topic(network);
    gossip.with_peer_score(scores(&topic), thresholds())?;
    gossip.subscribe(&topic)?;
    Ok(gossip)
}

/// Only what no honest peer does costs score: rounds are minutes apart, so delivery rates say nothing, and on one
/// machine or behind one NAT all peers share an address. n messages that no honest peer passes on cost 5 n^2: at two
/// a peer is no longer gossiped to, at five nothing is published to it, at seven it is not listened to. The count
/// halves in ten minutes.
fn scores(topic: &IdentTopic) -> PeerScoreParams {
    let topic_scores = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -5.0,
        invalid_message_deliveries_decay: 0.998_845_5,
        ..Default::default()
    };
    PeerScoreParams {
        topics: [(topic.hash(), topic_scores)].into(),
        ip_colocation_factor_weight: 0.0,
        decay_interval: Duration::from_secs(1),
        ..Default::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -20.0,
        publish_threshold: -125.0,
        graylist_threshold: -240.0,
        ..Default::default()
    }
}
