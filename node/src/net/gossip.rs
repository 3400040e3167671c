//! Gossip: gossipsub, set for few peers and messages of some kilobytes.

use heterotune_protocol::{
    admission::Admission,
    charter::{Charter, NetworkId},
    limits,
};
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

/// Members that a network is laid out for where anyone may join who is invited, or just anyone.
const JOINABLE_SIZE: usize = 64;

/// How many peers a node exchanges whole messages with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mesh {
    outbound_min: usize,
    low: usize,
    n: usize,
    high: usize,
    /// Whether its own messages go to all its peers at once.
    flood: bool,
}

impl Mesh {
    /// For a network of so many members. Every node gets a message about n / 2 times, and it is everywhere after
    /// log_n(members) hops: n grows as the logarithm, from 3 (up to 8 members) to 8 (256 and more; libp2p's default is
    /// 6), so that two to three hops reach all.
    fn of(members: usize) -> Self {
        let n = (members.max(1).ilog2() as usize).clamp(3, 8);
        // Where the mesh is everybody, sending to everybody costs nothing, and reaches who is not grafted yet.
        Self { outbound_min: n / 3, low: 2 * n / 3, n, high: 2 * n, flood: members <= n + 1 }
    }
}

/// An update is signed by its author, so gossip adds no signature of its own; a message is known by its content.
pub(super) fn behaviour(network: &NetworkId, charter: &Charter) -> Result<Behaviour, Box<dyn Error + Send + Sync>> {
    let listed = charter.founders.len() + charter.members.len();
    let mesh = Mesh::of(match charter.admission {
        Admission::Allowlist => listed,
        _ => listed.max(JOINABLE_SIZE),
    });
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        // Nothing is passed on before the protocol has judged it.
        .validate_messages()
        .message_id_fn(|message: &Message| {
            let digest = blake3::hash(&message.data);
            MessageId::new(&digest.as_bytes()[..20])
        })
        // libp2p's 64 KiB would break the stream at the first class statistics of many labels.
        .max_transmit_size(limits::MESSAGE_BYTES_MAX + FRAME_SLACK_BYTES)
        .mesh_outbound_min(mesh.outbound_min)
        .mesh_n_low(mesh.low)
        .mesh_n(mesh.n)
        .mesh_n_high(mesh.high)
        .gossip_lazy(mesh.n)
        // libp2p's default sends each message once per peer and again along the mesh.
        .flood_publish(mesh.flood)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        // Judged late is judged still: a message waits at most for a fold's input queue. libp2p's 5 heartbeats would
        // drop what takes longer than 2.5 s.
        .history_length(20)
        .duplicate_cache_time(Duration::from_secs(120))
        // Updates of 2 KB are worth a word of 30 bytes that saves a copy.
        .idontwant_message_size_threshold(1_000)
        .idontwant_on_publish(true)
        // A big message on a slow link is late, not lost: libp2p drops after 5 s and, what is passed on, after 1 s, and
        // calls a promise broken after 3 s.
        .iwant_followup_time(Duration::from_secs(30))
        .publish_queue_duration(Duration::from_secs(60))
        .forward_queue_duration(Duration::from_secs(60))
        // 512 messages of the usual 2 KB; libp2p's 5,000 of the largest would be 1.3 GB a peer.
        .connection_handler_queue_len(512)
        .build()?;
    let mut gossip = Behaviour::new(MessageAuthenticity::Anonymous, config)?;
    let topic = topic(network);
    gossip.with_peer_score(scores(&topic), thresholds())?;
    gossip.subscribe(&topic)?;
    Ok(gossip)
}

/// Only what no honest peer does costs score. Rounds are minutes apart, so delivery rates say nothing; time in the mesh
/// earns nothing, as at libp2p's default an hour of silence would pay for fifty forgeries; and on one machine or behind
/// one NAT all peers share an address, which the limit of connections per address already bounds. n messages that no
/// honest peer passes on cost 5 n^2: at two a peer is no longer gossiped to, at five nothing is published to it, at
/// seven it is not listened to. The count halves in ten minutes.
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
        // Long enough that coming back does not wash anyone clean.
        retain_score: Duration::from_secs(1_800),
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

#[cfg(test)]
mod tests {
    use super::{super::testing::context_of, *};

    #[test]
    fn the_mesh_fits_every_size_of_network() {
        for members in 0..limits::MEMBERS_MAX + 2 {
            let Mesh { outbound_min, low, n, high, .. } = Mesh::of(members);
            // What gossipsub demands, and checks only for topics with a size of their own.
            assert!(outbound_min <= low && low <= n && n <= high && 2 * outbound_min <= n, "{members}");
            // What a mesh needs beside that: outbound peers, and room between pruning and grafting.
            assert!(1 <= outbound_min && outbound_min < low && low < n && n < high, "{members}");
        }
        let eight = Mesh { outbound_min: 1, low: 2, n: 3, high: 6, flood: false };
        assert_eq!(Mesh::of(8), eight);
        assert_eq!(Mesh::of(4), Mesh { flood: true, ..eight });
        let thousands = Mesh { outbound_min: 2, low: 5, n: 8, high: 16, flood: false };
        assert_eq!(Mesh::of(16_384), thousands);
        assert_eq!(Mesh::of(64).n, 6);
    }

    /// Whoever is silent, slow or has a neighbour keeps a score of zero; see [`scores`].
    #[test]
    fn only_invalid_messages_cost_score() {
        let context = context_of(&["a"], Admission::Allowlist);
        behaviour(&context.network, &context.charter).unwrap();
        let (scores, thresholds) = (scores(&topic(&context.network)), thresholds());
        let topic = scores.topics.values().next().unwrap();
        assert_eq!((topic.time_in_mesh_weight, scores.ip_colocation_factor_weight), (0.0, 0.0));
        let invalid = |count: f64| topic.topic_weight * topic.invalid_message_deliveries_weight * count * count;
        let least = |threshold: f64| (1..).find(|count| invalid(f64::from(*count)) <= threshold);
        let least =
            [thresholds.gossip_threshold, thresholds.publish_threshold, thresholds.graylist_threshold].map(least);
        assert_eq!(least, [Some(2), Some(5), Some(7)]);
        let ten_minutes = topic.invalid_message_deliveries_decay.powi(600);
        assert!((ten_minutes - 0.5).abs() < 0.001, "{ten_minutes}");
    }
}
