//! Planted faults: each is found, by itself, with what mends it.

use super::*;
use crate::{
    folder::write_cbor,
    store::{Store, write_atomically},
};
use heterotune_crypto::Digest;
use heterotune_protocol::{
    admission::{Admission, Membership},
    charter::{Anchors, Task},
};
use std::{fs, net::TcpListener};
use tempfile::TempDir;

/// A node with nothing wrong.
struct Clinic {
    home: TempDir,
    state: PathBuf,
}

fn admin() -> Identity {
    Identity::from_seed(1, "admin")
}

impl Clinic {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        Store::open(&state).unwrap().identity().unwrap();
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("train.csv"), "label,p0\n0,1\n").unwrap();
        fs::write(data.join("anchors.csv"), "p0\n1\n").unwrap();
        let backbone = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/backbones/vit-d32-l2");
        let lines = format!(
            "backbone = {:?}\ndata = {data:?}\nlisten = [\"/ip4/127.0.0.1/tcp/{}\"]\n",
            backbone.canonicalize().unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        );
        fs::write(NodeConfig::path(&state), lines).unwrap();
        let clinic = Self { home, state };
        clinic.write_charter(|_| {});
        clinic
    }

    fn write_charter(&self, change: impl FnOnce(&mut Charter)) -> Charter {
        let own = files::read_identity(&self.state.join(files::IDENTITY)).unwrap().id();
        let anchors = Anchors { digest: Anchors::digest_of(b"p0\n1\n"), count: 128 };
        let task = Task::ImageClassification { labels: vec!["0".into(), "1".into()] };
        let mut charter = Charter::new("clinic", vec![own], task, anchors);
        change(&mut charter);
        let path = self.state.join(files::CHARTER);
        write_atomically(&path, toml::to_string(&charter).unwrap().as_bytes(), false).unwrap();
        charter
    }

    fn edit_settings(&self, change: impl FnOnce(String) -> String) {
        let path = NodeConfig::path(&self.state);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    }

    async fn diagnosis(&self) -> Diagnosis {
        examine(&self.state, NodeConfig::default(), false).await
    }

    /// What is wrong: exactly this check, and the words are in it.
    async fn finds(&self, check: &str, severity: Severity, words: &[&str]) {
        let Diagnosis { findings, .. } = self.diagnosis().await;
        let wrong: Vec<_> = findings.iter().filter(|finding| finding.severity >= Severity::Warning).collect();
        let [finding] = wrong[..] else { panic!("not one thing: {wrong:#?}") };
        assert_eq!((finding.check, finding.severity), (check, severity), "{finding}");
        assert!(!finding.mend.is_empty());
        let said = finding.to_string();
        words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in: {said}"));
    }
}

#[tokio::test]
async fn nothing_is_wrong_with_a_healthy_node() {
    let Diagnosis { findings, ending } = Clinic::new().diagnosis().await;
    let wrong: Vec<_> = findings.iter().filter(|finding| finding.severity >= Severity::Warning).collect();
    assert!(wrong.is_empty() && ending.is_none(), "{wrong:#?}");
    let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    for check in
        ["key", "settings", "charter", "membership", "clock", "backbone", "data", "disk", "memory", "device", "port"]
    {
        assert!(checks.contains(&check), "{check} is not in {checks:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_key_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let clinic = Clinic::new();
    let key = clinic.state.join(files::IDENTITY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    clinic.finds("key", Severity::Error, &["mode 0644", "chmod 600", "identity.key"]).await;
    let config = NodeConfig::read(&clinic.state).unwrap();
    assert!(quick(&clinic.state, &config).iter().any(|finding| finding.check == "key"));
}

#[tokio::test]
async fn a_key_of_the_settings_that_is_not_known() {
    let clinic = Clinic::new();
    clinic.edit_settings(|text| format!("colour = 1\n{text}"));
    let Diagnosis { findings, .. } = clinic.diagnosis().await;
    let found = findings.iter().find(|finding| finding.check == "settings").unwrap();
    assert_eq!(found.severity, Severity::Error);
    assert!(found.cause.contains("node.toml, line 1, column 1: unknown field `colour`"), "{found}");
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let clinic = Clinic::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    clinic.edit_settings(|text| {
        let rest = text.lines().filter(|line| !line.starts_with("listen")).collect::<Vec<_>>().join("\n");
        format!("{rest}\nlisten = [\"{address}\"]\n")
    });
    clinic.finds("port", Severity::Error, &[&address, "in use", "--listen"]).await;
}

#[tokio::test]
async fn bootstrap_addresses_where_nobody_is() {
    let clinic = Clinic::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("/ip4/127.0.0.1/tcp/{gone}");
    clinic.edit_settings(|text| format!("bootstrap = [\"{closed}\"]\n{text}"));
    clinic.finds("tcp", Severity::Error, &[&closed, "refused", &format!("port {gone} open"), "node.toml"]).await;
    assert!(matches!(clinic.diagnosis().await.ending, Some(Ending::Unreachable)));
    let nameless = "/dns4/no-such-host.invalid/tcp/4001";
    clinic.edit_settings(|text| text.replace(&closed, nameless));
    clinic.finds("dns", Severity::Error, &["no-such-host.invalid does not resolve", "DNS"]).await;
    let offline = examine(&clinic.state, NodeConfig::default(), true).await;
    assert!(offline.findings.iter().all(|finding| finding.severity < Severity::Warning) && offline.ending.is_none());
}

#[tokio::test]
async fn a_backbone_or_data_that_is_not_there() {
    let clinic = Clinic::new();
    let settings = fs::read_to_string(NodeConfig::path(&clinic.state)).unwrap();
    clinic.edit_settings(|text| text.replace("vit-d32-l2", "vit-d32-l99"));
    clinic.finds("backbone", Severity::Error, &["vit-d32-l99 is no folder", "--backbone"]).await;
    fs::write(NodeConfig::path(&clinic.state), &settings).unwrap();
    let anchors = clinic.home.path().join("data/anchors.csv");
    fs::write(&anchors, "p0\n2\n").unwrap();
    clinic.finds("data", Severity::Error, &["anchors.csv is not the file that the charter names"]).await;
    fs::remove_file(&anchors).unwrap();
    clinic.finds("data", Severity::Error, &["has no anchors."]).await;
    fs::remove_dir_all(clinic.home.path().join("data")).unwrap();
    clinic.finds("data", Severity::Error, &["data is no folder", "--data"]).await;
}

#[tokio::test]
async fn a_charter_of_another_version() {
    let clinic = Clinic::new();
    clinic.write_charter(|charter| charter.protocol = 3);
    let Diagnosis { findings, .. } = clinic.diagnosis().await;
    let found = findings.iter().find(|finding| finding.check == "charter").unwrap();
    assert_eq!(found.severity, Severity::Error);
    assert!(found.cause.contains("a charter of version 3 of the protocol"), "{found}");
    assert!(found.mend.contains("invite"), "{found}");
}

#[tokio::test]
async fn a_membership_that_is_missing_or_over() {
    let clinic = Clinic::new();
    let founder = Identity::from_seed(1, "founder").id();
    let charter = clinic.write_charter(|charter| {
        (charter.founders, charter.sealers) = (vec![founder], vec![founder]);
        charter.admission = Admission::Invited { admins: vec![admin().id()] };
    });
    clinic.edit_settings(|text| format!("bootstrap = [\"/dnsaddr/example.invalid\"]\n{text}"));
    let own = files::read_identity(&clinic.state.join(files::IDENTITY)).unwrap().id();
    let told = |expires: u64| {
        let membership = Membership::sign(&admin(), &charter.id().unwrap(), own, expires).unwrap();
        write_cbor(&clinic.state.join(files::MEMBERSHIP), &membership).unwrap();
        let patient = Patient::new(&clinic.state, NodeConfig::read(&clinic.state).unwrap());
        folder::membership(&patient)
    };
    let now = crate::events::unix_ms() / 1_000;
    let missing = folder::membership(&Patient::new(&clinic.state, NodeConfig::default()));
    assert_eq!(missing.severity, Severity::Error);
    assert!(missing.mend.contains(&format!("heterotune invite --for {own}")), "{missing}");
    assert_eq!(told(now + 30 * 86_400).severity, Severity::Ok);
    assert_eq!(told(now + 86_400).severity, Severity::Warning);
    let over = told(now - 7_200);
    assert!(over.severity == Severity::Error && over.cause.contains("has expired 2 hours ago"), "{over}");
    fs::write(clinic.state.join(files::MEMBERSHIP), Digest::ZERO.as_bytes()).unwrap();
    let damaged = folder::membership(&Patient::new(&clinic.state, NodeConfig::default()));
    assert!(damaged.cause.contains("membership.cbor is damaged"), "{damaged}");
}

#[tokio::test]
async fn a_clock_that_was_set_back() {
    let clinic = Clinic::new();
    let later = crate::events::unix_ms() + 2 * 3_600_000;
    fs::write(clinic.state.join("events.jsonl"), format!("{{\"time_ms\": {later}, \"event\": \"left\"}}\n")).unwrap();
    clinic.finds("clock", Severity::Warning, &["2.0 hours before what this node logged last", "timedatectl"]).await;
}
