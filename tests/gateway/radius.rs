//! Peers that a RADIUS server has accepted. The test is the server.

mod accounts;
mod demands;

use md5::{Digest, Md5};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use wayfarer::{
    config::model::{Accounting, Ike},
    sim::{
        fixtures::{INSIDE, OUTSIDE, config},
        frames::datagram,
        ike::{
            configured::{for_terminals, ike},
            eap::FakeEap,
            peer::Peer,
        },
        world::World,
    },
};
use wayfarer_mobility::{
    aaa::{
        grant::Grant,
        radius::question::{Realm, Server},
    },
    crypto::Secret,
    ike::connection::{LocalAuth, RemoteAuth},
};

const SECRET: &[u8] = b"xyzzy5461";
const SECOND: Duration = Duration::from_secs(1);
/// The server's address.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
            world.pass((SECOND / 20).min(end - world.now));
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
    gateway_with(accounted_by(books, grant))
}

/// Makes a gateway with this part of the configuration.
fn gateway_with(ike: Ike) -> World {
    let mut config = config(vec![]);
    config.ike = ike;
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Makes IKE's part of the configuration of a gateway whose RADIUS servers grant this, with these
/// books.
fn accounted_by(books: &Books, grant: Grant) -> Ike {
    with_keys(books, grant, "inner_local = [\"10.99.0.0/24\"]\npool = \"terminals\"\nesp = [\"aes256gcm16\"]")
}

/// Makes the same, with these keys in the first connection; other connections may follow.
fn with_keys(books: &Books, grant: Grant, keys: &str) -> Ike {
    let mut ike = for_terminals("10.97.0.0/24", keys);
    for connection in &mut ike.connections {
        let eap = FakeEap::granting("alice.test", grant.clone());
        connection.protocol.remote_auth = RemoteAuth::Eap(Arc::new(eap));
        connection.accounting = Some(books.accounting());
        connection.servers = vec![SERVER];
    }
    ike
}

/// Makes a terminal that authenticates by EAP.
fn terminal() -> Peer {
    terminal_at("192.0.2.1", "gw.test")
}

/// Makes such a terminal at another address, or of another gateway.
fn terminal_at(address: &str, remote_id: &str) -> Peer {
    let text = format!(
        r#"
[[connection]]
name = "office"
local = "{address}"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "{remote_id}"
request_address = true
inner_remote = ["10.99.0.0/24"]
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
"#
    );
    let mut ike: Ike = ike(&text, address);
    ike.connections[0].protocol.local_auth = LocalAuth::Eap(Arc::new(FakeEap::new(None)));
    Peer::with(ike, address)
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
