//! What the tests of this module share: networks whose keys come from names.

use super::{Doorkeeper, bans::Bans, revoked::Revoked};
use heterotune_crypto::{Digest, Identity};
use heterotune_protocol::{
    admission::{Admission, Membership},
    charter::{Anchors, Charter, Task},
    message::Context,
};
use std::sync::Arc;

/// The time at the doors of these tests.
pub(super) const NOW: u64 = 1_000;

pub(super) fn identity(name: &str) -> Identity {
    Identity::from_seed(1, name)
}

pub(super) fn invited_by(admins: &[&str]) -> Admission {
    Admission::Invited { admins: admins.iter().map(|name| identity(name).id()).collect() }
}

pub(super) fn context_of(founders: &[&str], admission: Admission) -> Arc<Context> {
    let founders = founders.iter().map(|name| identity(name).id()).collect();
    let task = Task::ImageClassification { labels: vec!["0".into(), "1".into()] };
    let mut charter = Charter::new("test", founders, task, Anchors { digest: Digest::ZERO, count: 128 });
    charter.admission = admission;
    Arc::new(Context::new(charter).unwrap())
}

pub(super) fn membership(context: &Context, member: &Identity, expires: u64) -> Membership {
    Membership::sign(&identity("admin"), &context.network, member.id(), expires).unwrap()
}

pub(super) fn door(context: &Arc<Context>, membership: Option<Membership>) -> Doorkeeper {
    Doorkeeper::new(context.clone(), membership, Revoked::default(), Bans::default(), || NOW).unwrap()
}
