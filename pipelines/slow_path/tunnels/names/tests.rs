//! Tests of the names of tunnels.

use crate::{
    sim::{fixtures::*, world::World},
    slow_path::parts::TunnelParts,
};
use std::time::Duration;

#[test]
fn tunnel_has_its_name_until_it_ends_and_takes_no_other_ones() {
    let mut world = World::with(config(vec![]), 512);
    let links = &mut world.assembly.slow_path.links;
    let mut install = |n: u32, name: String| {
        let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
        parts.name = name.into();
        links.install(Duration::ZERO, parts, 1500, &[]).unwrap()
    };
    // Enough that the table grows.
    let ids: Vec<_> = (0..200).map(|n| install(n, format!("t{}", n / 2))).collect();
    for pair in 0..100 {
        assert_eq!(links.tunnels().named(&format!("t{pair}")), Some(ids[2 * pair]));
    }
    for pair in 0..50 {
        // First the tunnel that only wanted the name, then the one that has it.
        links.remove(ids[2 * pair + 1]);
        assert_eq!(links.tunnels().named(&format!("t{pair}")), Some(ids[2 * pair]));
        links.remove(ids[2 * pair]);
        assert_eq!(links.tunnels().named(&format!("t{pair}")), None);
    }
    assert_eq!(links.tunnels().named("t99"), Some(ids[198]));
    assert_eq!(links.tunnels().named("t100"), None);
}
