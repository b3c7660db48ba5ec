use super::*;
use crate::{
    sim::{
        fixtures::{OUTSIDE, config, selector, suite, tunnel},
        frames::datagram,
        world::World,
    },
    slow_path::{SlowPath, parts::TunnelParts},
};
use wayfarer_dataplane::{
    sa::TunnelId,
    wire::{ip::IpHeader, translate::Side},
};
use wayfarer_mobility::identity::Identity;

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
    parts.holder = Holder::peer("terminals", identity(name), identity(principal));
    parts.selectors = vec![selector("0.0.0.0/0", INNER)];
    slow_path.links.install(Duration::ZERO, parts, 1500).unwrap()
}

/// Makes a mapping for a packet from this port of the inner address, out of its tunnel.
fn map(slow_path: &mut SlowPath, port: u16) -> Result<(), DropReason> {
    slow_path.handle_links(Duration::ZERO);
    let packet = datagram(INNER, "198.51.100.80", (port, 53), b"query");
    let header = IpHeader::parse(&packet).unwrap();
    let end = End::of(&header, &packet, Side::Source).unwrap();
    let flow = Flow::of(&header, &packet).reversed();
    let holder = slow_path.links.holder_of(&flow).unwrap().clone();
    let answers = Some(Answers { flow, holder });
    slow_path.nats.map(Duration::ZERO, 0, &end, answers, &mut slow_path.links)
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
