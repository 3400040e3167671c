//! A router that forwards ports to whoever asks it (UPnP), and a node that asks.

use crate::common::{hosts::Hosts, lab::Lab, process::has};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

/// Where routers are asked for (UPnP Device Architecture 1.1, 1.3.2).
const SEARCHED_AT: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);

/// What the router is called by outside. Nothing is sent there.
const OUTSIDE: &str = "11.22.33.44";

/// Longer than a node takes to ask.
const PATIENCE: Duration = Duration::from_secs(60);

const DEVICE: &str = "<root><device><serviceList><service>\
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
    <SCPDURL>/service</SCPDURL><controlURL>/control</controlURL>\
    </service></serviceList></device></root>";

/// What a mapping takes (WANIPConnection:1, 2.4.16).
const ARGUMENTS: [&str; 8] = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
];

fn service() -> String {
    let argument = |name| format!("<argument><name>{name}</name><direction>in</direction></argument>");
    let arguments: String = ARGUMENTS.iter().map(argument).collect();
    let action = format!("<action><name>AddPortMapping</name><argumentList>{arguments}</argumentList></action>");
    format!("<scpd><actionList>{action}</actionList></scpd>")
}

/// A SOAP answer to an action.
fn done(action: &str, result: &str) -> String {
    let body = format!("<u:{action}Response xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">{result}");
    format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{body}</u:{action}Response>\
         </s:Body></s:Envelope>"
    )
}

/// Starts a router at an address of the test's; what it hands out are the mappings that it is asked for.
fn router(address: Ipv4Addr) -> Receiver<String> {
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SEARCHED_AT.1)).unwrap();
    asked.join_multicast_v4(&SEARCHED_AT.0, &address).unwrap();
    let pages = TcpListener::bind((address, 0)).unwrap();
    let location = format!("http://{}/device", pages.local_addr().unwrap());
    thread::spawn(move || {
        let mut question = [0; 1_024];
        while let Ok((bytes, from)) = asked.recv_from(&mut question) {
            if question[..bytes].starts_with(b"M-SEARCH") {
                let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
                asked.send_to(answer.as_bytes(), from).unwrap();
            }
        }
    });
    let (tell, mappings) = channel();
    thread::spawn(move || pages.incoming().for_each(|caller| serve(caller.unwrap(), &tell)));
    mappings
}

/// Answers one HTTP request.
fn serve(mut caller: TcpStream, mappings: &Sender<String>) {
    let mut lines = BufReader::new(caller.try_clone().unwrap());
    let (mut head, mut line) = (String::new(), String::new());
    while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
        head += &line.to_lowercase();
        line.clear();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    lines.read_exact(&mut body).unwrap();
    let page = match head.split(' ').nth(1) {
        Some("/device") => DEVICE.into(),
        Some("/service") => service(),
        _ if head.contains("getexternalipaddress") => {
            done("GetExternalIPAddress", &format!("<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>"))
        }
        _ => {
            let _ = mappings.send(String::from_utf8(body).unwrap());
            done("AddPortMapping", "")
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
    // Who asked may have gone.
    let _ = caller.write_all((head + &page).as_bytes());
}

#[test]
fn a_node_has_its_router_forward_its_port() {
    let Some(lab) = Lab::or_skip(21, 1, &[]) else { return };
    let mappings = router(lab.own_address());
    let home = tempfile::tempdir().unwrap();
    let mut hosts = Hosts::new(lab, home.path(), 1, |_| {});
    hosts.start(0, &[], &["--no-mdns"]);
    let mapping = mappings.recv_timeout(PATIENCE).unwrap();
    for (argument, value) in [
        ("NewExternalPort", "4001"),
        ("NewInternalPort", "4001"),
        ("NewProtocol", "TCP"),
        ("NewInternalClient", &hosts.lab.address(0)),
    ] {
        assert!(mapping.contains(&format!("<{argument}>{value}</{argument}>")), "{argument} {value}: {mapping}");
    }
    let outside = format!("/ip4/{OUTSIDE}/tcp/4001");
    let node = hosts.nodes.get_mut(&0).unwrap();
    let is_outside = |event: &serde_json::Value| event["address"].as_str().is_some_and(|at| at.starts_with(&outside));
    node.wait_for("word of its address outside", |event| has(event, "reachable", None) && is_outside(event));
}
