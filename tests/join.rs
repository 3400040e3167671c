//! The first evening: from nothing to a running network in four commands, and what may go wrong on the way.

mod common;
#[path = "bad_input/desk.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod desk;
#[path = "join/doctor.rs"]
mod doctor;
#[path = "join/host.rs"]
mod host;
#[path = "join/refusals.rs"]
mod refusals;

use common::{
    gate::is_misfit,
    process::{Node, Process, events, has, heterotune, wait_for},
};
use desk::refuses_with_status;
use heterotune::invite::Invite;
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::admission::{Admission, Membership};
use host::{Host, charter_new, kill, stdout};
use serde_json::Value;
use std::{fs, path::Path};

#[test]
fn four_commands_make_a_network_of_three() {
    let home = tempfile::tempdir().unwrap();
    // 1. On every host.
    let hosts = Host::three(home.path());
    let keys: Vec<String> = hosts.iter().map(Host::init).collect();
    let settings = fs::read_to_string(hosts[0].state.join("node.toml")).unwrap();
    assert!(settings.contains("listen = [") && settings.contains("#backbone = "));
    fs::write(hosts[0].state.join("node.toml"), format!("{settings}# mine\n")).unwrap();
    assert_eq!(hosts[0].init(), keys[0]);
    assert!(fs::read_to_string(hosts[0].state.join("node.toml")).unwrap().ends_with("# mine\n"));

    // 2. On one of them.
    let founders: Vec<&str> = keys.iter().flat_map(|key| ["--founder", key]).collect();
    let told = charter_new(&hosts[0], &founders);
    for said in ["network     ", "bytes an update", "bytes of anchor kernels", "memory      ", "disk        "] {
        assert!(told.contains(said), "{said} is not in {told}");
    }

    // 3. There too; it runs already.
    let mut first = hosts[0].run();
    let address = first.address();
    let invite = hosts[0].invite(&address, &[]);
    assert!(invite.starts_with("heterotune1") && invite.lines().count() == 1);
    let shown = stdout(heterotune().args(["invite", "--show", &invite]));
    assert!(shown.contains(&address) && shown.contains("3 named in the charter"), "{shown}");

    // 4. On the others.
    fs::write(home.path().join("invite.txt"), format!("{}\n{}", &invite[..50], &invite[50..])).unwrap();
    let mut second = hosts[1].join(&invite, &[]);
    let mut third = hosts[2].join(home.path().join("invite.txt").to_str().unwrap(), &[]);
    let hashes: Vec<Value> = [&mut first, &mut second, &mut third]
        .map(|node| node.wait_for("its end", |event| has(event, "finished", None))["mixture_hash"].clone())
        .into();
    assert!(hashes[0].is_string() && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    for node in [&mut first, &mut second, &mut third] {
        assert_eq!(node.process.wait().code, Some(0));
    }

    // From now on `run` needs nothing but the state folder.
    let mut again = Process::start(hosts[1].verb("run"), &hosts[1].home.join("again"));
    assert_eq!(again.wait().code, Some(0));
    let status = stdout(&mut hosts[1].verb("status"));
    assert!(status.contains("finished after 2 rounds"), "{status}");
    let ledger: Value = serde_json::from_str(&stdout(hosts[1].verb("ledger").arg("--json"))).unwrap();
    let rounds = ledger.as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    assert!(rounds.iter().all(|row| row["sealed"] == true && row["updates"] == 3 && row["conflicts"] == 0), "{ledger}");
}

#[test]
fn invites_that_do_not_let_in_are_refused_and_change_nothing() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, other] = Host::three(home.path());
    host.init();
    charter_new(&host, &["--admission", "invited", "--rounds", "0"]);
    let key = guest.init();
    let address = "/ip4/127.0.0.1/tcp/1";
    let good = host.invite(address, &["--for", &key]);
    let charter = heterotune::config::read_charter(&host.state.join("charter.toml")).unwrap();
    let admin = heterotune::folder::read_identity(&host.state.join("identity.key")).unwrap();
    let signed = |admin: &Identity, expires| {
        let member: NodeId = key.parse().unwrap();
        let membership = Membership::sign(admin, &charter.id().unwrap(), member, expires).unwrap();
        let addresses = vec![address.parse().unwrap()];
        Invite { charter: charter.clone(), addresses, membership: Some(membership), psk: None }
    };
    let expired = signed(&admin, 1).encode().unwrap();
    let forged = signed(&Identity::from_seed(1, "nobody"), u64::MAX).encode().unwrap();
    let strayed = {
        let mut letters = signed(&admin, u64::MAX);
        letters.charter.name = "letters".into();
        letters.encode().unwrap()
    };
    let bare = Invite { membership: None, ..signed(&admin, 1) }.encode().unwrap();
    let altered = good.replacen(&good[60..61], if &good[60..61] == "A" { "B" } else { "A" }, 1);
    let refused = |host: &Host, invite: &str, status: i32, keywords: &[&str]| {
        let ended = Process::start(host.joining(invite), &host.home.join("log")).wait();
        refuses_with_status(ended, status, keywords);
        assert!(!host.state.join("charter.toml").exists() && !host.state.join("membership.cbor").exists());
    };
    refused(&guest, "hello", 1, &["this is no invite", "heterotune1", "copy the whole line"]);
    refused(&guest, &good[..good.len() - 5], 1, &["cut off or altered", "copy the whole line"]);
    refused(&guest, &altered, 1, &["cut off or altered"]);
    refused(&guest, &expired, 3, &["has expired", "hours ago", &format!("heterotune invite --for {key}")]);
    refused(&guest, &forged, 3, &["no admin of this network"]);
    refused(&guest, &strayed, 3, &["does not verify for this network"]);
    refused(&guest, &bare, 3, &["has no membership", "ask an admin"]);
    other.init();
    refused(&other, &good, 3, &["the membership is that of", &key]);

    // What an admin may not do.
    let refuses = |command: &mut std::process::Command, keywords: &[&str]| {
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{told}");
        keywords.iter().for_each(|word| assert!(told.contains(word), "{word} is not in: {told}"));
    };
    refuses(host.verb("invite").args(["--address", address]), &["--for is missing", "heterotune init"]);
    let stranger = other.state.join("identity.key");
    refuses(
        host.verb("invite").args(["--address", address, "--for", &key, "--admin"]).arg(stranger),
        &["is no admin of the network"],
    );

    // A folder that belongs to one network does not join another.
    assert!(guest.joining(&good).arg("--no-run").status().unwrap().success());
    let kept = fs::read(guest.state.join("charter.toml")).unwrap();
    let elsewhere = {
        let mut invite = signed(&admin, u64::MAX);
        invite.charter.adapter.rank = 8;
        invite.charter.admission = Admission::Open;
        invite.encode().unwrap()
    };
    let ended = Process::start(guest.joining(&elsewhere), &guest.home.join("log")).wait();
    refuses_with_status(ended, 1, &["belongs to another network", "adapter.rank (here 16, there 8)", "--state"]);
    assert_eq!(fs::read(guest.state.join("charter.toml")).unwrap(), kept);
}

#[test]
fn an_allowlist_invites_only_whom_the_charter_names() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, _] = Host::three(home.path());
    host.init();
    charter_new(&host, &[]);
    let output =
        host.verb("invite").args(["--for", &guest.init(), "--address", "/ip4/10.0.0.1/tcp/1"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("neither among the founders nor among the members"), "{told}");
    assert!(!charter_fails(&guest, &["--admission", "open"]).contains("panicked"));
    assert!(charter_fails(&guest, &["--admission", "open"]).contains("--sealer is missing"));
}

fn charter_fails(host: &Host, more: &[&str]) -> String {
    let output = host.charter(more).output().unwrap();
    assert!(!output.status.success() && !host.state.join("charter.toml").exists());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_admin_revokes_once_more_each_time() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, other] = Host::three(home.path());
    let own = host.init();
    charter_new(&host, &["--admission", "invited"]);
    let guests = [guest.init(), other.init()];
    for key in &guests {
        stdout(host.verb("revoke").arg(key));
    }
    let lists = heterotune::folder::read_revocations(&host.state).unwrap();
    let charter = heterotune::config::read_charter(&host.state.join("charter.toml")).unwrap();
    assert_eq!((lists.len(), lists[0].number), (1, 2));
    assert_eq!(lists[0].members, guests.iter().map(|key| key.parse().unwrap()).collect());
    lists[0].verify(&charter.id().unwrap(), charter.admission.admins()).unwrap();
    let output = host.verb("revoke").arg(&own).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("is named in the charter"));
}

#[test]
fn bans_are_listed_and_lifted() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, _] = Host::three(home.path());
    host.init();
    let key = guest.init();
    let bans = |verb: &str| {
        let mut command = heterotune();
        command.args(["bans", verb]).arg("--state").arg(&host.state);
        command
    };
    assert_eq!(stdout(&mut bans("list")), "0 banned\n");
    stdout(bans("add").args([&key, "--reason", "it lies"]));
    let listed = stdout(&mut bans("list"));
    assert!(listed.contains(&key) && listed.contains("it lies"), "{listed}");
    stdout(bans("lift").arg(&key));
    assert_eq!(stdout(&mut bans("list")), "0 banned\n");
    let output = bans("lift").arg(&key).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not banned"));
}

#[test]
#[cfg(unix)]
fn a_running_node_tells_where_it_is_reads_its_settings_again_and_stops_in_order() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, _] = Host::three(home.path());
    let keys = [host.init(), guest.init()];
    charter_new(&host, &["--founder", &keys[0], "--founder", &keys[1]]);
    let mut node = host.run();
    let address = node.address();
    node.wait_for("its kernels", |event| has(event, "published", None));
    let status: Value = wait_for("a status", || {
        let text = heterotune().args(["status", "--json", "--state"]).arg(&host.state).output().unwrap().stdout;
        let status: Value = serde_json::from_slice(&text).ok()?;
        (status["running"] == true && !status["now"]["listening"].as_array()?.is_empty()).then_some(status)
    });
    assert_eq!(status["now"]["listening"][0], address.as_str());
    // An invite needs no --address now.
    let invite = stdout(&mut host.verb("invite"));
    assert_eq!(Invite::decode(&invite).unwrap().addresses[0].to_string(), address);

    let pid = node.wait_for("its start", |event| has(event, "started", None))["pid"].as_u64().unwrap();
    let settings = host.state.join("node.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("colour = 1\n{text}")).unwrap();
    kill(pid, "-HUP");
    let told = node.wait_for("a refusal", |event| has(event, "not_reloaded", None));
    assert!(told["reason"].as_str().unwrap().contains("unknown field `colour`"), "{told}");
    fs::write(&settings, text.replace("#log = \"warn\"", "log = \"info\"")).unwrap();
    kill(pid, "-HUP");
    node.wait_for("its settings", |event| has(event, "reloaded", None));

    kill(pid, "-TERM");
    let ended = node.process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("not read again") && ended.stderr.contains("\nreloaded"), "{}", ended.stderr);
    assert!(events(&host.state).iter().any(|event| has(event, "left", None)));
    let status = stdout(&mut host.verb("status"));
    assert!(status.contains("phase       stopped"), "{status}");
}

#[test]
fn the_doctor_s_word_is_the_exit_status() {
    let home = tempfile::tempdir().unwrap();
    let [host, guest, _] = Host::three(home.path());
    let keys = [host.init(), guest.init()];
    let founders = ["--founder", &keys[0], "--founder", &keys[1]];
    charter_new(&host, &founders);
    let doctor = |host: &Host, more: &[&str]| -> (Option<i32>, Value) {
        let mut command = host.verb("doctor");
        command.args(["--json", "--listen", "/ip4/127.0.0.1/tcp/0"]).args(more);
        command.arg("--backbone").arg(&host.backbone).arg("--data").arg(&host.data);
        let output = command.output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    let severity = |findings: &Value, check: &str| {
        let found = findings.as_array().unwrap().iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {findings:#}"))["severity"].clone()
    };
    let (code, findings) = doctor(&host, &["--offline"]);
    assert_eq!((code, severity(&findings, "charter")), (Some(0), "ok".into()), "{findings:#}");
    let (code, findings) = doctor(&guest, &["--offline"]);
    assert_eq!((code, severity(&findings, "charter")), (Some(1), "error".into()));
    let (code, findings) = doctor(&host, &["--peer", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(
        (code, severity(&findings, "tcp"), severity(&findings, "peers")),
        (Some(4), "error".into(), "skipped".into())
    );

    // A peer in the same network, and one whose charter differs.
    let mut node = host.run();
    let address = node.address();
    fs::copy(host.state.join("charter.toml"), guest.state.join("charter.toml")).unwrap();
    let (code, findings) = doctor(&guest, &["--peer", &address]);
    assert_eq!(
        (code, severity(&findings, "tcp"), severity(&findings, "peers")),
        (Some(0), "ok".into(), "ok".into()),
        "{findings:#}"
    );
    fs::remove_file(guest.state.join("charter.toml")).unwrap();
    charter_new(&guest, &[&founders[..], &["--rounds", "9"]].concat());
    let (code, findings) = doctor(&guest, &["--peer", &address]);
    assert_eq!((code, severity(&findings, "peers")), (Some(3), "error".into()), "{findings:#}");
    assert!(findings.to_string().contains("rounds.total (here "), "{findings:#}");
    // One that runs is asked what it has seen.
    wait_for("a status", || host.state.join("status.json").exists().then_some(()));
    let (code, findings) = doctor(&host, &["--peer", &address]);
    assert_eq!((code, severity(&findings, "port")), (Some(0), "ok".into()), "{findings:#}");
}

/// A network of three that runs, founded by hosts of which the first invites.
fn invited_network(hosts: &[Host; 3]) -> (Vec<Node>, String) {
    let keys: Vec<String> = hosts.iter().map(Host::init).collect();
    let founders: Vec<&str> = keys.iter().flat_map(|key| ["--founder", key]).collect();
    charter_new(&hosts[0], &[&founders[..], &["--admission", "invited", "--rounds", "0"]].concat());
    let mut nodes = vec![hosts[0].run()];
    let address = nodes[0].address();
    for (host, key) in hosts[1..].iter().zip(&keys[1..]) {
        nodes.push(host.join(&hosts[0].invite(&address, &["--for", key]), &[]));
    }
    nodes[0].wait_for("a seal", |event| has(event, "sealed", None));
    (nodes, address)
}

/// A fourth host, which joins by an invite of the first; and its key.
fn invited_fourth(home: &Path, first: &Host, address: &str) -> (Host, String, Node) {
    let fourth = Host::new(&home.join("fourth"), "vit-d96-l2", 3);
    let key = fourth.init();
    let node = fourth.join(&first.invite(address, &["--for", &key]), &[]);
    (fourth, key, node)
}

#[test]
fn an_invited_fourth_is_let_in_until_it_is_revoked() {
    let home = tempfile::tempdir().unwrap();
    let hosts = Host::three(home.path());
    let (mut nodes, address) = invited_network(&hosts);
    let (fourth, key, mut node) = invited_fourth(home.path(), &hosts[0], &address);
    node.wait_for("a peer", |event| has(event, "connected", None));
    nodes[0].wait_for("the fourth", |event| has(event, "connected", None) && event["peer"] == key.as_str());
    // A node that runs takes the admin's word for it from the file.
    stdout(hosts[0].verb("revoke").arg(&key));
    nodes[0].wait_for("its end", |event| has(event, "disconnected", None) && event["peer"] == key.as_str());
    let words = format!("the membership of {key} is revoked by");
    is_misfit(&mut nodes[0], &words);
    let told = format!("it does not let this node in: {words}");
    is_misfit(&mut node, &told);
    // Nor does another life of it come in, once all have heard of it.
    for host in &hosts[1..] {
        let heard = || host.state.join("revocations.cbor").exists().then_some(());
        wait_for("the revocation to be heard", heard);
    }
    node.process.kill();
    let before = events(&fourth.state).len();
    let mut node = fourth.run();
    is_misfit(&mut node, &told);
    assert!(!events(&fourth.state)[before..].iter().any(|event| has(event, "connected", None)));
}

#[test]
fn an_invited_fourth_contributes() {
    let home = tempfile::tempdir().unwrap();
    let hosts = Host::three(home.path());
    let (mut nodes, address) = invited_network(&hosts);
    let (_, key, mut node) = invited_fourth(home.path(), &hosts[0], &address);
    let is_update = |event: &Value| event["kind"] == "update";
    node.wait_for("its first update", |event| has(event, "published", None) && is_update(event));
    let is_its = |event: &Value| has(event, "received", None) && is_update(event) && event["author"] == key.as_str();
    nodes[1].wait_for("the fourth's update", is_its);
}
