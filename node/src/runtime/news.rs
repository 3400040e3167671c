//! What a node makes of its news: what the state tells, what happens on the network, what the trainer reports.

use super::Node;
use crate::{
    events::unix_ms,
    exit::Ending,
    net::{self, Ban, NetEvent, Path},
    trainer::Report,
    usage,
};
use anyhow::{Result, bail};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    message::Kind,
    round::{Event, Input},
};
use serde_json::{Value, json};

impl Node {
    pub(super) fn on_event(&mut self, event: Event) -> Result<()> {
        self.watch.note(&event);
        let mut value = serde_json::to_value(&event)?;
        if let (Event::RoundClosed { .. }, Value::Object(fields)) = (&event, &mut value) {
            let traffic = self.network.traffic();
            fields.insert("bytes_out".into(), traffic.bytes_out.into());
            fields.insert("bytes_in".into(), traffic.bytes_in.into());
            if let Some(cpu) = usage::cpu() {
                fields.insert("cpu_s".into(), cpu.as_secs_f64().into());
            }
        }
        if let Event::Refused { from, .. } = &event
            && !self.grumbles.allow(Some(*from))
        {
            return Ok(());
        }
        // Heads are many and say little.
        if !matches!(event, Event::Received { kind: Kind::Head, .. }) {
            self.tell(value)?;
        }
        if let Event::Sealed { round, conflicts, .. } = &event {
            conflicts.iter().for_each(|liar| self.ban(*liar, *round));
        }
        if let Event::Miscomputes { round, sealed, computed } = event {
            bail!(
                "the network has sealed round {round} with the state {sealed}, and this node computes {computed} from the same updates: its processor or its program is at fault; run the same version as the others, or another machine"
            );
        }
        Ok(())
    }

    /// Has nothing more to do with who has said two different things, once the network has sealed that it did.
    fn ban(&mut self, peer: NodeId, round: u64) {
        if peer != self.id {
            let reason = format!("it said two different things in round {round}");
            self.network.ban(Ban { peer, reason, proof: None, since: unix_ms() / 1_000 });
        }
    }

    pub(super) fn on_network(&mut self, event: NetEvent) -> Result<()> {
        match event {
            NetEvent::Listening(address) => {
                self.watch.listening(&address);
                self.tell(json!({"event": "listening", "address": address.to_string()}))
            }
            NetEvent::Reachable(address) => {
                self.watch.reachable(&address);
                self.tell(json!({"event": "reachable", "address": address.to_string()}))
            }
            NetEvent::CalledBack(address, reached) => {
                self.tell(json!({"event": "called_back", "address": address.to_string(), "reached": reached}))
            }
            NetEvent::Connected(peer, address, path) => {
                self.watch.connected(peer, &address, path);
                let address = address.to_string();
                self.tell(json!({"event": "connected", "peer": peer, "address": address, "path": path}))?;
                self.handle(Input::Connected(peer))
            }
            NetEvent::Clock(peer, ahead) if self.watch.clock(&peer, ahead) => {
                let notice = format!(
                    "{}, and memberships expire by it: timedatectl set-ntp true, where it is wrong",
                    net::difference(&peer, ahead)
                );
                self.console.warn(&notice);
                self.tell(json!({"event": "notice", "notice": notice}))
            }
            NetEvent::Clock(..) => Ok(()),
            NetEvent::Upgraded(peer, address) => {
                self.watch.connected(peer, &address, Path::Direct);
                self.tell(json!({"event": "upgraded", "peer": peer, "address": address.to_string()}))
            }
            NetEvent::Disconnected(peer, cause) => {
                self.watch.disconnected(&peer);
                self.tell(json!({"event": "disconnected", "peer": peer, "cause": cause}))?;
                self.handle(Input::Disconnected(peer))
            }
            NetEvent::Message(ticket, from, bytes) => self.handle(Input::Message { ticket, from, bytes }),
            NetEvent::Asked(ticket, pull) => self.handle(Input::Asked { ticket, pull }),
            NetEvent::Answered(from, batch) => self.handle(Input::Answered { from, batch }),
            NetEvent::Unanswered(from) => self.handle(Input::Unanswered { from }),
            NetEvent::AskedPiece(ticket, fetch) => self.handle(Input::AskedPiece { ticket, fetch }),
            NetEvent::Piece(from, fetch, piece) => self.handle(Input::Piece { from, fetch, piece }),
            NetEvent::Misfit { peer, reason, hopeless } => {
                if !hopeless && !self.grumbles.allow(None) {
                    return Ok(());
                }
                self.tell(json!({"event": "misfit", "peer": peer.to_string(), "reason": reason}))?;
                if hopeless {
                    return Err(Ending::Refused { peer, reason }.into());
                }
                self.console
                    .warn(&format!("a peer that does not belong to this network has called ({peer}): {reason}"));
                Ok(())
            }
            NetEvent::Unreachable(reason) => {
                self.console.warn(&reason);
                self.tell(json!({"event": "unreachable", "reason": reason}))
            }
            NetEvent::Dropped(reason) => {
                self.watch.dropped();
                self.tell(json!({"event": "dropped", "reason": reason}))
            }
            NetEvent::Notice(notice) => self.tell(json!({"event": "notice", "notice": notice})),
        }
    }

    pub(super) fn on_report(&mut self, report: Report) -> Result<()> {
        if let Some(event) = report.event(&self.charter) {
            self.tell(event)?;
        }
        match report {
            Report::Contribution(contribution, _) => self.contribute(contribution),
            Report::Finished => {
                self.evaluated = true;
                Ok(())
            }
            Report::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}
