use super::*;
use crate::{
    sim::{fixtures::*, world::World},
    slow_path::parts::{Holder, OfPeer},
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::probe::{Kind, Probe},
};

const PROBE: Probe = Probe { kind: Kind::Request, token: 7 };
const PEER: PeerId = PeerId(1);

#[test]
fn probe_begins_a_record_of_a_manually_keyed_link_alone() {
    let mut world = World::with(config(vec![]), 512);
    let links = &mut world.assembly.slow_path.links;
    let mut install = |n: u32, is_ike: bool| {
        let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
        let holder = Holder::manual(parts.name.clone());
        let of_peer = OfPeer { peer: PEER, child: ChildId(1), holder };
        parts.peer = is_ike.then(|| Box::new(of_peer));
        links.install(Duration::ZERO, parts, 1500, &[]).unwrap()
    };
    let (by_hand, of_ike) = (install(1, false), install(2, true));
    let has_record = |links: &Links, link| links.links.get(link).is_some();
    let [by_hand_link, of_ike_link] = [by_hand, of_ike].map(LinkId::Manual);
    assert!(!has_record(links, by_hand_link) && has_record(links, LinkId::Ike(PEER)));
    assert_eq!(links.handle_probe(Duration::ZERO, by_hand, PROBE), Ok(()));
    assert_eq!(links.handle_probe(Duration::ZERO, of_ike, PROBE), Err(DropReason::Dummy));
    assert!(has_record(links, by_hand_link) && !has_record(links, of_ike_link));
    links.remove(by_hand);
    links.remove(of_ike);
    assert!([by_hand_link, of_ike_link, LinkId::Ike(PEER)].iter().all(|link| !has_record(links, *link)));
}
