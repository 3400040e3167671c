//! Hosts far from each other: network namespaces, and between them a switch that delays, loses, cuts and rations
//! packets as the test asks for.

mod switch;
mod tun;

pub(crate) use switch::Wire;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};
use switch::Switch;
use tun::Tun;

/// How a host's router translates addresses (RFC 4787).
#[allow(dead_code, reason = "not every test has routers")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// One port for all destinations: holes can be punched.
    Cone,
    /// Another port for every destination: they can't.
    Symmetric,
}

/// So many hosts, and the test itself, on one switch. Gone when dropped.
pub(crate) struct Lab {
    /// What the lab's devices are called by; they live outside any folder, so processes must not share it.
    name: String,
    subnet: u8,
    namespaces: Vec<String>,
    switch: Option<Switch>,
}

#[allow(dead_code, reason = "not every test needs all of it")]
impl Lab {
    /// A lab in which some hosts are behind routers of their own. Where there can be none that is said, and in CI it is a
    /// failure.
    pub(crate) fn or_skip(subnet: u8, hosts: usize, routers: &[(usize, Nat)]) -> Option<Self> {
        match Self::new(subnet, hosts, routers) {
            Ok(lab) => Some(lab),
            Err(reason) => {
                assert!(std::env::var_os("CI").is_none(), "no network of namespaces can be made here ({reason})");
                eprintln!("skipped: no network of namespaces can be made here ({reason})");
                None
            }
        }
    }

    /// A lab, or why there can be none here: making devices takes Linux, its `ip` command and its superuser.
    fn new(subnet: u8, hosts: usize, routers: &[(usize, Nat)]) -> Result<Self, String> {
        let name = format!("ht{}{subnet}", std::process::id() % 100_000);
        let mut lab = Self { name, subnet, namespaces: Vec::new(), switch: None };
        let mut cards = Vec::new();
        for host in 0..hosts {
            let namespace = lab.add(host.to_string())?;
            let outer = match routers.iter().find(|(behind, _)| *behind == host) {
                Some((_, nat)) => lab.route(host, &namespace, *nat)?,
                None => namespace,
            };
            let card = format!("{}c{host}", lab.name);
            cards.push((lab.ip(host), Tun::new(&card).map_err(|error| format!("cannot make {card}: {error}"))?));
            ip(&format!("link set {card} netns {outer} name wan"))?;
            ip(&format!("-n {outer} addr add {}/24 dev wan", lab.ip(host)))?;
            ip(&format!("-n {outer} link set wan up"))?;
            // What goes to many, as mDNS does, goes there too.
            ip(&format!("-n {outer} route add default dev wan"))?;
        }
        let card = format!("{}c", lab.name);
        cards.push((lab.own_address(), Tun::new(&card).map_err(|error| format!("cannot make {card}: {error}"))?));
        ip(&format!("addr add {}/24 dev {card}", lab.own_address()))?;
        ip(&format!("link set {card} up"))?;
        lab.switch = Some(Switch::new(cards, subnet.into()));
        TcpListener::bind((lab.own_address(), 0)).map_err(|error| format!("cannot listen in the lab: {error}"))?;
        Ok(lab)
    }

    /// A namespace.
    fn add(&mut self, what: String) -> Result<String, String> {
        let namespace = format!("{}n{what}", self.name);
        ip(&format!("netns add {namespace}"))?;
        self.namespaces.push(namespace.clone());
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(namespace)
    }

    /// Puts a router before a host. What nobody behind it has asked for is dropped without a word.
    fn route(&mut self, host: usize, inner: &str, nat: Nat) -> Result<String, String> {
        let router = self.add(format!("{host}r"))?;
        let (near, far) = (format!("{}i{host}", self.name), format!("{}o{host}", self.name));
        ip(&format!("link add {near} type veth peer name {far}"))?;
        ip(&format!("link set {near} netns {inner} name eth0"))?;
        ip(&format!("link set {far} netns {router} name lan"))?;
        ip(&format!("-n {inner} addr add 192.168.77.2/24 dev eth0"))?;
        ip(&format!("-n {inner} link set eth0 up"))?;
        ip(&format!("-n {router} addr add 192.168.77.1/24 dev lan"))?;
        ip(&format!("-n {router} link set lan up"))?;
        ip(&format!("-n {inner} route add default via 192.168.77.1"))?;
        run(&format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"))?;
        let how = if nat == Nat::Symmetric { "masquerade random,fully-random" } else { "masquerade" };
        let rules = format!(
            "table ip lab {{
                chain out {{ type nat hook postrouting priority 100; oifname \"wan\" {how}; }}
                chain in {{ type filter hook input priority 0; iifname \"wan\" ct state new drop; }}
                chain through {{ type filter hook forward priority 0; iifname \"wan\" ct state new drop; }}
            }}"
        );
        run_with(&["ip", "netns", "exec", &router, "nft", "-f", "-"], &rules)?;
        Ok(router)
    }

    fn ip(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, u8::try_from(host + 1).expect("a lab has few hosts"))
    }

    /// A host's address, or its router's.
    pub(crate) fn address(&self, host: usize) -> String {
        self.ip(host).to_string()
    }

    /// The test's own address in the lab.
    pub(crate) fn own_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 254)
    }

    /// A command on a host.
    pub(crate) fn on(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}n{host}", self.name)]).arg(program);
        command
    }

    fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("a lab has a switch from its making on")
    }

    /// What every host's wire is like from now on.
    pub(crate) fn wire(&self, wire: Wire) {
        self.switch().wire(wire);
    }

    /// Pulls a host's plug.
    pub(crate) fn cut(&self, host: usize) {
        self.switch().cut(host, true);
    }

    /// Puts it back.
    pub(crate) fn heal(&self, host: usize) {
        self.switch().cut(host, false);
    }

    /// Cuts what is between two hosts; others still reach both.
    pub(crate) fn part(&self, one: usize, other: usize) {
        self.switch().part(one, other);
    }

    /// Lets hosts reach those of their own side only; who is on none reaches all who are on none.
    pub(crate) fn split(&self, sides: &[&[usize]]) {
        self.switch().split(sides);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What was not made can't be removed. Cards go with their namespaces.
        for namespace in &self.namespaces {
            let _ = ip(&format!("netns del {namespace}"));
        }
        let _ = ip(&format!("link del {}c", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    run(&format!("ip {arguments}"))
}

fn run(command: &str) -> Result<(), String> {
    run_with(&command.split(' ').collect::<Vec<_>>(), "")
}

fn run_with(command: &[&str], input: &str) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", command.join(" "));
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| told(&error))?;
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), input.as_bytes())
        .map_err(|error| told(&error))?;
    let output = child.wait_with_output().map_err(|error| told(&error))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(told(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}
