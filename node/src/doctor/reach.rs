//! This node's ports, and each bootstrap address: its name, TCP and QUIC, one after the other, so that it is clear what
//! is missing.

use super::{Finding, Patient, Severity};
use futures::future::join_all;
use libp2p::{
    Multiaddr, Transport as _,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
    multiaddr::Protocol,
    quic,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::timeout};

/// The checks by which a bootstrap address is reached.
pub(super) const CHECKS: [&str; 4] = ["dns", "tcp", "quic", "bootstrap"];

/// How long an address has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host, a port, and whether QUIC is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    quic: bool,
}

/// Where an address is, if it is one of TCP or QUIC.
fn place(address: &Multiaddr) -> Option<Place> {
    let mut protocols = address.iter();
    let host = match protocols.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match (protocols.next()?, protocols.next()) {
        (Protocol::Tcp(port), _) => Some(Place { host, port, quic: false }),
        (Protocol::Udp(port), Some(Protocol::QuicV1)) => Some(Place { host, port, quic: true }),
        _ => None,
    }
}

/// Whether the ports to listen on are free, or taken by this very node.
pub(super) fn ports(patient: &Patient) -> Vec<Finding> {
    let port = |address: &Multiaddr| {
        let Some(place) = place(address) else {
            let mend = "write /ip4/0.0.0.0/tcp/PORT or /ip4/0.0.0.0/udp/PORT/quic-v1 (or /ip6/..)";
            return Finding::error("port", format!("{address} is nothing to listen on"), mend);
        };
        let bound = place.host.parse::<IpAddr>().map_err(io::Error::other).and_then(|ip| {
            let socket = SocketAddr::new(ip, place.port);
            if place.quic { UdpSocket::bind(socket).map(drop) } else { TcpListener::bind(socket).map(drop) }
        });
        match (bound, &patient.running) {
            (_, Some(_)) => Finding::ok("port", format!("{address}: this node runs")),
            (Ok(()), None) if place.port == 0 => {
                let mend = "set a port: with a new one at every start, invites and firewall rules are soon wrong";
                Finding::warning("port", format!("{address}: any port that is free"), mend)
            }
            (Ok(()), None) => Finding::ok("port", format!("{address} is free")),
            (Err(error), None) => {
                let cause = format!("{address} cannot be listened on: {error}");
                Finding::error("port", cause, "stop what uses it, or choose another --listen (`listen` in node.toml)")
            }
        }
    };
    match &patient.config.listen {
        Some(listen) => listen.iter().map(port).collect(),
        None => vec![Finding::ok("port", "any that is free, another at each start; `listen` in node.toml sets one")],
    }
}

/// "TCP and UDP port 4001", as owners of routers say it.
pub(super) fn port_names(listen: &[Multiaddr]) -> String {
    let mut ports = BTreeMap::<u16, BTreeSet<&str>>::new();
    let own = listen.iter().filter(|address| !address.iter().any(|part| part == Protocol::P2pCircuit));
    for place in own.filter_map(place) {
        ports.entry(place.port).or_default().insert(if place.quic { "UDP" } else { "TCP" });
    }
    let name = |(port, protocols): (u16, BTreeSet<&str>)| {
        format!("{} port {port}", protocols.into_iter().collect::<Vec<_>>().join(" and "))
    };
    let names: Vec<_> = ports.into_iter().map(name).collect();
    if names.is_empty() { "the port that it listens on".into() } else { names.join(", ") }
}

/// Dials each bootstrap address, all at the same time.
pub(super) async fn bootstrap(patient: &Patient) -> Vec<Finding> {
    let addresses = patient.config.bootstrap.clone().unwrap_or_default();
    if addresses.is_empty() {
        let founders = patient.charter.as_ref().map_or(0, |charter| charter.founders.len() + charter.members.len());
        let cause = "no address of a peer is known: this node waits to be called";
        return match founders {
            0 | 1 => vec![Finding::ok("bootstrap", cause)],
            _ => vec![Finding::warning(
                "bootstrap",
                cause,
                "--peer ADDR, or `bootstrap` in node.toml; an invite brings it",
            )],
        };
    }
    let mut findings = join_all(addresses.iter().map(dial)).await.concat();
    // One that answers is enough.
    if !is_unreachable(&findings) {
        for finding in findings.iter_mut().filter(|finding| finding.severity == Severity::Error) {
            finding.severity = Severity::Warning;
        }
    }
    findings
}

/// Whether addresses were dialled and none of them answered.
pub(super) fn is_unreachable(findings: &[Finding]) -> bool {
    let answered = |finding: &Finding| ["tcp", "quic"].contains(&finding.check) && finding.severity == Severity::Ok;
    findings.iter().any(|finding| finding.severity == Severity::Error) && !findings.iter().any(answered)
}

const BY_HAND: &str = "correct `bootstrap` in node.toml (or --peer)";

async fn dial(address: &Multiaddr) -> Vec<Finding> {
    let Some(place) = place(address) else {
        return vec![Finding::skipped("bootstrap", format!("{address} is looked up when the node dials it"))];
    };
    let Place { host, port, quic } = place;
    let named = host.parse::<IpAddr>().is_err();
    let lookup = (host.clone(), port);
    let resolved = match timeout(PATIENCE, spawn_blocking(move || lookup.to_socket_addrs())).await {
        Ok(Ok(Ok(mut sockets))) => sockets.next().ok_or_else(|| "no address of that name".to_string()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        _ => Err("no answer".into()),
    };
    let socket = match resolved {
        Ok(socket) => socket,
        Err(why) => {
            let cause = format!("{address}: the name {host} does not resolve ({why})");
            return vec![Finding::error("dns", cause, format!("check the name and this host's DNS, or {BY_HAND}"))];
        }
    };
    let mut findings: Vec<_> =
        named.then(|| Finding::ok("dns", format!("{host} is {}", socket.ip()))).into_iter().collect();
    let (check, answer) = if quic { ("quic", over_quic(socket).await) } else { ("tcp", over_tcp(socket).await) };
    findings.push(match answer {
        Ok(()) => Finding::ok(check, format!("{address} answers")),
        Err(why) => Finding::error(
            check,
            format!("{address} does not answer: {why}"),
            format!(
                "is the node there running, and port {port} open in its firewall ({})? Otherwise {BY_HAND}",
                if quic { "UDP" } else { "TCP" }
            ),
        ),
    });
    findings
}

async fn over_tcp(socket: SocketAddr) -> Result<(), String> {
    let connected = spawn_blocking(move || TcpStream::connect_timeout(&socket, PATIENCE)).await;
    connected.map_err(|error| error.to_string())?.map(drop).map_err(|error| error.to_string())
}

/// A QUIC handshake, with a key of the moment: who is let in is another question.
async fn over_quic(socket: SocketAddr) -> Result<(), String> {
    let address = Multiaddr::from(socket.ip()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1);
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dialled = transport.dial(address, how).map_err(|error| error.to_string())?;
    match timeout(PATIENCE, dialled).await {
        Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let place = |text: &str| super::place(&text.parse().unwrap());
        let dns = Place { host: "example.org".into(), port: 4001, quic: false };
        assert_eq!(
            place("/dns4/example.org/tcp/4001/p2p/12D3KooWGatU9YvZz9XfZ8Jp9JqM1gU5r7kxvY5mEXpkX5H9k5bQ"),
            Some(dns)
        );
        assert_eq!(place("/ip6/::1/udp/1/quic-v1"), Some(Place { host: "::1".into(), port: 1, quic: true }));
        assert_eq!(place("/ip4/10.0.0.1/udp/1"), None);
        assert_eq!(place("/dnsaddr/example.org"), None);
    }

    #[test]
    fn ports_are_named_as_a_router_s_owner_does() {
        let names = |texts: &[&str]| port_names(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(names(&["/ip4/0.0.0.0/udp/1/quic-v1", "/ip4/0.0.0.0/tcp/1"]), "TCP and UDP port 1");
        assert_eq!(names(&["/ip4/0.0.0.0/tcp/2", "/ip6/::/tcp/1"]), "TCP port 1, TCP port 2");
        let circuit = "/ip4/10.0.0.1/tcp/1/p2p/12D3KooWGatU9YvZz9XfZ8Jp9JqM1gU5r7kxvY5mEXpkX5H9k5bQ/p2p-circuit";
        assert_eq!(names(&[circuit]), "the port that it listens on");
    }

    #[tokio::test]
    async fn one_that_answers_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            format!("/ip4/127.0.0.1/tcp/{gone}").parse::<Multiaddr>().unwrap()
        };
        let silent: Multiaddr = "/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap();
        let patient = |bootstrap: Vec<Multiaddr>| {
            let config = crate::config::NodeConfig { bootstrap: Some(bootstrap), ..Default::default() };
            Patient::new(std::path::Path::new("nowhere"), config)
        };
        let found = bootstrap(&patient(vec![open, closed.clone()])).await;
        let severities: Vec<_> = found.iter().map(|finding| (finding.check, finding.severity)).collect();
        assert_eq!(severities, [("tcp", Severity::Ok), ("tcp", Severity::Warning)]);
        let found = bootstrap(&patient(vec![closed, silent])).await;
        assert!(is_unreachable(&found) && found.iter().all(|finding| finding.severity == Severity::Error), "{found:?}");
        assert!(!is_unreachable(&bootstrap(&patient(vec![])).await));
    }
}
