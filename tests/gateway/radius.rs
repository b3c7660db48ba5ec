//! Peers that a RADIUS server has accepted: their accounts, and its later requests. The test is the server.

use md5::{Digest, Md5};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use wayfarer::{
    config::model::{Accounting, Coa, CoaClient, Ike},
    sim::{
        fixtures::{INSIDE, OUTSIDE, config},
        frames::datagram,
        ike::{
            configured::{for_terminals, ike},
            peer::Peer,
        },
        world::World,
    },
};
use wayfarer_mobility::{
    aaa::{
        eap::{Authenticator, Conversation, Step, packet::Packet},
        grant::Grant,
        origin::Origin,
        radius::question::{Realm, Server},
    },
    crypto::Secret,
    ike::connection::{LocalAuth, RemoteAuth, SharedKey},
};

const SECRET: &[u8] = b"xyzzy5461";
const SECOND: Duration = Duration::from_secs(1);

/// An EAP method of one packet, for both sides, whose server grants this.
#[derive(Clone, Debug)]
struct Granting(Grant);

impl Authenticator for Granting {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for Granting {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let key = Some(Secret::new(vec![7; 64]));
        match Packet::parse(packet) {
            None => Step::Send(Packet::identity_request(0).emit()),
            Some(Packet::Request(request)) => Step::Send(Packet::Response(request).emit()),
            Some(Packet::Response(_)) => Step::Success(Packet::Success(0).emit(), key),
            Some(Packet::Success(_)) => Step::Success(vec![], key),
            Some(Packet::Failure(_)) => Step::Failure(vec![]),
        }
    }

    fn identity(&self) -> Option<&[u8]> {
        Some(b"alice.test")
    }

    fn grant(&self) -> Option<&Grant> {
        Some(&self.0)
    }
}

/// A server for accounting, which confirms everything while it is up.
struct Books {
    socket: UdpSocket,
    is_up: bool,
    records: Vec<Fields>,
}

/// The attributes of a record.
struct Fields(Vec<(u8, Vec<u8>)>);

impl Fields {
    fn text(&self, kind: u8) -> String {
        let found = self.0.iter().find(|(k, _)| *k == kind);
        String::from_utf8(found.unwrap_or_else(|| panic!("attribute {kind}")).1.clone()).unwrap()
    }

    fn number(&self, kind: u8) -> u32 {
        let (_, value) =
            self.0.iter().find(|(k, _)| *k == kind).unwrap_or_else(|| panic!("attribute {kind}"));
        u32::from_be_bytes(value[..].try_into().unwrap())
    }
}

impl Books {
    fn open() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, is_up: true, records: vec![] }
    }

    fn accounting(&self) -> Accounting {
        let server = Server::new(self.socket.local_addr().unwrap(), Secret::new(SECRET.to_vec()));
        Accounting { realm: Arc::new(Realm::new(vec![server], "gateway")), interval: Some(60 * SECOND) }
    }

    /// Confirms what has come.
    fn serve(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            if self.is_up {
                self.confirm(&buffer[..len], from);
            }
        }
    }

    fn confirm(&mut self, packet: &[u8], from: SocketAddr) {
        let (start, zero) = (&packet[..4], [0; 16]);
        let expected = Md5::digest([start, &zero, &packet[20..], SECRET].concat());
        assert_eq!(packet[4..20], expected[..]);
        let head = [5, packet[1], 0, 20];
        let authenticator = Md5::digest([&head[..], &packet[4..20], SECRET].concat());
        self.socket.send_to(&[&head[..], &authenticator].concat(), from).unwrap();
        let (mut rest, mut fields) = (&packet[20..], vec![]);
        while let [kind, len, ..] = *rest {
            fields.push((kind, rest[2..usize::from(len)].to_vec()));
            rest = &rest[usize::from(len)..];
        }
        self.records.push(Fields(fields));
    }

    /// Lets the gateway and the server talk for some time.
    fn pass(&mut self, world: &mut World, time: Duration) {
        let end = world.now + time;
        while world.now < end {
            world.pass(SECOND.min(end - world.now));
            self.serve();
        }
        world.settle();
    }

    /// Returns the kinds of records that have come.
    fn kinds(&self) -> Vec<u32> {
        self.records.iter().map(|record| record.number(40)).collect()
    }
}

/// Makes a gateway whose RADIUS servers grant this, with these books.
fn gateway(books: &Books, grant: Grant) -> World {
    gateway_with(books, grant, None)
}

/// Makes such a gateway that also takes requests of servers.
fn gateway_with(books: &Books, grant: Grant, coa: Option<Coa>) -> World {
    let mut config = config(vec![]);
    config.ike = Ike { coa, ..accounted_by(books, grant) };
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Makes IKE's part of the configuration of a gateway whose RADIUS servers grant this, with these
/// books.
fn accounted_by(books: &Books, grant: Grant) -> Ike {
    let keys = "inner_local = [\"10.99.0.0/24\"]\npool = \"terminals\"\nesp = [\"aes256gcm16\"]";
    let mut ike = for_terminals("10.97.0.0/24", keys);
    ike.connections[0].protocol.remote_auth = RemoteAuth::Eap(Arc::new(Granting(grant)));
    ike.connections[0].accounting = Some(books.accounting());
    ike.connections[0].servers = vec![[127, 0, 0, 1].into()];
    ike
}

/// Makes a terminal that authenticates by EAP.
fn terminal() -> Peer {
    let text = r#"
[[connection]]
name = "office"
local = "192.0.2.1"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "gw.test"
request_address = true
inner_remote = ["10.99.0.0/24"]
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
"#;
    let mut ike: Ike = ike(text, "192.0.2.1");
    ike.connections[0].protocol.local_auth = LocalAuth::Eap(Arc::new(Granting(Grant::default())));
    Peer::with(ike, "192.0.2.1")
}

/// Sends some packets to the inside by the terminal's newest tunnel.
fn send(world: &mut World, peer: &Peer, packets: usize) {
    let (mut tunnel, inner) = (peer.tunnel(), peer.inner().to_string());
    for _ in 0..packets {
        let sealed = tunnel.seal(&datagram(&inner, "10.99.0.7", (1, 2), b"up"));
        world.send(OUTSIDE, &sealed);
        assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
    }
}

#[test]
fn a_peer_has_an_account_from_its_first_to_its_last_packet() {
    let mut books = Books::open();
    let class = vec![b"gold".to_vec()];
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), class, ..Grant::default() });
    books.pass(&mut world, SECOND);
    assert_eq!(books.kinds(), [7], "the gateway starts");
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let start = books.records.pop().unwrap();
    assert_eq!((start.number(40), start.text(1), start.text(25)), (1, "alice".into(), "gold".into()));
    assert_eq!((start.text(31), start.text(87)), ("192.0.2.1".into(), "terminals".into()));
    assert_eq!(start.number(8), u32::from_be_bytes([10, 97, 0, 1]));

    send(&mut world, &peer, 3);
    books.pass(&mut world, 60 * SECOND);
    let interim = books.records.pop().unwrap();
    assert_eq!((interim.number(40), interim.number(47), interim.text(44)), (3, 3, start.text(44)));
    assert!((60..70).contains(&interim.number(46)) && interim.number(42) > 60);

    // New keys do not begin at zero.
    let peers = peer.side.connected_peers();
    peer.side.endpoint.rekey(world.now, peers[0], false);
    peer.until(&mut world, |peer| peer.side.children().len() == 2);
    send(&mut world, &peer, 2);
    peer.side.endpoint.close(world.now, peers[0]);
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    books.pass(&mut world, SECOND);
    let stop = books.records.pop().unwrap();
    assert_eq!((stop.number(40), stop.number(47), stop.number(49)), (2, 5, 1), "closed by the user");
    assert_eq!((stop.text(44), stop.text(25)), (start.text(44), "gold".into()));
}

#[test]
fn a_silent_server_stops_nobody_and_hears_everything_later() {
    let mut books = Books::open();
    books.is_up = false;
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), ..Grant::default() });
    let mut peer = terminal();
    peer.connect(&mut world);
    send(&mut world, &peer, 3);
    books.pass(&mut world, 10 * SECOND);
    assert!(books.records.is_empty());
    books.is_up = true;
    books.pass(&mut world, 10 * SECOND);
    assert_eq!(books.kinds(), [7, 1]);
    assert!(books.records[1].number(41) >= 10, "and when it was");
}

/// Sends a request with these attributes to the gateway, and returns the code and the Error-Cause
/// of the answer; `None` if there is none.
fn demand(world: &mut World, to: SocketAddr, code: u8, fields: &[(u8, &[u8])]) -> Option<(u8, Option<u32>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let list: Vec<u8> =
        fields.iter().flat_map(|(kind, value)| [&[*kind, value.len() as u8 + 2], *value].concat()).collect();
    let head = [code, 7, 0, 20 + list.len() as u8];
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
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let client =
        CoaClient { address: [127, 0, 0, 1].into(), secret: SharedKey(Secret::new(SECRET.to_vec())) };
    let coa = Coa { listen: port, clients: vec![client] };
    let grant = Grant { user_name: b"alice".to_vec(), ..Grant::default() };
    let mut world = gateway_with(&books, grant, Some(coa));
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let id = books.records.last().unwrap().text(44);
    let (user, inner) = ((1, &b"alice"[..]), (8, &[10, 97, 0, 1][..]));
    let mut ask = |code, fields: &[(u8, &[u8])]| demand(&mut world, port, code, fields);
    assert_eq!(ask(40, &[(1, b"bob")]), Some((42, Some(503))), "nobody is connected by that name");
    assert_eq!(ask(40, &[user, (8, &[10, 97, 0, 2])]), Some((42, Some(503))), "all must fit");
    assert_eq!(ask(40, &[user, (32, b"elsewhere")]), Some((42, Some(403))));
    assert_eq!(ask(40, &[]), Some((42, Some(402))));
    assert_eq!(ask(43, &[user, (11, b"unknown")]), Some((45, Some(407))));
    assert_eq!(ask(43, &[user, (88, b"pool")]), Some((45, Some(401))));
    assert_eq!(ask(43, &[user, inner, (27, &[0, 0, 1, 0]), (11, b"terminals")]), Some((44, None)));
    send(&mut world, &peer, 1);
    let fields = [user, inner, (44, id.as_bytes()), (32, b"wayfarer"), (4, &[203, 0, 113, 1])];
    assert_eq!(demand(&mut world, port, 40, &fields), Some((41, None)));
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    books.pass(&mut world, SECOND);
    let stop = books.records.last().unwrap();
    assert_eq!((stop.number(40), stop.number(49)), (2, 6), "ended by an administrator");
}

#[test]
fn a_server_has_no_say_about_peers_of_other_servers() {
    let books = Books::open();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let client =
        CoaClient { address: [127, 0, 0, 1].into(), secret: SharedKey(Secret::new(SECRET.to_vec())) };
    let mut config = config(vec![]);
    config.ike = accounted_by(&books, Grant { user_name: b"alice".to_vec(), ..Grant::default() });
    config.ike.coa = Some(Coa { listen: port, clients: vec![client] });
    config.ike.connections[0].servers = vec![[10, 0, 0, 5].into()];
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let mut peer = terminal();
    peer.connect(&mut world);
    let (user, timeout) = ((1, &b"alice"[..]), (27, &[0, 0, 1, 0][..]));
    assert_eq!(demand(&mut world, port, 40, &[user]), Some((42, Some(503))));
    assert_eq!(demand(&mut world, port, 43, &[user, timeout]), Some((45, Some(503))));
    send(&mut world, &peer, 1);
}

#[test]
fn after_a_reload_new_peers_are_in_the_new_books_and_others_stay_in_theirs() {
    let (mut old, mut new) = (Books::open(), Books::open());
    let mut world = gateway(&old, Grant::default());
    let mut first = terminal();
    first.may_end = true;
    first.connect(&mut world);
    world.assembly.slow_path.reload_ike(world.now, &accounted_by(&new, Grant::default()));
    old.serve();
    new.pass(&mut world, SECOND);
    let peers = first.side.connected_peers();
    first.side.endpoint.close(world.now, peers[0]);
    first.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    old.pass(&mut world, SECOND);
    assert_eq!(old.kinds(), [7, 1, 2]);
    terminal().connect(&mut world);
    new.pass(&mut world, SECOND);
    assert_eq!(new.kinds(), [7, 1]);
    world.assembly.slow_path.reload_ike(world.now, &accounted_by(&new, Grant::default()));
    new.pass(&mut world, SECOND);
    assert_eq!(new.kinds(), [7, 1], "the same books are not opened again");
}

#[test]
fn a_gateway_that_stops_closes_all_accounts() {
    let mut books = Books::open();
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), ..Grant::default() });
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    let closes = |world: &mut World| world.assembly.slow_path.close_peers(world.now);
    assert!(!closes(&mut world));
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    world.settle();
    assert!(!closes(&mut world), "the server has not confirmed everything");
    books.pass(&mut world, SECOND);
    assert!(closes(&mut world));
    assert_eq!(books.kinds(), [7, 1, 2, 8]);
    assert_eq!(books.records[2].number(49), 11, "the gateway stops");
}
