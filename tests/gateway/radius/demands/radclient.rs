//! Requests that FreeRADIUS's radclient makes, and whose answers it checks. Needs the Debian package
//! freeradius-utils.

use super::{HALVES, alice, gateway, reaches};
use crate::radius::{Books, SECOND, SECRET, accounted_by, send, terminal, with_keys};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};
use wayfarer::sim::world::World;

/// What makes radclient add a Message-Authenticator, or not.
const PROOFS: [&str; 2] = ["", "Message-Authenticator = 0x00\n"];
const ALICE: &str = "User-Name = \"alice\"\n";

/// Has radclient send a request with these attributes to the gateway, and returns what it says about
/// the answer, for which it waits so many seconds.
fn radclient(
    world: &mut World,
    to: SocketAddr,
    [command, secret, seconds]: [&str; 3],
    attributes: &str,
) -> String {
    let mut child = Command::new("stdbuf")
        .args(["-oL", "radclient", "-x", "-r", "1", "-t", seconds, &to.to_string(), command, secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("coreutils are installed");
    child.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    // Then the request is at the gateway's socket.
    while !said.contains("Sent ") {
        let len = output.read_line(&mut said).unwrap();
        assert!(len > 0, "radclient sends nothing");
    }
    world.pass(SECOND);
    said.clear();
    output.read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said
}

/// Has radclient send a request, and returns the kind and Error-Cause of the answer.
///
/// # Panics
/// If there is none with the right authenticators.
fn ask(world: &mut World, to: SocketAddr, command: &str, attributes: &str) -> String {
    let said = radclient(world, to, [command, str::from_utf8(SECRET).unwrap(), "20"], attributes);
    let word_after = |text| said.lines().find_map(|line| line.trim().strip_prefix(text)?.split(' ').next());
    let kind = word_after("Received ").unwrap_or_else(|| panic!("no good answer: {said}"));
    word_after("Error-Cause = ").map_or_else(|| kind.to_owned(), |cause| format!("{kind} {cause}"))
}

#[test]
fn radclient_changes_and_disconnects_a_peer() {
    for proof in PROOFS {
        let mut books = Books::open();
        let (mut world, port) = gateway(accounted_by(&books, alice()));
        let mut peer = terminal();
        peer.may_end = true;
        peer.connect(&mut world);
        books.pass(&mut world, SECOND);
        let session = format!("{proof}Acct-Session-Id = \"{}\"\n", books.records.last().unwrap().text(44));
        let mut ask = |command, more| ask(&mut world, port, command, &format!("{session}{more}"));
        assert_eq!(ask("coa", "Session-Timeout = 600\nFilter-Id = \"terminals\"\n"), "CoA-ACK");
        let names = "NAS-Identifier = \"wayfarer\"\nNAS-IP-Address = 203.0.113.1\nUser-Name = \"alice\"\n\
                     Framed-IP-Address = 10.97.0.1\nCalling-Station-Id = \"192.0.2.1\"\n";
        assert_eq!(ask("disconnect", names), "Disconnect-ACK");
        peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
        books.pass(&mut world, SECOND);
        let stop = books.records.last().unwrap();
        assert_eq!((stop.number(40), stop.number(49)), (2, 6), "ended by an administrator");
    }
}

#[test]
fn radclient_changes_what_a_peer_reaches_and_for_how_long() {
    let books = Books::open();
    let (mut world, port) = gateway(with_keys(&books, alice(), HALVES));
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    let mut tunnel = peer.tunnel();
    let mut is_open = |world: &mut World| reaches(world, &mut tunnel, &peer, "10.99.0.7");
    let ask = |world: &mut World, more| ask(world, port, "coa", &format!("{ALICE}{more}"));
    let change = "Filter-Id = \"lower\"\nFilter-Id = \"upper\"\nSession-Timeout = 10\n";
    assert_eq!(ask(&mut world, change), "CoA-ACK");
    world.pass(8 * SECOND);
    assert!(is_open(&mut world));
    assert_eq!(ask(&mut world, "Session-Timeout = 10\n"), "CoA-ACK", "from now on");
    world.pass(8 * SECOND);
    assert!(is_open(&mut world));
    world.pass(2 * SECOND);
    assert!(!is_open(&mut world));
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());

    let mut peer = terminal();
    peer.connect(&mut world);
    let mut tunnel = peer.tunnel();
    assert!(reaches(&mut world, &mut tunnel, &peer, "10.99.0.7"));
    assert_eq!(ask(&mut world, "Filter-Id = \"upper\"\n"), "CoA-ACK");
    assert!(!reaches(&mut world, &mut tunnel, &peer, "10.99.0.7"));
}

#[test]
fn radclient_is_told_why_nothing_changes() {
    let books = Books::open();
    let (mut world, port) = gateway(accounted_by(&books, alice()));
    let mut peer = terminal();
    peer.connect(&mut world);
    let unknown = "Acct-Session-Id = \"0-0\"\n";
    for (command, attributes, cause) in [
        ("disconnect", unknown.to_owned(), "Session-Context-Not-Found"),
        ("disconnect", format!("{ALICE}{unknown}"), "Session-Context-Not-Found"),
        ("disconnect", format!("{ALICE}NAS-Identifier = \"other\"\n"), "NAS-Identification-Mismatch"),
        ("disconnect", "NAS-Identifier = \"wayfarer\"\n".to_owned(), "Missing-Attribute"),
        ("coa", format!("{unknown}Session-Timeout = 60\n"), "Session-Context-Not-Found"),
        ("coa", format!("{ALICE}Filter-Id = \"other\"\n"), "Invalid-Attribute-Value"),
        ("coa", format!("{ALICE}Framed-Pool = \"other\"\n"), "Unsupported-Attribute"),
        ("coa", format!("{ALICE}Service-Type = Authorize-Only\n"), "Unsupported-Service"),
    ] {
        let kind = if command == "coa" { "CoA-NAK" } else { "Disconnect-NAK" };
        for proof in PROOFS {
            let answer = ask(&mut world, port, command, &format!("{proof}{attributes}"));
            assert_eq!(answer, format!("{kind} {cause}"), "{attributes}");
        }
    }
    send(&mut world, &peer, 1);
}

#[test]
fn radclient_is_not_heard_with_a_wrong_secret_or_clock() {
    let books = Books::open();
    let (mut world, port) = gateway(accounted_by(&books, alice()));
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |seconds: u64| format!("{ALICE}Event-Timestamp = {seconds}\n");
    let own = str::from_utf8(SECRET).unwrap();
    for (secret, attributes) in [("other", at(now)), (own, at(now - 400)), (own, at(now + 400))] {
        for proof in PROOFS {
            let said =
                radclient(&mut world, port, ["disconnect", secret, "0.3"], &format!("{proof}{attributes}"));
            assert!(said.contains("No reply from server"), "{said}");
        }
    }
    send(&mut world, &peer, 1);
    assert_eq!(ask(&mut world, port, "disconnect", &at(now)), "Disconnect-ACK");
}
