//! Invites: all that a node needs to find a network and to be let in, as one line of text.
//!
//! `heterotune1`, then base64url (RFC 4648, section 5, without padding) of the canonical CBOR bytes and the first eight
//! bytes of their digest, so that a line that was cut off or altered on its way is told from a whole one. It is no secret, but where it carries a pre-shared key; what counts in it is signed.

use data_encoding::BASE64URL_NOPAD;
use heterotune_crypto::{Digest, NodeId};
use heterotune_protocol::{
    admission::{AdmissionError, Membership},
    charter::{Charter, CharterError},
    limits,
    wire::{self, WireError},
};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What an invite begins with. The digit is the version of its form.
const PREFIX: &str = "heterotune1";

const CHECKSUM_BYTES: usize = 8;

/// Addresses in an invite.
pub const ADDRESSES_MAX: usize = 16;

const ADDRESS_BYTES_MAX: usize = 256;

/// A pre-shared key's file.
pub const PSK_BYTES_MAX: usize = 1_024;

/// A charter, addresses, a membership, a key.
const BYTES_MAX: usize = limits::CHARTER_BYTES_MAX + ADDRESSES_MAX * ADDRESS_BYTES_MAX + PSK_BYTES_MAX + 1_024;

/// The longest text of an invite, in bytes: four characters for three bytes, and line breaks.
pub const TEXT_BYTES_MAX: usize = PREFIX.len() + 2 * BYTES_MAX;

/// A way into a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Invite {
    /// The network.
    pub charter: Charter,
    /// Where its nodes may be found.
    pub addresses: Vec<Multiaddr>,
    /// What lets the invited node in where the charter does not name it.
    pub membership: Option<Membership>,
    /// The contents of the file of the network's pre-shared key.
    pub psk: Option<Vec<u8>>,
}

/// As it travels.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    charter: ByteBuf,
    addresses: Vec<String>,
    membership: Option<Membership>,
    psk: Option<ByteBuf>,
}

/// Why an invite is of no use.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Some other text.
    #[error("this is no invite: one begins with {PREFIX}; copy the whole line that `heterotune invite` printed")]
    NotAnInvite,
    /// A character is missing or another.
    #[error("the invite is cut off or altered; copy the whole line that `heterotune invite` printed")]
    Damaged,
    /// Whole, but not of this version's form.
    #[error("the invite cannot be read ({0}); make it and use it with the same version of heterotune")]
    Unreadable(WireError),
    /// A charter that this program cannot use.
    #[error("the invite's charter cannot be used ({0}); use the version of heterotune that the network uses")]
    Charter(String),
    /// Too much, or what is none.
    #[error("the invite's {0}; ask for another")]
    Address(String),
    /// It does not let this node in.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// It once did.
    #[error("the membership of {member} has expired {} hours ago; ask an admin of the network for a new one: heterotune invite --for {member}", ago / 3_600)]
    Expired {
        /// Whom it was for.
        member: NodeId,
        /// Since when, in seconds.
        ago: u64,
    },
}

impl From<CharterError> for InviteError {
    fn from(error: CharterError) -> Self {
        Self::Charter(error.to_string())
    }
}

impl Invite {
    /// The invite as one line.
    ///
    /// # Errors
    /// More than an invite may hold.
    pub fn encode(&self) -> Result<String, InviteError> {
        let wire = Wire {
            charter: ByteBuf::from(self.charter.encode()?),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            membership: self.membership.clone(),
            psk: self.psk.clone().map(ByteBuf::from),
        };
        let mut bytes = wire::encode(&wire, BYTES_MAX).map_err(InviteError::Unreadable)?;
        bytes.extend(checksum(&bytes));
        Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// An invite from its text; breaks and spaces that mail puts in are left out.
    ///
    /// # Errors
    /// A text that is none, or has been cut off or altered.
    pub fn decode(text: &str) -> Result<Self, InviteError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(InviteError::NotAnInvite);
        }
        let text: String = text.split_whitespace().collect();
        let encoded = text.strip_prefix(PREFIX).ok_or(InviteError::NotAnInvite)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| InviteError::Damaged)?;
        let end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(InviteError::Damaged)?;
        let (bytes, sum) = bytes.split_at(end);
        if checksum(bytes) != sum {
            return Err(InviteError::Damaged);
        }
        let wire: Wire = wire::decode(bytes, BYTES_MAX).map_err(InviteError::Unreadable)?;
        if wire.addresses.len() > ADDRESSES_MAX {
            return Err(InviteError::Address(format!(
                "addresses are {}, more than {ADDRESSES_MAX}",
                wire.addresses.len()
            )));
        }
        let address = |text: &String| {
            let whole = text.len() <= ADDRESS_BYTES_MAX;
            let address = whole.then(|| text.parse().ok()).flatten();
            address.ok_or_else(|| InviteError::Address("addresses hold one that is none".into()))
        };
        Ok(Self {
            charter: Charter::decode(&wire.charter)?,
            addresses: wire.addresses.iter().map(address).collect::<Result<_, _>>()?,
            membership: wire.membership,
            psk: wire.psk.map(ByteBuf::into_vec),
        })
    }

    /// Whether `node` comes in with it at `now`, in seconds since 1970 (UTC).
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, node: &NodeId, now: u64) -> Result<(), InviteError> {
        admits(&self.charter, self.membership.as_ref(), node, now)
    }
}

/// Whether `node` may join the network of `charter` with this membership at `now`, in seconds since 1970 (UTC).
///
/// # Errors
/// Why not.
pub fn admits(charter: &Charter, membership: Option<&Membership>, node: &NodeId, now: u64) -> Result<(), InviteError> {
    if charter.founders.iter().chain(&charter.members).any(|member| member == node) {
        return Ok(());
    }
    charter.admission.admits(&charter.id()?, node, membership)?;
    match membership {
        Some(membership) if !membership.is_current(now) => {
            Err(InviteError::Expired { member: *node, ago: now.saturating_sub(membership.expires) })
        }
        _ => Ok(()),
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Digest::of("heterotune 2026 invite", &[bytes]);
    std::array::from_fn(|at| digest.as_bytes().get(at).copied().unwrap_or_default())
}

impl Invite {
    /// What is in it at `now`, in seconds since 1970 (UTC), for people. A pre-shared key is not shown.
    pub fn describe(&self, now: u64) -> String {
        let charter = &self.charter;
        let network = charter.id().map(|id| id.to_string()).unwrap_or_default();
        let mut lines = vec![format!("network     {network} ({})", charter.name)];
        lines.push(format!("members     {} named in the charter", charter.founders.len() + charter.members.len()));
        lines.extend(self.addresses.iter().map(|address| format!("address     {address}")));
        if let Some(Membership { member, admin, expires, .. }) = &self.membership {
            lines.extend([format!("for         {member}"), format!("signed by   {admin}")]);
            lines.push(match expires.checked_sub(now) {
                None | Some(0) => "expired".into(),
                Some(left) => format!("expires     in {} days and {} hours", left / 86_400, left % 86_400 / 3_600),
            });
        }
        if self.psk.is_some() {
            lines.push("psk         the network's pre-shared key: keep this invite secret".into());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heterotune_crypto::Identity;
    use heterotune_protocol::{
        admission::Admission,
        charter::{Anchors, Task},
    };
    use proptest::prelude::*;

    fn identity(name: &str) -> Identity {
        Identity::from_seed(3, name)
    }

    fn invite(name: &str) -> Invite {
        let labels = vec!["0".into(), "1".into()];
        let anchors = Anchors { digest: Digest::ZERO, count: 128 };
        let mut charter =
            Charter::new(name, vec![identity("founder").id()], Task::ImageClassification { labels }, anchors);
        charter.admission = Admission::Invited { admins: vec![identity("admin").id()] };
        let network = charter.id().unwrap();
        let membership = Membership::sign(&identity("admin"), &network, identity("guest").id(), 1_000).unwrap();
        let addresses = vec!["/dns4/example.org/tcp/4001".parse().unwrap()];
        Invite { charter, addresses, membership: Some(membership), psk: Some(vec![7; 32]) }
    }

    #[test]
    fn an_invite_comes_back_as_it_was_even_through_mail() {
        let invite = invite("digits");
        let text = invite.encode().unwrap();
        assert!(text.starts_with("heterotune1") && text.is_ascii() && !text.contains(char::is_whitespace));
        assert_eq!(Invite::decode(&text), Ok(invite.clone()));
        let (first, second) = text.split_at(70);
        assert_eq!(Invite::decode(&format!("  {first}\r\n {second}\n")), Ok(invite.clone()));
        let shown = invite.describe(0);
        assert!(shown.contains("digits") && shown.contains("/dns4/example.org/tcp/4001") && !shown.contains("7, 7"));
    }

    #[test]
    fn it_lets_in_whom_it_is_for_until_it_expires() {
        let invite = invite("digits");
        assert_eq!(invite.admits(&identity("guest").id(), 999), Ok(()));
        assert_eq!(invite.admits(&identity("founder").id(), 999_999), Ok(()));
        let expired = invite.admits(&identity("guest").id(), 8_200).unwrap_err().to_string();
        assert!(
            expired.contains("has expired 2 hours ago") && expired.contains("heterotune invite --for"),
            "{expired}"
        );
        let member = identity("guest").id();
        assert_eq!(invite.admits(&identity("other").id(), 0), Err(AdmissionError::Borrowed { member }.into()));
        // Another network's membership under this network's charter.
        let mixed = Invite { membership: super::tests::invite("letters").membership, ..invite };
        assert_eq!(mixed.admits(&member, 0), Err(AdmissionError::Forged.into()));
    }

    #[test]
    fn what_is_no_invite_is_told_so() {
        let text = invite("digits").encode().unwrap();
        assert_eq!(Invite::decode("hello"), Err(InviteError::NotAnInvite));
        assert_eq!(Invite::decode(&"x".repeat(TEXT_BYTES_MAX + 1)), Err(InviteError::NotAnInvite));
        assert_eq!(Invite::decode("heterotune1"), Err(InviteError::Damaged));
        (12..text.len()).step_by(7).for_each(|end| assert_eq!(Invite::decode(&text[..end]), Err(InviteError::Damaged)));
        // Whole, but with more than may be in one.
        let many =
            Invite { addresses: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap(); ADDRESSES_MAX + 1], ..invite("digits") };
        let refused = Invite::decode(&many.encode().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("addresses are 17, more than 16"), "{refused}");
    }

    proptest! {
        #[test]
        fn an_altered_character_is_found(at in 11..900usize, other in "[A-Za-z0-9_-]") {
            let text = invite("digits").encode().unwrap();
            prop_assume!(at < text.len() && text[at..=at] != other);
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(Invite::decode(&altered), Err(InviteError::Damaged));
        }
    }
}
