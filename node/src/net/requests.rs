//! What peers ask each other directly: hellos (whom do you know?), pulls (what did I miss?), pieces of what is too large
//! for a message, and revocations.

use super::{
    NetEvent, Network, Path,
    address::{is_useful, named_peer},
    node_id, peer_id,
    swarm::PENDING_MAX,
};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    admission::{AdmissionError, Revocations},
    limits,
    message::{Batch, Fetch, Hello, Piece, Pull, Request, Response},
    round::Ticket,
    wire,
};
use libp2p::{
    Multiaddr, PeerId,
    request_response::{self as requests, Message, OutboundRequestId, ResponseChannel},
};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// Addresses in a hello, and in libp2p's own introduction.
pub(super) const ADDRESSES_MAX: usize = 32;

/// Questions that are not answered yet.
#[derive(Default)]
pub(super) struct Asking {
    /// By this node. libp2p ends each within its time, so there are as many as the state and the hellos make.
    asked: BTreeMap<OutboundRequestId, Question>,
    /// By others, for the state to answer.
    answering: BTreeMap<Ticket, ResponseChannel<ByteBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Hello,
    Pull,
    Fetch(Fetch),
    Revocations(NodeId),
}

impl Network {
    /// Asks a member for messages.
    pub fn pull(&mut self, to: &NodeId, pull: Pull) {
        let asked = peer_id(to).is_some_and(|peer| self.ask(&peer, &Request::Pull(pull), Question::Pull));
        if !asked {
            self.events.push_back(NetEvent::Unanswered(*to));
        }
    }

    /// Answers a question.
    pub fn answer(&mut self, ticket: Ticket, batch: Batch) {
        if let Some(channel) = self.asking.answering.remove(&ticket) {
            self.respond(channel, &Response::Batch(batch));
        }
    }

    /// Asks a peer for a piece. Relays carry what is said, not what is large.
    pub fn fetch(&mut self, to: &NodeId, fetch: Fetch) {
        let direct = peer_id(to).filter(|peer| self.links.path(peer) == Some(Path::Direct));
        if !direct.is_some_and(|peer| self.ask(&peer, &Request::Fetch(fetch), Question::Fetch(fetch))) {
            self.events.push_back(NetEvent::Piece(*to, fetch, None));
        }
    }

    /// Answers a question for a piece.
    pub fn give(&mut self, ticket: Ticket, piece: Piece) {
        if let Some(channel) = self.asking.answering.remove(&ticket) {
            self.respond(channel, &Response::Piece(piece));
        }
    }

    /// Takes in an admin's revocations, and tells the others. Whether they are news.
    ///
    /// # Errors
    /// Revocations that no admin of this network has signed.
    pub fn revoke(&mut self, revocations: Revocations) -> Result<bool, AdmissionError> {
        let news = self.door.revoke(revocations)?;
        if news {
            self.keep_revocations();
            self.send_away();
            self.say_hello_to_all();
        }
        Ok(news)
    }

    pub(super) fn say_hello_to_all(&mut self) {
        let connected: Vec<_> = self.links.peers().copied().collect();
        connected.into_iter().for_each(|peer| self.say_hello(peer));
    }

    pub(super) fn say_hello(&mut self, peer: PeerId) {
        let hello = Request::Hello(self.own_hello());
        self.ask(&peer, &hello, Question::Hello);
    }

    /// Addresses of connected peers, and the revocations that are known here.
    fn own_hello(&self) -> Hello {
        let addresses = self.links.peers().flat_map(|peer| self.peers.told(peer));
        let peers = addresses.take(ADDRESSES_MAX).map(ToString::to_string).collect();
        Hello { peers, revocations: self.door.revocations() }
    }

    fn ask(&mut self, peer: &PeerId, request: &Request, question: Question) -> bool {
        let Ok(bytes) = wire::encode(request, limits::REQUEST_BYTES_MAX) else { return false };
        let id = self.swarm.behaviour_mut().requests.send_request(peer, ByteBuf::from(bytes));
        self.asking.asked.insert(id, question);
        true
    }

    fn respond(&mut self, channel: ResponseChannel<ByteBuf>, response: &Response) {
        if let Ok(bytes) = wire::encode(response, limits::RESPONSE_BYTES_MAX) {
            // An error means that the peer has gone meanwhile.
            let _ = self.swarm.behaviour_mut().requests.send_response(channel, ByteBuf::from(bytes));
        }
    }

    pub(super) fn on_request(&mut self, event: requests::Event<ByteBuf, ByteBuf>) {
        match event {
            requests::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_question(peer, &request, channel);
            }
            requests::Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                let response = wire::decode(&response, limits::RESPONSE_BYTES_MAX).ok();
                self.on_answer(peer, request_id, response);
            }
            requests::Event::OutboundFailure { peer, request_id, .. } => self.on_answer(peer, request_id, None),
            _ => {}
        }
    }

    fn on_question(&mut self, peer: PeerId, request: &[u8], channel: ResponseChannel<ByteBuf>) {
        match wire::decode(request, limits::REQUEST_BYTES_MAX) {
            Ok(Request::Hello(hello)) => {
                self.respond(channel, &Response::Hello(self.own_hello()));
                self.on_hello(peer, &hello);
            }
            Ok(Request::Pull(pull)) if self.asking.answering.len() < PENDING_MAX => {
                let ticket = self.ticket();
                self.asking.answering.insert(ticket, channel);
                self.events.push_back(NetEvent::Asked(ticket, pull));
            }
            Ok(Request::Fetch(fetch)) if self.asking.answering.len() < PENDING_MAX => {
                let ticket = self.ticket();
                self.asking.answering.insert(ticket, channel);
                self.events.push_back(NetEvent::AskedPiece(ticket, fetch));
            }
            Ok(Request::Revocations(admin)) => {
                let held = self.door.revocations_of(&admin).map(Box::new);
                self.respond(channel, &Response::Revocations(held));
            }
            // No answer: the channel is dropped, and the asker sees its request fail.
            _ => {}
        }
    }

    fn on_answer(&mut self, peer: PeerId, id: OutboundRequestId, response: Option<Response>) {
        match (self.asking.asked.remove(&id), response) {
            (Some(Question::Hello), Some(Response::Hello(hello))) => self.on_hello(peer, &hello),
            (Some(Question::Revocations(admin)), Some(Response::Revocations(Some(list)))) if list.admin == admin => {
                // What is not an admin's word is not heard.
                let _ = self.revoke(*list);
            }
            (Some(Question::Pull), response) => {
                let Some(node) = node_id(&peer) else { return };
                self.events.push_back(match response {
                    Some(Response::Batch(batch)) => NetEvent::Answered(node, batch),
                    _ => NetEvent::Unanswered(node),
                });
            }
            (Some(Question::Fetch(fetch)), response) => {
                let Some(node) = node_id(&peer) else { return };
                let piece = match response {
                    Some(Response::Piece(piece)) => Some(piece),
                    _ => None,
                };
                self.events.push_back(NetEvent::Piece(node, fetch, piece));
            }
            _ => {}
        }
    }

    /// Learns whom a peer knows, and what it knows of revocations.
    fn on_hello(&mut self, peer: PeerId, hello: &Hello) {
        let Some(via) = self.links.address(&peer).cloned() else { return };
        for text in hello.peers.iter().take(ADDRESSES_MAX) {
            let Ok(address) = text.parse::<Multiaddr>() else { continue };
            if let Some(named) = named_peer(&address).filter(|_| is_useful(&address, &via)) {
                self.on_discovered(named, &address);
            }
        }
        for (admin, number) in hello.revocations.iter().take(limits::ADMINS_MAX) {
            let question = Question::Revocations(*admin);
            let asked = self.asking.asked.values().any(|asked| *asked == question);
            if !asked && self.door.lacks(admin, *number) {
                self.ask(&peer, &Request::Revocations(*admin), question);
            }
        }
    }
}
