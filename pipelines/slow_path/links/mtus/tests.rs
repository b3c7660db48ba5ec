//! Tests of the MTUs of links.

use super::*;
use crate::{
    sim::{fixtures::*, world::World},
    slow_path::parts::TunnelParts,
};

#[test]
fn mtu_of_a_link_without_udp_counts_only_if_no_link_has_the_port() {
    let mut world = World::with(config(vec![]), 512);
    let links = &mut world.assembly.slow_path.links;
    let (local, remote) = (ip("203.0.113.1"), ip("192.0.2.1"));
    let learn = |links: &mut Links, n, encap, mtu: Option<u16>| {
        let path = Path { local, remote, encap };
        let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
        parts.path = Some(path);
        let id = links.install(Duration::ZERO, parts, 1500, &[]).unwrap();
        mtu.into_iter().for_each(|mtu| links.set_path_mtu(Duration::ZERO, LinkId::Manual(id), path, mtu));
    };
    let known = |links: &Links| links.known_mtu(local, SocketAddr::new(remote, 4500));
    assert_eq!(known(links), None);
    learn(links, 1, Encap::None, Some(600));
    assert_eq!(known(links), Some(600));
    learn(links, 2, Encap::Udp { local: 4500, remote: 4500 }, None);
    assert_eq!(known(links), None);
    learn(links, 3, Encap::Udp { local: 4500, remote: 4500 }, Some(1400));
    assert_eq!(known(links), Some(1400));
    assert_eq!(links.known_mtu(local, SocketAddr::new(remote, 4501)), Some(600));
    assert_eq!(links.known_mtu(remote, SocketAddr::new(remote, 4500)), None);
}
