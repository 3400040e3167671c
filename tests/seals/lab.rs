//! Hosts on a cable: network namespaces on one bridge. Pulling a host's plug loses its packets, as a firewall does.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

/// So many hosts, and the test itself, on one bridge. Gone when dropped.
pub(crate) struct Lab {
    /// What the lab's devices are called by; they live outside any folder, so processes must not share it.
    name: String,
    subnet: u8,
    hosts: usize,
}

impl Lab {
    /// A lab, or why there can be none here: making devices takes Linux, its `ip` command and its superuser.
    pub(crate) fn new(subnet: u8, hosts: usize) -> Result<Self, String> {
        let lab = Self { name: format!("ht{}{subnet}", std::process::id() % 100_000), subnet, hosts };
        let bridge = &lab.name;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", lab.own_address()))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 0..hosts {
            let (namespace, plug) = (lab.namespace(host), lab.plug(host));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {plug} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {plug} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", lab.address(host)))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        TcpListener::bind((lab.own_address(), 0)).map_err(|error| format!("cannot listen on the bridge: {error}"))?;
        Ok(lab)
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.name)
    }

    fn plug(&self, host: usize) -> String {
        format!("{}p{host}", self.name)
    }

    /// A host's address.
    pub(crate) fn address(&self, host: usize) -> String {
        format!("10.77.{}.{}", self.subnet, host + 1)
    }

    /// The test's own address on the bridge.
    fn own_address(&self) -> String {
        format!("10.77.{}.254", self.subnet)
    }

    /// A command on a host.
    pub(crate) fn on(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(program);
        command
    }

    /// Pulls a host's plug.
    pub(crate) fn cut(&self, host: usize) {
        ip(&format!("link set {} down", self.plug(host))).unwrap();
    }

    /// Puts it back.
    pub(crate) fn heal(&self, host: usize) {
        ip(&format!("link set {} up", self.plug(host))).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What was not made can't be removed.
        let _ = (0..self.hosts).map(|host| ip(&format!("netns del {}", self.namespace(host)))).collect::<Vec<_>>();
        let _ = ip(&format!("link del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let done = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("ip {arguments}: {error}")),
    }
}
