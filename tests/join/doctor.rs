//! What the doctor finds, on hosts with one thing wrong each: the cause, and the flag, line or command that mends it.

use super::{
    common::process::{has, heterotune, wait_for},
    host::{Host, charter_new},
};
use heterotune::{
    config::read_charter,
    folder::{read_identity, write_cbor},
    net::{Network, Settings},
};
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    admission::{Admission, Membership},
    charter::Charter,
    message::Context,
};
use serde_json::Value;
use std::{
    any::Any,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

/// The doctor's findings on a host, and its exit status.
pub(crate) fn diagnosis(output: &Output) -> (Option<i32>, Vec<Value>) {
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), findings)
}

fn doctor(mut command: Command, host: &Host, flags: &[String]) -> (Option<i32>, Vec<Value>) {
    command.args(["doctor", "--json", "--state"]).arg(&host.state);
    command.arg("--data").arg(&host.data).args(flags);
    // A flag counts where it comes last, but for those that may be given more than once.
    if !flags.iter().any(|flag| flag == "--backbone") {
        command.arg("--backbone").arg(&host.backbone);
    }
    if !flags.iter().any(|flag| flag == "--listen") {
        command.args(["--listen", &format!("/ip4/127.0.0.1/tcp/{}", free_port())]);
    }
    diagnosis(&command.output().unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A network of one, which has never run.
fn healthy(home: &Path) -> Host {
    let host = Host::new(home, "vit-d32-l2", 0);
    host.init();
    charter_new(&host, &[]);
    host
}

/// What a fault is planted by: the doctor's flags, and what must live until it has looked.
type Planted = (Vec<String>, Option<Box<dyn Any>>);

fn flags(flags: &[&str]) -> Planted {
    (flags.iter().map(ToString::to_string).collect(), None)
}

/// One thing that is wrong, and what is found.
struct Fault {
    plant: fn(&Host) -> Planted,
    status: i32,
    check: &'static str,
    severity: &'static str,
    /// In the cause or in what mends it.
    words: &'static [&'static str],
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

/// Takes the host's name from the charter, and invites it until `expires`.
fn invite(host: &Host, expires: u64) {
    let (path, admin) = (host.state.join("charter.toml"), Identity::from_seed(1, "admin"));
    let mut charter: Charter = read_charter(&path).unwrap();
    (charter.founders, charter.sealers) = (vec![admin.id()], vec![admin.id()]);
    charter.admission = Admission::Invited { admins: vec![admin.id()] };
    fs::write(&path, toml::to_string(&charter).unwrap()).unwrap();
    let own = read_identity(&host.state.join("identity.key")).unwrap().id();
    let membership = Membership::sign(&admin, &charter.id().unwrap(), own, expires).unwrap();
    write_cbor(&host.state.join("membership.cbor"), &membership).unwrap();
}

const FAULTS: [Fault; 20] = [
    Fault {
        plant: |host| {
            fs::set_permissions(host.state.join("identity.key"), fs::Permissions::from_mode(0o644)).unwrap();
            flags(&[])
        },
        status: 1,
        check: "key",
        severity: "error",
        words: &["mode 0644", "chmod 600"],
    },
    Fault {
        plant: |host| {
            fs::remove_file(host.state.join("identity.key")).unwrap();
            flags(&[])
        },
        status: 1,
        check: "key",
        severity: "error",
        words: &["identity.key is not there", "heterotune init --state"],
    },
    Fault {
        plant: |host| {
            edit(&host.state.join("node.toml"), |text| format!("colour = 1\n{text}"));
            flags(&[])
        },
        status: 1,
        check: "settings",
        severity: "error",
        words: &["node.toml, line 1, column 1: unknown field `colour`", "mend that line"],
    },
    Fault {
        plant: |host| flags(&["--psk", host.data.join("train.csv").to_str().unwrap()]),
        status: 1,
        check: "settings",
        severity: "error",
        words: &["train.csv is not a pre-shared key", "--psk FILE"],
    },
    Fault {
        plant: |host| {
            fs::remove_file(host.state.join("charter.toml")).unwrap();
            flags(&[])
        },
        status: 1,
        check: "charter",
        severity: "error",
        words: &["in no network yet", "heterotune join INVITE"],
    },
    Fault {
        plant: |host| {
            edit(&host.state.join("charter.toml"), |text| text.replacen("protocol = ", "protocol = 9", 1));
            flags(&[])
        },
        status: 1,
        check: "charter",
        severity: "error",
        words: &["of the protocol, and this program speaks version", "by an invite"],
    },
    Fault {
        plant: |host| {
            invite(host, now() - 7_200);
            flags(&["--offline"])
        },
        status: 1,
        check: "membership",
        severity: "error",
        words: &["has expired 2 hours ago", "heterotune invite --for"],
    },
    Fault {
        plant: |host| {
            invite(host, now() + 6 * 86_400 + 60);
            flags(&["--offline"])
        },
        status: 0,
        check: "membership",
        severity: "warning",
        words: &["expires in 6 days and 0 hours", "heterotune invite --for", "heterotune join INVITE"],
    },
    Fault {
        plant: |host| {
            let later = 1_000 * (now() + 7_200);
            let line = format!("{{\"time_ms\": {later}, \"event\": \"left\"}}\n");
            fs::write(host.state.join("events.jsonl"), line).unwrap();
            flags(&[])
        },
        status: 0,
        check: "clock",
        severity: "warning",
        words: &["hours before what this node logged last", "timedatectl set-ntp true"],
    },
    Fault {
        plant: |_| flags(&["--backbone", "no-such-model"]),
        status: 1,
        check: "backbone",
        severity: "error",
        words: &["no-such-model is no folder", "--backbone"],
    },
    Fault {
        plant: |host| {
            let huge = host.home.join("huge");
            fs::create_dir(&huge).unwrap();
            let shape = r#"{"model_type": "vit", "hidden_size": 65536, "num_hidden_layers": 1000}"#;
            fs::write(huge.join("config.json"), shape).unwrap();
            fs::write(huge.join("model.safetensors"), "").unwrap();
            flags(&["--backbone", huge.to_str().unwrap()])
        },
        status: 1,
        check: "memory",
        severity: "error",
        words: &["MB are free of", "the node needs about", "--precision q8 or q4, --layers"],
    },
    Fault {
        plant: |host| {
            edit(&host.data.join("anchors.csv"), |text| text + "0\n");
            flags(&[])
        },
        status: 1,
        check: "data",
        severity: "error",
        words: &["anchors.csv is not the file that the charter names", "byte for byte"],
    },
    Fault {
        plant: |host| {
            fs::remove_file(host.data.join("anchors.csv")).unwrap();
            flags(&[])
        },
        status: 1,
        check: "data",
        severity: "error",
        words: &["has no anchors."],
    },
    Fault {
        plant: |host| {
            fs::remove_dir_all(&host.data).unwrap();
            flags(&[])
        },
        status: 1,
        check: "data",
        severity: "error",
        words: &["data is no folder", "--data"],
    },
    Fault {
        plant: |_| flags(&["--listen", "/ip4/127.0.0.1/tcp/0"]),
        status: 0,
        check: "port",
        severity: "warning",
        words: &["any port that is free", "set a port"],
    },
    Fault {
        plant: |_| flags(&["--threads", "9999"]),
        status: 0,
        check: "device",
        severity: "warning",
        words: &["9999 threads", "fewer --threads"],
    },
    Fault {
        plant: |_| {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
            (vec!["--listen".into(), address], Some(Box::new(taken)))
        },
        status: 1,
        check: "port",
        severity: "error",
        words: &["cannot be listened on", "in use", "--listen"],
    },
    Fault {
        plant: |_| flags(&["--peer", &format!("/ip4/127.0.0.1/tcp/{}", free_port())]),
        status: 4,
        check: "tcp",
        severity: "error",
        words: &["does not answer", "refused", "open in its firewall (TCP)", "--peer"],
    },
    Fault {
        plant: |_| flags(&["--peer", "/ip4/127.0.0.1/udp/9/quic-v1"]),
        status: 4,
        check: "quic",
        severity: "error",
        words: &["does not answer", "port 9 open in its firewall (UDP)"],
    },
    Fault {
        plant: |_| flags(&["--peer", "/dns4/no-such-host.invalid/tcp/4001"]),
        status: 4,
        check: "dns",
        severity: "error",
        words: &["no-such-host.invalid does not resolve", "DNS"],
    },
];

/// What is wrong: exactly one thing, with these words.
fn is_found(findings: &[Value], check: &str, severity: &str, words: &[&str]) {
    let is_wrong = |finding: &&Value| finding["severity"] == "warning" || finding["severity"] == "error";
    let wrong: Vec<&Value> = findings.iter().filter(is_wrong).collect();
    let [finding] = wrong[..] else { panic!("not {check} alone: {wrong:#?}") };
    assert_eq!((&finding["check"], &finding["severity"]), (&check.into(), &severity.into()), "{finding:#}");
    assert_ne!(finding["mend"], "", "{finding:#}");
    let said = format!("{} {}", finding["cause"].as_str().unwrap(), finding["mend"].as_str().unwrap());
    words.iter().for_each(|word| assert!(said.contains(word), "{word} is not in: {said}"));
}

#[test]
fn each_planted_fault_is_found_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    for (number, fault) in FAULTS.iter().enumerate() {
        let host = healthy(&home.path().join(number.to_string()));
        let (flags, _alive) = (fault.plant)(&host);
        let (status, findings) = doctor(heterotune(), &host, &flags);
        is_found(&findings, fault.check, fault.severity, fault.words);
        assert_eq!(status, Some(fault.status), "{findings:#?}");
    }
}

#[test]
fn nothing_is_wrong_with_a_healthy_host() {
    let home = tempfile::tempdir().unwrap();
    let (status, findings) = doctor(heterotune(), &healthy(home.path()), &[]);
    let is_fine = |finding: &Value| finding["severity"] == "ok" || finding["severity"] == "skipped";
    assert!(status == Some(0) && findings.iter().all(is_fine), "{findings:#?}");
}

/// The program on a machine on which the state folder is on a disk of its own, mounted and used up like this. None where
/// nothing can be mounted.
fn on_disk(host: &Host, script: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    let place =
        "state=$0; kept=$1; shift; cp -a $state/. $kept; mount -t tmpfs -o size=1m none $state; cp -a $kept/. $state";
    command.args(["--mount", "sh", "-ec", &format!("{place}; {script}; exec \"$@\"")]);
    let kept = host.home.join("kept");
    fs::create_dir(&kept).unwrap();
    command.arg(&host.state).arg(kept);
    let possible = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no disk can be mounted here");
        eprintln!("skipped: no disk can be mounted here");
        return None;
    }
    command.arg(heterotune().get_program());
    Some(command)
}

#[test]
fn a_disk_that_is_full_or_can_not_be_written() {
    let home = tempfile::tempdir().unwrap();
    let full =
        ("head -c 2000000 /dev/zero >$state/rubbish 2>/dev/null || true", "free some space, or move the state folder");
    let fixed = ("mount -o remount,ro $state", "make it writable for the user that runs the node");
    for (number, (script, mend)) in [full, fixed].into_iter().enumerate() {
        let host = healthy(&home.path().join(number.to_string()));
        let Some(command) = on_disk(&host, script) else { return };
        let (status, findings) = doctor(command, &host, &[]);
        is_found(&findings, "disk", "error", &["cannot be written", mend, "--state"]);
        assert_eq!(status, Some(1));
    }
}

/// A peer in this process, whose clock is five minutes ahead. It listens until this is dropped.
struct Ahead {
    address: String,
    _stop: mpsc::Sender<()>,
}

impl Ahead {
    fn start(identity: Identity, charter: Charter) -> Self {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        let settings = Settings { listen: vec![listen.parse().unwrap()], clock: || now() + 300, ..Settings::default() };
        let (stop, stopped) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let network = runtime
            .block_on(async { Network::new(&identity, Arc::new(Context::new(charter).unwrap()), settings).unwrap() });
        thread::spawn(move || {
            let _ = runtime.block_on(runtime.spawn(drive(network, stopped)));
        });
        Self { address: listen, _stop: stop }
    }
}

async fn drive(mut network: Network, stopped: mpsc::Receiver<()>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
        tokio::select! {
            _ = network.next() => {}
            _ = ticks.tick() => network.tick(),
        }
    }
}

#[test]
fn a_clock_that_differs_from_a_peer_s_is_told_by_doctor_and_run() {
    let home = tempfile::tempdir().unwrap();
    let host = Host::new(home.path(), "vit-d32-l2", 0);
    let (key, peer) = (host.init(), Identity::from_seed(1, "ahead"));
    let id: NodeId = peer.id();
    charter_new(&host, &["--founder", &key, "--founder", &id.to_string()]);
    let ahead = Ahead::start(peer, read_charter(&host.state.join("charter.toml")).unwrap());
    let (status, findings) = doctor(heterotune(), &host, &["--peer".into(), ahead.address.clone()]);
    let words = format!("s behind that of {}", id.short());
    is_found(&findings, "clock", "warning", &["this host's clock is 30", &words, "timedatectl set-ntp true"]);
    assert_eq!(status, Some(0));
    let dialled = findings.iter().find(|finding| finding["check"] == "dial-back").unwrap();
    assert!(
        dialled["cause"].as_str().unwrap().starts_with("others reach this host at /ip4/127.0.0.1/tcp/"),
        "{dialled}"
    );

    let mut node = host.run_with(&["--peer", &ahead.address]);
    let of_the_clock = |event: &Value| event["notice"].as_str().is_some_and(|notice| notice.contains(&words));
    node.wait_for("a notice", |event| has(event, "notice", None) && of_the_clock(event));
    let status = wait_for("its peer in the status", || {
        let output = host.verb("peers").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.contains("+30").then_some(text)
    });
    assert!(status.contains("clock"), "{status}");
    assert!(node.process.stderr().contains(&words));
}
