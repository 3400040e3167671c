//! `heterotune invite`: a line of text that lets another node in.

use super::state::State;
use crate::{
    config::{NodeConfig, read_charter},
    events::unix_ms,
    folder,
    invite::{ADDRESSES_MAX, Invite, PSK_BYTES_MAX, TEXT_BYTES_MAX},
    net::{is_loopback, peer_id},
    status::Status,
    store::write_atomically,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use heterotune_crypto::{Identity, NodeId};
use heterotune_protocol::{
    admission::{Admission, Membership},
    charter::Charter,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    state: State,
    /// The key of the node that is invited, as `heterotune init` prints it there. Needed in networks that take only whom
    /// an admin invites.
    #[arg(long = "for", value_name = "KEY")]
    guest: Option<NodeId>,
    /// The key file of an admin of the network [default: this node's own].
    #[arg(long, value_name = "FILE")]
    admin: Option<PathBuf>,
    /// How long the invited node may connect, as 30d or 12h.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    expires: Duration,
    /// Where the network's nodes can be found; may be given more than once [default: where this node listens].
    #[arg(long = "address", value_name = "ADDR")]
    addresses: Vec<Multiaddr>,
    /// Put the network's pre-shared key into it. Whoever reads the invite then has the key.
    #[arg(long)]
    with_psk: bool,
    /// Write it to a file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show what is in an invite, and make none.
    #[arg(long, value_name = "TEXT|FILE", conflicts_with_all = ["guest", "admin", "addresses", "with_psk", "out"])]
    show: Option<String>,
}

/// `30d` or `12h`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3_600,
        _ => return Err("must be a number of days or hours, as 30d or 12h".into()),
    };
    let number = text.get(..text.len() - 1).and_then(|number| number.parse::<u64>().ok());
    let seconds = number.filter(|number| (1..=36_500).contains(number)).map(|number| number * unit);
    seconds.map(Duration::from_secs).ok_or_else(|| "must be a number of days or hours, as 30d or 12h".into())
}

pub(super) fn run(flags: &Flags) -> Result<()> {
    if let Some(text) = &flags.show {
        println!("{}", read(text)?.describe(now()));
        return Ok(());
    }
    let state = flags.state.folder();
    let charter = read_charter(&state.join(folder::CHARTER)).context("an invite needs the network's charter")?;
    let own = folder::read_identity(&state.join(folder::IDENTITY))?;
    let config = NodeConfig::read(&state)?;
    let invite = Invite {
        membership: membership(flags, &charter, &own)?,
        addresses: addresses(flags, &state, &config, &own.id())?,
        psk: if flags.with_psk { Some(psk(&config)?) } else { None },
        charter,
    };
    let text = invite.encode()? + "\n";
    match &flags.out {
        None => print!("{text}"),
        Some(path) => write_atomically(path, text.as_bytes(), flags.with_psk)?,
    }
    Ok(())
}

/// An invite from a text, or from the file of that name.
pub(super) fn read(text: &str) -> Result<Invite> {
    let path = Path::new(text);
    if !path.is_file() {
        return Ok(Invite::decode(text)?);
    }
    let size = fs::metadata(path).with_context(|| format!("cannot read {text}"))?.len();
    if size > TEXT_BYTES_MAX as u64 {
        bail!("{text} has {size} bytes, more than an invite has");
    }
    let read = fs::read_to_string(path).with_context(|| format!("cannot read {text}"))?;
    Invite::decode(&read).with_context(|| format!("in {text}"))
}

/// Seconds since 1970 (UTC).
pub(super) fn now() -> u64 {
    unix_ms() / 1_000
}

/// The key of an admin: in a file, or the node's own.
pub(super) fn admin(file: Option<&Path>, charter: &Charter, own: &Identity) -> Result<Identity> {
    let admin = file.map_or_else(|| Ok(own.clone()), folder::read_identity)?;
    if !charter.admission.admins().contains(&admin.id()) {
        bail!(
            "{} is no admin of the network; give the key file of one by --admin (the charter's admins are: {})",
            admin.id(),
            charter.admission.admins().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(admin)
}

/// What the guest needs beside the charter.
fn membership(flags: &Flags, charter: &Charter, own: &Identity) -> Result<Option<Membership>> {
    let named = |key: &NodeId| charter.founders.iter().chain(&charter.members).any(|member| member == key);
    match (&charter.admission, &flags.guest) {
        (_, Some(guest)) if named(guest) => Ok(None),
        (Admission::Allowlist, Some(guest)) => bail!(
            "{guest} is neither among the founders nor among the members in the charter, and this network takes nobody \
             else; it needs a charter with `admission = {{ kind = \"invited\", .. }}`, which is another network"
        ),
        (Admission::Allowlist | Admission::Open, _) => Ok(None),
        (Admission::Invited { .. }, None) => bail!(
            "--for is missing: this network takes only whom an admin invites; run `heterotune init` on the new node and \
             give the key that it prints"
        ),
        (Admission::Invited { .. }, Some(guest)) => {
            let admin = admin(flags.admin.as_deref(), charter, own)?;
            let expires = now() + flags.expires.as_secs();
            Ok(Some(Membership::sign(&admin, &charter.id()?, *guest, expires)?))
        }
    }
}

/// Where the network can be found: as the user says; otherwise where this node is reached from outside, or listens.
fn addresses(flags: &Flags, state: &Path, config: &NodeConfig, own: &NodeId) -> Result<Vec<Multiaddr>> {
    let mut known = flags.addresses.clone();
    if known.is_empty() {
        known = config.external.clone().unwrap_or_default();
        let told = Status::read(state)?.map(|(status, _)| status);
        known.extend(told.into_iter().flat_map(|status| [status.external, status.listening].concat()));
        if known.is_empty() {
            known = config.listen.iter().flatten().flat_map(|address| specified(address, &interfaces())).collect();
        }
        if known.iter().any(|address| !is_loopback(address)) {
            known.retain(|address| !is_loopback(address));
        } else if !known.is_empty() {
            eprintln!("the invite's addresses are on the loopback: it works on this machine only; see --address");
        }
        if let Some(peer) = peer_id(own) {
            known = known.into_iter().filter_map(|address| address.with_p2p(peer).ok()).collect();
        }
    }
    let mut seen = BTreeSet::new();
    known.retain(|address| seen.insert(address.clone()));
    known.truncate(ADDRESSES_MAX);
    if known.is_empty() {
        bail!("this node has no address yet; start it, or give one by --address, as /ip4/203.0.113.7/tcp/4001");
    }
    Ok(known)
}

/// The addresses of this machine.
fn interfaces() -> Vec<std::net::IpAddr> {
    let networks = sysinfo::Networks::new_with_refreshed_list();
    networks.values().flat_map(|network| network.ip_networks().iter().map(|network| network.addr)).collect()
}

/// An address to listen on, as others can dial it: for `0.0.0.0` one of each interface, for port 0 none.
fn specified(address: &Multiaddr, interfaces: &[std::net::IpAddr]) -> Vec<Multiaddr> {
    if address.iter().any(|protocol| matches!(protocol, Protocol::Tcp(0) | Protocol::Udp(0))) {
        return Vec::new();
    }
    let of = |wanted: fn(&std::net::IpAddr) -> bool| {
        let rest: Vec<_> = address.iter().skip(1).collect();
        let with = |ip: &std::net::IpAddr| {
            rest.iter().cloned().fold(Multiaddr::from(*ip), |address, protocol| address.with(protocol))
        };
        interfaces.iter().filter(|ip| wanted(ip)).map(with).collect()
    };
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => of(std::net::IpAddr::is_ipv4),
        // Link-local addresses mean nothing on other hosts.
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => {
            of(|ip| matches!(ip, std::net::IpAddr::V6(ip) if !ip.is_unicast_link_local()))
        }
        _ => vec![address.clone()],
    }
}

fn psk(config: &NodeConfig) -> Result<Vec<u8>> {
    let path = config.psk.as_ref().context("--with-psk: this node has no pre-shared key (`psk` in its node.toml)")?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > PSK_BYTES_MAX {
        bail!("{} has {} bytes, more than a pre-shared key", path.display(), bytes.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_or_hours() {
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(duration("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for bad in ["", "d", "0d", "30", "-1d", "30m", "99999999999999999999d", "1.5d", "3€"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_others_can_dial() {
        let specified = |text: &str| -> Vec<String> {
            let interfaces = ["10.0.0.1", "127.0.0.1", "fe80::1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
            super::specified(&text.parse().unwrap(), &interfaces).iter().map(ToString::to_string).collect()
        };
        assert_eq!(specified("/ip4/0.0.0.0/tcp/4001"), ["/ip4/10.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]);
        assert_eq!(specified("/ip6/::/udp/4001/quic-v1"), ["/ip6/2001:db8::1/udp/4001/quic-v1"]);
        assert_eq!(specified("/ip4/192.0.2.1/tcp/4001"), ["/ip4/192.0.2.1/tcp/4001"]);
        assert!(specified("/ip4/0.0.0.0/tcp/0").is_empty() && specified("/ip4/0.0.0.0/udp/0/quic-v1").is_empty());
    }
}
