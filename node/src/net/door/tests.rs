//! Who is let in, and what others are told.

use super::{super::testing::*, *};
use heterotune_crypto::Identity;
use std::collections::BTreeSet;

/// The doorkeeper of an invited network, and a newcomer with a membership until `expires`.
fn invited(expires: u64) -> (Doorkeeper, Identity, Vec<u8>) {
    let context = context_of(&["founder"], invited_by(&["admin"]));
    let newcomer = identity("newcomer");
    let membership = membership(&context, &newcomer, expires);
    (door(&context, None), newcomer, said_by(&door(&context, Some(membership))))
}

#[test]
fn a_current_membership_lets_in_and_nobody_else_s() {
    let (door, newcomer, greeting) = invited(NOW + 1);
    assert_eq!(door.judge(&newcomer.id(), &greeting, NOW), Ok(0));
    assert_eq!(door.judge(&newcomer.id(), &greeting, NOW + 1), Err(Misfit::Expired { node: newcomer.id() }));
    let borrowed = door.judge(&identity("thief").id(), &greeting, NOW);
    assert_eq!(borrowed, Err(AdmissionError::Borrowed { member: newcomer.id() }.into()));
    let stranger = identity("stranger").id();
    let none = door.judge(&stranger, &said_by(&door), NOW);
    assert_eq!(none, Err(AdmissionError::NotInvited { node: stranger }.into()));
}

#[test]
fn a_revoked_membership_is_worth_nothing_and_a_key_in_the_charter_cannot_be_revoked() {
    let (door, newcomer, greeting) = invited(NOW + 1);
    let founder = identity("founder").id();
    let list = |number, members| Revocations::sign(&identity("admin"), &door.context.network, number, members).unwrap();
    assert_eq!(door.revoke(list(1, [newcomer.id(), founder].into())), Ok(true));
    let revoked = Misfit::Revoked { node: newcomer.id(), admin: identity("admin").id() };
    assert_eq!(door.judge(&newcomer.id(), &greeting, NOW), Err(revoked.clone()));
    assert_eq!(door.judge(&founder, &greeting, NOW), Ok(0));
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
    assert_eq!(door.judge(&liar, &said_by(&door), NOW), Err(banned));
    assert!(!door.may_come(&liar));
    door.set_bans(Bans::default());
    assert_eq!(door.judge(&liar, &said_by(&door), NOW), Ok(0));
}

#[test]
fn what_differs_is_said() {
    let (ours, theirs) = (context_of(&["a"], Admission::Allowlist), context_of(&["a"], Admission::Open));
    let (door, other) = (door(&ours, None), door(&theirs, None));
    let a = identity("a").id();
    let told = door.judge(&a, &said_by(&other), NOW).unwrap_err().to_string();
    assert!(told.contains("its charter differs in admission.kind (here \"allowlist\", there \"open\")"), "{told}");
    let mut greeting = Greeting::decode(&said_by(&other)).unwrap();
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
    let greeting = Greeting { version: 9, network: ours.network, charter: vec![], membership: None, seconds: NOW };
    assert_eq!(door.judge(&a, &encode(&greeting), NOW), Err(version));
    assert_eq!(door.judge(&a, &encode(&Greeting { version: limits::PROTOCOL_VERSION, ..greeting }), NOW), Ok(0));
    let unlisted = identity("b").id();
    let told = door.judge(&unlisted, &said_by(&door), NOW).unwrap_err();
    assert_eq!(told, AdmissionError::NotListed { node: unlisted }.into());
    assert_eq!(other.judge(&unlisted, &said_by(&other), NOW), Ok(0));
}

#[test]
fn clocks_are_told_in_greetings_and_decide_nothing() {
    let context = context_of(&["founder"], Admission::Allowlist);
    let (founder, door) = (identity("founder").id(), door(&context, None));
    assert_eq!(Greeting::decode(&said_by(&door)).unwrap().seconds, NOW);
    assert_eq!(door.judge(&founder, &said_by(&door), NOW + 300), Ok(-300));
    assert_eq!(door.judge(&founder, &said_by(&door), NOW - 300), Ok(300));
    door.came_in(founder, -300);
    assert_eq!((door.take_ahead(&founder), door.take_ahead(&founder)), (Some(-300), None));
    (0..2 * CLOCKS_MAX).for_each(|number| door.came_in(identity(&number.to_string()).id(), 0));
    assert_eq!(door.read().ahead.len(), CLOCKS_MAX);
}

fn said_by(door: &Doorkeeper) -> Vec<u8> {
    door.greeting().unwrap()
}

fn encode(greeting: &Greeting) -> Vec<u8> {
    wire::encode(greeting, limits::GREETING_BYTES_MAX).unwrap()
}
