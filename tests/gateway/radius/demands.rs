//! A server's requests about connected peers.

mod radclient;

use super::{
    Books, SECOND, SECRET, SERVER, accounted_by, gateway_with, send, terminal, terminal_at, with_keys,
};
use md5::{Digest, Md5};
use std::{
    cell::Cell,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU8, Ordering},
};
use wayfarer::{
    config::model::{Coa, CoaClient, Ike},
    sim::{
        fixtures::{INSIDE, OUTSIDE, ip},
        frames::datagram,
        ike::peer::Peer,
        terminal::Terminal,
        world::World,
    },
};
use wayfarer_mobility::{aaa::grant::Grant, crypto::Secret, ike::connection::SharedKey};

/// Codes of requests; ACK and NAK follow each.
const DISCONNECT: u8 = 40;
const CHANGE: u8 = 43;
const USER: (u8, &[u8]) = (1, b"alice");

/// The identifier of the next request, by which it differs from earlier ones.
static NEXT_ID: AtomicU8 = AtomicU8::new(0);

/// Makes a gateway that takes requests of the server, and returns where.
fn gateway(ike: Ike) -> (World, SocketAddr) {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let client = CoaClient { address: SERVER, secret: SharedKey(Secret::new(SECRET.to_vec())) };
    let coa = Coa { listen, clients: vec![client], needs_time: false };
    (gateway_with(Ike { coa: Some(coa), ..ike }), listen)
}

fn alice() -> Grant {
    Grant { user_name: b"alice".to_vec(), ..Grant::default() }
}

/// Sends a request with these attributes to the gateway, and returns the code and the Error-Cause
/// of the answer; `None` if there is none.
fn demand(world: &mut World, to: SocketAddr, code: u8, fields: &[(u8, &[u8])]) -> Option<(u8, Option<u32>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let list: Vec<u8> =
        fields.iter().flat_map(|(kind, value)| [&[*kind, value.len() as u8 + 2], *value].concat()).collect();
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let head = [code, id, 0, 20 + list.len() as u8];
    let authenticator = Md5::digest([&head[..], &[0; 16], &list, SECRET].concat());
    socket.send_to(&[&head[..], &authenticator, &list].concat(), to).unwrap();
    world.pass(SECOND);
    let mut answer = [0; 4096];
    let len = socket.recv(&mut answer).ok()?;
    let expected = Md5::digest([&answer[..4], &authenticator, &answer[20..len], SECRET].concat());
    assert_eq!(answer[4..20], expected[..]);
    // The Message-Authenticator comes first.
    let cause = answer[38..len].strip_prefix(&[101, 6]);
    Some((answer[0], cause.map(|cause| u32::from_be_bytes(cause.try_into().unwrap()))))
}

#[test]
fn a_server_changes_and_disconnects_a_peer() {
    let mut books = Books::open();
    let (mut world, port) = gateway(accounted_by(&books, alice()));
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let id = books.records.last().unwrap().text(44);
    let inner = (8, &[10, 97, 0, 1][..]);
    let mut ask = |code, fields: &[(u8, &[u8])]| demand(&mut world, port, code, fields);
    assert_eq!(ask(DISCONNECT, &[(1, b"bob")]), Some((42, Some(503))), "nobody is connected by that name");
    assert_eq!(ask(DISCONNECT, &[USER, (8, &[10, 97, 0, 2])]), Some((42, Some(503))), "all must fit");
    assert_eq!(ask(DISCONNECT, &[USER, (32, b"elsewhere")]), Some((42, Some(403))));
    assert_eq!(ask(DISCONNECT, &[]), Some((42, Some(402))));
    assert_eq!(ask(CHANGE, &[USER, (11, b"unknown")]), Some((45, Some(407))));
    assert_eq!(ask(CHANGE, &[USER, (88, b"pool")]), Some((45, Some(401))));
    assert_eq!(ask(CHANGE, &[USER, inner, (27, &[0, 0, 1, 0]), (11, b"terminals")]), Some((44, None)));
    send(&mut world, &peer, 1);
    let fields = [USER, inner, (44, id.as_bytes()), (32, b"wayfarer"), (4, &[203, 0, 113, 1])];
    assert_eq!(demand(&mut world, port, DISCONNECT, &fields), Some((41, None)));
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    books.pass(&mut world, SECOND);
    let stop = books.records.last().unwrap();
    assert_eq!((stop.number(40), stop.number(49)), (2, 6), "ended by an administrator");
}

#[test]
fn a_server_has_no_say_about_peers_of_other_servers() {
    let books = Books::open();
    let mut ike = accounted_by(&books, alice());
    ike.connections[0].servers = vec![[10, 0, 0, 5].into()];
    let (mut world, port) = gateway(ike);
    let mut peer = terminal();
    peer.connect(&mut world);
    assert_eq!(demand(&mut world, port, DISCONNECT, &[USER]), Some((42, Some(503))));
    assert_eq!(demand(&mut world, port, CHANGE, &[USER, (27, &[0, 0, 1, 0])]), Some((45, Some(503))));
    send(&mut world, &peer, 1);
}

/// Carries the messages of the exchanges under way.
fn settle(world: &mut World, peer: &mut Peer) {
    let rounds = Cell::new(0);
    peer.until(world, |_| rounds.replace(rounds.get() + 1) == 16);
}

#[test]
fn a_peer_that_moved_is_known_by_the_addresses_that_the_server_was_told() {
    let mut books = Books::open();
    let (mut world, port) = gateway(accounted_by(&books, alice()));
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let here = peer.side.connected_peers()[0];
    peer.side.endpoint.handle_local(world.now, here, ip("192.0.2.77"), None).unwrap();
    settle(&mut world, &mut peer);
    // Asks about the peer at this address, and waits for another interim record.
    let mut ask = |books: &mut Books, address: &str| {
        let fields = [USER, (31, address.as_bytes()), (27, &[0, 0, 16, 0])];
        let answer = demand(&mut world, port, CHANGE, &fields);
        for _ in 0..6 {
            books.pass(&mut world, 10 * SECOND);
            settle(&mut world, &mut peer);
        }
        answer.unwrap().0 == 44
    };
    assert!(!ask(&mut books, "192.0.2.77"), "the server does not know it yet");
    let interim = books.records.last().unwrap();
    assert_eq!((interim.number(40), interim.text(31)), (3, "192.0.2.77".into()));
    assert!(ask(&mut books, "192.0.2.77") && ask(&mut books, "192.0.2.1"));
    assert!(!ask(&mut books, "192.0.2.78"));
}

/// Two connections: the first has child SAs for both halves of the inside, the second for all of it.
const HALVES: &str = r#"
pool = "terminals"
esp = ["aes256gcm16"]
unique = false
[[connection.child]]
name = "lower"
inner_local = "10.99.0.0/25"
[[connection.child]]
name = "upper"
inner_local = "10.99.0.128/25"
[[connection]]
name = "guests"
local = "203.0.113.1"
local_id = "guests.test"
remote_id = "*.test"
auth = "psk"
psk_file = "$PSK"
unique = false
pool = "terminals"
esp = ["aes256gcm16"]
inner_local = "10.99.0.0/24"
"#;

/// Returns true if a packet by this tunnel reaches a host inside.
fn reaches(world: &mut World, tunnel: &mut Terminal, peer: &Peer, host: &str) -> bool {
    let sealed = tunnel.seal(&datagram(&peer.inner().to_string(), host, (1, 2), b"up"));
    world.take(INSIDE);
    world.send(OUTSIDE, &sealed);
    !world.take(INSIDE).is_empty()
}

#[test]
fn a_change_of_filters_lets_other_packets_pass_and_stops_those_of_before() {
    let books = Books::open();
    let (mut world, port) = gateway(with_keys(&books, alice(), HALVES));
    let mut peer = terminal();
    peer.connect(&mut world);
    let mut tunnel = peer.tunnel();
    assert!(reaches(&mut world, &mut tunnel, &peer, "10.99.0.7"));
    assert!(!reaches(&mut world, &mut tunnel, &peer, "10.99.0.200"));
    assert_eq!(demand(&mut world, port, CHANGE, &[USER, (11, b"upper")]), Some((44, None)));
    assert!(!reaches(&mut world, &mut tunnel, &peer, "10.99.0.7"), "at once, whatever the terminal does");
    // The terminal asks for all of it again, and gets what is left.
    for _ in 0..10 {
        world.pass(SECOND);
        peer.side.endpoint.handle_timeout(world.now);
        settle(&mut world, &mut peer);
    }
    let mut tunnel = peer.tunnel();
    assert!(!reaches(&mut world, &mut tunnel, &peer, "10.99.0.7"));
    assert!(reaches(&mut world, &mut tunnel, &peer, "10.99.0.200"));
}

#[test]
fn a_request_about_several_peers_changes_all_of_them_or_none() {
    let books = Books::open();
    let (mut world, port) = gateway(with_keys(&books, alice(), HALVES));
    let gateways = [("192.0.2.1", "gw.test"), ("192.0.2.2", "gw.test"), ("192.0.2.3", "guests.test")];
    let mut peers = gateways.map(|(address, remote_id)| {
        let mut peer = terminal_at(address, remote_id);
        peer.may_end = true;
        peer.connect(&mut world);
        let tunnel = peer.tunnel();
        (peer, tunnel)
    });
    let mut reached =
        |world: &mut World| peers.each_mut().map(|(peer, tunnel)| reaches(world, tunnel, peer, "10.99.0.7"));
    assert_eq!(reached(&mut world), [true; 3]);
    let upper = (11, &b"upper"[..]);
    let answer = demand(&mut world, port, CHANGE, &[USER, upper]);
    assert_eq!(answer, Some((45, Some(407))), "guests have no such child SA");
    assert_eq!(reached(&mut world), [true; 3], "so nobody changes");
    let answer = demand(&mut world, port, CHANGE, &[USER, upper, (87, b"terminals")]);
    assert_eq!(answer, Some((44, None)));
    assert_eq!(reached(&mut world), [false, false, true]);
    assert_eq!(demand(&mut world, port, DISCONNECT, &[USER]), Some((41, None)));
    assert_eq!(reached(&mut world), [false; 3]);
}
