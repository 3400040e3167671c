//! The doorkeeper: who is let in, and why others are not. The [gate](super::gate) asks it before a peer hears or says
//! anything else.

use super::{
    bans::{Ban, Bans},
    clock::{self, Clock},
    differences,
    revoked::Revoked,
};
use heterotune_crypto::NodeId;
use heterotune_protocol::{
    admission::{Admission, AdmissionError, Membership, Revocations},
    charter::{Charter, CharterError},
    limits,
    message::{Context, Greeting},
    wire::{self, WireError},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Why a peer is not let in, in words that both sides can show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// Another version of the protocol.
    #[error("it speaks version {theirs} of the protocol and this node version {ours}; update the older of the two")]
    Version {
        /// This node's.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// Another charter, which is too long to be told.
    #[error("it is in the network {network}; give both nodes the same charter file")]
    Network {
        /// The peer's network.
        network: String,
    },
    /// Another charter.
    #[error("its charter differs in {settings}; give both nodes the same charter file")]
    Charter {
        /// In what.
        settings: String,
    },
    /// A charter that is none.
    #[error("its charter is not valid ({0}); give both nodes the same charter file")]
    InvalidCharter(String),
    /// Not a greeting.
    #[error("its greeting is {0}; is it a node of this version?")]
    Unreadable(#[from] WireError),
    /// Nobody who may join.
    #[error(transparent)]
    Stranger(#[from] AdmissionError),
    /// A membership that is too old.
    #[error("the membership of {node} has expired; ask an admin of the network for a new one")]
    Expired {
        /// Whose.
        node: NodeId,
    },
    /// A membership that an admin has taken back.
    #[error("the membership of {node} is revoked by {admin}; ask that admin why")]
    Revoked {
        /// Whose.
        node: NodeId,
        /// By whom.
        admin: NodeId,
    },
    /// On this node's list of bans.
    #[error("{node} is banned here ({reason}); whoever runs this node can take it from its bans.json")]
    Banned {
        /// Who.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

/// Who is let in. Shared by the gate, which asks, and the network, which keeps it up to date.
#[derive(Debug)]
pub struct Doorkeeper {
    context: Arc<Context>,
    /// This node's own greeting, but for the time.
    greeting: Greeting,
    clock: Clock,
    lists: RwLock<Lists>,
}

/// What changes while the network runs.
#[derive(Debug, Default)]
struct Lists {
    revoked: Revoked,
    bans: Bans,
    /// By how many seconds the clocks of those who have just come in are ahead.
    ahead: BTreeMap<NodeId, i64>,
}

/// Peers between the gate and the swarm, whose clocks are remembered.
const CLOCKS_MAX: usize = 256;

impl Doorkeeper {
    /// The doorkeeper of a node that may join by `membership`, where the charter does not name it, and goes by `clock`.
    ///
    /// # Errors
    /// A charter that has no encoding; none in practice.
    pub fn new(
        context: Arc<Context>,
        membership: Option<Membership>,
        revoked: Revoked,
        bans: Bans,
        clock: Clock,
    ) -> Result<Self, CharterError> {
        let charter = Some(context.charter.encode()?).filter(|bytes| bytes.len() <= limits::GREETING_CHARTER_BYTES_MAX);
        let (version, network) = (limits::PROTOCOL_VERSION, context.network);
        let greeting = Greeting { version, network, charter: charter.unwrap_or_default(), membership, seconds: 0 };
        let lists = Lists { revoked, bans, ..Lists::default() };
        Ok(Self { context, greeting, clock, lists: RwLock::new(lists) })
    }

    /// The network, and who its charter names.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// What this node's clock says, in seconds since 1970 (UTC).
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// What this node says first on a connection.
    ///
    /// # Errors
    /// A membership that is too long; none in practice.
    pub fn greeting(&self) -> Result<Vec<u8>, WireError> {
        let greeting = Greeting { seconds: self.now(), ..self.greeting.clone() };
        wire::encode(&greeting, limits::GREETING_BYTES_MAX)
    }

    /// Whether the peer whose key the connection has proved to be `node` may come in with this greeting at `now`, in
    /// seconds since 1970 (UTC). By how many seconds its clock is ahead of that.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, node: &NodeId, greeting: &[u8], now: u64) -> Result<i64, Misfit> {
        let greeting = Greeting::decode(greeting).map_err(|error| other_version(greeting).unwrap_or(error.into()))?;
        self.same_network(&greeting)?;
        self.tolerates(node)?;
        let ahead = clock::ahead(greeting.seconds, now);
        if self.context.members.contains(node) {
            return Ok(ahead);
        }
        let admission = &self.context.charter.admission;
        admission.admits(&self.context.network, node, greeting.membership.as_ref())?;
        match (admission, &greeting.membership) {
            (Admission::Invited { .. }, Some(shown)) if !shown.is_current(now) => Err(Misfit::Expired { node: *node }),
            _ => Ok(ahead),
        }
    }

    /// Notes that a peer has come in, and by how many seconds its clock is ahead.
    pub(super) fn came_in(&self, node: NodeId, ahead: i64) {
        let mut lists = self.write();
        if lists.ahead.len() >= CLOCKS_MAX {
            // It has gone before the swarm had it.
            lists.ahead.pop_first();
        }
        lists.ahead.insert(node, ahead);
    }

    /// By how many seconds the clock of a peer that has come in is ahead. Told once.
    pub(super) fn take_ahead(&self, node: &NodeId) -> Option<i64> {
        self.write().ahead.remove(node)
    }

    fn same_network(&self, greeting: &Greeting) -> Result<(), Misfit> {
        if greeting.version != limits::PROTOCOL_VERSION {
            return Err(Misfit::Version { ours: limits::PROTOCOL_VERSION, theirs: greeting.version });
        }
        if greeting.network == self.context.network {
            return Ok(());
        }
        if greeting.charter.is_empty() {
            return Err(Misfit::Network { network: greeting.network.to_string() });
        }
        let theirs = Charter::decode(&greeting.charter).map_err(|error| Misfit::InvalidCharter(error.to_string()))?;
        Err(Misfit::Charter { settings: differences(&self.context.charter, &theirs).join(", ") })
    }

    /// Whether nothing is held against `node`, be it connected or not.
    ///
    /// # Errors
    /// A ban, or a revocation.
    pub fn tolerates(&self, node: &NodeId) -> Result<(), Misfit> {
        let lists = self.read();
        if let Some(ban) = lists.bans.get(node) {
            return Err(Misfit::Banned { node: *node, reason: ban.reason.clone() });
        }
        // A key in the charter has no membership that could be taken back.
        match lists.revoked.by(node) {
            Some(admin) if !self.context.members.contains(node) => Err(Misfit::Revoked { node: *node, admin }),
            _ => Ok(()),
        }
    }

    /// Whether it is worth dialling `node`: it may have a membership that this node has not seen.
    pub fn may_come(&self, node: &NodeId) -> bool {
        let known = self.context.charter.admission != Admission::Allowlist || self.context.members.contains(node);
        known && self.tolerates(node).is_ok()
    }

    /// Takes in an admin's revocations. Whether they are news.
    ///
    /// # Errors
    /// Revocations that no admin of this network has signed.
    pub fn revoke(&self, revocations: Revocations) -> Result<bool, AdmissionError> {
        revocations.verify(&self.context.network, self.context.charter.admission.admins())?;
        Ok(self.write().revoked.insert(revocations))
    }

    /// The number of the newest revocations, by admin.
    pub fn revocations(&self) -> Vec<(NodeId, u64)> {
        self.read().revoked.numbers().collect()
    }

    /// The newest revocations of an admin.
    pub fn revocations_of(&self, admin: &NodeId) -> Option<Revocations> {
        self.read().revoked.of(admin).cloned()
    }

    /// Whether revocations with this number would be news, from an admin of this network.
    pub fn lacks(&self, admin: &NodeId, number: u64) -> bool {
        let is_admin = self.context.charter.admission.admins().contains(admin);
        is_admin && self.read().revoked.of(admin).is_none_or(|held| held.number < number)
    }

    /// All revocations, as they are kept.
    pub fn revoked(&self) -> Revoked {
        self.read().revoked.clone()
    }

    /// Adds a ban. Whether it is news.
    pub fn ban(&self, ban: Ban) -> bool {
        self.write().bans.insert(ban)
    }

    /// Puts the bans that a file holds in place of those that are known.
    pub fn set_bans(&self, bans: Bans) {
        self.write().bans = bans;
    }

    /// All bans, as they are kept.
    pub fn bans(&self) -> Bans {
        self.read().bans.clone()
    }

    // A thread that has panicked has left the lists whole: each is changed in one assignment or insertion.
    fn read(&self) -> RwLockReadGuard<'_, Lists> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lists> {
        self.lists.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A greeting that cannot be read may be another version's.
fn other_version(greeting: &[u8]) -> Option<Misfit> {
    let theirs = Greeting::version_of(greeting).filter(|version| *version != limits::PROTOCOL_VERSION)?;
    Some(Misfit::Version { ours: limits::PROTOCOL_VERSION, theirs })
}

#[cfg(test)]
mod tests;
