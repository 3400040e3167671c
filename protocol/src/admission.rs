//! Who may be a member beside those whom the charter names: nobody, whom an admin has invited, or anyone.

use crate::{charter::NetworkId, limits, wire};
use heterotune_crypto::{Identity, NodeId, Signed, SignedError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Who may join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Admission {
    /// Nobody but the founders and members in the charter.
    #[default]
    Allowlist,
    /// Also whoever has a [`Membership`] that one of these keys has signed.
    Invited {
        /// The keys, which need not be members themselves.
        admins: Vec<NodeId>,
    },
    /// Anyone. Fusion has no defence against a majority of keys, which cost nothing to make.
    Open,
}

impl Admission {
    /// Those who may invite and revoke.
    pub fn admins(&self) -> &[NodeId] {
        match self {
            Self::Invited { admins } => admins,
            Self::Allowlist | Self::Open => &[],
        }
    }

    /// Whether `node`, whom the charter does not name, may join `network` with this membership. Its expiry and its
    /// revocation are not looked at: they depend on a clock and on what has been heard, and decide who is talked to,
    /// not who belongs.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(
        &self,
        network: &NetworkId,
        node: &NodeId,
        membership: Option<&Membership>,
    ) -> Result<(), AdmissionError> {
        match (self, membership) {
            (Self::Open, _) => Ok(()),
            (Self::Allowlist, _) => Err(AdmissionError::NotListed { node: *node }),
            (Self::Invited { .. }, None) => Err(AdmissionError::NotInvited { node: *node }),
            (Self::Invited { admins }, Some(membership)) => {
                if membership.member != *node {
                    return Err(AdmissionError::Borrowed { member: membership.member });
                }
                membership.verify(network, admins)
            }
        }
    }
}

/// An admin's word that a node is a member of a network: a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Who may join.
    pub member: NodeId,
    /// When it may no longer be used to connect, in seconds since 1970 (UTC).
    pub expires: u64,
    /// Who says so.
    pub admin: NodeId,
    /// The admin's signature over the network, the member and the expiry.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

const MEMBERSHIP_TAG: &str = "membership";

impl Membership {
    /// Lets `member` into `network` until `expires`.
    ///
    /// # Errors
    /// None in practice.
    pub fn sign(admin: &Identity, network: &NetworkId, member: NodeId, expires: u64) -> Result<Self, wire::WireError> {
        let payload = wire::encode(&(member, expires), limits::MEMBERSHIP_BYTES_MAX)?;
        let signed = Signed::sign(admin, MEMBERSHIP_TAG, network.0.as_bytes(), (), payload);
        Ok(Self { member, expires, admin: admin.id(), signature: *signed.signature() })
    }

    /// Whether one of `admins` has signed it for `network`.
    ///
    /// # Errors
    /// Why it has no worth.
    pub fn verify(&self, network: &NetworkId, admins: &[NodeId]) -> Result<(), AdmissionError> {
        if !admins.contains(&self.admin) {
            return Err(AdmissionError::NoAdmin { key: self.admin });
        }
        let payload = wire::encode(&(self.member, self.expires), limits::MEMBERSHIP_BYTES_MAX)?;
        let context = network.0.as_bytes();
        Signed::verify(self.admin, MEMBERSHIP_TAG, context, payload, self.signature, |_| Ok(()))
            .map(drop)
            .map_err(|_: SignedError| AdmissionError::Forged)
    }

    /// Whether it may still be used to connect at `now`, in seconds since 1970 (UTC).
    pub fn is_current(&self, now: u64) -> bool {
        now < self.expires
    }
}

/// The members whose memberships are worth nothing any more, by an admin's word. Of one admin's lists the one with the
/// highest number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// Who says so.
    pub admin: NodeId,
    /// Grows with every list of this admin.
    pub number: u64,
    /// All whom this admin has ever revoked.
    pub members: BTreeSet<NodeId>,
    /// The admin's signature over the network and all of this.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

const REVOCATIONS_TAG: &str = "revocations";

impl Revocations {
    /// An admin's newest list.
    ///
    /// # Errors
    /// More members than a list may have.
    pub fn sign(
        admin: &Identity,
        network: &NetworkId,
        number: u64,
        members: BTreeSet<NodeId>,
    ) -> Result<Self, wire::WireError> {
        let payload = wire::encode(&(number, &members), limits::REVOCATIONS_BYTES_MAX)?;
        let signed = Signed::sign(admin, REVOCATIONS_TAG, network.0.as_bytes(), (), payload);
        Ok(Self { admin: admin.id(), number, members, signature: *signed.signature() })
    }

    /// Whether one of `admins` has signed it for `network`.
    ///
    /// # Errors
    /// Why it has no worth.
    pub fn verify(&self, network: &NetworkId, admins: &[NodeId]) -> Result<(), AdmissionError> {
        if !admins.contains(&self.admin) {
            return Err(AdmissionError::NoAdmin { key: self.admin });
        }
        let payload = wire::encode(&(self.number, &self.members), limits::REVOCATIONS_BYTES_MAX)?;
        let context = network.0.as_bytes();
        Signed::verify(self.admin, REVOCATIONS_TAG, context, payload, self.signature, |_| Ok(()))
            .map(drop)
            .map_err(|_: SignedError| AdmissionError::Forged)
    }
}

/// Why a node may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// The network takes only those whom the charter names.
    #[error("{node} is neither among the founders nor among the members in the charter; add it there, on all nodes")]
    NotListed {
        /// Who.
        node: NodeId,
    },
    /// The network takes only whom an admin has invited.
    #[error("{node} has no membership; ask an admin of the network for an invitation")]
    NotInvited {
        /// Who.
        node: NodeId,
    },
    /// The membership is another node's.
    #[error("the membership is that of {member}; each node needs its own")]
    Borrowed {
        /// Whose.
        member: NodeId,
    },
    /// Who signed is no admin of this network.
    #[error("{key} has signed it, who is no admin of this network; ask one who is")]
    NoAdmin {
        /// Who signed.
        key: NodeId,
    },
    /// The signature is not the admin's, or is one for another network.
    #[error("its signature does not verify for this network; ask an admin of this network for an invitation")]
    Forged,
    /// More than fits.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Digest;

    fn identity(name: &str) -> Identity {
        Identity::from_seed(5, name)
    }

    fn network(name: &str) -> NetworkId {
        NetworkId(Digest::of("test", &[name.as_bytes()]))
    }

    #[test]
    fn a_membership_is_one_node_s_in_one_network() {
        let (admin, member) = (identity("admin"), identity("member").id());
        let membership = Membership::sign(&admin, &network("a"), member, 100).unwrap();
        let invited = Admission::Invited { admins: vec![admin.id()] };
        let admits = |network: &NetworkId, node: &NodeId, membership: &Membership| {
            invited.admits(network, node, Some(membership))
        };
        assert_eq!(admits(&network("a"), &member, &membership), Ok(()));
        assert!(membership.is_current(99) && !membership.is_current(100));
        assert_eq!(admits(&network("b"), &member, &membership), Err(AdmissionError::Forged));
        assert_eq!(
            admits(&network("a"), &identity("other").id(), &membership),
            Err(AdmissionError::Borrowed { member })
        );
        let longer = Membership { expires: 101, ..membership.clone() };
        assert_eq!(admits(&network("a"), &member, &longer), Err(AdmissionError::Forged));
        let own = Membership::sign(&identity("member"), &network("a"), member, 100).unwrap();
        assert_eq!(admits(&network("a"), &member, &own), Err(AdmissionError::NoAdmin { key: member }));
        let claimed = Membership { admin: admin.id(), ..own };
        assert_eq!(admits(&network("a"), &member, &claimed), Err(AdmissionError::Forged));
    }

    #[test]
    fn who_has_none_comes_into_open_networks_only() {
        let node = identity("node").id();
        let invited = Admission::Invited { admins: vec![identity("admin").id()] };
        assert_eq!(Admission::Open.admits(&network("a"), &node, None), Ok(()));
        assert_eq!(Admission::Allowlist.admits(&network("a"), &node, None), Err(AdmissionError::NotListed { node }));
        assert_eq!(invited.admits(&network("a"), &node, None), Err(AdmissionError::NotInvited { node }));
    }

    #[test]
    fn only_an_admin_revokes() {
        let admin = identity("admin");
        let members = BTreeSet::from([identity("member").id()]);
        let list = Revocations::sign(&admin, &network("a"), 3, members).unwrap();
        assert_eq!(list.verify(&network("a"), &[admin.id()]), Ok(()));
        assert_eq!(list.verify(&network("b"), &[admin.id()]), Err(AdmissionError::Forged));
        assert_eq!(list.verify(&network("a"), &[]), Err(AdmissionError::NoAdmin { key: admin.id() }));
        assert_eq!(
            Revocations { number: 4, ..list.clone() }.verify(&network("a"), &[admin.id()]),
            Err(AdmissionError::Forged)
        );
        assert_eq!(
            Revocations { members: BTreeSet::new(), ..list }.verify(&network("a"), &[admin.id()]),
            Err(AdmissionError::Forged)
        );
    }
}
