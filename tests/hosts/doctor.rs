//! The doctor on hosts that others can dial, and on one that they can't.

use crate::common::{
    hosts::Hosts,
    lab::{Lab, Nat},
    process::{has, heterotune, wait_for},
};
use serde_json::Value;
use std::{fs, path::Path};

/// What the doctor on a host finds that has not run yet and knows the address of host 0.
fn findings(hosts: &Hosts, home: &Path, host: usize) -> Vec<Value> {
    fs::copy(home.join("charter.toml"), hosts.state(host).join("charter.toml")).unwrap();
    let mut command = hosts.lab.on(host, Path::new(heterotune().get_program()));
    command.args(["doctor", "--json", "--peer", &hosts.address(0), "--state"]).arg(hosts.state(host));
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// How a check has come out, if it was made.
fn found<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or(&Value::Null)
}

/// That a check has come out like this, and that the words are in what is said of it.
fn is(findings: &[Value], check: &str, severity: &str, words: &[&str]) {
    let finding = found(findings, check);
    assert_eq!(finding["severity"], severity, "{findings:#?}");
    let said = finding.to_string();
    words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in {said}"));
}

/// The findings once a check is well: on a busy machine peers may not answer in the time that the doctor has for them.
fn findings_when_well(hosts: &Hosts, home: &Path, host: usize, check: &str) -> Vec<Value> {
    wait_for(check, || Some(findings(hosts, home, host)).filter(|findings| found(findings, check)["severity"] == "ok"))
}

#[test]
fn the_doctor_says_who_can_be_dialled_and_by_which_relay_who_can_not() {
    let Some(lab) = Lab::or_skip(23, 3, &[(2, Nat::Symmetric)]) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 3, |_| {});
    let start = |hosts: &mut Hosts, flags: &[&str]| {
        hosts.start(0, &[], flags);
        hosts.nodes.get_mut(&0).unwrap().wait_for("listening", |event| has(event, "listening", None));
    };
    start(&mut hosts, &["--no-upnp"]);
    let open = findings_when_well(&hosts, home.path(), 1, "dial-back");
    let reached = format!("others reach this host at /ip4/{}/tcp/4001", hosts.lab.address(1));
    is(&open, "dial-back", "ok", &[&reached]);
    is(&open, "relay", "skipped", &["none is needed"]);

    let hidden = findings_when_well(&hosts, home.path(), 2, "peers");
    let ports = "forward TCP and UDP port 4001 to this host";
    is(&hidden, "dial-back", "warning", &["nobody can dial this host", ports, "--external"]);
    is(&hidden, "relay", "warning", &["no peer that is connected is a relay", "--relay"]);

    hosts.nodes.remove(&0);
    let address = hosts.address(0);
    start(&mut hosts, &["--no-upnp", "--relay", "--external", &address]);
    let relayed = findings_when_well(&hosts, home.path(), 2, "relay");
    let by = format!("leave it so: the network is reached through the relay {}/p2p/", hosts.address(0));
    is(&relayed, "dial-back", "warning", &[ports, &by]);
    is(&relayed, "relay", "ok", &["a place is reserved: ", "/p2p-circuit"]);
}
