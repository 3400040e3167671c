//! What the program's exit status says, for scripts and service managers: 0 done, 1 an error, 2 a command line that
//! cannot be understood, and the two below. README.md lists them.

use crate::invite::InviteError;
use libp2p::PeerId;

/// Why the program ends, where that has a status of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// The network has another charter, or does not let this node in: starting again does not help. Status 3.
    #[error("the peer {peer} does not belong to this network: {reason}")]
    Refused {
        /// Who answered at an address that the user gave.
        peer: PeerId,
        /// Why, in words.
        reason: String,
    },
    /// Nobody answers at any address that is known: later it may be otherwise. Status 4.
    #[error("no peer can be reached; check the network, the firewall and the addresses")]
    Unreachable,
}

/// The exit status for an error.
pub fn status(error: &anyhow::Error) -> u8 {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(Ending::Refused { .. }), _) => 3,
        (_, Some(InviteError::Admission(_) | InviteError::Expired { .. })) => 3,
        (Some(Ending::Unreachable), _) => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_status_says_what_starting_again_is_worth() {
        let refused = Ending::Refused { peer: PeerId::random(), reason: "its charter differs".into() };
        assert_eq!(status(&Err::<(), _>(refused).context("in a context").unwrap_err()), 3);
        assert_eq!(status(&Ending::Unreachable.into()), 4);
        assert_eq!((status(&InviteError::Damaged.into()), status(&InviteError::NotAnInvite.into())), (1, 1));
        assert_eq!(status(&anyhow::anyhow!("anything else")), 1);
    }
}
