use super::*;
use crate::{
    sim::{
        fixtures::{OUTSIDE, config, selector, suite, tunnel},
        frames::datagram,
        world::World,
    },
    slow_path::{
        SlowPath,
        parts::{OfPeer, TunnelParts},
    },
};
use wayfarer_dataplane::{
    sa::TunnelId,
    wire::{ip::IpHeader, translate::Side},
};
use wayfarer_mobility::{
    identity::Identity,
    ike::event::{ChildId, PeerId},
};

const INNER: &str = "10.98.0.7";
/// The most mappings of an inner address.
const LIMIT: u16 = 4;

fn nat() -> model::Nat {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    model::Nat {
        inside: vec!["10.98.0.0/16".parse().unwrap()],
        port: OUTSIDE,
        address: "203.0.113.1".parse().unwrap(),
        ports: 20_000..=20_999,
        mappings: LIMIT.into(),
        udp_timeout: minutes(5),
        tcp_timeout: minutes(124),
        tcp_transitory_timeout: minutes(4),
        icmp_timeout: minutes(1),
    }
}

/// Has a peer come with the inner address; returns its tunnel.
fn come(slow_path: &mut SlowPath, n: u32, name: &str, principal: &str) -> TunnelId {
    let identity = |text| Identity::from_text(text).unwrap();
    let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
    let holder = Holder::peer("terminals", identity(name), identity(principal));
    parts.peer = Some(Box::new(OfPeer { peer: PeerId(n.into()), child: ChildId(n.into()), holder }));
    parts.selectors = vec![selector("0.0.0.0/0", INNER)];
    slow_path.links.install(Duration::ZERO, parts, 1500, &[]).unwrap()
}

/// Returns the inner end of a packet from this port of the inner address, and the flow of its answers.
fn end_of(port: u16) -> (End, Flow) {
    let packet = datagram(INNER, "198.51.100.80", (port, 53), b"query");
    let header = IpHeader::parse(&packet).unwrap();
    (End::of(&header, &packet, Side::Source).unwrap(), Flow::of(&header, &packet).reversed())
}

/// Makes a mapping for a packet from this port of the inner address, out of its tunnel.
fn map(slow_path: &mut SlowPath, port: u16) -> Result<(), DropReason> {
    slow_path.handle_links(Duration::ZERO);
    let (end, flow) = end_of(port);
    let holder = slow_path.links.holder_of(&flow).unwrap();
    let answers = Some(Answers { flow, holder });
    slow_path.nats.map(Duration::ZERO, 0, &end, answers, &mut slow_path.links)
}

/// Makes a mapping for a packet from this port of the inner address, of a host in clear.
fn map_in_clear(slow_path: &mut SlowPath, now: Duration, port: u16) -> Result<(), DropReason> {
    slow_path.handle_links(now);
    slow_path.nats.map(now, 0, &end_of(port).0, None, &mut slow_path.links)
}

/// Returns which of these ports outside have mappings.
fn mapped<const N: usize>(slow_path: &SlowPath, ports: [u16; N]) -> [bool; N] {
    let tables = &slow_path.links.tables;
    ports.map(|port| tables.tables.nat.by_outside(0, protocol::UDP, port, &tables.reader).is_some())
}

#[test]
fn a_peer_that_comes_under_other_names_has_the_limit_of_one() {
    let config = model::Config { nats: vec![nat()], ..config(vec![]) };
    let mut world = World::with(config, 512);
    let slow_path = &mut world.assembly.slow_path;
    let first = come(slow_path, 1, "n1.test", "anybody.test");
    for port in 0..LIMIT {
        assert_eq!(map(slow_path, 5000 + port), Ok(()));
    }
    assert_eq!(map(slow_path, 6000), Err(DropReason::NatLimit));
    slow_path.links.remove(first);
    let second = come(slow_path, 2, "n2.test", "anybody.test");
    assert_eq!(map(slow_path, 5000), Err(DropReason::NatLimit));
    slow_path.links.remove(second);
    come(slow_path, 3, "alice.test", "alice.test");
    assert_eq!(map(slow_path, 5000), Ok(()), "somebody else");
}

#[test]
fn of_an_address_that_a_host_in_clear_shares_only_the_tunnels_mappings_end_with_it() {
    let config = model::Config { nats: vec![nat()], ..config(vec![]) };
    let mut world = World::with(config, 512);
    let slow_path = &mut world.assembly.slow_path;
    let tunnel = come(slow_path, 1, "alice.test", "alice.test");
    let ports = [20_001, 20_005, 20_009];
    assert_eq!(map_in_clear(slow_path, Duration::ZERO, ports[0]), Ok(()));
    assert_eq!(map(slow_path, ports[1]), Ok(()));
    assert_eq!(map_in_clear(slow_path, Duration::ZERO, ports[2]), Ok(()));
    assert_eq!(mapped(slow_path, ports), [true; 3]);
    slow_path.links.remove(tunnel);
    assert_eq!(map_in_clear(slow_path, Duration::ZERO, 20_011), Ok(()));
    assert_eq!(mapped(slow_path, ports), [true, false, true]);
}

#[test]
fn a_host_in_clear_owes_nothing_to_a_tunnel_whose_mappings_have_ended_before_it() {
    let config = model::Config { nats: vec![nat()], ..config(vec![]) };
    let mut world = World::with(config, 512);
    let slow_path = &mut world.assembly.slow_path;
    let tunnel = come(slow_path, 1, "alice.test", "alice.test");
    assert_eq!(map(slow_path, 20_005), Ok(()));
    assert_eq!(map_in_clear(slow_path, Duration::from_secs(200), 20_001), Ok(()));
    let now = Duration::from_secs(302);
    slow_path.nats.handle_timeout(now, &mut slow_path.links);
    assert_eq!(mapped(slow_path, [20_001, 20_005]), [true, false]);
    slow_path.links.remove(tunnel);
    assert_eq!(map_in_clear(slow_path, now, 20_011), Ok(()));
    assert_eq!(mapped(slow_path, [20_001, 20_011]), [true; 2]);
}
