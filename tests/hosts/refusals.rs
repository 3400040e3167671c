//! Who is not let in, host to host, and that the logs of both say why.

use crate::common::{
    gate::{greeted, greeting_to_come, is_misfit, of_the_next_version, turned_away},
    hosts::Hosts,
    lab::Lab,
    process::{has, heterotune},
};
use heterotune::{config::read_charter, folder::read_identity};
use heterotune_crypto::Identity;
use heterotune_protocol::{admission::Admission, charter::Charter, message::Context};
use serde_json::Value;
use std::{fs, path::Path, sync::Arc};

/// The key of a host's node.
fn key(hosts: &Hosts, host: usize) -> Identity {
    read_identity(&hosts.state(host).join("identity.key")).unwrap()
}

/// What a verb prints on host 0.
fn says(hosts: &Hosts, arguments: &[&str]) -> String {
    let output = heterotune().args(arguments).arg("--state").arg(hosts.state(0)).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Writes the charter that nodes start with from now on.
fn rewrite(home: &Path, change: impl FnOnce(&mut Charter)) {
    let path = home.join("charter.toml");
    let mut charter = read_charter(&path).unwrap();
    change(&mut charter);
    fs::write(path, toml::to_string(&charter).unwrap()).unwrap();
}

/// That a host's node has never had a peer.
fn assert_alone(hosts: &Hosts, host: usize) {
    assert!(!hosts.events(host).iter().any(|event| has(event, "connected", None)), "host {host} was let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_belong_are_refused_by_a_host_and_both_logs_say_why() {
    let Some(lab) = Lab::or_skip(16, 5, &[]) else { return };
    let home = tempfile::tempdir().unwrap();
    // Hosts 1 and 2 are not named in the charter; host 0 may invite.
    let mut hosts = Hosts::new(lab, home.path(), 5, |charter| {
        charter.founders.drain(1..3);
        charter.sealers = charter.founders.clone();
        charter.rounds.quorum = 2;
        charter.admission = Admission::Invited { admins: vec![charter.founders[0]] };
    });
    let context = Arc::new(Context::new(read_charter(&home.path().join("charter.toml")).unwrap()).unwrap());
    hosts.start(0, &[], &[]);
    hosts.nodes.get_mut(&0).unwrap().address();
    let address = hosts.address(0);
    let turns_away = |hosts: &mut Hosts, words: &str| is_misfit(hosts.nodes.get_mut(&0).unwrap(), words);
    let told = |words: &str| format!("it does not let this node in: {words}");

    // No certificate: an honest node says so by itself, and one that calls nevertheless is told.
    let stranger = key(&hosts, 1);
    let words = format!("{} has no membership", stranger.id());
    hosts.start(1, &[0], &[]);
    let ended = hosts.nodes.get_mut(&1).unwrap().process.wait();
    assert!(ended.code == Some(3) && ended.stderr.contains(&words), "{ended:?}");
    let heard = turned_away(&stranger, &context, &address).await;
    assert!(heard.contains(&told(&words)), "{heard}");
    turns_away(&mut hosts, &words);

    // A certificate that is taken back.
    let member = key(&hosts, 2).id().to_string();
    fs::copy(home.path().join("charter.toml"), hosts.state(0).join("charter.toml")).unwrap();
    let invite = says(&hosts, &["invite", "--address", &address, "--for", &member]);
    hosts.join(2, &invite);
    hosts.nodes.get_mut(&2).unwrap().wait_for("a peer", |event| has(event, "connected", None));
    says(&hosts, &["revoke", &member]);
    let words = format!("the membership of {member} is revoked by");
    turns_away(&mut hosts, &words);
    is_misfit(hosts.nodes.get_mut(&2).unwrap(), &told(&words));

    // Another version of the protocol.
    let said = greeted(&greeting_to_come(), &key(&hosts, 3), &address).await;
    let words = of_the_next_version();
    assert!(String::from_utf8_lossy(&said).contains(&words), "{}", String::from_utf8_lossy(&said));
    turns_away(&mut hosts, &words);

    // Another charter.
    rewrite(home.path(), |charter| charter.adapter.rank = 3);
    hosts.start(3, &[0], &[]);
    let words = |here: u8, there: u8| format!("adapter.rank (here {here}, there {there})");
    turns_away(&mut hosts, &words(4, 3));
    is_misfit(hosts.nodes.get_mut(&3).unwrap(), &words(3, 4));
    assert_alone(&hosts, 3);

    // Another pre-shared key.
    rewrite(home.path(), |charter| charter.adapter.rank = 4);
    hosts.nodes.remove(&0);
    let [right, wrong] = ["07", "08"].map(|digits| {
        let path = home.path().join(digits);
        fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digits.repeat(32))).unwrap();
        path.to_str().unwrap().to_owned()
    });
    hosts.start(0, &[], &["--psk", &right]);
    hosts.nodes.get_mut(&0).unwrap().address();
    hosts.start(4, &[0], &["--psk", &wrong]);
    let words = "have both the same pre-shared key (`psk`), or none?";
    for (host, kind, field) in [(4, "unreachable", "reason"), (0, "notice", "notice")] {
        let suspects = |event: &Value| event[field].as_str().is_some_and(|told| told.contains(words));
        let node = hosts.nodes.get_mut(&host).unwrap();
        node.wait_for("a suspicion", |event| has(event, kind, None) && suspects(event));
    }
    assert_alone(&hosts, 4);
}
