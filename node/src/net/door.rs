//! The doorkeeper: who is let in, and why others are not. The [gate](super::gate) asks it before a peer hears or says
//! anything else.

use super::{
    bans::{Ban, Bans},
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
    collections::BTreeSet,
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
    /// This node's own greeting.
    greeting: Vec<u8>,
    lists: RwLock<Lists>,
}

/// What changes while the network runs.
#[derive(Debug, Default)]
struct Lists {
    /// Keys beside the charter's that the network has agreed on.
    enrolled: BTreeSet<NodeId>,
    revoked: Revoked,
    bans: Bans,
}

impl Doorkeeper {
    /// The doorkeeper of a node that may join by `membership`, where the charter does not name it.
    ///
    /// # Errors
    /// A charter that has no encoding; none in practice.
    pub fn new(
        context: Arc<Context>,
        membership: Option<Membership>,
        revoked: Revoked,
        bans: Bans,
    ) -> Result<Self, CharterError> {
        let charter = Some(context.charter.encode()?).filter(|bytes| bytes.len() <= limits::GREETING_CHARTER_BYTES_MAX);
        let (version, network) = (limits::PROTOCOL_VERSION, context.network);
        let greeting = Greeting { version, network, charter: charter.unwrap_or_default(), membership };
        let greeting = wire::encode(&greeting, limits::GREETING_BYTES_MAX)?;
        Ok(Self { context, greeting, lists: RwLock::new(Lists { enrolled: BTreeSet::new(), revoked, bans }) })
    }

    /// The network, and who its charter names.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// What this node says first.
    pub fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// Whether the peer whose key the connection has proved to be `node` may come in with this greeting at `now`, in
    /// seconds since 1970 (UTC).
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, node: &NodeId, greeting: &[u8], now: u64) -> Result<(), Misfit> {
        let greeting = Greeting::decode(greeting).map_err(|error| other_version(greeting).unwrap_or(error.into()))?;
        self.same_network(&greeting)?;
        self.tolerates(node)?;
        if self.is_named(node) {
            return Ok(());
        }
        let admission = &self.context.charter.admission;
        admission.admits(&self.context.network, node, greeting.membership.as_ref())?;
        match (admission, &greeting.membership) {
            (Admission::Invited { .. }, Some(shown)) if !shown.is_current(now) => Err(Misfit::Expired { node: *node }),
            _ => Ok(()),
        }
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
        let known = self.context.charter.admission != Admission::Allowlist || self.is_named(node);
        known && self.tolerates(node).is_ok()
    }

    /// Whether the charter or the network's agreed list names `node`.
    fn is_named(&self, node: &NodeId) -> bool {
        self.context.members.contains(node) || self.read().enrolled.contains(node)
    }

    /// Sets the keys beside the charter's that the network has agreed on: they come in without showing a membership.
    pub fn set_enrolled(&self, enrolled: BTreeSet<NodeId>) {
        self.write().enrolled = enrolled;
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
mod tests {
    use super::{super::testing::*, *};
    use heterotune_crypto::Identity;

    const NOW: u64 = 1_000;

    /// The doorkeeper of an invited network, and a newcomer with a membership until `expires`.
    fn invited(expires: u64) -> (Doorkeeper, Identity, Vec<u8>) {
        let context = context_of(&["founder"], invited_by(&["admin"]));
        let newcomer = identity("newcomer");
        let membership = membership(&context, &newcomer, expires);
        (door(&context, None), newcomer, door(&context, Some(membership)).greeting().to_vec())
    }

    #[test]
    fn a_current_membership_lets_in_and_nobody_else_s() {
        let (door, newcomer, greeting) = invited(NOW + 1);
        assert_eq!(door.judge(&newcomer.id(), &greeting, NOW), Ok(()));
        assert_eq!(door.judge(&newcomer.id(), &greeting, NOW + 1), Err(Misfit::Expired { node: newcomer.id() }));
        let borrowed = door.judge(&identity("thief").id(), &greeting, NOW);
        assert_eq!(borrowed, Err(AdmissionError::Borrowed { member: newcomer.id() }.into()));
        let stranger = identity("stranger").id();
        let none = door.judge(&stranger, door.greeting(), NOW);
        assert_eq!(none, Err(AdmissionError::NotInvited { node: stranger }.into()));
        door.set_enrolled([stranger].into());
        assert_eq!(door.judge(&stranger, door.greeting(), NOW), Ok(()));
    }

    #[test]
    fn a_revoked_membership_is_worth_nothing_and_a_key_in_the_charter_cannot_be_revoked() {
        let (door, newcomer, greeting) = invited(NOW + 1);
        let founder = identity("founder").id();
        let list =
            |number, members| Revocations::sign(&identity("admin"), &door.context.network, number, members).unwrap();
        assert_eq!(door.revoke(list(1, [newcomer.id(), founder].into())), Ok(true));
        let revoked = Misfit::Revoked { node: newcomer.id(), admin: identity("admin").id() };
        assert_eq!(door.judge(&newcomer.id(), &greeting, NOW), Err(revoked.clone()));
        assert_eq!(door.judge(&founder, &greeting, NOW), Ok(()));
        // An older list does not undo it.
        assert_eq!(door.revoke(list(0, BTreeSet::new())), Ok(false));
        assert_eq!(door.tolerates(&newcomer.id()), Err(revoked));
        let forged = Revocations { number: 9, ..list(1, BTreeSet::new()) };
        assert_eq!(door.revoke(forged), Err(AdmissionError::Forged));
        assert!(door.lacks(&identity("admin").id(), 2) && !door.lacks(&identity("admin").id(), 1));
        assert!(!door.lacks(&founder, 2), "only admins revoke");
    }

    #[test]
    fn a_ban_keeps_out_whoever_the_charter_names() {
        let context = context_of(&["founder", "liar"], Admission::Allowlist);
        let (door, liar) = (door(&context, None), identity("liar").id());
        assert!(door.may_come(&liar) && !door.may_come(&identity("stranger").id()));
        assert!(door.ban(Ban { peer: liar, reason: "it lies".into(), proof: None, since: NOW }));
        let banned = Misfit::Banned { node: liar, reason: "it lies".into() };
        assert_eq!(door.judge(&liar, door.greeting(), NOW), Err(banned));
        assert!(!door.may_come(&liar));
        door.set_bans(Bans::default());
        assert_eq!(door.judge(&liar, door.greeting(), NOW), Ok(()));
    }

    #[test]
    fn what_differs_is_said() {
        let (ours, theirs) = (context_of(&["a"], Admission::Allowlist), context_of(&["a"], Admission::Open));
        let (door, other) = (door(&ours, None), door(&theirs, None));
        let a = identity("a").id();
        let told = door.judge(&a, other.greeting(), NOW).unwrap_err().to_string();
        assert!(told.contains("its charter differs in admission.kind (here \"allowlist\", there \"open\")"), "{told}");
        let mut greeting = Greeting::decode(other.greeting()).unwrap();
        greeting.charter.clear();
        let told = door.judge(&a, &encode(&greeting), NOW).unwrap_err();
        assert_eq!(told, Misfit::Network { network: theirs.network.to_string() });
        greeting.charter = vec![7];
        assert!(matches!(door.judge(&a, &encode(&greeting), NOW), Err(Misfit::InvalidCharter(_))));
        assert!(matches!(door.judge(&a, b"what?", NOW), Err(Misfit::Unreadable(_))));

        // A version that does not exist yet, with fields that this one does not know.
        let version = Misfit::Version { ours: limits::PROTOCOL_VERSION, theirs: 9 };
        let future = std::collections::BTreeMap::from([("colour", 3u16), ("version", 9)]);
        assert_eq!(door.judge(&a, &wire::encode(&future, 64).unwrap(), NOW), Err(version.clone()));
        let greeting = Greeting { version: 9, network: ours.network, charter: vec![], membership: None };
        assert_eq!(door.judge(&a, &encode(&greeting), NOW), Err(version));
        assert_eq!(door.judge(&a, &encode(&Greeting { version: limits::PROTOCOL_VERSION, ..greeting }), NOW), Ok(()));
        let unlisted = identity("b").id();
        let told = door.judge(&unlisted, door.greeting(), NOW).unwrap_err();
        assert_eq!(told, AdmissionError::NotListed { node: unlisted }.into());
        assert_eq!(other.judge(&unlisted, other.greeting(), NOW), Ok(()));
    }

    fn encode(greeting: &Greeting) -> Vec<u8> {
        wire::encode(greeting, limits::GREETING_BYTES_MAX).unwrap()
    }
}
